"""What all tasks of one ingest share, and how their intermediate rows look."""

from dataclasses import dataclass
from functools import cached_property

import polars as pl
import polars_hash as plh
import pyarrow as pa

from encoders.columns import IngestConfig
from encoders.validity import REASONS
from pipelines.artifacts import Folder
from pipelines.ingest_files import LogFile, Piece

REJECTED = pa.schema({"file": pa.string(), "line": pa.int64(), "reason": pa.string()})


@dataclass(frozen=True)
class Base:
    """A finished ingest that this one adds to."""

    folder: Folder
    generation: int  # how many times it has been added to, this time included
    num_shards: int
    validation_from_us: int
    test_from_us: int


@dataclass(frozen=True)
class Plan:
    """The work. Where there is a key, raw user ids do not leave the memory of the tasks that read the log."""

    config: IngestConfig
    behaviours: tuple[str, ...]  # known ones, impressions last
    files: tuple[LogFile, ...]
    pieces: tuple[Piece, ...]
    num_shards: int
    now_us: int
    key: bytes | None
    forgotten: frozenset[str]  # ids as they are written
    folder: Folder
    base: Base | None = None

    @property
    def parts(self) -> Folder:
        """Intermediate files; ingest deletes them."""
        return self.folder.folder("parts")

    @cached_property
    def also(self) -> tuple[int, ...]:
        """Index of the behaviour that each bit of ``also`` stands for."""
        return tuple(self.behaviours.index(rule.behaviour) for rule in self.config.also)

    def name(self, kind: str, number: int) -> str:
        """Name of an output file; those of an added generation lie beside the first ones."""
        added = f".{self.base.generation:04d}" if self.base else ""
        return f"{kind}/{'shard' if kind == 'behaviours' else 'piece'}-{number:05d}{added}.parquet"


def pseudonyms(ids: pl.Series, key: bytes) -> pl.Series:
    """The first 32 hexadecimal digits of the HMAC-SHA256 of each id, an id and the key being UTF-8."""
    digest = plh.col("id").chash.hmac_sha256(key=key.decode())
    return ids.to_frame("id").select(digest.str.head(32))["id"]


def write_rejected(plan: Plan, name: str, rows: pl.DataFrame) -> None:
    """Write rejected rows, columns ``file`` and ``reason`` (numbers) and ``line``, in the order of the log."""
    if rows.is_empty():
        return
    names = pl.Series([file.name for file in plan.files], dtype=pl.String)
    reasons = pl.Series(["", *REASONS])
    ordered = rows.sort("file", "line", maintain_order=True)
    table = pa.table(
        {
            "file": pa.DictionaryArray.from_arrays(
                ordered["file"].cast(pl.Int32).to_arrow(), names.to_arrow()
            ),
            "line": ordered["line"].cast(pl.Int64).to_arrow(),
            "reason": pa.DictionaryArray.from_arrays(
                ordered["reason"].cast(pl.Int32).to_arrow(), reasons.to_arrow()
            ),
        }
    )
    plan.folder.write_table(name, table.cast(REJECTED), plan.config.compression)


def count_reasons(codes: pl.Series) -> dict[str, int]:
    """Rows by reason, in the order of the reasons; rows without one are left out."""
    counts = dict(codes.value_counts().iter_rows())
    return {reason: counts[number] for number, reason in enumerate(REASONS, start=1) if counts.get(number)}
