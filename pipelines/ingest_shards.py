"""Ingest's three passes over the data, each a Ray task over one file or one shard of users.

*Spread* reads a file, judges its rows and spreads the valid ones over the shards of users. *Settle* gathers a shard,
drops repeats and finds its sessions. *Finish* adds the split and writes the shard's Parquet. Every task writes its
output under a temporary name and renames it, its report last; a task whose report is there has nothing to do. All of
it is the same, byte for byte, for any number of workers.
"""

import hashlib
import hmac
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import ray

from encoders.columns import BEHAVIOUR_COLUMNS, OPTIONAL_COLUMNS, IngestConfig
from encoders.sessionise import label_splits, sessionise
from encoders.validity import SCHEMA, mark_repeats, read_behaviours
from pipelines.artifacts import ArtifactError, Folder
from pipelines.ingest_files import LINE, BrokenRecordsError, LogFile, column_names, read_batches
from pipelines.ingest_items import item_counts, sum_counts
from pipelines.ingest_parts import PartWriter, read_ipc, write_ipc

ORIGIN: dict[str, pl.DataType | type[pl.DataType]] = {"file": pl.Int32, "line": pl.Int64}
TASK = {"num_cpus": 1, "max_retries": 3, "runtime_env": {"env_vars": {"POLARS_MAX_THREADS": "1"}}}
OUTPUT = [c for c in SCHEMA if c != "given_session"]
SOURCES = BEHAVIOUR_COLUMNS + OPTIONAL_COLUMNS
BEHAVIOURS = pa.schema(
    {
        "user_id": pa.string(),
        "session_id": pa.string(),
        "item_id": pa.string(),
        "behaviour": pa.string(),
        "timestamp": pa.timestamp("us", "UTC"),
        "value": pa.float32(),
        "request_id": pa.string(),
        "position": pa.int16(),
        "propensity": pa.float64(),
        "policy_version": pa.string(),
        "split": pa.string(),
    }
)
REJECTED = pa.schema({"file": pa.string(), "line": pa.int64(), "reason": pa.string()})


@dataclass(frozen=True)
class Plan:
    """What all tasks of one ingest share. Raw user ids do not leave the spread pass where there is a key."""

    config: IngestConfig
    behaviours: tuple[str, ...]
    files: tuple[LogFile, ...]
    num_shards: int
    now_us: int
    key: bytes | None
    folder: Folder

    @property
    def parts(self) -> Folder:
        """Intermediate files; ingest deletes them."""
        return self.folder.folder("parts")


@ray.remote(**TASK)
def spread(plan: Plan, number: int) -> dict[str, Any]:
    """Spread one file's valid rows over the shards.

    Returns:
        ``rows_in``, ``rejected`` {reason: n}, ``strangers`` {word: n} (behaviours no task knows) and ``known``,
        whether a task's behaviour occurs at all.

    Raises:
        ValueError: A column is missing.
        ArtifactError: The file cannot be read.
    """
    name = f"file-{number:05d}"
    if plan.parts.exists(f"{name}.json"):
        return dict(plan.parts.read_json(f"{name}.json"))
    file = plan.files[number]
    with file.local() as path:
        names = column_names(file, path, plan.config.separator)
        if names is None:
            return {"rows_in": 0, "rejected": {}, "strangers": {}, "known": False}
        columns = _columns_to_read(plan.config, file, names)
        try:
            report = _spread_batches(plan, number, path, columns, careful=False)
        except BrokenRecordsError:
            report = _spread_batches(plan, number, path, columns, careful=True)
    plan.parts.write_json(f"{name}.json", report)
    return report


@ray.remote(**TASK)
def settle(plan: Plan, shard: int) -> dict[str, Any]:
    """Gather one shard's rows, drop repeats, find sessions.

    Returns:
        ``rejected`` {reason: n}, ``behaviours`` {name: n}, ``num_users`` and ``num_sessions``.
    """
    name = f"shard-{shard:05d}"
    if plan.parts.exists(f"{name}.json"):
        return dict(plan.parts.read_json(f"{name}.json"))
    rows = _sort_by_user_and_time(_gather(plan, shard))
    rows = mark_repeats(rows, plan.config.max_behaviours_per_minute)
    rejected = rows.filter(pl.col("reason").is_not_null())
    kept = sessionise(
        rows.filter(pl.col("reason").is_null()).drop("reason", *ORIGIN), plan.config.session_gap_s
    )
    _write_rejected(plan, name, [rejected.select(*ORIGIN, "reason")])
    write_ipc(
        plan.parts, f"sessions-{shard:05d}.arrow", [kept.select(*OUTPUT, "session_id", "session_start")]
    )
    starts = (
        kept.unique("session_id").select(pl.col("session_start").dt.timestamp("us")).sort("session_start")
    )
    write_ipc(plan.parts, f"starts-{shard:05d}.arrow", [starts])
    write_ipc(plan.parts, f"seen-{shard:05d}.arrow", [kept.select(pl.col("item_id").unique().sort())])
    report = {
        "rejected": _counts(rejected["reason"]),
        "behaviours": _counts(kept["behaviour"]),
        "num_users": kept["user_id"].n_unique(),
        "num_sessions": starts.height,
    }
    plan.parts.write_json(f"{name}.json", report)
    return report


@ray.remote(**TASK)
def finish(plan: Plan, shard: int, validation_from_us: int, test_from_us: int) -> dict[str, int]:
    """Write one shard of ``behaviours/`` with its splits. Returns the number of sessions of each split."""
    rows = read_ipc(plan.parts, f"sessions-{shard:05d}.arrow")
    rows = rows.with_columns(
        label_splits(pl.col("session_start"), validation_from_us, test_from_us).alias("split")
    )
    table = rows.select(BEHAVIOURS.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(BEHAVIOURS)
    plan.folder.write_table(f"behaviours/shard-{shard:05d}.parquet", table, plan.config.compression)
    return _counts(rows.unique("session_id")["split"])


def _columns_to_read(config: IngestConfig, file: LogFile, names: list[str]) -> list[str]:
    required, optional = config.required_sources(), config.optional_sources()
    missing = next((column for column in required if column not in names), None)
    if missing is not None:
        ours = next((c for c in SOURCES if config.source(c) == missing), None)
        place = f"ingest.columns.{ours}" if ours else "ingest"
        raise ArtifactError(
            f"{place}: expected a column {missing!r} in {file.name}, found {', '.join(names) or 'none'}. "
            f"Map it to one that is there, as ingest.columns.{ours or 'value'}={names[0] if names else 'NAME'}."
        )
    return [*required, *(c for c in optional if c not in required and c in names)]


def _spread_batches(
    plan: Plan, number: int, path: Path, columns: list[str], *, careful: bool
) -> dict[str, Any]:
    writer = PartWriter(plan.parts, f"file-{number:05d}.arrow")
    rows_in, rejected, texts = 0, [], []
    strangers: Counter[str] = Counter()
    known = False
    try:
        separator = plan.config.separator
        for rows in read_batches(plan.files[number], path, columns, separator, careful=careful):
            rows_in += rows.height
            judged = _judge(plan, number, rows)
            strangers.update(_counts(judged.filter(pl.col("reason") == "unknown_behaviour")["word"]))
            rejected.append(judged.filter(pl.col("reason").is_not_null()).select(*ORIGIN, "reason"))
            known |= judged["behaviour"].is_in(plan.behaviours).any()
            valid = judged.filter(pl.col("reason").is_null())
            texts.append(item_counts(valid, list(plan.config.item_columns)))
            for part in _by_shard(plan, valid):
                writer.write(part)
    except BaseException:
        writer.abandon()
        raise
    writer.publish()
    _write_rejected(plan, f"file-{number:05d}", rejected)
    if plan.config.item_columns and texts:
        write_ipc(plan.parts, f"texts-{number:05d}.arrow", [sum_counts(texts)])
    reasons = _counts(pl.concat(rejected)["reason"]) if rejected else {}
    words = dict(strangers.most_common(10))
    return {"rows_in": rows_in, "rejected": reasons, "strangers": words, "known": known}


def _judge(plan: Plan, number: int, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows in our columns with ``reason``, origin, the log's word for the behaviour, and item texts."""
    config, log = plan.config, rows.drop(LINE)
    judged = read_behaviours(log, config, plan.behaviours, plan.now_us)
    word = config.source("behaviour")
    extra = [
        rows[LINE].alias("line"),
        log[word].cast(pl.String).alias("word") if word in log.columns else None,
    ]
    texts = [
        log[source].cast(pl.String).alias(f"text:{ours}") for ours, source in config.item_columns.items()
    ]
    frame = judged.hstack([series for series in (*extra, *texts) if series is not None])
    if "word" not in frame.columns:
        frame = frame.with_columns(pl.lit("a row no rule matches").alias("word"))
    frame = frame.with_columns(pl.lit(number, pl.Int32).alias("file"))
    if plan.key is None:
        return frame
    return frame.with_columns(_pseudonyms(frame[c], plan.key) for c in ("user_id", "given_session"))


def _by_shard(plan: Plan, valid: pl.DataFrame) -> list[pl.DataFrame]:
    """One frame a shard, rows in order. The shard is a checksum of the user, the same on every machine."""
    columns = [*SCHEMA, *ORIGIN]
    shards = _per_distinct(
        valid["user_id"], lambda user: zlib.crc32(user.encode()) % plan.num_shards, pl.Int64
    )
    parts = valid.select(columns).with_columns(shards.alias("shard"))
    by_key = parts.partition_by("shard", as_dict=True, maintain_order=True, include_key=False)
    empty = valid.select(columns).clear()
    return [by_key.get((shard,), empty) for shard in range(plan.num_shards)]


def _pseudonyms(ids: pl.Series, key: bytes) -> pl.Series:
    return _per_distinct(
        ids, lambda raw: hmac.digest(key, raw.encode(), hashlib.sha256).hex()[:32], pl.String
    )


def _per_distinct(texts: pl.Series, function: Callable[[str], object], dtype: type[pl.DataType]) -> pl.Series:
    distinct = texts.drop_nulls().unique(maintain_order=True)
    values = pl.Series([function(text) for text in distinct], dtype=dtype)
    return texts.replace_strict(distinct, values, default=None, return_dtype=dtype)


def _gather(plan: Plan, shard: int) -> pl.DataFrame:
    frames = [pl.DataFrame(schema={**SCHEMA, **ORIGIN})]
    for number in range(len(plan.files)):
        name = f"file-{number:05d}.arrow"
        if plan.parts.exists(name):
            frames.append(read_ipc(plan.parts, name, every=plan.num_shards, first=shard))
    return pl.concat(frames)


def _sort_by_user_and_time(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows by user and time, equal ones in the order of the log. Sorting numbers is faster than sorting texts."""
    users = rows.select(pl.col("user_id").unique().sort()).with_row_index("rank")
    ranked = rows.join(users, on="user_id", how="left", maintain_order="left")
    return ranked.sort("rank", "timestamp", maintain_order=True).drop("rank")


def _write_rejected(plan: Plan, name: str, frames: list[pl.DataFrame]) -> None:
    rows = pl.concat([pl.DataFrame(schema=ORIGIN | {"reason": pl.String}), *frames])
    if rows.is_empty():
        return
    names = pl.Series([file.name for file in plan.files], dtype=pl.String)
    rows = rows.sort("file", "line").with_columns(
        names.gather(rows.sort("file", "line")["file"]).alias("file")
    )
    table = rows.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(REJECTED)
    plan.folder.write_table(f"rejected/{name}.parquet", table, plan.config.compression)


def _counts(words: pl.Series) -> dict[str, int]:
    counts = words.drop_nulls().value_counts().sort(words.name)
    return dict(counts.iter_rows())
