"""Tables and plot of the coverage benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tests.benchmarks.coverage import Cells
    from tests.benchmarks.gate_trials import GateResult

BINS = ((-9.0, -0.05), (-0.05, 0.0), (0.0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 9.0))  # of the true gain
SHARES = ((0.0, 0.01), (0.01, 0.1), (0.1, 0.3), (0.3, 1.01))  # of the log that speaks


def coverage_lines(cells: Cells, sizes: Sequence[int], estimators: Sequence[str]) -> list[str]:
    """Two tables: estimators by size over all candidates, and the gate's estimator by candidate and size."""
    candidates = list(dict.fromkeys(key[1] for key in cells))
    repetitions = len(next(iter(cells.values())).rows)
    lines = [
        f"Coverage of 95% intervals of the gain, {repetitions} logs of each size, {len(candidates)} candidates"
    ]
    lines += ["", f"{'estimator':<24}" + "".join(f"{f'{size:,} slates':>24}" for size in sizes)]
    lines.append(f"{'':<24}" + f"{'coverage':>12}{'error':>12}" * len(sizes))
    for estimator in estimators:
        line = f"{estimator:<24}"
        for size in sizes:
            tables = [cells[estimator, candidate, size].table for candidate in candidates]
            error = np.exp(np.mean([np.log(np.sqrt((table[:, 0] ** 2).mean())) for table in tables]))
            line += f"{np.concatenate(tables)[:, 2].mean():>12.1%}{error:>12.4f}"
        lines.append(line)
    lines += [
        "",
        f"{'controlled, by candidate':<30}{'share':>7}" + f"{'coverage':>12}{'error':>10}" * len(sizes),
    ]
    for candidate in candidates:
        share = np.median(cells["controlled", candidate, sizes[-1]].shares)
        line = f"{candidate:<30}{share:>7.0%}"
        for size in sizes:
            table = cells["controlled", candidate, size].table
            line += f"{table[:, 2].mean():>12.1%}{np.sqrt((table[:, 0] ** 2).mean()):>10.4f}"
        lines.append(line)
    lines += [
        "",
        "error: root mean square, for all candidates their geometric mean; share: effective sample size / log, at the",
        "largest size. SNIPS a slate is held against the true reward a slate: it misses what a slate changes later.",
    ]
    return lines


def gate_lines(results: Sequence[GateResult], num_slates: int) -> list[str]:
    """Promotions by true gain and by how much of the log speaks."""
    lines = [f"Promoted of {len(results)} candidates, each on its own log of about {num_slates:,} slates", ""]
    lines.append(
        f"{'true gain':<16}"
        + "".join(f"{f'share {low:.0%} to {min(high, 1):.0%}':>19}" for low, high in SHARES)
    )
    for low, high in BINS:
        name = (
            f"below {high:+.0%}"
            if low < -1
            else f"above {low:+.0%}"
            if high > 1
            else f"{low:+.0%} to {high:+.0%}"
        )
        line = f"{name:<16}"
        for least, most in SHARES:
            inside = [r for r in results if low < r.gain <= high and least <= r.share < most]
            line += f"{f'{sum(r.promoted for r in inside)} of {len(inside)}':>19}"
        lines.append(line)
    refused = [r for r in results if not r.promoted]
    kinds: dict[str, int] = {}
    for result in refused:
        kinds[_kind(result.reason)] = kinds.get(_kind(result.reason), 0) + 1
    lines += [
        "",
        "Refusals by first reason: " + ", ".join(f"{name} {n}" for name, n in sorted(kinds.items())),
    ]
    return lines


def _kind(reason: str) -> str:
    kinds = ("Missing support", "Low effective sample size", "a loss is shown", "no gain is shown", "Task")
    return next((kind for kind in kinds if kind in reason), "other")


def write_page(
    folder: Path, lines: Sequence[str], cells: Cells, sizes: Sequence[int], estimators: Sequence[str]
) -> None:
    """``coverage.md`` with the tables and ``coverage.svg`` with coverage and error by log size."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    plt.rcParams["svg.hashsalt"] = "coverage"  # the same figures give the same file
    candidates = list(dict.fromkeys(key[1] for key in cells))
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for estimator in estimators:
        tables = [[cells[estimator, name, size].table for name in candidates] for size in sizes]
        left.plot(sizes, [np.concatenate(t)[:, 2].mean() for t in tables], "o-", label=estimator)
        if "SNIPS" not in estimator:  # a slate's reward, in other units
            error = [np.exp(np.mean([np.log(np.sqrt((c[:, 0] ** 2).mean())) for c in t])) for t in tables]
            right.plot(sizes, error, "o-", label=estimator)
    left.axhspan(0.93, 0.97, color="grey", alpha=0.25, label="93% to 97%")
    start = right.lines[0].get_ydata()[0]
    right.plot(sizes, [start * np.sqrt(sizes[0] / size) for size in sizes], "k:", label="1 / sqrt(n)")
    left.set(xscale="log", xlabel="logged slates", ylabel="coverage of 95% intervals")
    right.set(xscale="log", yscale="log", xlabel="logged slates", ylabel="root mean square error")
    left.legend(fontsize=7)
    right.legend(fontsize=7)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "coverage.svg", metadata={"Date": None})
    plt.close(figure)
    text = "\n".join(
        [
            "# Coverage of the gate's intervals, and the gate's errors",
            "",
            "Written by `python -m tests.benchmarks.coverage --write rl/evaluation`.",
            "",
            "![Coverage and error by log size](coverage.svg)",
            "",
            "```",
            *lines,
            "```",
            "",
        ]
    )
    (folder / "coverage.md").write_text(text)
