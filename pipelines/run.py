"""``slatewise run``: every stage from the log to the report, in order."""

from typing import Any

from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.registry import STAGES, run_order
from pipelines.stages import run_stage


def run_all(config: Config) -> dict[str, Any]:
    """Run the stages that are not there yet. Returns what each stage reported, and where the report lies."""
    done: dict[str, Any] = {}
    for name in run_order(config.encoder.tuned):
        manifest = run_stage(STAGES[name], config)
        done[name] = {key: manifest[key] for key in ("skipped", "seconds", "result")}
    return {"stages": done, "report": RunDirectory(config.paths.run).join("report.html")}
