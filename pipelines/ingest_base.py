"""The rows of an earlier ingest that a new one adds to."""

import re
from dataclasses import dataclass

import polars as pl

from encoders.coded import encode
from encoders.validity import NUMBERS, TEXTS
from pipelines.ingest_parts import read_ipc
from pipelines.ingest_plan import Plan

KEY = ["user", "timestamp", "item", "request_id"]


@dataclass(frozen=True)
class BaseRows:
    """Rows of some users as the passes know them, with ``known`` (their session), ``given_session`` and ``split``."""

    rows: pl.DataFrame
    names: pl.Series


def shard_files(names: list[str]) -> dict[int, list[str]]:
    """Files of ``behaviours/`` by shard of users, the first ones before those that were added."""
    shards: dict[int, list[str]] = {}
    for name in sorted(names):
        found = re.search(r"shard-(\d+)(\.\d+)?\.parquet$", name)
        assert found is not None, name
        shards.setdefault(int(found[1]), []).append(name)
    return {shard: sorted(shards[shard], key=len) for shard in sorted(shards)}


def read_base(plan: Plan, shard: int, users: pl.Series) -> BaseRows:
    """What the run already holds of users."""
    assert plan.base is not None
    folder = plan.base.folder.folder("behaviours")
    frames = [
        pl.DataFrame(folder.read_table(name)).filter(pl.col("user_id").is_in(users.implode()))
        for name in shard_files(folder.files()).get(shard, [])
    ]
    rows = pl.concat(frames)
    coded = encode(rows["user_id"])
    items = read_ipc(plan.parts, "items.arrow")["item_id"]
    item_number = items.to_frame().with_row_index("item")
    given = (
        pl.col("session_id").str.splitn(":", 2).struct.field("field_1")
    )  # names have no bare colon before it
    behaviour = pl.col("behaviour").replace_strict(
        {name: number for number, name in enumerate(plan.behaviours)}, return_dtype=pl.UInt8
    )
    full = rows.join(item_number, on="item_id", how="left", maintain_order="left").select(
        pl.Series("user", coded.codes),
        pl.col("item").cast(pl.Int32),
        behaviour.alias("behaviour"),
        pl.col("timestamp").dt.timestamp("us"),
        pl.col("session_id").alias("known"),
        given.alias("given_session"),
        "split",
        *NUMBERS,
        *TEXTS,
    )
    return BaseRows(_with_also(plan, full) if plan.also else full, coded.values)


def _with_also(plan: Plan, rows: pl.DataFrame) -> pl.DataFrame:
    """Fold the behaviours that a row was besides its own back into it, as the log had them."""
    second = pl.col("behaviour").is_in(plan.also)
    bits = pl.sum_horizontal(
        [
            ((pl.col("behaviour") == code).any().cast(pl.UInt16) * (1 << bit))
            for bit, code in enumerate(plan.also)
        ]
    )
    folded = rows.filter(second).group_by(KEY).agg(bits.cast(pl.UInt16).alias("also"))
    first = rows.filter(~second).join(folded, on=KEY, how="left", nulls_equal=True, maintain_order="left")
    return first.with_columns(pl.col("also").fill_null(0))
