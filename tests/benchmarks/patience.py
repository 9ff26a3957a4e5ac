"""Does PPO look ahead? The whole loop on made-up shops with strong carry-over, against oracles that know the truth.

``python -m tests.benchmarks.patience`` runs ``slatewise demo`` from 3,000 logged sessions on five seeds that nothing
was tuned on, and compares PPO's true return with an oracle that sees every hidden state but looks one step ahead,
and with a planner that sees all and looks far. ``--config reader.yaml`` and ``--config school.yaml`` do so with the
same recipe in made-up worlds of other kinds. ``kept`` says of which rounds PPO's trainings are the mean, or that it is
the tilted clone, which is kept where both simulators find it clearly better (``rl.tilt``).
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from pipelines.artifacts import RunDirectory
from pipelines.config import load_config
from pipelines.demo import run_demo
from tests.benchmarks.simulator import of_size, world_parser

SEEDS = (201, 202, 203, 204, 205)
RIVALS = ("logging", "random", "popular", "greedy", "clone", "myopic_oracle")


def play_seed(
    file: str | None, seed: int, sessions: int, folder: Path, overrides: list[str]
) -> dict[str, Any]:
    """One world's returns by policy, each {mean, low, high}, and the seconds that the whole loop took."""
    started = time.monotonic()
    config = load_config(
        file,
        [
            f"seed={seed}",
            *of_size(sessions),
            f"paths.run={folder / str(seed)}",
            *overrides,
        ],
    )
    truth = run_demo(config)["truth"]
    policies = {policy["name"]: policy["weighted"] for policy in truth["policies"]}
    trained = RunDirectory(config.paths.run).manifest("train")
    assert trained is not None
    kept = trained["result"]["kept"]
    return {
        "planner": truth["upper_bound"],
        **policies,
        "kept": f"{kept['policy']} {'+'.join(map(str, kept['iterations']))}",
        "seconds": time.monotonic() - started,
    }


def figures(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Ratios of true returns: their means over seeds, and the worst seed's."""
    myopic = [row["ppo"]["mean"] / row["myopic_oracle"]["mean"] for row in rows]
    planner = [row["ppo"]["mean"] / row["planner"]["mean"] for row in rows]
    best = [row["ppo"]["low"] / max(row[name]["high"] for name in RIVALS) for row in rows]
    return {
        "ppo_vs_myopic_oracle": sum(myopic) / len(rows),
        "ppo_vs_myopic_oracle_worst": min(myopic),
        "ppo_vs_planner": sum(planner) / len(rows),
        "ppo_low_vs_best_rival_high_worst": min(best),
        "seconds_longest": max(row["seconds"] for row in rows),
    }


def main() -> None:
    """Run the seeds, print the table and the figures."""
    options = world_parser(__doc__ or "", list(SEEDS)).parse_args()
    names = ("planner", "ppo", *RIVALS)
    rows, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        for seed in options.seeds:
            row = play_seed(options.config, seed, options.sessions, Path(folder), options.overrides)
            rows.append(row)
            cells = [f"{row[n]['mean']:.2f} [{row[n]['low']:.2f}, {row[n]['high']:.2f}]" for n in names]
            lines.append(
                f"{seed:<6}"
                + "".join(f"{cell:>22}" for cell in cells)
                + f"{row['kept']:>24}{row['seconds']:>10.0f}"
            )
            print(lines[-1], flush=True)  # a long run that is cut short has told what it knew
    print(f"\nTrue weighted return a session, {options.sessions:,} logged sessions, 95% intervals")
    print("seed  " + "".join(f"{name:>22}" for name in names) + f"{'kept':>24}   seconds")
    print("\n".join(lines))
    print(json.dumps({name: round(value, 4) for name, value in figures(rows).items()}))


if __name__ == "__main__":
    main()
