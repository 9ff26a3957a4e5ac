"""How often the gate's intervals hold the truth, and how often the gate is right, in the made-up shop.

    python -m tests.benchmarks.coverage [--quick] [--repetitions 300] [--candidates 200] [--write FOLDER]

Coverage: new logs of three sizes, each session a new user's, six candidates on each; an interval is right if it holds
the true gain (``shop_truth``). Gate: each candidate meets a log of its own.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipelines.shop.world import ShopWorld
from rl.evaluation.logged import Logged, judge_logged
from rl.evaluation.off_policy.bandit import snips
from rl.evaluation.off_policy.sessions import per_decision
from rl.evaluation.off_policy.weights import build_steps
from tests.benchmarks.coverage_page import coverage_lines, gate_lines, write_page
from tests.benchmarks.gate_trials import GateResult, run_gate
from tests.benchmarks.shop_candidates import coverage_candidates, open_shop
from tests.benchmarks.shop_policies import Policy, ShopSlates, play, slate_log_chance
from tests.benchmarks.shop_truth import Truth

Floats = NDArray[np.float64]
ESTIMATORS = ("controlled", "controlled, plain t", "per decision, plain t", "SNIPS a slate, plain t")
SIZES = (10_000, 32_000, 100_000)  # logged slates, about
CONFIDENCE = 0.95


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both parts, print their tables and the figures."""
    parser = argparse.ArgumentParser(description="Coverage of the gate's intervals, and the gate's errors.")
    parser.add_argument("--quick", action="store_true", help="a small run that shows that it runs")
    parser.add_argument("--repetitions", type=int, default=300, help="logs of each size")
    parser.add_argument("--candidates", type=int, default=200, help="policies that the gate judges")
    parser.add_argument("--seed", type=int, default=0, help="of shop, logs and candidates")
    parser.add_argument("--write", type=Path, help="folder for coverage.md and coverage.svg")
    options = parser.parse_args(arguments)
    repetitions, candidates = (3, 4) if options.quick else (options.repetitions, options.candidates)
    live, pool = (5_000, 5_000) if options.quick else (200_000, 5_000_000)
    sizes = SIZES[:2] if options.quick else SIZES
    started = time.monotonic()
    world, logging = open_shop(options.seed)
    cells = run_coverage(world, logging, sizes, repetitions, live, pool, options.seed)
    lines = coverage_lines(cells, sizes, ESTIMATORS)
    print("\n".join(lines), flush=True)
    slates, live, pool = (10_000, 2_000, 2_000) if options.quick else (100_000, 12_000, 40_000)
    results = run_gate(world, logging, candidates, slates, live, pool, options.seed)
    lines += ["", *gate_lines(results, slates)]
    print("\n".join(lines[-len(gate_lines(results, slates)) :]))
    if options.write:
        write_page(options.write, lines, cells, sizes, ESTIMATORS)
    print(json.dumps(figures(cells, sizes, results) | {"seconds": round(time.monotonic() - started)}))


class Cell:
    """Results of one estimator on one candidate and size: error, half width, right or not. Rows [repetitions, 4]."""

    def __init__(self) -> None:
        self.rows: list[tuple[float, float, bool, bool]] = []
        self.shares: list[float] = []

    def add(self, mean: float, low: float, high: float, truth: float, share: float) -> None:
        """One log's estimate of the truth."""
        self.rows.append((mean - truth, (high - low) / 2, low <= truth <= high, low > truth))
        self.shares.append(share)

    @property
    def table(self) -> Floats:
        """float64 [repetitions, 4]."""
        return np.array(self.rows, dtype=np.float64)


Cells = dict[tuple[str, str, int], Cell]  # by estimator, candidate and size


def run_coverage(
    world: ShopWorld, logging: Policy, sizes: Sequence[int], repetitions: int, live: int, pool: int, seed: int
) -> Cells:
    """Estimates of six candidates' gains on ``repetitions`` new logs of each size."""
    policies = coverage_candidates(world, logging)
    truth = Truth(world, logging, live, pool, 10_000_000 + seed)
    base, gains = float(truth.base.mean[0]), [float(gain[0]) for gain, _ in truth.gains(policies)]
    base_length = _slates_a_session(world, logging, logging, live // 5, seed)
    lengths = [_slates_a_session(world, policy, logging, live // 5, seed) for policy in policies]
    cells: Cells = {}
    for size in sizes:
        for repetition in range(repetitions):
            log = play(world, logging, logging, round(size / base_length), (seed, size, repetition))
            own = slate_log_chance(world, logging, logging, log)
            for policy, gain, length in zip(policies, gains, lengths, strict=True):
                weights = np.exp(slate_log_chance(world, policy, logging, log) - own)
                a_slate = (base + gain) / length - base / base_length
                _add_estimates(cells, policy.name, size, weights, log, gain, a_slate)
    return cells


def _slates_a_session(world: ShopWorld, policy: Policy, logging: Policy, sessions: int, seed: int) -> float:
    log = play(world, policy, logging, sessions, 20_000_000 + seed)
    return len(log.session) / log.num_sessions


def _add_estimates(
    cells: Cells, name: str, size: int, weights: Floats, log: ShopSlates, gain: float, a_slate: float
) -> None:
    judged = judge_logged(weights, log.rewards, log.session, 0.0)
    share = judged.diagnostics.share
    ours = judged.gain.estimates(CONFIDENCE)[0]
    assert ours.low is not None and ours.high is not None
    found = {"controlled": (ours.mean, ours.low, ours.high, gain)}
    found["controlled, plain t"] = (*_plain(judged.gain.means[0], judged.gain.errors[:, 0]), gain)
    found["per decision, plain t"] = (*_per_decision(judged, log), gain)
    found["SNIPS a slate, plain t"] = (*_snips(weights, log), a_slate)
    for estimator, (mean, low, high, truth) in found.items():
        cells.setdefault((estimator, name, size), Cell()).add(mean, low, high, truth, share)


def _plain(mean: float, errors: Floats) -> tuple[float, float, float]:
    """Student's t interval from first-order errors."""
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(errors) - 1) * np.sqrt((errors**2).sum()))
    return float(mean), float(mean) - half, float(mean) + half


def _per_decision(judged: Logged, log: ShopSlates) -> tuple[float, float, float]:
    steps = build_steps(log.session)
    values = per_decision(judged.cumulative, log.rewards[:, :1], steps)[:, 0] - judged.returns[:, 0]
    n = len(values)
    return _plain(float(values.mean()), (values - values.mean()) / np.sqrt(n * (n - 1)))


def _snips(weights: Floats, log: ShopSlates) -> tuple[float, float, float]:
    """Gain in reward a slate, as if a slate changed nothing that comes after it."""
    values = snips(weights, log.rewards[:, :1])[:, 0] - log.rewards[:, 0]
    errors = build_steps(log.session).sums(values - values.mean()) / len(values)
    return _plain(float(values.mean()), errors)


def figures(cells: Cells, sizes: Sequence[int], results: Sequence[GateResult]) -> dict[str, float]:
    """The figures by name."""
    ours = {key: cell.table for key, cell in cells.items() if key[0] == "controlled"}
    out: dict[str, float] = {"coverage": float(np.concatenate(list(ours.values()))[:, 2].mean())}
    errors = []
    for size in sizes:
        rows = [table for key, table in ours.items() if key[2] == size]
        out[f"coverage_{size}"] = float(np.concatenate(rows)[:, 2].mean())
        errors.append(float(np.mean([np.log(np.sqrt((table[:, 0] ** 2).mean())) for table in rows])))
    out["coverage_lowest"] = float(min(table[:, 2].mean() for table in ours.values()))
    out["coverage_highest"] = float(max(table[:, 2].mean() for table in ours.values()))
    out["error_exponent"] = float(np.polyfit(np.log(sizes), errors, 1)[0])  # -0.5 is 1 / sqrt(n)
    worse = [r for r in results if r.gain <= 0]
    better = [r for r in results if r.gain >= 0.05 and r.share >= 0.1]
    out["false_promotion"] = float(np.mean([r.promoted for r in worse])) if worse else 0.0
    out["power"] = float(np.mean([r.promoted for r in better])) if better else float("nan")
    out["num_worse"], out["num_better"] = len(worse), len(better)
    out["refusals_that_name_what_decides"] = float(
        np.mean([r.names_remedy for r in results if not r.promoted and not r.shown_worse] or [True])
    )
    return {name: round(value, 4) for name, value in out.items()}


if __name__ == "__main__":
    main()
