"""What a language model is tuned on: histories with the item that came next, and items acted on together."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import numpy as np
import polars as pl
from numpy.typing import NDArray

from encoders.columns import IMPRESSION
from encoders.text import Past


@dataclass(frozen=True)
class NextItems:
    """Histories as texts, each with the item acted on next."""

    history: list[str]  # [B]
    item: NDArray[np.int64]  # [B], item index
    user: list[str]  # [B]

    def __len__(self) -> int:
        return len(self.history)


def next_items(
    behaviours: pl.DataFrame,
    item_texts: Mapping[str, str],
    item_index: Mapping[str, int],
    history_items: int,
    per_session: int,
    seed: int,
) -> dict[str, NextItems]:
    """Some moments of each session: what its user did at earlier moments, and an item acted on then.

    Moments at which nothing came before are left out. Items acted on before count like others, as a policy may
    show them again.

    Args:
        behaviours: Rows of whole users: user_id, session_id, item_id, behaviour, timestamp, split.
        item_texts: Text of each item, by id.
        item_index: Index of each item, by id.
        history_items: How many items a text names.
        per_session: Moments a session, drawn at random.
        seed: Of the draw.

    Returns:
        By split, in order of user and time.
    """
    rows = behaviours.filter(pl.col("behaviour") != IMPRESSION).sort(
        "user_id", "timestamp", maintain_order=True
    )
    chosen = _choose(rows["session_id"], per_session, seed)
    columns = (
        rows["user_id"],
        rows["timestamp"].to_physical(),
        rows["item_id"],
        rows["behaviour"],
        rows["split"],
    )
    stream = zip(*(column.to_list() for column in columns), chosen.tolist(), strict=True)
    found: dict[str, tuple[list[str], list[int], list[str]]] = {}
    for user, of_user in groupby(stream, key=itemgetter(0)):
        past, began = Past(), False
        for _, moment in groupby(of_user, key=itemgetter(1)):
            acts = list(moment)
            for _, _, item, _, split, is_chosen in acts:
                if is_chosen and began:
                    histories, items, users = found.setdefault(split, ([], [], []))
                    histories.append(past.text(history_items))
                    items.append(item_index[item])
                    users.append(user)
            for _, _, item, behaviour, _, _ in acts:
                past.add(behaviour, item_texts[item])
            began = True
    return {
        split: NextItems(histories, np.array(items, dtype=np.int64), users)
        for split, (histories, items, users) in found.items()
    }


def _choose(sessions: pl.Series, per_session: int, seed: int) -> NDArray[np.bool_]:
    """At most ``per_session`` rows of each session, at random. bool [M]."""
    dice = np.random.default_rng(seed).random(len(sessions))
    ranks = pl.DataFrame({"session": sessions, "draw": dice}).select(
        pl.col("draw").rank("ordinal").over("session")
    )
    return np.asarray(ranks.to_series().to_numpy() <= per_session)


def items_together(
    behaviours: pl.DataFrame, item_index: Mapping[str, int], per_session: int, seed: int
) -> NDArray[np.int64]:
    """Pairs of different items acted on in one session, drawn at random: at most ``per_session`` pairs a session.

    Returns:
        Item indices, int64 [P, 2].
    """
    acts = behaviours.filter(pl.col("behaviour") != IMPRESSION).unique(
        ["session_id", "item_id"], maintain_order=True
    )
    order = np.random.default_rng(seed).permutation(len(acts))
    acts = acts[order].sort("session_id", maintain_order=True)
    session = acts["session_id"].to_numpy()
    item = acts["item_id"].replace_strict(dict(item_index), return_dtype=pl.Int64).to_numpy()
    place = acts.select(pl.int_range(pl.len()).over("session_id")).to_series().to_numpy()
    first = np.flatnonzero((place % 2 == 0) & (place < 2 * per_session))
    first = first[first + 1 < len(acts)]
    first = first[session[first] == session[first + 1]]
    return np.stack([item[first], item[first + 1]], axis=1).astype(np.int64)


def log_popularity(items: NDArray[np.int64], num_items: int) -> NDArray[np.float64]:
    """Log share of each item among these, each counted once more. float64 [N]."""
    counts = np.bincount(items, minlength=num_items) + 1.0
    return np.asarray(np.log(counts / counts.sum()))
