"""Playing sessions in the fitted ensemble: B at once, on tensors."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rl.simulator.response_model import ResponseModel
from rl.simulator.trace import Observation, Trace
from rl.tasks import Tasks

SHELF_BATCH = 32  # sessions whose whole catalogue is scored at once: what a cache holds


class WeightDraws(NamedTuple):
    """How sessions come by their task weights: some draw them around the configured, the others have these."""

    concentration: float  # of the Dirichlet draws
    share: float  # of the sessions that draw


class StepResult(NamedTuple):
    """What a step of B sessions brought."""

    rewards: Tensor  # float32 [B, L, K], expected and signed, disagreement taken off
    ended: Tensor  # bool [B]
    leaving: Tensor  # float32 [B] the chance with which it ended there
    finished: dict[str, Tensor]  # returns [E, K], lengths [E], task_weights [E, K] of sessions that ended


@dataclass(frozen=True)
class Ensemble:
    """Fitted members, and what all of them need to start a session."""

    members: tuple[ResponseModel, ...]
    tasks: Tasks
    past_mean: Tensor  # [D]
    past_projection: Tensor  # [D, past_width + likeness_width]
    max_steps: int
    pessimism: float

    @property
    def slate_length(self) -> int:
        """Positions the members know, L."""
        return self.members[0].shape.slate_length

    def past_features(self, past: Tensor) -> Tensor:
        """Fixed features of past embeddings, and their texts. float32 [B, past_width + likeness_width]."""
        return (past - self.past_mean) @ self.past_projection


class Sessions:
    """B sessions under way in an ensemble. Each follows one member; all members say what they expect."""

    def __init__(self, ensemble: Ensemble, past: Tensor, generator: torch.Generator) -> None:
        self.ensemble = ensemble
        self.generator = generator
        self.past = ensemble.past_features(past)
        self.began = count = len(past)
        self.tables = [member.item_table() for member in ensemble.members]
        self.member = torch.randint(len(ensemble.members), (count,), generator=generator)
        self.seats = torch.arange(count)  # of the sessions under way, among all that began
        self.leaving = torch.zeros(count)  # chance of leaving after the last slate
        self.place([member.start(count) for member in ensemble.members])

    def restart(self, rows: Tensor, past: Tensor) -> None:
        """Begin new sessions at these rows."""
        self.past[rows] = self.ensemble.past_features(past)
        for member, state, context in zip(self.ensemble.members, self.states, self.contexts, strict=True):
            state[rows] = 0.0
            context[rows] = member.context(state[rows], self.past[rows])
        self.member[rows] = torch.randint(len(self.states), (len(rows),), generator=self.generator)

    @torch.no_grad()
    def place(self, states: list[Tensor]) -> None:
        """Have each member stand at these states and read them. M tensors [B, state_width]."""
        self.states = states
        pairs = zip(self.ensemble.members, states, strict=True)
        self.contexts = [member.context(state, self.past) for member, state in pairs]  # M tensors [B, Z]

    def keep(self, rows: Tensor) -> None:
        """Go on with the sessions at these rows alone."""
        self.past, self.member, self.leaving = self.past[rows], self.member[rows], self.leaving[rows]
        self.states = [state[rows] for state in self.states]
        self.contexts = [context[rows] for context in self.contexts]
        self.seats = self.seats[rows]

    @torch.no_grad()
    def expected_rewards(self, slates: Tensor) -> tuple[Tensor, Tensor]:
        """Expected rewards by member and position, signed, and chances. float32 [M, B, L, K] twice."""
        rewards, chances = [], []
        paid = torch.from_numpy(self.ensemble.tasks.pays_value)
        sign = torch.from_numpy(self.ensemble.tasks.signs)
        known = zip(self.ensemble.members, self.contexts, self.tables, strict=True)
        for member, context, (vectors, biases) in known:
            outlook = member.outlook(context, vectors, biases, slates)
            rewards.append(outlook.chances * torch.where(paid, outlook.values, torch.ones(())) * sign)
            chances.append(outlook.chances)
        return torch.stack(rewards), torch.stack(chances)

    @torch.no_grad()
    def shelf_rewards(self, task_weights: Tensor) -> Tensor:
        """Expected weighted reward of every item, were it shown first: mean over members. float32 [B, N]."""
        paid = torch.from_numpy(self.ensemble.tasks.pays_value)
        signed = task_weights * torch.from_numpy(self.ensemble.tasks.signs)  # [B, K]
        total = torch.zeros(len(task_weights), self.ensemble.members[0].shape.num_items)
        known = zip(self.ensemble.members, self.contexts, self.tables, strict=True)
        for member, context, (vectors, biases) in known:
            for rows in torch.split(torch.arange(len(total)), SHELF_BATCH):
                total[rows] += member.shelf_worth(context[rows], vectors, biases, signed[rows], paid)
        return total / len(self.states)

    @torch.no_grad()
    def answer(self, slates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Show slates and move on.

        Args:
            slates: int64 [B, L].

        Returns:
            Pessimistic expected rewards [B, L, K], sampled responses [B, L, K], and who left, bool [B].
        """
        rewards, chances = self.expected_rewards(slates)
        mean = rewards.mean(0)
        if self.ensemble.pessimism > 0 and len(self.states) > 1:
            squares = (rewards - mean).square().sum(0)  # torch's own std is slow over so short an axis
            mean = mean - self.ensemble.pessimism * (squares / (len(rewards) - 1)).sqrt()
            sign = torch.from_numpy(self.ensemble.tasks.signs)
            mean = torch.where(sign > 0, mean.clamp_min(0), mean)
        each = torch.arange(len(slates))
        responses = self._sample(chances[self.member, each])
        self.follow(slates, responses)
        pairs = zip(self.ensemble.members, self.contexts, strict=True)
        logits = torch.stack([member.leaving(context) for member, context in pairs])  # [M, B]
        self.leaving = torch.sigmoid(logits[self.member, each])
        return mean, responses, self._draw() < self.leaving

    @torch.no_grad()
    def follow(self, slates: Tensor, responses: Tensor) -> None:
        """Move every member's state on by slates [B, L] and responses [B, L, K]."""
        paid = torch.from_numpy(self.ensemble.tasks.pays_value)
        states = []
        for member, state, table in zip(self.ensemble.members, self.states, self.tables, strict=True):
            values = responses * torch.where(paid, torch.tensor(member.shape.value_scale), torch.zeros(()))
            states.append(member.advance(state, table, slates, responses, values, self.past))
        self.place(states)

    def _draw(self, *shape: int) -> Tensor:
        """Uniform draws [b, ...]. They fall for all that began: no session's luck hangs on which others left."""
        return torch.rand(self.began, *shape, generator=self.generator)[self.seats]

    def _sample(self, chances: Tensor) -> Tensor:
        """Responses drawn along the funnel from joint chances [B, L, K]."""
        parents = self.ensemble.tasks.parents
        draw = self._draw(*chances.shape[1:])
        if self.ensemble.members[0].shape.mode == "next_item":  # at most one item is taken
            draw[..., 0] = _exclusive(chances[..., 0], draw[:, 0, 0])
        out: list[Tensor] = []
        for task, parent in enumerate(parents):
            if parent < 0:
                out.append((draw[..., task] < chances[..., task]).float())
            else:
                given = chances[..., task] / chances[..., parent].clamp_min(1e-9)
                out.append(out[parent] * (draw[..., task] < given).float())
        return torch.stack(out, -1)


def _exclusive(chances: Tensor, draw: Tensor) -> Tensor:
    """Draws [B, L] of which at most one lies below its chance: position l where ``draw`` falls into its share."""
    upper = chances.cumsum(-1)
    hit = (draw[:, None] < upper) & (draw[:, None] >= upper - chances)
    return torch.where(hit, torch.zeros(()), torch.ones(()))


def draw_task_weights(
    tasks: Tasks, count: int, draws: WeightDraws, dice: np.random.Generator
) -> NDArray[np.float32]:
    """Task weights of sessions: the configured ones, or for a share of them Dirichlet draws around these. [B, K]."""
    weights = np.tile(tasks.weights, (count, 1))
    if draws.share > 0 and len(tasks) > 1:
        spread = dice.dirichlet(np.maximum(tasks.weights, 0.02) * draws.concentration * len(tasks), count)
        some = dice.random(count) < draws.share
        weights[some] = spread[some]
    return weights.astype(np.float32)


class Simulation:
    """B sessions at once with same-step restart: what the RLlib runner steps."""

    def __init__(
        self,
        ensemble: Ensemble,
        pasts: Tensor,
        num_sessions: int,
        slate_length: int,
        history_length: int,
        weight_draws: WeightDraws,
        seed: int,
    ) -> None:
        self.ensemble = ensemble
        self.pasts = pasts  # [S, D] of logged sessions; new ones start from a random one of them
        self.num_sessions = num_sessions
        self.slate_length = slate_length
        self.num_tasks = len(ensemble.tasks)
        self.num_items = ensemble.members[0].shape.num_items
        self.history_length = history_length
        self.weight_draws = weight_draws
        self.generator = torch.Generator().manual_seed(seed)
        self.dice = np.random.default_rng(seed)
        self.reset()

    def _draw_pasts(self, count: int) -> Tensor:
        return self.pasts[torch.randint(len(self.pasts), (count,), generator=self.generator)]

    def _open(self, past: Tensor) -> Sessions:
        return Sessions(self.ensemble, past, self.generator)

    def _draw_weights(self, count: int) -> Tensor:
        return torch.from_numpy(draw_task_weights(self.ensemble.tasks, count, self.weight_draws, self.dice))

    def reset(self) -> Observation:
        """Begin all sessions anew."""
        past = self._draw_pasts(self.num_sessions)
        self.sessions = self._open(past)
        features = self.ensemble.members[0].item_features
        self.trace = Trace(past, features, self.num_tasks, self.history_length)
        self.task_weights = self._draw_weights(self.num_sessions)
        self.returns = torch.zeros(self.num_sessions, self.num_tasks)
        return self.observe()

    def observe(self) -> Observation:
        """What policy and critic see now."""
        return self.trace.observe(self.task_weights)

    @torch.no_grad()
    def step(self, slates: Tensor) -> StepResult:
        """Show slates [B, L]; sessions that end begin anew at once."""
        rewards, responses, left = self.sessions.answer(slates)
        self.trace.add(slates, responses)
        self.returns += rewards.sum(1)
        last = self.trace.steps >= self.ensemble.max_steps
        ended, leaving = left | last, self.sessions.leaving.masked_fill(last, 1.0)
        rows = ended.nonzero()[:, 0]
        finished = {
            "returns": self.returns[rows].clone(),
            "lengths": self.trace.steps[rows].clone(),
            "task_weights": self.task_weights[rows].clone(),
        }
        if len(rows):
            past = self._draw_pasts(len(rows))
            self.sessions.restart(rows, past)
            self.trace.restart(rows, past)
            self.task_weights[rows] = self._draw_weights(len(rows))
            self.returns[rows] = 0.0
        return StepResult(rewards, ended, leaving, finished)
