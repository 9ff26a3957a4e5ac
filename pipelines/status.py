"""``slatewise status RUN``: what a run directory holds, and what an interruption left in it."""

from typing import Any

import pyarrow.fs as pafs

from pipelines.artifacts import MANIFEST, ArtifactError, RunDirectory
from pipelines.config import Config
from pipelines.registry import RUN_ORDER

SHOP = "shop"  # made by the demo alone


def run_status(config: Config) -> dict[str, Any]:
    """State of each stage of ``paths.run``, also printed as a table.

    Returns:
        ``run``, and ``stages``: by name ``state`` (done, unfinished or missing), and where it is done ``finished_at``
        (ISO 8601, UTC), ``seconds`` and ``counts``; ``left_over`` says that an interrupted attempt waits.

    Raises:
        ArtifactError: There is no such run, or it is of another schema version.
    """
    run = RunDirectory(config.paths.run)
    if not run.exists():
        raise ArtifactError(
            f"{config.paths.run}: expected a run directory, found none. Name one, as `slatewise status runs/demo`."
        )
    extra = [name for name in (SHOP,) if run.exists(name)]
    stages = {name: _stage_status(run, name) for name in (*extra, *RUN_ORDER, "finetune", "sweep")}
    _print(config.paths.run, stages)
    return {"run": config.paths.run, "stages": stages}


def _stage_status(run: RunDirectory, name: str) -> dict[str, Any]:
    left_over = _has_partial(run, name)
    manifest = run.manifest(name)
    if manifest is None:
        unfinished = left_over or run.exists(name)
        return {"state": "unfinished" if unfinished else "missing", "left_over": left_over}
    info = run.filesystem.get_file_info(run.join(f"{name}/{MANIFEST}"))
    counts = {key: value for key, value in manifest["result"].items() if type(value) is int}
    return {
        "state": "done",
        "left_over": left_over,
        "finished_at": info.mtime.isoformat(timespec="seconds") if info.mtime else None,
        "seconds": manifest["seconds"],
        "counts": counts,
    }


def _has_partial(run: RunDirectory, stage: str) -> bool:
    infos = run.filesystem.get_file_info(pafs.FileSelector(run.join(".partial"), allow_not_found=True))
    return any(info.base_name.rsplit("-", 1)[0] == stage for info in infos)


def _print(run: str, stages: dict[str, dict[str, Any]]) -> None:
    print(run)
    for name, status in stages.items():
        words = [f"{name:14}", f"{status['state']:10}"]
        if status["state"] == "done":
            counts = ", ".join(f"{key} {value:,}" for key, value in status["counts"].items())
            words += [f"{status['finished_at']}", f"{status['seconds']:>8.1f} s ", counts]
        if status["left_over"]:
            words.append("(an interrupted attempt waits; run the stage again to continue)")
        print("  " + " ".join(words).rstrip())
