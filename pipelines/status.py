"""``slatewise status``: what of a run is done."""

from typing import Any

import pyarrow.fs as pafs

from pipelines.artifacts import MANIFEST, ArtifactError, RunDirectory
from pipelines.registry import ENTRIES


def run_status(uri: str) -> list[dict[str, Any]]:
    """One record a stage: ``state`` is done, unfinished (an interrupted attempt left something) or missing.

    Raises:
        ArtifactError: There is no such run directory, or it is of another schema version.
    """
    run = RunDirectory(uri)
    if not run.exists():
        raise ArtifactError(f"{run.path}: expected a run directory, found none. Check the path.")
    selector = pafs.FileSelector(run.join(".partial"), allow_not_found=True)
    left = {info.base_name.rsplit("-", 1)[0] for info in run.filesystem.get_file_info(selector)}
    rows: list[dict[str, Any]] = []
    for stage in ENTRIES:
        manifest = run.manifest(stage)
        if manifest is None:
            rows.append({"stage": stage, "state": "unfinished" if stage in left else "missing"})
            continue
        when = run.filesystem.get_file_info(run.join(f"{stage}/{MANIFEST}")).mtime
        rows.append(
            {
                "stage": stage,
                "state": "done",
                "finished": when.isoformat(timespec="seconds") if when else None,
                "seconds": manifest["seconds"],
                "bytes": sum(entry["bytes"] for entry in manifest["files"].values()),
                "result": manifest["result"],
            }
        )
    return rows


def status_table(rows: list[dict[str, Any]]) -> str:
    """The records as a table for people."""
    lines = [f"{'stage':14s} {'state':11s} {'seconds':>8s} {'MB':>8s}  counts"]
    for row in rows:
        if row["state"] != "done":
            lines.append(f"{row['stage']:14s} {row['state']}")
            continue
        counts = {k: v for k, v in row["result"].items() if isinstance(v, int) and not isinstance(v, bool)}
        text = ", ".join(f"{name} {value:,}" for name, value in counts.items())
        lines.append(
            f"{row['stage']:14s} {'done':11s} {row['seconds']:8.1f} {row['bytes'] / 1e6:8.1f}  {text}"
        )
    return "\n".join(lines)
