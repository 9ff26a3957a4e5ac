"""``slatewise compare RUN RUN...``: several runs' reports side by side."""

from pathlib import Path
from typing import Any

from pipelines.artifacts import ArtifactError, RunDirectory
from pipelines.config import Config
from pipelines.evaluate import REPORT
from rl.evaluation.side_by_side import compare_reports, comparison_html, comparison_text


def compare_runs(config: Config, runs: list[str], page: str | None) -> dict[str, Any]:
    """Print the runs side by side, and write them as a page where one is asked for.

    Args:
        config: Not looked at: the runs say all.
        runs: Run directories with a finished ``evaluate``: local paths or URIs.
        page: Where the page goes; None writes none.

    Returns:
        What ``compare_reports`` returns, and ``page``.

    Raises:
        ArtifactError: A run has no report.
        ValueError: No run is named, one is named twice, or a report is of another version.
    """
    names = [run.rstrip("/") for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"compare: expected different runs, got {twice} twice.")
    comparison = compare_reports({name: _report(name) for name in names})
    print(comparison_text(comparison))
    if page is not None:
        target = Path(page).expanduser().absolute()
        RunDirectory(str(target.parent)).write_bytes(target.name, comparison_html(comparison).encode())
        print(f"\nPage     {target}")
    return {**comparison, "page": page}


def _report(uri: str) -> dict[str, Any]:
    run = RunDirectory(uri)
    if not run.exists(REPORT):
        raise ArtifactError(
            f"{run.join(REPORT)}: expected a report, found none. Run `slatewise evaluate paths.run={uri}` first."
        )
    report: dict[str, Any] = run.read_json(REPORT)
    return report
