"""Ingest's second pass: gather a shard of users, drop repeats, find sessions; and drop what is rare."""

from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from encoders.coded import encode
from encoders.columns import IMPRESSION
from encoders.repeats import mark_repeats
from encoders.sessionise import Sessions, sessionise
from encoders.validity import CODES, REASONS
from pipelines.ingest_base import read_base
from pipelines.ingest_parts import read_batch, read_ipc, write_ipc
from pipelines.ingest_plan import Plan, count_reasons, write_rejected

ORIGIN = ("file", "line")
RESPONSE_LACKS = ("position", "propensity")  # they tell of the slate, not of what followed
RARE = ("rare_item", "rare_user")


@dataclass(frozen=True)
class _Shard:
    """Rows of a shard's users."""

    rows: pl.DataFrame  # user and item are numbers; by user and time, equal ones in the order of the log
    names: pl.Series  # of the users, in order


def settle(plan: Plan, shard: int) -> dict[str, Any]:
    """Gather one shard's rows, drop repeats, find sessions.

    Returns:
        ``rejected`` {reason: n}, ``behaviours`` {name: n}, ``num_rows``, ``num_users`` and ``num_sessions``. Where
        rare items or users are to go, that is for ``suppress`` to say.
    """
    name = f"shard-{shard:05d}.json"
    if plan.parts.exists(name):
        return dict(plan.parts.read_json(name))
    gathered = _gather(plan, shard)
    rows = gathered.rows
    told = rows.drop(*ORIGIN, "known", "split", strict=False)
    reason = mark_repeats(told, plan.config.max_behaviours_per_minute, plan.behaviours.index(IMPRESSION))
    new = _new(rows)
    out = np.flatnonzero((reason > 0) & new)
    rejected = rows[out].select(*ORIGIN).with_columns(pl.Series("reason", reason[out]))
    write_rejected(plan, plan.name("rejected", shard).replace("piece", "shard"), rejected)
    kept = rows.filter(pl.Series((reason == 0) | ~new)) if len(out) else rows
    sessions = sessionise(
        kept["user"].to_numpy(),
        kept["timestamp"].to_numpy(),
        kept["given_session"] if "given_session" in kept.columns else None,
        gathered.names,
        plan.config.session_gap_s,
        kept["known"] if "known" in kept.columns else None,
    )
    report = _write(plan, shard, _Shard(kept, gathered.names), sessions, rejected["reason"], "settled")
    plan.parts.write_json(name, report)
    return report


def suppress(plan: Plan, shard: int) -> dict[str, Any]:
    """Drop a shard's rows of rare items, then its rare users. Returns what ``settle`` does."""
    name = f"common-{shard:05d}.json"
    if plan.parts.exists(name):
        return dict(plan.parts.read_json(name))
    settled = read_settled(plan, shard, "settled")
    rows = settled.rows
    rare = np.isin(rows["item"].to_numpy(), read_ipc(plan.parts, "rare.arrow")["item"].to_numpy())
    user = rows["user"].to_numpy()
    counts = np.bincount(user[~rare], minlength=len(settled.names))
    few = (counts < plan.config.min_user_behaviours)[user]
    reason = np.where(rare, CODES["rare_item"], np.where(few, CODES["rare_user"], 0)).astype(np.uint8)
    reason[~_new(rows)] = 0
    out = np.flatnonzero(reason)
    rejected = rows[out].select(*ORIGIN).with_columns(pl.Series("reason", reason[out]))
    write_rejected(plan, plan.name("rejected", shard).replace("piece", "rare"), rejected)
    keep = np.flatnonzero(reason == 0)
    shown = _Shard(rows[keep], settled.names)
    sessions = Sessions(
        settled.sessions.row[keep], settled.sessions.ids, settled.sessions.user, settled.sessions.start_us
    )
    before = plan.parts.read_json(f"shard-{shard:05d}.json")["rejected"]
    report = _write(plan, shard, shown, sessions, rejected["reason"], "common")
    report["rejected"] = {**before, **report["rejected"]}
    plan.parts.write_json(name, report)
    return report


@dataclass(frozen=True)
class Settled:
    """What ``settle`` or ``suppress`` leave of a shard."""

    rows: pl.DataFrame
    names: pl.Series
    sessions: Sessions
    split: pl.Series  # of each session, null where the time is yet to say


def read_settled(plan: Plan, shard: int, kind: str) -> Settled:
    """A shard as one of the two left it."""
    rows = read_ipc(plan.parts, f"{kind}-{shard:05d}.arrow")
    table = read_ipc(plan.parts, f"{kind}-sessions-{shard:05d}.arrow")
    sessions = Sessions(
        rows["session"].to_numpy(), table["id"], table["user"].to_numpy(), table["start"].to_numpy()
    )
    names = read_ipc(plan.parts, f"{kind}-users-{shard:05d}.arrow")["user_id"]
    return Settled(rows, names, sessions, table["split"])


def _new(rows: pl.DataFrame) -> NDArray[np.bool_]:
    """Rows that are not of the ingest that is added to. [n]"""
    if "known" not in rows.columns:
        return np.ones(rows.height, dtype=np.bool_)
    return rows["known"].is_null().to_numpy()


def _write(
    plan: Plan, shard: int, of: _Shard, sessions: Sessions, reasons: pl.Series, kind: str
) -> dict[str, Any]:
    """Leave a shard's rows for the next pass: by session and time. Returns the shard's report."""
    drop = ["given_session", *(() if _suppresses(plan) else ORIGIN), "session"]
    ordered = of.rows.drop(drop, strict=False).with_columns(pl.Series("session", sessions.row))
    if (np.diff(sessions.row) < 0).any():
        ordered = ordered[np.argsort(sessions.row, kind="stable")]
    write_ipc(plan.parts, f"{kind}-{shard:05d}.arrow", ordered)
    write_ipc(plan.parts, f"{kind}-users-{shard:05d}.arrow", of.names.rename("user_id").to_frame())
    is_new = _new(ordered)
    old = ordered.filter(pl.Series(~is_new))
    split = pl.repeat(None, len(sessions.ids), dtype=pl.String, eager=True)
    if "split" in old.columns:
        first = old.unique("session", keep="first", maintain_order=True)
        split = split.scatter(first["session"], first["split"])
    table = pl.DataFrame(
        {"id": sessions.ids, "user": sessions.user, "start": sessions.start_us, "split": split}
    )
    write_ipc(plan.parts, f"{kind}-sessions-{shard:05d}.arrow", table)
    new = ordered if is_new.all() else ordered.filter(pl.Series(is_new))
    fresh = _only(new["session"], old["session"], len(sessions.ids))
    write_ipc(
        plan.parts, f"{kind}-starts-{shard:05d}.arrow", pl.DataFrame({"start": sessions.start_us[fresh]})
    )
    pairs = ordered.select("item", "user").unique() if _suppresses(plan) else new.select("item")
    counts = np.bincount(pairs["item"].to_numpy())
    seen = pl.DataFrame({"item": np.flatnonzero(counts).astype(np.int32), "count": counts[counts > 0]})
    write_ipc(plan.parts, f"{kind}-seen-{shard:05d}.arrow", seen)
    return {
        "rejected": count_reasons(reasons),
        "behaviours": _behaviours(plan, new),
        "num_rows": new.height,
        "num_users": len(_only(new["user"], old["user"], len(of.names))),
        "num_sessions": len(fresh),
    }


def _only(numbers: pl.Series, others: pl.Series, count: int) -> NDArray[np.int64]:
    """Numbers below ``count`` that are among the first and not among the others, in order."""
    flags = np.zeros(count, dtype=np.bool_)
    flags[numbers.to_numpy()] = True
    flags[others.to_numpy()] = False
    return np.flatnonzero(flags)


def _suppresses(plan: Plan) -> bool:
    return plan.config.min_item_users > 1 or plan.config.min_user_behaviours > 1


def _behaviours(plan: Plan, rows: pl.DataFrame) -> dict[str, int]:
    counts = np.bincount(rows["behaviour"].to_numpy(), minlength=len(plan.behaviours))
    for bit, behaviour in enumerate(plan.also):
        counts[behaviour] += int((rows["also"].to_numpy() >> bit & 1).sum())
    return {name: int(counts[number]) for number, name in enumerate(plan.behaviours) if counts[number]}


def _gather(plan: Plan, shard: int) -> _Shard:
    batches = read_ipc(plan.parts, "batches.arrow")
    parts = [
        f"{piece:05d}-{batch:04d}.arrow" for piece, batch in batches.select("piece", "batch").iter_rows()
    ]
    found = [read_batch(plan.parts, f"rows-{part}", shard) for part in parts]
    users = [read_batch(plan.parts, f"users-{part}", shard) for part in parts]
    num_rows, num_users = (
        np.array([b.num_rows for b in listed], dtype=np.int64) for listed in (found, users)
    )
    if not num_rows.any():
        return _Shard(_no_rows(), pl.Series(dtype=pl.String))
    rows, names = _frame(found), _frame(users)["user_id"]
    first_user = (np.cumsum(num_users) - num_users).astype(np.int32)
    items = read_ipc(plan.parts, "remap.arrow")["item"].to_numpy()
    files = np.array([piece.file for piece in plan.pieces], dtype=np.int32)[batches["piece"].to_numpy()]
    rows = rows.with_columns(
        pl.Series("user", rows["user"].to_numpy() + np.repeat(first_user, num_rows)),
        pl.Series("item", items[rows["item"].to_numpy() + np.repeat(batches["start"].to_numpy(), num_rows)]),
        pl.Series("file", np.repeat(files, num_rows)),
    )
    if plan.base is not None:
        old = read_base(plan, shard, names.unique())
        rows = pl.concat([old.rows.with_columns(pl.col("user") + len(names)), rows], how="diagonal")
        names = pl.concat([names, old.names])
    return _by_user_and_time(rows.rechunk(), names)


def _frame(batches: list[pa.RecordBatch]) -> pl.DataFrame:
    """Record batches as one frame; where the files of a log have not all columns, those of some are null."""
    alike = [
        pa.Table.from_batches(list(same)) for _, same in groupby(batches, key=lambda batch: batch.schema)
    ]
    return pl.concat([pl.DataFrame(pl.from_arrow(table)) for table in alike], how="diagonal").rechunk()


def _by_user_and_time(rows: pl.DataFrame, names: pl.Series) -> _Shard:
    """Rows by user and time, equal ones in the order of the log; users numbered in the order of their names."""
    coded = encode(names)
    by_name = coded.values.arg_sort().to_numpy()
    rank = np.empty(len(by_name), dtype=np.int32)
    rank[by_name] = np.arange(len(by_name), dtype=np.int32)
    user, time = rank[coded.codes[rows["user"].to_numpy()]], rows["timestamp"].to_numpy()
    places = np.argsort(user.astype(np.uint16) if len(rank) < 1 << 16 else user, kind="stable")
    who, when = user[places], time[places]
    late = (when[1:] < when[:-1]) & (who[1:] == who[:-1])
    if late.any():  # a log is nearly always in the order of time: few users have rows to sort
        mixed = np.zeros(len(rank), dtype=np.bool_)
        mixed[who[1:][late]] = True
        theirs = np.flatnonzero(mixed[who])
        places[theirs] = places[theirs[np.lexsort((when[theirs], who[theirs]))]]
    return _Shard(rows.with_columns(pl.Series("user", user))[places], coded.values.gather(by_name))


def _no_rows() -> pl.DataFrame:
    return pl.DataFrame(
        schema={
            "user": pl.Int32,
            "item": pl.Int32,
            "behaviour": pl.UInt8,
            "timestamp": pl.Int64,
            "line": pl.Int64,
            "file": pl.Int32,
            "also": pl.UInt16,
        }
    )


assert set(RARE) <= set(REASONS)
