"""Ingest's last pass: the Parquet of a shard, with its splits."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from encoders.columns import IMPRESSION
from encoders.sessionise import SPLITS, split_numbers
from encoders.validity import NUMBERS, TEXTS
from pipelines.ingest_parts import read_ipc
from pipelines.ingest_plan import Plan
from pipelines.ingest_profile import Acts, published_acts, shard_profile
from pipelines.ingest_settle import RESPONSE_LACKS, Settled, read_settled

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
REPEATING = ["user_id", "session_id", "item_id", "behaviour", "policy_version", "split"]
PARQUET: dict[
    str, Any
] = {  # the schema is Parquet's own, so that readers find texts and not our dictionaries
    "use_dictionary": REPEATING,
    "column_encoding": {"timestamp": "DELTA_BINARY_PACKED"},
    "store_schema": False,
    "write_statistics": ["timestamp"],
}


def finish(plan: Plan, shard: int, kind: str, validation_from_us: int, test_from_us: int) -> dict[str, Any]:
    """Write one shard of ``behaviours/``. Returns ``sessions``, how many are new of each split, and ``profile``."""
    settled = read_settled(plan, shard, kind)
    by_time = split_numbers(settled.sessions.start_us, validation_from_us, test_from_us)
    numbers = {name: number for number, name in enumerate(SPLITS)}
    inherited = settled.split.replace_strict(numbers, return_dtype=pl.Int8)
    split = inherited.fill_null(pl.Series(by_time)).to_numpy()  # [S]
    rows = settled.rows
    if "known" in rows.columns:
        rows = rows.filter(pl.col("known").is_null())
    rows = _with_responses(plan, rows)
    if plan.base is None or rows.height:
        name = plan.name("behaviours", shard)
        plan.folder.write_table(name, _table(plan, rows, settled, split), plan.config.compression, **PARQUET)
    fresh = settled.split.is_null().to_numpy()
    shown = np.zeros(len(fresh), dtype=np.bool_)  # a session may have lost all its rows
    shown[rows["session"].to_numpy()] = True
    counts = np.bincount(split[fresh & shown], minlength=len(SPLITS))
    sessions = {name: int(counts[number]) for name, number in numbers.items()}
    acts = published_acts(plan, shard) if plan.base else _acts(rows)
    return {"sessions": sessions, "profile": shard_profile(plan, shard, acts)}


def _acts(rows: pl.DataFrame) -> Acts:
    columns = ("user", "session", "item", "behaviour", "timestamp")
    return Acts(*(rows[name].to_numpy().astype(np.int64) for name in columns))


def _with_responses(plan: Plan, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows with those that they are besides their own, each after its row."""
    if not plan.also:
        return rows
    frames = [rows.with_columns(pl.int_range(pl.len()).alias("row"))]
    shown = pl.col("behaviour") == plan.behaviours.index(IMPRESSION)
    for bit, behaviour in enumerate(plan.also):
        second = frames[0].filter(pl.col("also") // (1 << bit) % 2 == 1)
        lacks = [pl.when(~shown).then(c).alias(c) for c in RESPONSE_LACKS if c in rows.columns]
        frames.append(
            second.with_columns(*lacks).with_columns(pl.lit(behaviour, pl.UInt8).alias("behaviour"))
        )
    return pl.concat(frames).sort("row", maintain_order=True)


def _table(plan: Plan, rows: pl.DataFrame, settled: Settled, split: NDArray[np.int8]) -> pa.Table:
    session = rows["session"].to_numpy()
    items = read_ipc(plan.parts, "items.arrow")["item_id"]
    columns: dict[str, Any] = {
        "user_id": _dictionary(rows["user"].to_numpy(), settled.names),
        "session_id": _dictionary(session, settled.sessions.ids),
        "item_id": _dictionary(rows["item"].to_numpy(), items),
        "behaviour": _dictionary(rows["behaviour"].to_numpy(), pl.Series(plan.behaviours)),
        "timestamp": rows["timestamp"].cast(pl.Datetime("us", "UTC")).to_arrow(),
        "split": _dictionary(split[session], pl.Series(SPLITS)),
    }
    for name in (*NUMBERS, *TEXTS):
        if name in rows.columns:
            columns[name] = rows[name].to_arrow(compat_level=pl.CompatLevel.oldest())
        else:
            columns[name] = pa.nulls(rows.height, BEHAVIOURS.field(name).type)
    return pa.table({name: columns[name] for name in BEHAVIOURS.names})


def _dictionary(codes: NDArray[Any], names: pl.Series) -> pa.DictionaryArray:
    """A column of texts, whose dictionary holds those that occur and no other."""
    used = np.zeros(len(names), dtype=np.bool_)
    used[codes] = True
    numbers = codes.astype(np.int32, copy=False)
    if not used.all():
        names, numbers = names.filter(pl.Series(used)), (np.cumsum(used, dtype=np.int32) - 1)[codes]
    values = names.to_arrow(compat_level=pl.CompatLevel.oldest())
    return pa.DictionaryArray.from_arrays(pl.Series(numbers).to_arrow(), values.cast(pa.string()))
