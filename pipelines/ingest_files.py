"""Finding a log's files, and reading them as batches of text rows."""

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path
from typing import IO

import polars as pl
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipelines.artifacts import ArtifactError, open_filesystem

SUFFIXES = {  # suffix: (format, bytes a row has, about)
    ".csv": ("csv", 100),
    ".csv.gz": ("csv", 20),
    ".jsonl": ("jsonl", 160),
    ".jsonl.gz": ("jsonl", 25),
    ".ndjson": ("jsonl", 160),
    ".parquet": ("parquet", 15),
}
BATCH_ROWS = 200_000
LINE = "__line__"
LONGEST_RECORD = 50  # lines of a quoted CSV record; past that the quote is taken for a stray one


class BrokenRecordsError(ValueError):
    """A CSV file has records that are none: to be read again, carefully."""


@dataclass(frozen=True)
class LogFile:
    """One file of a log; ``name`` is its path below the log's folder, for messages and for rejected rows."""

    filesystem: pafs.FileSystem
    path: str
    name: str
    size: int

    @property
    def suffix(self) -> str:
        """Its known suffix."""
        return next(s for s in sorted(SUFFIXES, key=len, reverse=True) if self.name.lower().endswith(s))

    @property
    def format(self) -> str:
        """csv, jsonl or parquet."""
        return SUFFIXES[self.suffix][0]

    @contextmanager
    def local(self) -> Iterator[Path]:
        """A path on this machine; a file from elsewhere is copied to a temporary one first."""
        if isinstance(self.filesystem, pafs.LocalFileSystem):
            yield Path(self.path)
            return
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / ("file" + self.suffix)
            pafs.copy_files(self.path, str(target), self.filesystem, pafs.LocalFileSystem())
            yield target


def find_files(where: str, setting: str) -> list[LogFile]:
    """Files at a path, below a folder or at a glob, in name order. ``**`` in a glob crosses folders.

    Args:
        where: Local path or URI.
        setting: The config key it came from, for messages.

    Raises:
        ArtifactError: There is none, or a file is of no known format.
    """
    fixed, pattern = _split_glob(where)
    filesystem, path = open_filesystem(fixed)
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        raise ArtifactError(f"{setting}: expected a file, a folder or a glob, found nothing at {where}.")
    if info.type == pafs.FileType.File:
        found = [LogFile(filesystem, path, info.base_name, info.size)]
    else:
        selector = pafs.FileSelector(path, recursive=True)
        infos = [i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File]
        cut = len(path.rstrip("/")) + 1
        files = [LogFile(filesystem, i.path, i.path[cut:], i.size) for i in infos]
        files = [f for f in files if not any(part[0] in "._" for part in f.name.split("/"))]
        found = [f for f in files if pattern is None or _matches(f.name.split("/"), pattern.split("/"))]
    known = tuple(SUFFIXES)
    if not found:
        raise ArtifactError(f"{setting}: expected files ({', '.join(known)}), found none at {where}.")
    strange = next((f.name for f in found if not f.name.lower().endswith(known)), None)
    if strange is not None:
        raise ArtifactError(
            f"{setting}: expected files that end in {', '.join(known)}, found {strange}. "
            "Rename it, or choose the others by a glob such as 'log/*.csv'."
        )
    return sorted(found, key=lambda file: file.name)


def column_names(file: LogFile, path: Path, separator: str) -> list[str] | None:
    """Columns a file has; of JSON Lines, the keys of its first thousand lines. None for an empty file.

    Raises:
        ArtifactError: The file cannot be read.
    """
    try:
        if file.format == "parquet":
            return list(pq.read_schema(path).names)
        if file.format == "jsonl":
            return _json_keys(path)
        with _open_text(path) as stream:
            header = stream.readline()
    except (OSError, EOFError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error
    return next(csv.reader([header.strip("\r\n")], delimiter=separator), []) if header else None


def read_batches(
    file: LogFile, path: Path, columns: list[str], separator: str, *, careful: bool
) -> Iterator[pl.DataFrame]:
    """The named columns as text (times of Parquet keep their type), with the file's line of each row.

    A row that cannot be read is null in every column. A quoted CSV record that spans lines counts as one, unless
    the file has broken records, whose lines are then counted one by one.

    Args:
        file: The file.
        path: Where it lies on this machine.
        columns: Columns that a CSV or Parquet file must have.
        separator: Between the fields of CSV.
        careful: Read CSV record by record, which is slow and survives broken ones.

    Yields:
        Frames of at most about ``BATCH_ROWS`` rows: ``LINE`` int64 and then ``columns``.

    Raises:
        BrokenRecordsError: A CSV file has broken records, and ``careful`` is false.
        ArtifactError: The file as a whole cannot be read.
    """
    try:
        if file.format == "parquet":
            yield from _parquet_batches(path, columns)
        elif file.format == "jsonl":
            yield from _record_batches(_json_records(path, columns), columns)
        else:
            yield from _csv_batches(path, columns, separator, careful)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise _unreadable(file, error) from error


def _csv_batches(path: Path, columns: list[str], separator: str, careful: bool) -> Iterator[pl.DataFrame]:
    if careful:
        yield from _record_batches(_csv_records(path, columns, separator), columns)
        return
    scan = pl.scan_csv(path, infer_schema=False, separator=separator, row_index_name=LINE, row_index_offset=2)
    names = [pl.col(LINE).cast(pl.Int64), *(pl.col(c) for c in columns)]
    try:
        yield from scan.select(names).collect_batches(chunk_size=BATCH_ROWS, engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise BrokenRecordsError(str(error)) from error


def _csv_records(path: Path, columns: list[str], separator: str) -> Iterator[tuple[int, list[str | None]]]:
    """Line number and fields of each CSV record; all None where a record is broken."""
    blank: list[str | None] = [None] * len(columns)
    with _open_text(path) as stream:
        header = next(csv.reader([stream.readline()], delimiter=separator), [])
        chosen = [header.index(c) for c in columns]
        lines = enumerate(stream, start=2)
        waiting: list[tuple[int, str]] = []
        while entry := (waiting.pop(0) if waiting else next(lines, None)):
            record, ahead = entry[1], list(waiting)
            while record.count('"') % 2 and len(ahead) < LONGEST_RECORD and (more := next(lines, None)):
                ahead.append(more)
            taken = 0
            while record.count('"') % 2 and taken < len(ahead):
                record += ahead[taken][1]
                taken += 1
            fields = _csv_fields(record, separator, len(header))
            waiting = ahead[taken:] if fields is not None else ahead
            yield entry[0], ([fields[i] or None for i in chosen] if fields is not None else blank)


def _csv_fields(record: str, separator: str, width: int) -> list[str] | None:
    """Fields of one record, empty ones appended up to the width; None where it is broken."""
    if record.encode("utf-8", "surrogateescape").decode("utf-8", "ignore") != record:
        return None
    try:
        rows = list(csv.reader(io.StringIO(record, newline=""), delimiter=separator, strict=True))
    except csv.Error:
        return None
    if len(rows) != 1 or len(rows[0]) > width:
        return None if rows and rows[0] else [""] * width
    return rows[0] + [""] * (width - len(rows[0]))


def _json_records(path: Path, columns: list[str]) -> Iterator[tuple[int, list[str | None]]]:
    """Line number and values of each line that is not empty; all None where it is no JSON object."""
    with _open_text(path) as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                content = json.loads(line.encode("utf-8", "surrogateescape"))
            except (ValueError, RecursionError):
                content = None
            known = content if isinstance(content, dict) else {}
            yield number, [_json_text(known.get(column)) for column in columns]


def _json_keys(path: Path) -> list[str] | None:
    keys: dict[str, None] = {}
    empty = True
    with _open_text(path) as stream:
        for line in filter(str.strip, islice(stream, 1000)):
            empty = False
            with suppress(ValueError, RecursionError):
                content = json.loads(line)
                keys.update(dict.fromkeys(content) if isinstance(content, dict) else {})
    return None if empty else list(keys)


def _json_text(value: object) -> str | None:
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate is no text


def _parquet_batches(path: Path, columns: list[str]) -> Iterator[pl.DataFrame]:
    line = 1
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
            frame = pl.from_arrow(pa.Table.from_batches([batch]))
            assert isinstance(frame, pl.DataFrame)
            kept = [c if t.is_temporal() else pl.col(c).cast(pl.String) for c, t in frame.schema.items()]
            numbers = pl.int_range(line, line + frame.height, dtype=pl.Int64).alias(LINE)
            yield frame.select(kept).select(numbers, *columns)
            line += frame.height


def _record_batches(
    records: Iterator[tuple[int, list[str | None]]], columns: list[str]
) -> Iterator[pl.DataFrame]:
    schema = {LINE: pl.Int64, **dict.fromkeys(columns, pl.String)}
    while batch := [(number, *fields) for number, fields in islice(records, BATCH_ROWS)]:
        yield pl.DataFrame(batch, schema=schema, orient="row")


def _open_bytes(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _open_text(path: Path) -> io.TextIOWrapper:
    return io.TextIOWrapper(_open_bytes(path), encoding="utf-8-sig", errors="surrogateescape", newline="\n")


def _split_glob(where: str) -> tuple[str, str | None]:
    """The folder before the first part with a wildcard, and the pattern from there on."""
    if not any(c in where for c in "*?[") or ("://" not in where and Path(where).expanduser().exists()):
        return where, None
    parts = where.split("/")
    first = next(i for i, part in enumerate(parts) if any(c in part for c in "*?["))
    return "/".join(parts[:first]) or ("/" if where.startswith("/") else "."), "/".join(parts[first:])


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern or not parts:
        return not parts and all(p == "**" for p in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _unreadable(file: LogFile, error: Exception) -> ArtifactError:
    reason = " ".join(str(error).split()).rstrip(".")
    return ArtifactError(
        f"{file.path}: expected readable {file.format}, {reason}. Replace the file, or leave it out."
    )
