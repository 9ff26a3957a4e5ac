"""Users that a run must never hold again."""

from pipelines.artifacts import RunDirectory

FILE = "forgotten.json"


def read_forgotten(run: str) -> frozenset[str]:
    """Ids of the forgotten users, as the run writes ids."""
    folder = RunDirectory(run)
    return frozenset(folder.read_json(FILE)["users"]) if folder.exists(FILE) else frozenset()


def add_forgotten(run: str, user: str) -> None:
    """Put an id on the list."""
    RunDirectory(run).write_json(FILE, {"users": sorted(read_forgotten(run) | {user})})
