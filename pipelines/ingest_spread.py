"""Ingest's first pass: read a piece of the log, judge its rows, spread the valid ones over shards of users.

A task writes its output under temporary names and renames it, its report last; a task whose report is there has
nothing to do.
"""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import polars_hash as plh
from numpy.typing import NDArray

from encoders.coded import Coded
from encoders.columns import (
    BEHAVIOUR_COLUMNS,
    IMPRESSION,
    LINE_COLUMN,
    OPTIONAL_COLUMNS,
    IngestConfig,
    in_file,
)
from encoders.validity import CODES, REASONS, Judged, judge
from pipelines.artifacts import ArtifactError
from pipelines.ingest_files import LogFile
from pipelines.ingest_items import item_counts, sum_counts
from pipelines.ingest_parts import PartWriter, record_batch, write_ipc
from pipelines.ingest_plan import Plan, pseudonyms, write_rejected
from pipelines.ingest_read import LINE, column_names, made_columns, read_piece, with_lines

SOURCES = BEHAVIOUR_COLUMNS + OPTIONAL_COLUMNS
STRANGERS_SHOWN = 10


@dataclass
class _Report:
    """What a piece had."""

    rows_in: int = 0
    batches: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    strangers: Counter[str] = field(default_factory=Counter)  # behaviours no task knows
    known: bool = False  # whether a task's behaviour occurs at all

    def as_json(self) -> dict[str, Any]:
        return {
            "rows_in": self.rows_in,
            "batches": self.batches,
            "rejected": {reason: self.rejected[reason] for reason in REASONS if self.rejected[reason]},
            "strangers": dict(self.strangers.most_common(STRANGERS_SHOWN)),
            "known": self.known,
        }


def spread(plan: Plan, number: int) -> dict[str, Any]:
    """Spread one piece's valid rows over the shards.

    Returns:
        ``rows_in``, ``batches``, ``rejected`` {reason: n}, ``strangers`` {word: n} and ``known``.

    Raises:
        ArtifactError: A column is missing, or the file cannot be read.
    """
    name = f"piece-{number:05d}.json"
    if plan.parts.exists(name):
        return dict(plan.parts.read_json(name))
    piece = plan.pieces[number]
    file = plan.files[piece.file]
    table, entries = plan.config.format, plan.config.entries
    report = _Report()
    names = column_names(file, table)
    if names is not None:
        columns, lines = columns_to_read(plan.config, file, names)
        for rows in read_piece(file, piece, table, columns, entries):
            _spread_batch(plan, number, with_lines(rows, file) if lines else rows, report)
    plan.parts.write_json(name, report.as_json())
    return report.as_json()


def columns_to_read(config: IngestConfig, file: LogFile, names: list[str]) -> tuple[list[str], bool]:
    """The file's columns that the mapping names, and whether it asks for the line as well.

    Raises:
        ArtifactError: One of them is missing.
    """
    made = made_columns(config.entries)
    required = in_file(config.required_sources(), config.entries, made)
    missing = next((column for column in required if column not in names), None)
    if missing is not None:
        ours = next((c for c in SOURCES if missing in config.sources(c)), None)
        place = f"ingest.columns.{ours}" if ours else "ingest"
        raise ArtifactError(
            f"{place}: expected a column {missing!r} in {file.name}, found {', '.join(names) or 'none'}. "
            f"Map it to one that is there, as ingest.columns.{ours or 'value'}={names[0] if names else 'NAME'}."
        )
    optional = [c for c in config.optional_sources() if c not in required and c not in made and c in names]
    return [*required, *optional], LINE_COLUMN in config.required_sources()


def _spread_batch(plan: Plan, number: int, rows: pl.DataFrame, report: _Report) -> None:
    judged = judge(rows.drop(LINE), plan.config, plan.behaviours, plan.now_us)
    users = Coded(judged.users.codes, _names(plan, judged.users.values))
    reason = _mark_forgotten(plan, users, judged.reason)
    lines = rows[LINE].to_numpy()
    bad = np.flatnonzero(reason)
    rejected = pl.DataFrame({"line": lines[bad], "reason": reason[bad]}).with_columns(
        pl.lit(plan.pieces[number].file).alias("file")
    )
    name = f"{number:05d}-{report.batches:04d}"
    write_rejected(
        plan, plan.name("rejected", number).replace(".parquet", f"-{report.batches:04d}.parquet"), rejected
    )
    good = np.flatnonzero(reason == 0)
    _write_rows(plan, name, judged, users, good, lines)
    if plan.config.item_columns:
        _write_texts(plan, name, judged, rows, good)
    report.rows_in += rows.height
    report.batches += 1
    counts = np.bincount(reason, minlength=len(REASONS) + 1)
    report.rejected.update({r: int(counts[code]) for r, code in CODES.items() if counts[code]})
    acts = (judged.behaviour >= 0) & (judged.behaviour != plan.behaviours.index(IMPRESSION))
    report.known |= bool(acts.any() or judged.also.any())
    strange = np.flatnonzero(reason == CODES["unknown_behaviour"])
    report.strangers.update(_words(judged, strange))


def _names(plan: Plan, ids: pl.Series) -> pl.Series:
    """The ids as they are written."""
    return ids if plan.key is None else pseudonyms(ids, plan.key)


def _mark_forgotten(plan: Plan, users: Coded, reason: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if not plan.forgotten:
        return reason
    gone = users.flags(users.values.is_in(sorted(plan.forgotten)))
    return np.where((reason == 0) & gone, np.uint8(CODES["forgotten"]), reason)


def _write_rows(
    plan: Plan, name: str, judged: Judged, users: Coded, good: NDArray[np.int64], lines: NDArray[np.int64]
) -> None:
    """Rows, and the names of their users, as one record batch a shard each; the items' names beside them."""
    shard_of_user = _shards(users.values, plan.num_shards)
    user_order = np.argsort(shard_of_user, kind="stable")
    user_starts = np.searchsorted(shard_of_user[user_order], np.arange(plan.num_shards + 1))
    rank = np.empty(len(user_order), dtype=np.int32)
    rank[user_order] = np.arange(len(user_order)) - user_starts[shard_of_user[user_order]]
    codes = users.codes[good]
    shard = shard_of_user[codes]
    order = good[np.argsort(shard, kind="stable")]  # [valid], by shard, rows in the order of the log
    starts = np.append(0, np.cumsum(np.bincount(shard, minlength=plan.num_shards)))
    columns: dict[str, Any] = {
        "user": rank[users.codes[order]],
        "item": judged.items.codes[order],
        "behaviour": judged.behaviour[order].astype(np.uint8),
        "timestamp": judged.timestamp[order],
        "line": lines[order],
    }
    if plan.config.also:
        columns["also"] = judged.also[order]
    if judged.sessions is not None:
        given = Coded(judged.sessions.codes[order], _names(plan, judged.sessions.values))
        columns["given_session"] = given.spread(given.values)
    columns |= {c.name: c.gather(order) for c in judged.others}
    _write_batches(plan, f"rows-{name}.arrow", pl.DataFrame(columns), starts)
    names = pl.DataFrame({"user_id": users.values.gather(user_order)})
    _write_batches(plan, f"users-{name}.arrow", names, user_starts)
    write_ipc(plan.parts, f"items-{name}.arrow", judged.items.values.rename("item_id").to_frame())


def _shards(users: pl.Series, count: int) -> NDArray[np.uint16]:
    """The shard of each user, the same in all ingests of a run (``SHARDING`` in ``ingest_work``). [U]"""
    hashed = users.to_frame("id").select(plh.col("id").nchash.xxhash64())["id"].to_numpy()
    return (hashed % count).astype(np.uint16)


def _write_batches(plan: Plan, name: str, rows: pl.DataFrame, starts: NDArray[np.int64]) -> None:
    batch = record_batch(rows)
    with PartWriter(plan.parts, name) as writer:
        for start, stop in pairwise(starts.tolist()):
            writer.write(batch.slice(start, stop - start))


def _write_texts(plan: Plan, name: str, judged: Judged, rows: pl.DataFrame, good: NDArray[np.int64]) -> None:
    said = {
        f"text:{ours}": rows[source].cast(pl.String).gather(good)
        for ours, source in plan.config.item_columns.items()
    }
    items = judged.items.values.gather(judged.items.codes[good])
    counts = item_counts(pl.DataFrame({"item_id": items, **said}), list(plan.config.item_columns))
    write_ipc(plan.parts, f"texts-{name}.arrow", sum_counts([counts]))


def _words(judged: Judged, rows: NDArray[np.int64]) -> dict[str, int]:
    if len(rows) == 0:
        return {}
    if judged.words is None:
        return {"a row no rule matches": len(rows)}
    words, counts = np.unique(judged.words.codes[rows], return_counts=True)
    return {judged.words.values[int(w)]: int(n) for w, n in zip(words, counts, strict=True) if w >= 0}
