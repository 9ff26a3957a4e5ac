"""The response model: chance of each task's response at each position, its value, and the chance of leaving.

A state is a bank of linear running sums over the session's steps at several decays, beside the user's past. It sees
what was shown and ignored as well as what was taken, because both change what comes later. Tastes have sums of their
own (``tastes.py``).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rl.simulator.innovations import innovations, reached
from rl.simulator.reach import UNBOUNDED, within_reach
from rl.simulator.running_sums import DECAYS, add_step, sum_up
from rl.simulator.shape import ResponseShape
from rl.simulator.tastes import Tastes


class ItemTable(NamedTuple):
    """What a model makes of the catalogue, see ``ResponseModel.item_table``."""

    vectors: Tensor  # [N + 1, V]
    biases: Tensor  # [N, 1 + 2K]


class Outlook(NamedTuple):
    """What the model expects of a slate. Chances are of the task on the item at the position."""

    chances: Tensor  # [..., L, K]
    values: Tensor  # [..., L, K] expected value of a response


class ResponseModel(nn.Module):
    """One member of the simulator."""

    item_features: Tensor
    item_texts: Tensor
    item_rates: Tensor  # [N, K] the log's shares of responses to the item, among those that had their chance
    least: Tensor  # [R * C] learned sums beyond which only their logarithm counts; see ``bound_sums``
    most: Tensor
    base_score: Tensor  # [N] log share of the log's choices, for logs without slates; 0 otherwise

    def __init__(self, shape: ResponseShape, item_features: Tensor, item_texts: Tensor) -> None:
        """``item_features`` are fixed ones [N, feature_width], ``item_texts`` what is compared [N, likeness_width]."""
        super().__init__()
        self.shape = shape
        self.register_buffer("base_score", torch.zeros(shape.num_items))
        tasks, width = len(shape.parents), shape.item_width
        self.register_buffer("item_features", item_features)
        self.register_buffer("item_texts", item_texts)
        self.register_buffer("item_rates", torch.zeros(shape.num_items, tasks))
        heads = 1 + 2 * tasks
        self.text_item = nn.Linear(shape.feature_width, width)
        self.item = nn.Parameter(0.1 * torch.randn(shape.num_items, width))
        self.item_bias = nn.Parameter(torch.zeros(shape.num_items, heads))
        self.text_bias = nn.Linear(shape.feature_width, heads)
        nn.init.zeros_(self.text_bias.weight)
        nn.init.zeros_(self.text_bias.bias)
        self.position_bias = nn.Parameter(torch.zeros(shape.slate_length))
        self.tastes = Tastes(shape.likeness_width, shape.taste_width, shape.parents, heads)
        self.accumulate = nn.Linear(self.step_width, shape.sum_width)
        self.past = nn.Linear(shape.past_width, width)
        self.summed = shape.sum_width + 2 * tasks * shape.innovations  # what a step adds to each sum
        known = self.summed * len(DECAYS) + width
        self.trunk = nn.Sequential(nn.Linear(known, shape.hidden), nn.ReLU())
        self.dropout = nn.Dropout(shape.dropout)
        self.level = nn.Linear(known + shape.hidden, heads)
        self.query = nn.Linear(known + shape.hidden, heads * width)
        nn.init.normal_(self.query.weight, 0.0, 0.02)
        self.leave = nn.Linear(known + shape.hidden, 1)
        self.register_buffer("least", torch.full((self.summed * len(DECAYS),), -UNBOUNDED))
        self.register_buffer("most", torch.full_like(self.least, UNBOUNDED))
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
        """Width of a state: sums [R, C], the innovations last, and the surprises of ``Tastes``."""
        return len(self.least) + self.tastes.state_width

    def item_table(self) -> ItemTable:
        """Vectors [N + 1, V], the last row zero for empty places, and biases [N, 1 + 2K].

        A vector holds tastes, what meets learned queries, the biases of response and tasks, and logged rates. The two
        in the middle, of ``trace_width``, tell what a step leaves behind: an item that is opened by all and bought by
        none is known from many slates, and what it does to the rest of a session from few.
        """
        biases = self.text_bias(self.item_features) + self.item_bias
        matched = self.text_item(self.item_features) + self.item
        tastes = self.item_texts @ self.tastes.directions
        vectors = torch.cat([tastes, matched, biases[:, : 1 + len(self.shape.parents)], self.item_rates], 1)
        return ItemTable(torch.cat([vectors, torch.zeros_like(vectors[:1])]), biases)

    def step_features(self, vectors: Tensor, items: Tensor, responses: Tensor, values: Tensor) -> Tensor:
        """What a step leaves behind: items taken by task, items shown, the first, counts and values. [..., F]."""
        left = vectors[:, self.shape.taste_width :][:, : self.trace_width]
        shown = left[items]  # [..., L, W]
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

    def _step(
        self, vectors: Tensor, items: Tensor, responses: Tensor, values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What a step adds to each learned sum [..., C] and to surprises [..., K * (Q + 1)]."""
        learned = self.accumulate(self.step_features(vectors, items, responses, values))
        known, width = vectors[items], self.shape.taste_width
        tastes, rates = known[..., :width], known[..., -len(self.shape.parents) :]
        return learned, self.tastes.step(tastes, rates, responses, self.shape.mode == "slate")

    def run(self, table: ItemTable, items: Tensor, responses: Tensor, values: Tensor, past: Tensor) -> Tensor:
        """States before every step and after the last. float32 [S, T + 1, state_width].

        Slates and what came of them are [S, T, L] and [S, T, L, K], the pasts' features as in ``context`` [S, ...].
        """
        shown = (items >= 0).any(-1)  # [S, T]; padding adds nothing
        steps = self._step(table.vectors, items[shown], responses[shown], values[shown])
        learned, surprise = (x.new_zeros(*shown.shape, x.shape[-1]).index_put((shown,), x) for x in steps)

        def states(added: Tensor) -> Tensor:
            whole = torch.cat([sum_up(added), surprise.cumsum(1)], -1)
            return torch.cat([torch.zeros_like(whole[:, :1]), whole], 1)

        if not self.shape.innovations:
            return states(learned)
        none = learned.new_zeros(*learned.shape[:2], self.summed - learned.shape[-1])
        before = states(torch.cat([learned, none], -1))[:, :-1]
        new = self._innovations(table, before, past[:, None].expand(-1, items.shape[1], -1), items, responses)
        return states(torch.cat([learned, new], -1))

    @torch.no_grad()
    def _innovations(
        self, table: ItemTable, state: Tensor, past: Tensor, items: Tensor, responses: Tensor
    ) -> Tensor:
        """``innovations`` of a step, its first guess being this model's own. [..., 2 K]."""
        context = self.context(state, past, informed=False)
        scores = self.scores(context, table.vectors, table.biases, items)
        chances = torch.sigmoid(scores[..., 1 : 1 + len(self.shape.parents)])
        shown = (items >= 0).to(chances.dtype)
        if self.shape.mode == "slate":
            first = torch.tensor([parent < 0 for parent in self.shape.parents])
            response = torch.sigmoid(scores[..., 0] + self.positions(items.shape[-1]))
            chances = torch.where(first, chances * response[..., None], chances)
        else:
            shown = shown * responses.amax(-1)
        return innovations(chances, reached(shown, responses, self.shape.parents), responses)

    def start(self, count: int) -> Tensor:
        """The state of sessions that begin. float32 [B, state_width]."""
        return self.level.weight.new_zeros(count, self.state_width)

    def advance(
        self, state: Tensor, table: ItemTable, items: Tensor, responses: Tensor, values: Tensor, past: Tensor
    ) -> Tensor:
        """The state after one more step. float32 [B, state_width]."""
        learned, surprise = self._step(table.vectors, items, responses, values)
        if self.shape.innovations:
            learned = torch.cat([learned, self._innovations(table, state, past, items, responses)], -1)
        sums, surprises = state[:, : len(self.least)], state[:, len(self.least) :]
        return torch.cat([add_step(sums, learned), surprises + surprise], 1)

    def context(self, state: Tensor, past: Tensor, informed: bool = True) -> Tensor:
        """State and past, read; then what likeness asks for. float32 [..., Z + H * Q].

        Where it is not ``informed``, without innovations: what a first guess goes by.
        """
        features, text = past[..., : self.shape.past_width], past[..., self.shape.past_width :]
        learned, surprises = state[..., : len(self.least)], state[..., len(self.least) :]
        learned = within_reach(learned, torch.maximum(learned / self.most, learned / self.least))
        if self.shape.innovations and not informed:
            hidden = torch.arange(self.summed) >= self.shape.sum_width
            learned = learned.masked_fill(hidden.repeat(len(DECAYS)), 0.0)
        known = torch.cat([learned, torch.tanh(self.past(features))], -1)
        read: Tensor = self.dropout(torch.cat([self.trunk(known), known], -1))
        asked = self.tastes.asked(surprises, text)
        return torch.cat([read, asked.flatten(-2)], -1)

    def queries(self, context: Tensor) -> Tensor:
        """What each score asks of ``matched``. float32 [..., H, Q + item_width]."""
        learned, asked = (
            self.query(context[..., : self.query.in_features]),
            context[..., self.query.in_features :],
        )
        parts = ((asked, self.shape.taste_width), (learned, self.shape.item_width))
        return torch.cat([p.view(*p.shape[:-1], self.level.out_features, width) for p, width in parts], -1)

    def matched(self, vectors: Tensor) -> Tensor:
        """The part of items' vectors that meets queries. float32 [..., Q + item_width]."""
        return vectors[..., : self.shape.taste_width + self.shape.item_width]

    def levels(self, context: Tensor) -> Tensor:
        """What all items' scores share. float32 [..., H]."""
        levels: Tensor = self.level(context[..., : self.level.in_features])
        return levels

    def leaving(self, context: Tensor) -> Tensor:
        """Logits of leaving now. float32 [...]."""
        logit: Tensor = self.leave(context[..., : self.leave.in_features])
        return logit[..., 0]

    def scores(self, context: Tensor, vectors: Tensor, biases: Tensor, items: Tensor) -> Tensor:
        """Logits of response, tasks given response, and log values, without position. [..., L, 1 + 2K]."""
        match = self.matched(vectors[items]) @ self.queries(context).transpose(-1, -2)  # [..., L, H]
        level = self.levels(context)
        if self.shape.mode == "next_item":  # a choice over the catalogue knows no level
            level = torch.cat([torch.zeros_like(level[..., :1]), level[..., 1:]], -1)
        scored: Tensor = match + biases[items] + level[..., None, :]
        return scored

    def all_response_scores(self, context: Tensor, vectors: Tensor, biases: Tensor) -> Tensor:
        """Response logits of the whole catalogue, without position and level. float32 [..., N]."""
        return self.queries(context)[..., 0, :] @ self.matched(vectors[:-1]).T + biases[:, 0]

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
            vectors: As of ``item_table``. float32 [N + 1, V].
            biases: Likewise. float32 [N, 1 + 2K].
            signed_weights: Task weights, negative for costs. float32 [B, K].
            paid: Tasks that pay the response's value. bool [K].

        Returns:
            float32 [B, N].
        """
        tasks = len(self.shape.parents)
        queries, level = self.queries(context), self.levels(context)
        items = self.matched(vectors[:-1]).T

        def logits(head: int) -> Tensor:
            shift = level[:, head, None] + biases[:, head]  # [B, N]
            return torch.addmm(shift, queries[:, head], items)

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
