"""What policies of the made-up shop truly gain over its logging policy, as precisely as two ways allow."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.shop.world import ShopWorld
from rl.evaluation.off_policy.sessions import per_decision
from rl.evaluation.off_policy.weights import build_steps, cumulative_weights
from tests.benchmarks.shop_policies import Policy, ShopSlates, play, slate_log_chance

Floats = NDArray[np.float64]
BATCH = 10_000  # sessions at once, few enough for the cache
BASE, POOL, LIVE = 101, 102, 103  # streams of random numbers


class Moments:
    """Mean of samples and its squared error, gathered batch by batch."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, np.zeros(1), np.zeros(1)

    def add(self, samples: Floats) -> None:
        """Rows [n, C]."""
        self.count += len(samples)
        self.total = self.total + samples.sum(axis=0)
        self.square = self.square + (samples**2).sum(axis=0)

    @property
    def mean(self) -> Floats:
        """[C]."""
        return self.total / self.count

    @property
    def error(self) -> Floats:
        """Squared standard error of the mean. [C]."""
        return (self.square / self.count - self.mean**2) / self.count


class Truth:
    """True gains, from two independent and unbiased estimates weighted by their precision.

    Live sessions of both policies are the better where the policies are far apart; near ones differ by less than the
    sessions' own spread, and there per-decision importance sampling on a large pool of logging sessions, none of them
    in any log that is judged, tells more from fewer.
    """

    def __init__(self, world: ShopWorld, logging: Policy, live: int, pool: int, seed: int) -> None:
        """``live`` sessions of each policy, ``pool`` of the logging policy."""
        self.world, self.logging, self.live, self.seed = world, logging, live, seed
        self.base, self.pool = Moments(), max(pool, 1)
        for log in self._play(logging, live, BASE):
            self.base.add(log.returns)

    def gains(self, policies: Sequence[Policy]) -> list[tuple[Floats, Floats]]:
        """Gain of each policy a session, weighted and by task, and its standard error. Pairs of float64 [1 + K]."""
        weighted = [Moments() for _ in policies]
        for log in self._play(self.logging, self.pool, POOL):
            steps, own = (
                build_steps(log.session),
                slate_log_chance(self.world, self.logging, self.logging, log),
            )
            for policy, moments in zip(policies, weighted, strict=True):
                ratio = np.exp(slate_log_chance(self.world, policy, self.logging, log) - own)
                moments.add(per_decision(cumulative_weights(ratio, steps), log.rewards, steps) - log.returns)
        return [self._join(policy, moments) for policy, moments in zip(policies, weighted, strict=True)]

    def _join(self, policy: Policy, weighted: Moments) -> tuple[Floats, Floats]:
        played = Moments()
        for log in self._play(policy, self.live, LIVE):
            played.add(log.returns)
        live, live_error = played.mean - self.base.mean, played.error + self.base.error
        # Weights with a heavy tail hide their error: trust them as far as near policies only.
        share = np.where(weighted.error < live_error, live_error / (live_error + weighted.error), 0.0)
        gain = share * weighted.mean + (1 - share) * live
        error = np.sqrt(share**2 * weighted.error + (1 - share) ** 2 * live_error)
        return gain, error

    def _play(self, policy: Policy, sessions: int, stream: int) -> Iterator[ShopSlates]:
        watch = policy.interest != 0 or stream == POOL  # weights of any policy need the views
        for start in range(0, sessions, BATCH):
            size = min(BATCH, sessions - start)
            visitors = (self.seed, 9, start)  # the same for every live policy
            yield play(
                self.world,
                policy,
                self.logging,
                size,
                (self.seed, stream, start),
                None if stream == POOL else visitors,
                watch,
            )
