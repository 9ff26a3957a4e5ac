"""The item table: from a table of its own, or from what each row of the log says of its item."""

from collections.abc import Mapping, Sequence

import polars as pl
import pyarrow as pa

from encoders.columns import ITEM_PRICE
from encoders.validity import text_of
from pipelines.artifacts import ArtifactError
from pipelines.ingest_files import LINE, BrokenRecordsError, LogFile, column_names, read_batches

COUNTS = {"item_id": pl.String, "column": pl.String, "value": pl.String, "n": pl.Int64}


def item_counts(valid: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """How often rows name each value of each item, from their ``text:COLUMN`` columns. Columns of ``COUNTS``."""
    frames = [pl.DataFrame(schema=COUNTS)]
    for column in columns:
        said = valid.select("item_id", text_of(f"text:{column}").alias("value")).drop_nulls()
        counted = said.group_by("item_id", "value").agg(pl.len().cast(pl.Int64).alias("n"))
        frames.append(counted.select("item_id", pl.lit(column).alias("column"), "value", "n"))
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


def read_items(
    files: Sequence[LogFile], mapping: Mapping[str, str], separator: str
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The item table as text, the first row of each item, and how many rows were left out, by reason.

    Args:
        files: Its files.
        mapping: Our column: the table's. Empty takes all of them by their own names.
        separator: Between the fields of CSV.

    Raises:
        ArtifactError: A column is missing, or a file cannot be read.
    """
    frames: list[pl.DataFrame] = []
    for file in files:
        with file.local() as path:
            names = column_names(file, path, separator) or []
            wanted = {"item_id": "item_id", **(mapping or {name: name for name in names})}
            missing = next((c for c in wanted.values() if c not in names), None)
            if missing is not None:
                raise ArtifactError(
                    f"paths.items: expected a column {missing!r} in {file.name}, found {', '.join(names) or 'none'}. "
                    "Map it, as ingest.item_table_columns.item_id=product_id."
                )
            columns = list(dict.fromkeys(wanted.values()))
            try:
                batches = list(read_batches(file, path, columns, separator, careful=False))
            except BrokenRecordsError:
                batches = list(read_batches(file, path, columns, separator, careful=True))
            named = [text_of(source).alias(ours) for ours, source in wanted.items()]
            frames += [batch.drop(LINE).select(named) for batch in batches]
    rows = pl.concat(frames, how="diagonal") if frames else pl.DataFrame(schema={"item_id": pl.String})
    given = rows.filter(pl.col("item_id").is_not_null())
    items = given.unique("item_id", keep="first", maintain_order=True)
    rejected = {"missing_item": rows.height - given.height, "duplicate": given.height - items.height}
    return items, {reason: n for reason, n in rejected.items() if n}


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
