"""The actor: a query tower over the state, an item tower over text and id, and their scores."""

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from rl.policy.candidates import Candidates

DECAYS = (0.5, 0.8, 0.95, 1.0)  # of the running sums over the session; 1.0 counts everything


class PolicyShape(BaseModel):
    """Sizes that rebuild a policy. Stored beside its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_items: int = Field(ge=1, description="Catalogue size, N.")
    text_width: int = Field(ge=1, description="Width of item and past embeddings, D.")
    num_tasks: int = Field(ge=1, description="Tasks, K.")
    slate_length: int = Field(ge=1, description="Items shown at once in training, L.")
    history_length: int = Field(ge=1, description="Behaviours of the session in a state, H.")
    key_width: int = Field(64, ge=1, description="Width in which query and item meet.")
    history_width: int = Field(16, ge=1, description="Width of an item inside the running sums.")
    hidden: int = Field(96, ge=1, description="Width of the query tower.")
    id_dropout: float = Field(
        0.1, ge=0, lt=1, description="Chance that training hides an item's id embedding."
    )


class ItemKeys(NamedTuple):
    """What the item tower makes of the catalogue; cached while weights stand still."""

    keys: Tensor  # [N, key_width]
    biases: Tensor  # [N, K]
    history: Tensor  # [N + 1, history_width], the last row, all zero, is the empty place
    follow: Tensor  # [N + 1, key_width], what the item calls for next; the last row is the empty place


def history_sums(vectors: Tensor, history_items: Tensor, history_tasks: Tensor, num_tasks: int) -> Tensor:
    """Running sums of the session's items by task at several decays: linear, so that order and count both show.

    Args:
        vectors: Item vectors, the last row for empty places. float32 [N + 1, W].
        history_items: Oldest first, right-aligned, -1 where empty. int64 [B, H].
        history_tasks: Task of each behaviour, -1 where empty. int64 [B, H].
        num_tasks: K.

    Returns:
        Sums and, in the last column, counts. float32 [B, K * R * (W + 1)] for R decays.
    """
    length = history_items.shape[1]
    age = torch.arange(length - 1, -1, -1, device=vectors.device, dtype=vectors.dtype)
    decays = torch.tensor(DECAYS, device=vectors.device, dtype=vectors.dtype)
    scale = torch.where(decays < 1, 1 - decays, torch.full_like(decays, 1 / 16))
    kernel = decays[:, None] ** age[None, :] * scale[:, None]  # [R, H]
    chosen = vectors[history_items]  # -1 picks the last row: [B, H, W]
    chosen = torch.cat([chosen, torch.ones_like(chosen[..., :1])], -1)  # [B, H, W + 1]
    task = torch.arange(num_tasks, device=vectors.device)
    mask = (history_tasks[:, None, :] == task[:, None]).to(vectors.dtype)  # [B, K, H]
    weights = mask[:, :, None, :] * kernel  # [B, K, R, H]
    sums = torch.einsum("bkrh,bhw->bkrw", weights, chosen)
    return sums.flatten(1)  # [B, K * R * (W + 1)]


class SlatePolicy(nn.Module):
    """Scores of every item in a state, for given task weights. Slates are drawn from them by Plackett-Luce."""

    item_embeddings: Tensor
    item_mean: Tensor

    def __init__(self, shape: PolicyShape, item_embeddings: NDArray[np.float32] | Tensor) -> None:
        super().__init__()
        table = torch.as_tensor(item_embeddings, dtype=torch.float32)
        if table.shape != (shape.num_items, shape.text_width):
            raise ValueError(
                f"item embeddings: expected [{shape.num_items}, {shape.text_width}], got {list(table.shape)}."
            )
        self.shape = shape
        self.register_buffer("item_embeddings", table, persistent=False)
        self.register_buffer("item_mean", table.mean(0))
        tasks, width = shape.num_tasks, shape.key_width
        self.text_key = nn.Linear(shape.text_width, width)
        self.text_bias = nn.Linear(shape.text_width, tasks)
        self.text_history = nn.Linear(shape.text_width, shape.history_width)
        self.id_key = nn.Parameter(torch.zeros(shape.num_items, width))
        self.id_bias = nn.Parameter(torch.zeros(shape.num_items, tasks))
        self.id_history = nn.Parameter(torch.zeros(shape.num_items, shape.history_width))
        self.text_follow = nn.Linear(shape.text_width, width, bias=False)
        self.id_follow = nn.Parameter(torch.zeros(shape.num_items, width))
        self.follow_share = nn.Parameter(torch.ones(tasks))
        self.past = nn.Linear(shape.text_width, shape.key_width)
        read_out = tasks * len(DECAYS) * (shape.history_width + 1)
        self.trunk = nn.Sequential(nn.Linear(read_out + width, shape.hidden), nn.Tanh())
        self.query = nn.Linear(shape.hidden, tasks * width)
        nn.init.normal_(self.query.weight, 0.0, 0.02)
        nn.init.zeros_(self.query.bias)
        nn.init.normal_(self.text_follow.weight, 0.0, 0.01)
        nn.init.zeros_(self.text_bias.weight)
        nn.init.zeros_(self.text_bias.bias)

    def item_keys(self, items: Tensor | None = None) -> ItemKeys:
        """The item tower over the whole catalogue, or over some items. In training mode ids are hidden at random.

        Args:
            items: Item indices, int64 [n]; the keys then count in their order. None takes all N.
        """
        rows = slice(None) if items is None else items
        text = (
            self.item_embeddings[rows] - self.item_mean
        ) * self.shape.text_width**0.5  # coordinates near 1
        shown: Tensor | float = 1.0
        if self.training and self.shape.id_dropout > 0:
            shown = (torch.rand(len(text), 1, device=text.device) >= self.shape.id_dropout).to(text.dtype)
        history = self.text_history(text) + self.id_history[rows] * shown
        follow = self.text_follow(text) + self.id_follow[rows] * shown
        return ItemKeys(
            keys=self.text_key(text) + self.id_key[rows] * shown,
            biases=self.text_bias(text) + self.id_bias[rows] * shown,
            history=torch.cat([history, torch.zeros_like(history[:1])]),
            follow=torch.cat([follow, torch.zeros_like(follow[:1])]),
        )

    def mean_keys(self) -> tuple[Tensor, Tensor]:
        """Mean over the catalogue of the items' keys, [key_width], and biases, [K]: the text's mean is 0 there."""
        return self.text_key.bias + self.id_key.mean(0), self.text_bias.bias + self.id_bias.mean(0)

    def queries(self, past: Tensor, history_items: Tensor, history_tasks: Tensor, keys: ItemKeys) -> Tensor:
        """One query a task: what the state as a whole asks for, and what its last item calls for.

        The last item has a way of its own, wide and without a nonlinearity: which item follows which is most of what
        a log can teach, and the running sums are too narrow to tell thousands of items apart.

        Returns:
            float32 [B, K, key_width].
        """
        sums = history_sums(keys.history, history_items, history_tasks, self.shape.num_tasks)
        told = torch.tanh(self.past(past * self.shape.text_width**0.5))
        hidden = self.trunk(torch.cat([sums, told], -1))
        queries: Tensor = self.query(hidden).unflatten(-1, (self.shape.num_tasks, self.shape.key_width))
        last = keys.follow[history_items[:, -1]]  # -1, an empty session, picks the last row: [B, key_width]
        return queries + last[:, None] * self.follow_share[:, None]

    def logits(
        self,
        past: Tensor,
        history_items: Tensor,
        history_tasks: Tensor,
        task_weights: Tensor,
        keys: ItemKeys | None = None,
    ) -> Tensor:
        """Scores of all items: per-task queries and biases, mixed by the task weights.

        Args:
            past: Embedding of the user's past. float32 [B, D].
            history_items: The session so far, see ``encoders.state``. int64 [B, H].
            history_tasks: Its tasks. int64 [B, H].
            task_weights: Non-negative, rows sum to 1. float32 [B, K].
            keys: What ``item_keys`` gave, to spare the item tower.

        Returns:
            float32 [B, N].
        """
        keys = keys if keys is not None else self.item_keys()
        return scores(self.reading(past, history_items, history_tasks, task_weights, keys), keys)

    def reading(
        self,
        past: Tensor,
        history_items: Tensor,
        history_tasks: Tensor,
        task_weights: Tensor,
        keys: ItemKeys,
    ) -> Tensor:
        """What a state asks for, whatever items there are: the queries mixed, and the weights. [B, key_width + K]."""
        queries = self.queries(past, history_items, history_tasks, keys)
        return torch.cat([(queries * task_weights[..., None]).sum(1), task_weights], -1)

    def candidate_logits(
        self,
        past: Tensor,
        history_items: Tensor,
        history_tasks: Tensor,
        task_weights: Tensor,
        candidates: Candidates,
    ) -> Tensor:
        """Scores of the candidates, raised by their offsets; the item tower sees only what the batch needs. [B, C]."""
        met = torch.zeros(self.shape.num_items + 1, dtype=torch.bool, device=past.device)
        met[history_items] = True  # -1, an empty place, marks the last
        items = met[:-1].nonzero()[:, 0]
        place = torch.full_like(met, -1, dtype=torch.int64)
        place[items] = torch.arange(len(items), device=past.device)
        keys = self.item_keys(torch.cat([candidates.items, items]))
        count = len(candidates.items)
        known = ItemKeys(keys.keys[:count], keys.biases[:count], keys.history[count:], keys.follow[count:])
        logits = self.logits(past, place[history_items], history_tasks, task_weights, keys=known)
        return logits + candidates.offsets

    @torch.no_grad()
    def towards(self, other: "SlatePolicy", share: float) -> "SlatePolicy":
        """A copy whose weights lie a share of the way from these to another policy's."""
        copied, theirs = copy.deepcopy(self), other.state_dict()
        for name, weights in copied.state_dict().items():
            if weights.is_floating_point():
                weights.lerp_(theirs[name], share)
        return copied

    @torch.no_grad()
    def at_temperature(self, temperature: float) -> "SlatePolicy":
        """A copy whose scores are these over a temperature: below 1 slates keep closer to the best items."""
        copied = copy.deepcopy(self)
        for last in (  # what scores are linear in
            copied.query.weight,
            copied.query.bias,
            copied.follow_share,
            copied.text_bias.weight,
            copied.text_bias.bias,
            copied.id_bias,
        ):
            last /= temperature
        return copied


def scores(readings: Tensor, keys: ItemKeys) -> Tensor:
    """Scores of the items behind the keys, from ``SlatePolicy.reading``. float32 [B, N]."""
    return readings @ torch.cat([keys.keys, keys.biases], -1).T


def candidate_keys(keys: ItemKeys, candidates: Candidates) -> ItemKeys:
    """Of the whole catalogue's keys those of the candidates; histories may still hold any item."""
    return keys._replace(keys=keys.keys[candidates.items], biases=keys.biases[candidates.items])
