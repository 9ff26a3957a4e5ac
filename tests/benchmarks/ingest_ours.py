"""One timed ingest: ``python -m tests.benchmarks.ingest_ours WAY LOG OUT CPUS`` prints seconds and counts as JSON.

``processes``: from the call to the result, worker processes' start included. ``ray``: the same on a Ray that is up and
has ingested something before. ``ray-cold``: Ray's start and end included.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from tests.benchmarks.ingest_rivals import KEY

MAPPING = (
    "{user_id: user_id, item_id: product_id, behaviour: event_type, timestamp: event_time, value: price}"
)


def overrides(log: Path, out: Path, cpus: int) -> list[str]:
    """Settings of the benchmark's ingest."""
    return [
        f"paths.run={out}",
        f"paths.log={log}",
        f"ingest.columns={MAPPING}",
        "ingest.pseudonym_key_env=SLATEWISE_BENCHMARK_KEY",
        f"cluster.num_cpus={cpus}",
    ]


def environment() -> dict[str, str]:
    """With the pseudonym key."""
    return {**os.environ, "SLATEWISE_BENCHMARK_KEY": KEY.decode()}


def main(way: str, log: str, out: str, cpus: str) -> None:
    os.environ.update(environment())
    from cluster.connection import connect
    from pipelines.config import load_config
    from pipelines.ingest import INGEST
    from pipelines.stages import run_stage

    def ingest(log: Path, out: Path) -> dict[str, Any]:
        return dict(run_stage(INGEST, load_config(None, overrides(log, out, int(cpus))))["result"])

    if way == "processes":
        start = time.perf_counter()
        result = ingest(Path(log), Path(out))
        seconds = time.perf_counter() - start
    else:
        config = load_config(None, overrides(Path(log), Path(out), int(cpus)))
        start = time.perf_counter()
        with connect(config.cluster):
            if way == "ray":
                ingest(Path(f"{log}-small"), Path(f"{out}-small"))
                start = time.perf_counter()
            result = ingest(Path(log), Path(out))
            seconds = time.perf_counter() - start
        if way == "ray-cold":
            seconds = time.perf_counter() - start
    rejected = sum(result["rows_rejected"].values())
    counts = {
        "rows_kept": result["rows_kept"],
        "rows_rejected": rejected,
        "num_sessions": result["num_sessions"],
    }
    print(json.dumps({"seconds": seconds, **counts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
