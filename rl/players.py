"""Anything that chooses slates, played in anything that answers them: simulator or made-up shop."""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.state import States
from rl.evaluation.ranking import Scorer, put_last, top_items
from rl.policy.network import SlatePolicy
from rl.policy.plackett_luce import sample_slates
from rl.policy.reranking import rerank
from rl.simulator.simulation import Ensemble, Sessions
from rl.simulator.trace import Observation, Trace

_SEATS_FILLED = 0.9  # share of sessions under way, below which play goes on without those that ended


class World(Protocol):
    """B sessions that answer slates."""

    def answer(self, slates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Rewards [B, L, K], responses [B, L, K] and who left, bool [B]."""

    def keep(self, rows: Tensor) -> None:
        """Go on with the sessions at these rows alone."""


class Player(Protocol):
    """A policy at play. ``start`` begins B sessions; ``choose`` and ``watch`` alternate; ``keep`` drops who left."""

    def start(self, past: Tensor) -> None:
        """Begin sessions with these pasts [B, D]."""

    def choose(self, observation: Observation) -> Tensor:
        """Slates, int64 [B, L]."""

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """See what came of them."""

    def keep(self, rows: Tensor) -> None:
        """Go on with the sessions at these rows alone."""


class StatelessPlayer:
    """Slates from a function of the number of sessions alone: random, popular, logged slates replayed."""

    def __init__(self, draw: Callable[[int], Tensor]) -> None:
        self.draw = draw

    def start(self, past: Tensor) -> None:
        """Nothing to remember."""

    def choose(self, observation: Observation) -> Tensor:
        """Drawn slates."""
        return self.draw(len(observation["past"]))

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """Nothing to learn."""

    def keep(self, rows: Tensor) -> None:
        """Nothing to forget."""


class PolicyPlayer:
    """A slate policy as it serves: slates drawn by Plackett-Luce."""

    def __init__(self, policy: SlatePolicy, length: int, seed: int) -> None:
        self.policy = policy.eval()
        self.length = length
        self.generator = torch.Generator().manual_seed(seed)

    def start(self, past: Tensor) -> None:
        """Compute the item keys once."""
        with torch.no_grad():
            self.keys = self.policy.item_keys()

    @torch.no_grad()
    def choose(self, observation: Observation) -> Tensor:
        """Slates drawn at the observation's task weights."""
        logits = self.policy.logits(
            observation["past"],
            observation["history_items"],
            observation["history_tasks"],
            observation["task_weights"],
            keys=self.keys,
        )
        return sample_slates(logits, self.length, self.generator)

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """The observation holds all it needs."""

    def keep(self, rows: Tensor) -> None:
        """Nothing to forget."""


class RerankedPlayer:
    """A slate policy's best slates, re-ranked for diversity within a loss, and within exposure limits."""

    def __init__(
        self,
        policy: SlatePolicy,
        length: int,
        allowed_loss: float,
        groups: Tensor | None = None,
        group_limits: Tensor | None = None,
    ) -> None:
        """As ``rl.policy.reranking.rerank``; an item's worth is its chance to be shown first."""
        self.policy = policy.eval()
        self.length, self.allowed_loss = length, allowed_loss
        self.groups, self.group_limits = groups, group_limits
        self.vectors = torch.nn.functional.normalize(policy.item_embeddings, dim=-1)
        self.losses: list[Tensor] = []  # a slate's losses to limits and to diversity, [B, 2] a step

    def start(self, past: Tensor) -> None:
        """Compute the item keys once."""
        with torch.no_grad():
            self.keys = self.policy.item_keys()
        self.losses = []

    @torch.no_grad()
    def choose(self, observation: Observation) -> Tensor:
        """The re-ranked slates at the observation's task weights."""
        logits = self.policy.logits(
            observation["past"],
            observation["history_items"],
            observation["history_tasks"],
            observation["task_weights"],
            keys=self.keys,
        )
        found = rerank(
            logits.softmax(-1), self.vectors, self.length, self.allowed_loss, self.groups, self.group_limits
        )
        self.losses.append(torch.stack([found.limits_loss, found.diversity_loss], -1))
        return found.slates

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """The observation holds all it needs."""

    def keep(self, rows: Tensor) -> None:
        """Nothing to forget."""


class GreedyPlayer:
    """The simulator's best slate for the next step: items by expected weighted reward, best first.

    Responses at different positions do not influence each other within a slate, so that this is the exact maximum.
    """

    def __init__(self, ensemble: Ensemble, length: int, seed: int) -> None:
        self.ensemble = ensemble
        self.length = length
        self.generator = torch.Generator().manual_seed(seed)

    def start(self, past: Tensor) -> None:
        """Begin tracking the sessions in every member."""
        self.sessions = Sessions(self.ensemble, past, self.generator)

    def choose(self, observation: Observation) -> Tensor:
        """The best slates."""
        return self.sessions.shelf_rewards(observation["task_weights"]).topk(self.length, -1).indices

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """Move every member's state on."""
        self.sessions.follow(slates, responses)

    def keep(self, rows: Tensor) -> None:
        """In every member."""
        self.sessions.keep(rows)


class ScorerPlayer:
    """A rival at play: its best items, those of the session so far standing back as they do in ranking."""

    def __init__(self, scorer: Scorer, sessions: NDArray[np.int64], length: int) -> None:
        self.scorer = scorer
        self.sessions = sessions  # logged sessions that the played ones start from, batch after batch
        self.length = length
        self.started = 0

    def start(self, past: Tensor) -> None:
        """Go on to the next batch of sessions."""
        self.batch = self.sessions[self.started : self.started + len(past)]
        self.started += len(past)

    def choose(self, observation: Observation) -> Tensor:
        """The best slates."""
        names = ("past", "history_items", "history_tasks")
        states = States(*(observation[name].numpy() for name in names))
        scores = np.array(self.scorer(states, self.batch), dtype=np.float32)
        put_last(scores, states.history_items)
        return torch.from_numpy(top_items(scores, self.length))

    def watch(self, slates: Tensor, responses: Tensor) -> None:
        """The observation holds all it needs."""

    def keep(self, rows: Tensor) -> None:
        """Of the logged ones too."""
        self.batch = self.batch[rows.numpy()]


@torch.no_grad()
def play(
    world: World,
    player: Player,
    past: Tensor,
    task_weights: Tensor,
    item_features: Tensor,
    num_tasks: int,
    history_length: int,
    max_steps: int,
) -> tuple[Tensor, Tensor]:
    """Play each session to its end.

    Args:
        world: Answers the slates.
        player: Chooses them.
        past: Embeddings of the users' pasts. float32 [B, D].
        task_weights: float32 [B, K].
        item_features: Of the catalogue, for the trace. float32 [N, P].
        num_tasks: K.
        history_length: H of the states.
        max_steps: Slates at most.

    Returns:
        Returns by task, float32 [B, K], and lengths, int64 [B].
    """
    trace = Trace(past, item_features, num_tasks, history_length)
    seats, alive = torch.arange(len(past)), torch.ones(len(past), dtype=torch.bool)
    returns = torch.zeros(len(past), num_tasks)
    lengths = torch.zeros(len(past), dtype=torch.int64)
    player.start(past)
    for _ in range(max_steps):
        slates = player.choose(trace.observe(task_weights))
        rewards, responses, left = world.answer(slates)
        returns[seats] += rewards.sum(1) * alive[:, None]
        lengths[seats] += alive
        player.watch(slates, responses)
        trace.add(slates, responses)
        alive &= ~left
        rows = alive.nonzero()[:, 0]
        if not len(rows):
            break
        if len(rows) < _SEATS_FILLED * len(alive):
            world.keep(rows)
            player.keep(rows)
            trace.keep(rows)
            seats, task_weights, alive = seats[rows], task_weights[rows], alive[rows]
    return returns, lengths


def play_simulated(
    ensemble: Ensemble,
    player: Player,
    past: Tensor,
    task_weights: Tensor,
    history_length: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """``play`` in a simulator, each session by one of its members, at task weights [K] or [B, K]."""
    return play(
        Sessions(ensemble, past, generator),
        player,
        past,
        task_weights.expand(len(past), -1),
        ensemble.members[0].item_features,
        len(ensemble.tasks),
        history_length,
        ensemble.max_steps,
    )
