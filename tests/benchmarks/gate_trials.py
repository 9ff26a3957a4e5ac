"""The gate on many candidates, each with a log of its own and a truth from live sessions."""

import re
from dataclasses import dataclass
from itertools import islice

import numpy as np

from pipelines.shop.world import ShopWorld
from rl.evaluation.config import GateConfig
from rl.evaluation.gate import judge
from rl.evaluation.gate_logged import logged_findings
from rl.evaluation.logged import judge_logged
from tests.benchmarks.shop_candidates import gate_candidates
from tests.benchmarks.shop_policies import Policy, play, slate_log_chance
from tests.benchmarks.shop_truth import Truth

WORSE = 0.25  # of the candidates


@dataclass(frozen=True)
class GateResult:
    """One candidate: what is true, and what the gate said of it."""

    name: str
    gain: float  # true, relative to the logging policy's weighted return
    worst_task: float  # true relative gain of the task that gains least
    share: float  # effective sample size as a share of the log
    promoted: bool
    reason: str  # the first, which is one against if there is any

    @property
    def names_remedy(self) -> bool:
        """Whether the refusal says how many more slates, or how much exploration, would decide."""
        return bool(re.search(r"[\d,]+ more slates|Give it \d+% of the sessions", self.reason))

    @property
    def shown_worse(self) -> bool:
        """Whether the refusal rests on a loss that is shown: nothing is left to decide."""
        return "a loss is shown" in self.reason or "the loss is above" in self.reason


def run_gate(
    world: ShopWorld, logging: Policy, num_candidates: int, num_slates: int, live: int, pool: int, seed: int
) -> list[GateResult]:
    """The gate's word on candidates of which a quarter are truly worse than the logging policy.

    Candidates come as they are drawn; one is passed over where its part, worse or not, is full.
    """
    gate, results, truth = GateConfig(), [], Truth(world, logging, live, pool, seed)
    slates_a_session = len(play(world, logging, logging, 20_000, seed).session) / 20_000
    room = {True: round(WORSE * num_candidates), False: num_candidates - round(WORSE * num_candidates)}
    drawn = list(islice(gate_candidates(world, logging, seed), 2 * num_candidates))
    gains = (gain for start in range(0, len(drawn), 50) for gain, _ in truth.gains(drawn[start : start + 50]))
    for number, (policy, gained) in enumerate(zip(drawn, gains, strict=True)):
        if not any(room.values()):
            break
        gain = gained / np.abs(truth.base.mean)
        if not room[bool(gain[0] <= 0)]:
            continue
        room[bool(gain[0] <= 0)] -= 1
        log = play(world, logging, logging, round(num_slates / slates_a_session), 30_000_000 + seed + number)
        ratio = slate_log_chance(world, policy, logging, log) - slate_log_chance(world, logging, logging, log)
        judged = judge_logged(np.exp(ratio), log.rewards, log.session, 0.0)
        verdict = judge(logged_findings(judged, policy.name, ShopWorld.tasks, gate))
        results.append(
            GateResult(
                policy.name,
                float(gain[0]),
                float(gain[1:].min()),
                judged.diagnostics.share,
                verdict["promote"],
                verdict["reasons"][0],
            )
        )
    return results
