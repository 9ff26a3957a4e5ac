"""Sessions as arrays: what simulator, clone and evaluation read instead of rows."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from encoders.columns import IMPRESSION
from encoders.state import States

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class LoggedSlates:
    """Slates of the log with the responses to them, by session and time."""

    session: NDArray[np.int64]  # [R]
    items: NDArray[np.int64]  # [R, L], -1 where empty
    responses: NDArray[np.float32]  # [R, L, K], how often the task's behaviour followed on the item
    values: NDArray[np.float32]  # [R, L, K], sum of the responses' values
    propensities: NDArray[np.float64]  # [R, L], nan where unknown
    behaviours_before: NDArray[np.int64]  # [R], behaviours of the session before the slate


@dataclass(frozen=True)
class SessionLog:
    """All sessions in order of start time. Session s holds behaviours offsets[s]:offsets[s + 1]."""

    session_ids: list[str]  # [S]
    user_ids: list[str]  # [S]
    split: NDArray[np.int8]  # [S], index into SPLITS
    past: NDArray[np.float32]  # [S, D]
    offsets: NDArray[np.int64]  # [S + 1]
    items: NDArray[np.int64]  # [M]
    tasks: NDArray[np.int64]  # [M]
    values: NDArray[np.float32]  # [M], 0 where the log has none
    slates: LoggedSlates | None

    def __len__(self) -> int:
        return len(self.session_ids)

    def sessions(self, split: str) -> NDArray[np.int64]:
        """Indices of a split's sessions, earliest first."""
        return np.flatnonzero(self.split == SPLITS.index(split)).astype(np.int64)

    def states(self, session: NDArray[np.int64], before: NDArray[np.int64], length: int) -> States:
        """The states after the first ``before`` behaviours of the sessions.

        Args:
            session: Session indices. int64 [B].
            before: Behaviours that the state knows. int64 [B].
            length: History length, H.
        """
        place = self.offsets[session][:, None] + before[:, None] + np.arange(-length, 0)  # [B, H]
        known = place >= self.offsets[session][:, None]
        place = np.where(known, place, 0)
        empty = len(self.items) == 0
        items = np.full(place.shape, -1) if empty else np.where(known, self.items[place], -1)
        tasks = np.full(place.shape, -1) if empty else np.where(known, self.tasks[place], -1)
        return States(self.past[session], items.astype(np.int64), tasks.astype(np.int64))


def build_session_log(
    behaviours: pl.DataFrame,
    item_index: Mapping[str, int],
    pasts: Mapping[str, NDArray[np.float32]],
    task_index: Mapping[str, int],
) -> SessionLog:
    """Sessions of an ingested log.

    Args:
        behaviours: Rows as ingest writes them.
        item_index: Item index by id.
        pasts: Past embedding [D] by session id.
        task_index: Task index by behaviour; other behaviours are left out.

    Raises:
        ValueError: A session has no embedded past.
    """
    rows = _indexed_rows(behaviours, item_index, task_index)
    starts = (
        rows.group_by("session_id")
        .agg(pl.col("timestamp").min().alias("start"), pl.col("user_id").first(), pl.col("split").first())
        .sort("start", "session_id")
        .with_row_index("session")
    )
    ids = starts["session_id"].to_list()
    missing = [s for s in ids if s not in pasts]
    if missing:
        raise ValueError(
            f"embed: expected a past for every session, {missing[0]!r} has none. Run embed again."
        )
    rows = rows.join(starts.select("session_id", pl.col("session").cast(pl.Int64)), on="session_id")
    rows = rows.sort("session", "timestamp", "order", maintain_order=True)
    acts = rows.filter(pl.col("task").is_not_null())
    counts = np.bincount(acts["session"].to_numpy(), minlength=len(ids))
    return SessionLog(
        session_ids=ids,
        user_ids=starts["user_id"].to_list(),
        split=starts["split"]
        .replace_strict({n: i for i, n in enumerate(SPLITS)}, return_dtype=pl.Int8)
        .to_numpy(),
        past=np.stack([pasts[s] for s in ids]).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        items=acts["item"].to_numpy().astype(np.int64),
        tasks=acts["task"].to_numpy().astype(np.int64),
        values=acts["value"].fill_null(0.0).to_numpy().astype(np.float32),
        slates=_logged_slates(rows, len(task_index)),
    )


def _indexed_rows(
    behaviours: pl.DataFrame, item_index: Mapping[str, int], task_index: Mapping[str, int]
) -> pl.DataFrame:
    """Rows with item and task numbers. At equal times a slate precedes responses, and parents precede children."""
    task = pl.col("behaviour").replace_strict(dict(task_index), default=None, return_dtype=pl.Int64)
    slate = pl.col("behaviour") == IMPRESSION
    return behaviours.filter(slate | pl.col("behaviour").is_in(list(task_index))).with_columns(
        pl.col("item_id").replace_strict(dict(item_index), return_dtype=pl.Int64).alias("item"),
        task.alias("task"),
        pl.when(slate).then(-1).otherwise(task).alias("order"),
    )


def _logged_slates(rows: pl.DataFrame, num_tasks: int) -> LoggedSlates | None:
    """Slates with positions, joined with the responses that name their request."""
    shown = rows.filter((pl.col("behaviour") == IMPRESSION) & pl.col("request_id").is_not_null())
    if shown.is_empty():
        return None
    before = rows.with_columns(
        pl.col("task").is_not_null().cum_sum().over("session").cast(pl.Int64).alias("before")
    ).filter(pl.col("behaviour") == IMPRESSION)
    requests = (
        before.group_by("session", "request_id", maintain_order=True)
        .agg(pl.col("timestamp").min(), pl.col("before").first())
        .sort("session", "timestamp", maintain_order=True)
        .with_row_index("row")
        .with_columns(pl.col("row").cast(pl.Int64))
    )
    key = ["session", "request_id"]
    placed = shown.join(requests.select(*key, "row"), on=key).with_columns(
        pl.col("timestamp").rank("ordinal").over("row").cast(pl.Int64).alias("rank")
    )
    place = placed["position"].cast(pl.Int64).fill_null(placed["rank"] - 1).to_numpy()
    row, length = placed["row"].to_numpy(), int(place.max()) + 1
    items = np.full((len(requests), length), -1, dtype=np.int64)
    items[row, place] = placed["item"].to_numpy()
    propensities = np.full((len(requests), length), np.nan)
    propensities[row, place] = placed["propensity"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    answers = (
        rows.filter(pl.col("task").is_not_null() & pl.col("request_id").is_not_null())
        .select(*key, "item", "task", "value")
        .join(
            placed.with_columns(pl.Series("place", place)).select(*key, "item", "row", "place"),
            on=[*key, "item"],
        )
    )
    responses = np.zeros((len(requests), length, num_tasks), dtype=np.float32)
    values = np.zeros_like(responses)
    where = (answers["row"].to_numpy(), answers["place"].to_numpy(), answers["task"].to_numpy())
    np.add.at(responses, where, 1.0)
    np.add.at(values, where, answers["value"].fill_null(0.0).to_numpy().astype(np.float32))
    return LoggedSlates(
        session=requests["session"].to_numpy().astype(np.int64),
        items=items,
        responses=responses,
        values=values,
        propensities=propensities,
        behaviours_before=requests["before"].to_numpy().astype(np.int64),
    )
