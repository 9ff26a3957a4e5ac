"""SASRec, the sequential rival: self-attention over a user's latest items.

Our own, as no library fits: RecTools needs NumPy 1, and Cornac, untyped and 100 MB, scores one state at a time and
reads the session alone. The tests compare its forward pass with Cornac's.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders.sessions import SPLITS, SessionLog
from encoders.state import States
from rl.evaluation.config import RivalsConfig
from rl.evaluation.pasts import UserPasts
from rl.evaluation.ranking import Scorer

NUM_BLOCKS, NUM_HEADS, DROPOUT = 2, 1, 0.2
BATCH_USERS = 64
LEARNING_RATE = 1e-3
MAX_VALIDATION = 1024  # sequences that the early stop looks at


class SASRec(nn.Module):
    """Causal self-attention blocks over item sequences, left-padded with -1.

    Source:
        Kang and McAuley 2018, "Self-attentive sequential recommendation", arXiv:1808.09781.
    """

    def __init__(self, num_items: int, width: int, length: int) -> None:
        super().__init__()
        self.item = nn.Embedding(
            num_items + 1, width, padding_idx=num_items
        )  # the last row is the empty place
        self.position = nn.Embedding(length, width)
        self.dropout = nn.Dropout(DROPOUT)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(NUM_BLOCKS))
        self.norm = nn.LayerNorm(width, eps=1e-8)
        for table in (self.item, self.position):
            nn.init.normal_(table.weight, 0.0, 0.02)
        with torch.no_grad():
            self.item.weight[-1] = 0.0

    def forward(self, items: Tensor) -> Tensor:
        """What the sequence up to each place says about the next item. int64 [B, T] gives float32 [B, T, W]."""
        empty = items < 0
        place = torch.where(empty, self.item.num_embeddings - 1, items)
        x = self.item(place) * self.item.embedding_dim**0.5 + self.position.weight[-items.shape[1] :]
        x = self.dropout(x).masked_fill(empty[..., None], 0.0)
        steps = items.shape[1]
        allowed = torch.ones(steps, steps, dtype=torch.bool).tril() & ~empty[:, None, :]  # [B, T, T]
        allowed = allowed | torch.eye(
            steps, dtype=torch.bool
        )  # an empty place sees itself, so no row is void
        for block in self.blocks:
            x = block(x, allowed).masked_fill(empty[..., None], 0.0)
        out: Tensor = self.norm(x)
        return out


class _Block(nn.Module):
    """Attention, then a pointwise network, each with its residual."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-8)
        self.attention = nn.MultiheadAttention(width, NUM_HEADS, DROPOUT, batch_first=True)
        self.feed_norm = nn.LayerNorm(width, eps=1e-8)
        self.feed = nn.Sequential(
            nn.Linear(width, width),
            nn.Dropout(DROPOUT),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.Dropout(DROPOUT),
        )

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        query = self.attention_norm(x)
        attended, _ = self.attention(query, x, x, attn_mask=~allowed, need_weights=False)
        x = self.feed_norm(query + attended)
        out: Tensor = x + self.feed(x)
        return out


@dataclass(frozen=True)
class _Sequences:
    """Windows of users' items, each place with the item after it; -1 where there is none."""

    items: Tensor  # int64 [U, T]
    nexts: Tensor  # int64 [U, T]


def sasrec_scorer(
    log: SessionLog, pasts: UserPasts, num_items: int, config: RivalsConfig, seed: int
) -> Scorer:
    """Train on the train split, stop by the validation split, and score from all items of the user so far."""
    model = train_sasrec(log, pasts, num_items, config, seed)
    table = model.item.weight[:num_items]

    @torch.no_grad()
    def score(states: States, sessions: NDArray[np.int64]) -> NDArray[np.float32]:
        items = torch.from_numpy(pasts.sequences(states, sessions, config.sasrec_length))
        scores: NDArray[np.float32] = (model(items)[:, -1] @ table.T).numpy()
        return scores  # [b, N]; all 0 where the user has no item yet

    return score


def train_sasrec(
    log: SessionLog, pasts: UserPasts, num_items: int, config: RivalsConfig, seed: int
) -> SASRec:
    """The model of the epoch with the least validation loss; cross-entropy against shared negatives.

    Source:
        Klenitskiy and Vasilev 2023, arXiv:2309.07602: cross-entropy, not the original's binary loss, is SASRec's best.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SASRec(num_items, config.sasrec_width, config.sasrec_length)
        train = _user_windows(pasts, pasts.in_train, config.sasrec_length)
        held = _validation_windows(log, pasts, config.sasrec_length)
        optimiser = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98))
        best, best_loss, waited = copy.deepcopy(model.state_dict()), float("inf"), 0
        for _ in range(config.sasrec_epochs):
            model.train()
            for rows in torch.split(torch.randperm(len(train.items)), BATCH_USERS):
                loss = _loss(model, _Sequences(train.items[rows], train.nexts[rows]), config.sasrec_negatives)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            model.eval()
            with torch.no_grad():
                value = float(_loss(model, held, num_items)) if len(held.items) else float(loss.detach())
            waited = 0 if value < best_loss else waited + 1
            if value < best_loss:
                best, best_loss = copy.deepcopy(model.state_dict()), value
            if waited >= config.sasrec_patience:
                break
        model.load_state_dict(best)
        return model.eval().requires_grad_(False)


def _loss(model: SASRec, batch: _Sequences, num_negatives: int) -> Tensor:
    """Cross-entropy of each next item, nats. Negatives are drawn evenly and shared; all items where they would be."""
    known = batch.nexts >= 0
    query, target = model(batch.items)[known], batch.nexts[known]  # [n, W], [n]
    num_items = model.item.num_embeddings - 1
    if num_negatives >= num_items:
        return nn.functional.cross_entropy(query @ model.item.weight[:num_items].T, target)
    drawn = torch.randint(num_items, (num_negatives,))
    own = (query * model.item.weight[target]).sum(-1, keepdim=True)  # [n, 1]
    others = query @ model.item.weight[drawn].T + float(np.log(num_items / num_negatives))
    others = others.masked_fill(drawn == target[:, None], -torch.inf)
    scores = torch.cat([own, others], 1)
    return nn.functional.cross_entropy(scores, torch.zeros(len(scores), dtype=torch.int64))


def _user_windows(pasts: UserPasts, kept: NDArray[np.bool_], length: int) -> _Sequences:
    """Every user's items cut into windows of ``length``, the last one full where there are so many."""
    items, users = pasts.items[kept], pasts.users[pasts.sessions[kept]]
    if not len(items):
        return _Sequences(
            torch.zeros(0, length, dtype=torch.int64), torch.zeros(0, length, dtype=torch.int64)
        )
    fresh = np.ones(len(items), dtype=bool)
    fresh[1:] = (items[1:] != items[:-1]) | (users[1:] != users[:-1])  # repeats in a row count once
    items, users = items[fresh], users[fresh]
    last = np.append(users[1:] != users[:-1], True)
    following = np.where(last, -1, np.append(items[1:], -1))
    end = np.flatnonzero(last)
    to_end = end[np.searchsorted(end, np.arange(len(items)))] - np.arange(
        len(items)
    )  # places left of the user
    window = np.cumsum(np.append(True, (users[1:] != users[:-1]) | (to_end[1:] % length == length - 1))) - 1
    column = length - 1 - to_end % length
    both = np.full((2, int(window[-1]) + 1, length), -1)
    both[0, window, column], both[1, window, column] = items, following
    told = (both[1] >= 0).any(axis=1)
    return _Sequences(torch.from_numpy(both[0][told]), torch.from_numpy(both[1][told]))


def _validation_windows(log: SessionLog, pasts: UserPasts, length: int) -> _Sequences:
    """One window a validation session with an item: all before its last item, which alone is asked for."""
    sessions = np.flatnonzero(log.split == SPLITS.index("validation"))[:MAX_VALIDATION]
    last = log.offsets[sessions + 1] - log.offsets[sessions] - 1
    sessions, last = sessions[last >= 0], last[last >= 0]
    states = log.states(sessions, last, length)
    target = log.items[log.offsets[sessions] + last]
    wanted = pasts.wanted[log.tasks[log.offsets[sessions] + last]]
    items = pasts.sequences(states, sessions, length)
    kept = wanted & (items[:, -1] >= 0) & (items[:, -1] != target)
    nexts = np.full(items.shape, -1)
    nexts[:, -1] = target
    return _Sequences(torch.from_numpy(items[kept]), torch.from_numpy(nexts[kept]))
