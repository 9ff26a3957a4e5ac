"""Playing policies live in the made-up shop, from the very users whose sessions were logged."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipelines.shop.logging_policy import ShopLog, plackett_luce
from pipelines.shop.people import rows
from pipelines.shop.worlds import World
from rl.simulator.trace import Observation
from rl.tasks import Tasks


class ShopSessions:
    """B live sessions of a world; ``worth`` is what a response pays by item and task, float32 [N, K]."""

    def __init__(self, world: World, visitors: Any, worth: NDArray[np.float32], seed: int) -> None:
        self.world = world
        self.worth = worth
        self.visitors = visitors
        self.dice = np.random.default_rng(seed)
        self.leaving = torch.zeros(0)  # [B] chance of leaving after the last slate
        self.seats: Tensor | slice = slice(None)  # of the sessions under way, among all visitors
        self._shown: Tensor | None = None  # int64 [visitors, L], the last slate of each

    def answer(self, slates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rewards and responses [B, L, K], and who left.

        All visitors answer, those who left to their last slate: no session's luck hangs on which others left.
        """
        if self._shown is None:
            self._shown = slates.clone()
        self._shown[self.seats] = slates
        answer = self.world.answer(self.visitors, self._shown.numpy(), self.dice)
        responses = torch.from_numpy(answer.responses)[self.seats]
        self.leaving = torch.from_numpy(answer.leaving)[self.seats]
        rewards = responses * torch.from_numpy(self.worth)[slates]
        return rewards, responses, torch.from_numpy(answer.ended)[self.seats]

    def keep(self, rows: Tensor) -> None:
        """Go on with the sessions at these rows alone."""
        self.seats = rows if isinstance(self.seats, slice) else self.seats[rows]


def response_worth(world: World, tasks: Tasks) -> NDArray[np.float32]:
    """What a response pays, by item and task: 1, or the item's price; negative for a cost. float32 [N, K]."""
    worth = np.ones((len(world.table), len(tasks)), dtype=np.float32)
    for k in range(len(tasks)):
        if tasks.pays_value[k]:
            worth[:, k] = world.table["price"].to_numpy()
    return worth * tasks.signs


def live_sessions(shop: ShopLog, session_ids: Sequence[str], tasks: Tasks, seed: int) -> ShopSessions:
    """The shop with these logged sessions' users at the door, as they were when the session began.

    Args:
        shop: The shop that made the log.
        session_ids: As ingested.
        tasks: How responses pay.
        seed: Of the users' dice.
    """
    visitors = rows(shop.visitors, session_rows(shop, session_ids))
    return ShopSessions(shop.world, visitors, response_worth(shop.world, tasks), seed)


def session_rows(shop: ShopLog, session_ids: Sequence[str]) -> NDArray[np.int64]:
    """Rows of the shop's sessions, from ids as ingested: ours is what follows the last colon. int64 [n]."""
    place = {session: row for row, session in enumerate(shop.session_ids)}
    return np.array([place[session.rsplit(":", 1)[-1]] for session in session_ids], dtype=np.int64)


class LoggingPlayer:
    """The policy that made the log."""

    def __init__(self, shop: ShopLog, length: int, seed: int) -> None:
        self.scores, self.length = shop.scores, length
        self.dice = np.random.default_rng(seed)

    def start(self, past: Tensor) -> None:
        """Nothing to remember."""

    def choose(self, observation: Observation) -> Tensor:
        """Slates by the logging policy's scores."""
        slates, _ = plackett_luce(self.scores, len(observation["past"]), self.length, self.dice)
        return torch.from_numpy(slates)

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """Nothing to learn."""

    def keep(self, rows: Tensor) -> None:
        """Nothing to forget."""


class OraclePlayer:
    """Sees every hidden state of the live sessions; no real policy can.

    An item's worth is its expected weighted reward now, and its share in the world's foresight at the plan's prices.
    With a plan of zeros it is the best slate for the next step.
    """

    def __init__(
        self, sessions: ShopSessions, weights: NDArray[np.float32], length: int, plan: Sequence[float]
    ) -> None:
        self.sessions, self.weights, self.length = sessions, weights, length
        self.plan = np.array(plan) * (
            weights @ np.abs(sessions.worth).mean(0)
        )  # prices are for responses worth 1

    def start(self, past: Tensor) -> None:
        """The sessions hold the state."""

    def choose(self, observation: Observation) -> Tensor:
        """The best slates by that worth."""
        world, visitors = self.sessions.world, self.sessions.visitors
        now = (world.probabilities(visitors) * self.sessions.worth) @ self.weights
        worth = now + world.foresight(visitors) @ self.plan
        return torch.from_numpy(worth)[self.sessions.seats].topk(self.length, -1).indices

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """Nothing to learn."""

    def keep(self, rows: Tensor) -> None:
        """Nothing to forget."""
