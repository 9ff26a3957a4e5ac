"""Rows a second and memory of ``slatewise ingest`` against plain polars and duckdb on the same work.

    python -m tests.benchmarks.ingest [--quick] [--rows 5000000] [--rounds 2]

All ways run in turn, each in a process of its own; of each the fastest round counts. Counts must agree. Memory is the
sum of what a way's processes hold, shared pages counted once (PSS), at its highest.

``ingest_vs_best_rival``: what ``slatewise ingest`` does on one machine, two worker processes, their start included and
this process's imports not. ``ingest_whole_vs_best_rival``: the command against the rival's whole process, imports
included in both. ``ingest_cpu_vs_best_rival``: CPU seconds of whole processes, which a busy machine disturbs least.
``ingest_on_ray_vs_best_rival``: on a Ray that is up; ``ingest_with_ray_start_vs_best_rival``: Ray's
start and end included. ``ingest_two_workers``: against one. ``ingest_peak_gib`` and ``ingest_memory_growth`` are the
command's.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.ingest_log import KINDS, write_log
from tests.benchmarks.ingest_ours import environment, overrides

RIVALS = {"polars": (1, 2), "polars-streaming": (2,), "duckdb": (1, 2)}
OURS = {"processes": (1, 2), "ray": (2,), "ray-cold": (2,), "command": (2,)}
GIB = 1 << 30


@dataclass
class Run:
    """One way's best round."""

    seconds: float  # of the work
    whole_s: float  # of the process, imports included
    cpu_s: float  # of the process and all it waited for
    peak_gib: float
    counts: tuple[int, ...]


class _Memory(threading.Thread):
    """Watches a process and all below it."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak, self.ended = pid, 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.1):
            self.peak = max(self.peak, sum(map(_pss, _family(self.pid))))


def _family(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def _pss(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def measure(way: str, threads: int, kind: str, log: Path) -> Run:
    """Run one way once."""
    out = log.parent / "out"
    if way in RIVALS:
        command = ["-m", "tests.benchmarks.ingest_rivals", way, kind, str(log), str(out), str(threads)]
    elif way == "command":
        command = ["-m", "pipelines", "ingest", "--json", *overrides(log, out, threads)]
    else:
        command = ["-m", "tests.benchmarks.ingest_ours", way, str(log), str(out), str(threads)]
    start, cpu = time.perf_counter(), _children_cpu_s()
    process = subprocess.Popen(
        [sys.executable, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
        text=True,
    )
    memory = _Memory(process.pid)
    memory.start()
    output, errors = process.communicate()
    whole, cpu = time.perf_counter() - start, _children_cpu_s() - cpu
    memory.ended.set()
    memory.join()
    if process.returncode != 0:
        raise SystemExit(f"{way}: {errors[-2000:]}")
    told = json.loads(output.splitlines()[-1])
    rejected = told["rows_rejected"]
    counts = (
        told["rows_kept"],
        sum(rejected.values()) if isinstance(rejected, dict) else rejected,
        told["num_sessions"],
    )
    shutil.rmtree(out)
    shutil.rmtree(f"{out}-small", ignore_errors=True)
    return Run(told["seconds"], whole, cpu, memory.peak / GIB, counts)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compare(
    ways: dict[str, tuple[int, ...]], kind: str, log: Path, rounds: int
) -> dict[tuple[str, int], Run]:
    """Every way at every number of threads or workers, in turn."""
    best: dict[tuple[str, int], Run] = {}
    for _ in range(rounds):
        for key in [(way, threads) for way, many in ways.items() for threads in many]:
            run, last = measure(*key, kind, log), best.get(key)
            if last is not None:
                run = Run(
                    min(run.seconds, last.seconds),
                    min(run.whole_s, last.whole_s),
                    min(run.cpu_s, last.cpu_s),
                    max(run.peak_gib, last.peak_gib),
                    run.counts,
                )
            best[key] = run
            print(f"  {kind:8} {key[0]:17} {key[1]} thread(s)  {run.seconds:7.2f} s", flush=True)
    counts = {run.counts for run in best.values()}
    if len(counts) != 1:
        raise SystemExit(f"the ways disagree: { {key: run.counts for key, run in best.items()} }")
    return best


def table(kind: str, rows: int, runs: dict[tuple[str, int], Run]) -> None:
    print(f"\n{kind}, {rows:,} rows        seconds   whole   CPU s   rows/s   peak GiB")
    for (way, threads), run in sorted(runs.items(), key=lambda entry: entry[1].seconds):
        name = f"{'slatewise ' if way in OURS else ''}{way}, {threads}"
        print(
            f"{name:28} {run.seconds:8.2f} {run.whole_s:7.2f} {run.cpu_s:7.2f} {rows / run.seconds:10,.0f} "
            f"{run.peak_gib:7.2f}"
        )


def ratios(runs: dict[tuple[str, int], Run]) -> dict[str, float]:
    """Our rates over the faster rival's."""
    rivals = [run for (way, _), run in runs.items() if way in RIVALS]
    work, whole = min(run.seconds for run in rivals), min(run.whole_s for run in rivals)
    cpu = min(run.cpu_s for run in rivals)
    found = {
        "ingest_vs_best_rival": work / runs["processes", 2].seconds,
        "ingest_cpu_vs_best_rival": cpu / runs["processes", 2].cpu_s,
    }
    if ("ray", 2) in runs:
        found["ingest_whole_vs_best_rival"] = whole / runs["command", 2].whole_s
        found["ingest_on_ray_vs_best_rival"] = work / runs["ray", 2].seconds
        found["ingest_with_ray_start_vs_best_rival"] = work / runs["ray-cold", 2].seconds
        found["ingest_two_workers"] = runs["processes", 1].seconds / runs["processes", 2].seconds
        found["ingest_peak_gib"] = runs["command", 2].peak_gib
        found["ingest_peak_on_ray_gib"] = runs["ray", 2].peak_gib
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smoke run: 100,000 rows, one round")
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    rows, rounds = (100_000, 1) if options.quick else (options.rows, options.rounds)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            log = Path(folder) / kind / "log"
            write_log(log, rows, kind)
            if kind == "csv":
                write_log(log.parent / "log-small", 40_000, kind)
            ours = OURS if kind == "csv" else {"processes": (2,)}
            runs = compare({**RIVALS, **ours}, kind, log, rounds if kind == "csv" else 1)
            table(kind, rows, runs)
            suffix = "" if kind == "csv" else f"_{kind.replace('.', '_')}"
            figures |= {name + suffix: value for name, value in ratios(runs).items()}
            shutil.rmtree(log)
        log = Path(folder) / "large" / "log"
        write_log(log, 4 * rows)
        large = measure("command", 2, "csv", log)
        print(f"\n{4 * rows:,} rows: {large.whole_s:.1f} s, {large.peak_gib:.2f} GiB")
        figures["ingest_memory_growth"] = large.peak_gib / figures["ingest_peak_gib"]
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
