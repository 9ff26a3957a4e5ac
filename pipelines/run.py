"""``slatewise run``: every stage from ingest to evaluate."""

from typing import Any

from pipelines.artifacts import RunDirectory
from pipelines.config import Config
from pipelines.registry import RUN_ORDER, STAGES
from pipelines.stages import run_stage


def run_all(config: Config) -> dict[str, Any]:
    """Run the stages in order, skipping what is done. Returns the last one's result and where the report lies."""
    result: dict[str, Any] = {}
    for name in RUN_ORDER:
        result = run_stage(STAGES[name], config)["result"]
    run = RunDirectory(config.paths.run)
    return {**result, "report": run.join("report.html")}
