"""Is it true what is said of a log before anything is trained? Made-up shops where looking ahead pays, and where not.

    python -m tests.benchmarks.promise [--quick] [--seeds 301] [key=value ...]

Each shop's log goes through ``slatewise demo``. The table has the word of ``fit-simulator`` and, in the shop's truth,
PPO's gain over the best of popular, clone, greedy and bandit with its 95% interval. The word is right where "yes" meets
a gain above 0, and "no" one that is not; "unknown" promises nothing.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines.artifacts import RunDirectory
from pipelines.config import load_config
from pipelines.demo import run_demo
from pipelines.fit_simulator import LOG_CHECKS

SHOPS: dict[str, list[str]] = {
    "strong carry-over": [],
    "no carry-over": ["shop.carry_over=0"],
    "few sessions": ["shop.num_sessions=300", "shop.num_users=112"],
    "little exploration": ["shop.exploration=0.1"],
}
SIMPLE = ("popular", "clone", "greedy", "bandit")


def play_shop(seed: int, changes: list[str], folder: Path, overrides: list[str]) -> dict[str, Any]:
    """What was said beforehand, and PPO's true return, its gain over the best simple rival and half its interval."""
    shop = [f"seed={seed}", "shop.num_sessions=3000", "shop.num_users=1125", f"paths.run={folder}"]
    report = run_demo(load_config(None, [*shop, *changes, *overrides]))
    promise = RunDirectory(str(folder)).read_json(f"fit-simulator/{LOG_CHECKS}")[-1]
    returns = {policy["name"]: policy["weighted"] for policy in report["truth"]["policies"]}
    best = max(SIMPLE, key=lambda name: returns[name]["mean"])
    gain = returns["ppo"]["mean"] - returns[best]["mean"]
    # The two are taken for independent.
    half = sum((returns[name]["high"] - returns[name]["mean"]) ** 2 for name in ("ppo", best)) ** 0.5
    return {
        "answer": promise["answer"],
        "best": best,
        "ppo": returns["ppo"]["mean"],
        "gain": gain,
        "half": half,
    }


def main() -> None:
    """Run the shops, print the table and the share of words that are right."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one shop, few rounds: a smoke run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[301])
    parser.add_argument("overrides", nargs="*", help="settings as key=value")
    options = parser.parse_args()
    shops, overrides = dict(SHOPS), list(options.overrides)
    if options.quick:
        shops = {"few sessions": SHOPS["few sessions"]}
        overrides += ["rl.ppo.num_iterations=2", "rl.simulator.num_epochs=1", "rl.evaluation.num_sessions=50"]
    lines, right = [], []
    for seed in options.seeds:
        for name, changes in shops.items():
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as folder:
                found = play_shop(seed, changes, Path(folder) / "run", overrides)
            gains = found["gain"] - found["half"] > 0
            told = found["answer"] != "unknown"
            if told:
                right.append((found["answer"] == "yes") == gains)
            interval = f"{found['gain']:+.2f} +- {found['half']:.2f}"
            lines.append(
                f"{seed:<6}{name:<22}{found['answer']:<10}{found['ppo']:>7.2f}  {interval:<16} over {found['best']:<9}"
                f"{('right' if right[-1] else 'WRONG') if told else 'open':<7}{time.monotonic() - started:>6.0f} s"
            )
    print(f"\n{'seed':<6}{'shop':<22}{'promise':<10}{'ppo':>7}  true gain")
    print("\n".join(lines))
    share = sum(right) / len(right) if right else None
    print(json.dumps({"promise_right": share, "num_told": len(right), "num_shops": len(lines)}))


if __name__ == "__main__":
    main()
