"""The response model: chance of each task's response at each position, its value, and the chance of leaving.

A state is a bank of linear running sums over the session's steps at several decays, beside the user's past. It sees
what was shown and ignored as well as what was taken, because both change what comes later.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

DECAYS = (0.5, 0.8, 0.95, 1.0)
_UNBOUNDED = 1e9  # edge of running sums before the log's range is known
_LEAST_EDGE = 1e-3  # of running sums that the log never moved


class ResponseShape(BaseModel):
    """Sizes and settings that rebuild a response model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["slate", "next_item"]  # fitted on slates, or on items acted on
    num_items: int
    slate_length: int
    feature_width: int  # of the fixed item features
    past_width: int  # of the fixed past features
    parents: tuple[int, ...]  # [K]
    item_width: int
    sum_width: int
    hidden: int
    dropout: float
    value_scale: tuple[float, ...]  # [K] mean logged value of a response
    value_cap: tuple[float, ...]  # [K] largest logged value


class Outlook(NamedTuple):
    """What the model expects of a slate. Chances are of the task on the item at the position."""

    chances: Tensor  # [..., L, K]
    values: Tensor  # [..., L, K] expected value of a response


class ResponseModel(nn.Module):
    """One member of the simulator."""

    item_features: Tensor
    least: Tensor  # [R * C] running sums beyond which only their logarithm counts; see ``bound_states``
    most: Tensor
    base_score: Tensor  # [N] log share of the log's choices, for logs without slates; 0 otherwise

    def __init__(self, shape: ResponseShape, item_features: Tensor) -> None:
        super().__init__()
        self.shape = shape
        self.register_buffer("base_score", torch.zeros(shape.num_items))
        tasks, width = len(shape.parents), shape.item_width
        self.register_buffer("item_features", item_features)
        self.text_item = nn.Linear(shape.feature_width, width)
        self.item = nn.Parameter(0.1 * torch.randn(shape.num_items, width))
        self.item_bias = nn.Parameter(torch.zeros(shape.num_items, 1 + 2 * tasks))
        self.text_bias = nn.Linear(shape.feature_width, 1 + 2 * tasks)
        nn.init.zeros_(self.text_bias.weight)
        nn.init.zeros_(self.text_bias.bias)
        self.position_bias = nn.Parameter(torch.zeros(shape.slate_length))
        self.accumulate = nn.Linear(self.step_width, shape.sum_width)
        self.past = nn.Linear(shape.past_width, width)
        known = shape.sum_width * len(DECAYS) + width
        self.trunk = nn.Sequential(nn.Linear(known, shape.hidden), nn.ReLU())
        self.dropout = nn.Dropout(shape.dropout)
        self.level = nn.Linear(known + shape.hidden, 1 + 2 * tasks)
        self.query = nn.Linear(known + shape.hidden, (1 + 2 * tasks) * width)
        nn.init.normal_(self.query.weight, 0.0, 0.02)
        self.leave = nn.Linear(known + shape.hidden, 1)
        self.register_buffer("least", torch.full((self.state_width,), -_UNBOUNDED))
        self.register_buffer("most", torch.full((self.state_width,), _UNBOUNDED))
        nn.init.constant_(self.leave.bias, -2.5)

    @property
    def trace_width(self) -> int:
        """Width of what an item leaves in a step: its vector, and how readily it is taken at each stage."""
        return self.shape.item_width + 1 + len(self.shape.parents)

    @property
    def step_width(self) -> int:
        """Width of one step's features, see ``step_features``."""
        tasks, width = len(self.shape.parents), self.trace_width
        return tasks * width + 2 * width + 2 * tasks + 2

    @property
    def state_width(self) -> int:
        """Width of the running sums."""
        return self.shape.sum_width * len(DECAYS)

    def item_table(self) -> tuple[Tensor, Tensor]:
        """Vectors [N + 1, trace_width], the last row zero for empty places, and biases [N, 1 + 2K].

        The first ``item_width`` columns of a vector meet queries; the others repeat the biases of response and tasks.
        They tell what a step leaves behind: an item that is opened by all and bought by none is known from many
        slates, and what it does to the rest of a session from few.
        """
        biases = self.text_bias(self.item_features) + self.item_bias
        matched = self.text_item(self.item_features) + self.item
        vectors = torch.cat([matched, biases[:, : 1 + len(self.shape.parents)]], 1)
        return torch.cat([vectors, torch.zeros_like(vectors[:1])]), biases

    def step_features(self, vectors: Tensor, items: Tensor, responses: Tensor, values: Tensor) -> Tensor:
        """What a step leaves behind: items taken by task, items shown, the first, counts and values. [..., F]."""
        shown = vectors[items]  # [..., L, W]
        if self.shape.mode == "next_item":  # the log shows no slates, so neither may the simulator
            shown_mean, first = torch.zeros_like(shown[..., 0, :]), torch.zeros_like(shown[..., 0, :])
        else:
            shown_mean, first = shown.mean(-2), shown[..., 0, :]
        taken = (responses[..., None] * shown[..., None, :]).sum(-3).flatten(-2)  # [..., K * W]
        counts = responses.sum(-2)  # [..., K]
        scale = torch.tensor(self.shape.value_scale, device=counts.device)
        worth = torch.log1p(values.clamp_min(0).sum(-2) / scale)
        answered = (counts.sum(-1, keepdim=True) > 0).float()
        ignored = (1 - answered) if self.shape.mode == "slate" else torch.zeros_like(answered)
        return torch.cat([taken, shown_mean, first, counts, worth, answered, ignored], -1)

    def _decays(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Decays of the running sums, and what a step weighs in each.

        A sum that forgets nothing has a step's full weight: a small one would have to be made up for by large weights
        that read it, and weight decay would shrink what builds up over a session to next to nothing.
        """
        decays = torch.tensor(DECAYS, device=like.device)
        return decays, torch.where(decays < 1, 1 - decays, torch.ones_like(decays))

    def run(self, vectors: Tensor, items: Tensor, responses: Tensor, values: Tensor) -> Tensor:
        """States before every step and after the last. float32 [S, T + 1, R * C]."""
        added = self.accumulate(self.step_features(vectors, items, responses, values))  # [S, T, C]
        decays, scale = self._decays(added)
        length = added.shape[1]
        age = torch.arange(length, device=added.device)[:, None] - torch.arange(length, device=added.device)
        kernel = torch.where(
            age >= 0, decays[:, None, None] ** age.clamp_min(0), torch.zeros(())
        )  # [R, T, T]
        sums = torch.einsum("rts,bsc->btrc", kernel * scale[:, None, None], added).flatten(2)
        return torch.cat([torch.zeros_like(sums[:, :1]), sums], 1)

    @torch.no_grad()
    def bound_states(self, states: Tensor, reach: float) -> None:
        """Sums beyond ``reach`` times the log's range go on by their logarithm.

        A policy can drive a sum much further than the log ever did, where a linear reading of it promises anything; and
        a sum that stopped at the edge would promise nothing for going on, so that nobody learns to.

        Args:
            states: Logged ones. float32 [n, R * C].
            reach: Multiples of the sums' 1% and 99% quantiles.
        """
        ranked = states.sort(0).values
        edge = (len(states) - 1) // 100
        self.least.copy_((ranked[edge] * reach).clamp_max(-_LEAST_EDGE))
        self.most.copy_((ranked[len(states) - 1 - edge] * reach).clamp_min(_LEAST_EDGE))

    def start(self, count: int) -> Tensor:
        """The state of sessions that begin. float32 [B, R * C]."""
        return self.level.weight.new_zeros(count, self.state_width)

    def advance(
        self, state: Tensor, vectors: Tensor, items: Tensor, responses: Tensor, values: Tensor
    ) -> Tensor:
        """The state after one more step. float32 [B, R * C]."""
        added = self.accumulate(self.step_features(vectors, items, responses, values))  # [B, C]
        decays, scale = self._decays(added)
        sums = state.view(len(state), len(DECAYS), -1)
        advanced: Tensor = sums * decays[:, None] + added[:, None] * scale[:, None]
        return advanced.flatten(1)

    def context(self, state: Tensor, past: Tensor) -> Tensor:
        """State and past, read. float32 [..., Z]."""
        beyond = torch.maximum(state / self.most, state / self.least).clamp_min(1)  # logged sums are at 1
        state = state * (1 + beyond.log()) / beyond
        known = torch.cat([state, torch.tanh(self.past(past))], -1)
        read: Tensor = self.dropout(torch.cat([self.trunk(known), known], -1))
        return read

    def scores(self, context: Tensor, vectors: Tensor, biases: Tensor, items: Tensor) -> Tensor:
        """Logits of response, tasks given response, and log values, without position. [..., L, 1 + 2K]."""
        heads = 1 + 2 * len(self.shape.parents)
        queries: Tensor = self.query(context)
        queries = queries.view(*queries.shape[:-1], heads, self.shape.item_width)
        match = vectors[items][..., : self.shape.item_width] @ queries.transpose(-1, -2)  # [..., L, heads]
        level = self.level(context)
        if self.shape.mode == "next_item":  # a choice over the catalogue knows no level
            level = torch.cat([torch.zeros_like(level[..., :1]), level[..., 1:]], -1)
        scored: Tensor = match + biases[items] + level[..., None, :]
        return scored

    def all_response_scores(self, context: Tensor, vectors: Tensor, biases: Tensor) -> Tensor:
        """Response logits of the whole catalogue, without position and level. float32 [..., N]."""
        query: Tensor = self.query(context)[..., : self.shape.item_width]  # the first head's
        return query @ vectors[:-1, : self.shape.item_width].T + biases[:, 0]

    def positions(self, length: int) -> Tensor:
        """Position effects on the response's logit; those below the longest logged slate repeat its last. [L]."""
        known = self.position_bias[:length]
        return torch.cat([known, known[-1:].expand(length - len(known))])

    def outlook(self, context: Tensor, vectors: Tensor, biases: Tensor, items: Tensor) -> Outlook:
        """What to expect of slates ``items`` [..., L]."""
        scores = self.scores(context, vectors, biases, items)
        if self.shape.mode == "slate":
            response = torch.sigmoid(scores[..., 0] + self.positions(items.shape[-1]))
        else:
            total = torch.logsumexp(self.all_response_scores(context, vectors, biases), -1, keepdim=True)
            response = torch.exp(scores[..., 0] - total)
        return self.expect(scores, response)

    def shelf_worth(
        self, context: Tensor, vectors: Tensor, biases: Tensor, signed_weights: Tensor, paid: Tensor
    ) -> Tensor:
        """Expected weighted reward of every item, were it shown first. One task's [B, N] is held at a time.

        Args:
            context: float32 [B, Z].
            vectors: As of ``item_table``. float32 [N + 1, trace_width].
            biases: Likewise. float32 [N, 1 + 2K].
            signed_weights: Task weights, negative for costs. float32 [B, K].
            paid: Tasks that pay the response's value. bool [K].

        Returns:
            float32 [B, N].
        """
        tasks = len(self.shape.parents)
        queries = self.query(context).view(len(context), 1 + 2 * tasks, self.shape.item_width)
        level = self.level(context)

        def logits(head: int) -> Tensor:
            shift = level[:, head, None] + biases[:, head]  # [B, N]
            return torch.addmm(shift, queries[:, head], vectors[:-1, : self.shape.item_width].T)

        if self.shape.mode == "slate":
            response = torch.sigmoid(logits(0) + self.position_bias[0])
        else:  # a softmax knows no level
            response = torch.softmax(logits(0), -1)
        worth = torch.zeros_like(response)
        chances: list[Tensor] = []
        for task, parent in enumerate(self.shape.parents):
            before = response if parent < 0 else chances[parent]
            chances.append(torch.sigmoid(logits(1 + task)).mul_(before))
            gain = chances[task]
            if paid[task]:
                gain = gain * self.expected_value(logits(1 + tasks + task), task)
            worth.addcmul_(gain, signed_weights[:, task, None])
        return worth

    def expect(self, scores: Tensor, response: Tensor) -> Outlook:
        """Chances along the funnel and expected values, from logits and the chance of any response [..., L]."""
        tasks = len(self.shape.parents)
        given = torch.sigmoid(scores[..., 1 : 1 + tasks])
        chances: list[Tensor] = []
        for task, parent in enumerate(self.shape.parents):
            chances.append(given[..., task] * (response if parent < 0 else chances[parent]))
        values = [self.expected_value(scores[..., 1 + tasks + task], task) for task in range(tasks)]
        return Outlook(torch.stack(chances, -1), torch.stack(values, -1))

    def expected_value(self, score: Tensor, task: int) -> Tensor:
        """Expected value of a response, from its log on the task's scale; at most the largest logged. [...]."""
        worth = torch.exp(score.clamp(-10, 10)) * self.shape.value_scale[task]
        return worth.clamp_max(self.shape.value_cap[task])


def fixed_features(
    embeddings: NDArray[np.float32], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean [D] and projection [D, W] onto the leading directions, scaled to unit variance each.

    Text embeddings are wide and their catalogues small; a few directions carry what the model can use.
    """
    mean = embeddings.mean(0)
    centred = embeddings - mean
    _, spread, directions = np.linalg.svd(centred[:20_000].astype(np.float64), full_matrices=False)
    keep = min(width, int((spread > 1e-6 * max(spread[0], 1e-12)).sum()) or 1)
    deviation = spread[:keep] / max(np.sqrt(min(len(embeddings), 20_000)), 1)
    projection = np.zeros((embeddings.shape[1], width))
    projection[:, :keep] = directions[:keep].T / np.maximum(deviation, 1e-6)
    return mean.astype(np.float32), projection.astype(np.float32)
