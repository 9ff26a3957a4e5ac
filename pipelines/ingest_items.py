"""The items: their numbers in the passes, which are rare, and the item table."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from encoders.coded import cleaned
from encoders.columns import ITEM_PRICE, Format, IngestConfig, ItemProperties
from pipelines.artifacts import ArtifactError
from pipelines.ingest_files import LogFile, cut, find_files, survey
from pipelines.ingest_parts import read_ipc, write_ipc
from pipelines.ingest_plan import Plan
from pipelines.ingest_read import column_names, read_piece

if TYPE_CHECKING:  # the workers need none of what all stages' settings import
    from pipelines.config import Config

COUNTS = {"item_id": pl.String, "column": pl.String, "value": pl.String, "n": pl.Int64}
TABLE = "items.parquet"
MANY = 1_000_000  # names that are held before repeats are dropped
Batches = Sequence[tuple[int, int]]  # piece, and its batch


def number_items(plan: Plan, batches: Batches) -> None:
    """Number all items of the log in the order of their ids, and say for each batch what its numbers become.

    Of ``remap.arrow``, a batch has the rows that begin at its ``start`` in ``batches.arrow``.
    """
    names, distinct = pl.Series("item_id", dtype=pl.String), MANY
    if plan.base is not None:
        names = pl.Series(plan.base.folder.read_table(TABLE, columns=["item_id"])["item_id"])
    for part in batches:
        names = names.append(read_ipc(plan.parts, _name("items", part))["item_id"])
        if len(names) > 2 * distinct:  # so that repeats take no more room than the items
            names, distinct = (known := names.unique()), max(len(known), MANY)
    numbered = (
        names.unique()
        .sort()
        .rename("item_id")
        .to_frame()
        .with_row_index("item")
        .with_columns(pl.col("item").cast(pl.Int32))
    )
    write_ipc(plan.parts, "items.arrow", numbered.select("item_id"))
    remaps = [
        read_ipc(plan.parts, _name("items", part)).join(
            numbered, on="item_id", how="left", maintain_order="left"
        )["item"]
        for part in batches
    ]
    sizes = np.array([len(remap) for remap in remaps], dtype=np.int64)
    listed = pl.DataFrame(batches, schema={"piece": pl.Int32, "batch": pl.Int32}, orient="row")
    listed = listed.with_columns(pl.Series("start", np.cumsum(sizes) - sizes, dtype=pl.Int64))
    write_ipc(plan.parts, "batches.arrow", listed)
    write_ipc(plan.parts, "remap.arrow", pl.concat([numbered["item"][:0], *remaps]).to_frame())


def write_rare(plan: Plan) -> None:
    """Say for all shards which items too few users acted on."""
    shards = range(plan.num_shards)
    seen = pl.concat([read_ipc(plan.parts, f"settled-seen-{n:05d}.arrow") for n in shards])
    users = seen.group_by("item").agg(pl.col("count").sum())
    rare = users.filter(pl.col("count") < plan.config.min_item_users).select("item").sort("item")
    write_ipc(plan.parts, "rare.arrow", rare)


def write_items(plan: Plan, config: "Config", batches: Batches, kind: str) -> tuple[pa.Table, dict[str, int]]:
    """Write the item table. Returns it, and how many rows of ``paths.items`` were left out, by reason."""
    names = read_ipc(plan.parts, "items.arrow")["item_id"]
    codes = [read_ipc(plan.parts, f"{kind}-seen-{n:05d}.arrow")["item"] for n in range(plan.num_shards)]
    seen = names.gather(pl.concat(codes).unique().sort())
    rejected: dict[str, int] = {}
    if config.paths.items is not None:
        files = find_files(config.paths.items, "paths.items", plan.config.table_format())
        items, rejected = read_items(files, plan.config)
    else:
        counts = sum_counts(
            [read_ipc(plan.parts, _name("texts", part)) for part in batches if plan.config.item_columns]
        )
        known = counts.filter(pl.col("item_id").is_in(seen.implode()))
        items = items_from_counts(known, list(plan.config.item_columns))
    before = None
    if plan.base is not None:
        before = plan.base.folder.read_table(TABLE)
        items = items.filter(~pl.col("item_id").is_in(pl.Series(before["item_id"]).implode()))
        seen = seen.filter(~seen.is_in(pl.Series(before["item_id"]).implode()))
    table = finish_items(items, seen)
    if before is not None:
        table = pa.concat_tables([before, table.select(before.column_names)])
    plan.folder.write_table(TABLE, table, plan.config.compression)
    return table, rejected


def item_counts(valid: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """How often rows name each value of each item, from their ``text:COLUMN`` columns. Columns of ``COUNTS``."""
    frames = [pl.DataFrame(schema=COUNTS)]
    for column in columns:
        said = valid.group_by("item_id", pl.col(f"text:{column}").alias("value")).agg(
            pl.len().cast(pl.Int64).alias("n")
        )
        said = said.with_columns(cleaned(said["value"]).alias("value")).drop_nulls()
        frames.append(said.select("item_id", pl.lit(column).alias("column"), "value", "n"))
    return pl.concat(frames)


def sum_counts(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Counts of several batches or files added up, in a fixed order."""
    counts = pl.concat([pl.DataFrame(schema=COUNTS), *frames]).group_by("item_id", "column", "value")
    return counts.agg(pl.col("n").sum()).sort("item_id", "column", "value")


def items_from_counts(counts: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """One row an item: the most frequent value of each column, the first in text order where several are.

    Returns:
        ``item_id`` and ``columns`` as text, null where no row says anything.
    """
    best = counts.sort("item_id", "column", pl.col("n").neg(), "value").unique(
        ["item_id", "column"], keep="first", maintain_order=True
    )
    items = best.select(pl.col("item_id").unique(maintain_order=True))
    for column in columns:
        value = best.filter(pl.col("column") == column).select("item_id", pl.col("value").alias(column))
        items = items.join(value, on="item_id", how="left", maintain_order="left")
    return items


def read_items(files: Sequence[LogFile], config: IngestConfig) -> tuple[pl.DataFrame, dict[str, int]]:
    """The item table as text, the first row of each item, and how many rows were left out, by reason.

    Args:
        files: Its files.
        config: The mapping. ``item_table_columns`` empty takes all columns by their own names.

    Raises:
        ArtifactError: A column is missing, or a file cannot be read.
    """
    table, mapping, long = config.table_format(), config.item_table_columns, config.item_properties
    source = mapping.get("item_id", "item_id")
    frames = [pl.DataFrame(schema={"item_id": pl.String})]
    for file in files:
        names = column_names(file, table) or []
        if long is not None:
            wanted = {"item_id": source, "property": long.name, "value": long.value}
            wanted |= {"time": long.time} if long.time else {}
        else:
            wanted = {"item_id": source, **(mapping or {name: name for name in names})}
        frames += _read_table(file, table, names, wanted)
    rows = pl.concat(frames, how="diagonal")
    given = rows.filter(pl.col("item_id").is_not_null())
    if long is not None:
        items = _pivot(given, long, {ours: name for ours, name in mapping.items() if ours != "item_id"})
        rejected = {"missing_item": rows.height - given.height}
    else:
        items = given.unique("item_id", keep="first", maintain_order=True)
        rejected = {"missing_item": rows.height - given.height, "duplicate": given.height - items.height}
    return items, {reason: n for reason, n in rejected.items() if n}


def _read_table(
    file: LogFile, table: Format, names: list[str], wanted: Mapping[str, str]
) -> list[pl.DataFrame]:
    missing = next((c for c in wanted.values() if c not in names), None)
    if missing is not None:
        raise ArtifactError(
            f"paths.items: expected a column {missing!r} in {file.name}, found {', '.join(names) or 'none'}. "
            "Map it, as ingest.item_table_columns.item_id=product_id."
        )
    columns = list(dict.fromkeys(wanted.values()))
    frames = []
    for piece in cut([file], survey([file]), table):
        for rows in read_piece(file, piece, table, columns):
            texts = {ours: cleaned(rows[source].cast(pl.String)) for ours, source in wanted.items()}
            frames.append(pl.DataFrame([series.rename(ours) for ours, series in texts.items()]))
    return frames


def _pivot(rows: pl.DataFrame, long: ItemProperties, mapping: Mapping[str, str]) -> pl.DataFrame:
    """One row an item from one row a property: the latest value, of equal times the last in the files."""
    if long.time is not None:
        time = pl.col("time").cast(pl.Float64, strict=False)
        rows = rows.sort(time, nulls_last=False, maintain_order=True)
    latest = rows.unique(["item_id", "property"], keep="last", maintain_order=True)
    items = rows.select("item_id").unique(maintain_order=True)
    for ours, name in (
        mapping or {name: name for name in latest["property"].unique().drop_nulls().sort()}
    ).items():
        values = latest.filter(pl.col("property") == name).select("item_id", pl.col("value").alias(ours))
        items = items.join(values, on="item_id", how="left", maintain_order="left")
    return items


def finish_items(items: pl.DataFrame, seen: pl.Series) -> pa.Table:
    """The item table as it is published: sorted, and with a row for every item of the behaviours.

    Args:
        items: ``item_id`` and text columns, an item once.
        seen: Items of the kept behaviours.

    Returns:
        ``item_id``, text columns, then ``price`` float32 where there is one. The row number is the item's index.
    """
    others = (
        seen.unique()
        .rename("item_id")
        .to_frame()
        .filter(~pl.col("item_id").is_in(items["item_id"].implode()))
    )
    full = pl.concat([items, others], how="diagonal").sort("item_id")
    texts = [c for c in full.columns if c not in ("item_id", ITEM_PRICE)]
    fields = [("item_id", pa.string()), *((c, pa.string()) for c in texts)]
    if ITEM_PRICE in full.columns:
        price = pl.col(ITEM_PRICE).cast(pl.Float64, strict=False).cast(pl.Float32)
        full = full.with_columns(pl.when(price.is_finite()).then(price).alias(ITEM_PRICE))
        fields.append((ITEM_PRICE, pa.float32()))
    columns = [name for name, _ in fields]
    return full.select(columns).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.schema(fields))


def _name(kind: str, part: tuple[int, int]) -> str:
    return f"{kind}-{part[0]:05d}-{part[1]:04d}.arrow"
