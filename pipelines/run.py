"""``slatewise run``: every stage from the log to the report, in order."""

from typing import Any

from pipelines.config import Config
from pipelines.registry import RUN_ORDER, STAGES
from pipelines.stages import run_stage


def run_all(config: Config) -> dict[str, Any]:
    """Run the stages that are not there yet. Returns seconds, skipped and result by stage."""
    done: dict[str, Any] = {}
    for name in RUN_ORDER:
        manifest = run_stage(STAGES[name], config)
        done[name] = {key: manifest[key] for key in ("skipped", "seconds", "result")}
    return {"run": config.paths.run, "stages": done}
