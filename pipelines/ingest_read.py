"""Reading a piece of a log's file: columns as text, with the line of each row. No row is lost."""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip

from encoders.columns import LINE_COLUMN, PLACE_COLUMN, Entries, Format
from pipelines.ingest_files import BLOCK_BYTES, CHUNK_BYTES, ROW_GROUP_ROWS, LogFile, Piece, unreadable
from pipelines.ingest_records import csv_records, json_records

LINE = "__line__"
UNIT = "\x1f"  # stands for a separator of several characters; no text has it
LONGEST_RECORD = 50  # lines of a quoted CSV record; past that the quote is taken for a stray one
BLANK_BOM = codecs.BOM_UTF8
NEWLINE, QUOTE = ord("\n"), ord('"')


class BrokenRowsError(ValueError):
    """A block has rows that are none: to be read again, record by record."""


def column_names(file: LogFile, table: Format) -> list[str] | None:
    """Columns a file has, those of its folders' names included. None for an empty file.

    Of JSON Lines, the keys of its first thousand lines.

    Raises:
        ArtifactError: The file cannot be read.
    """
    try:
        if file.kind == "parquet":
            with file.filesystem.open_input_file(file.path) as stream:
                names = list(pq.read_schema(stream).names)
        else:
            head = next(_blocks(file, Piece(0, 0, -1, 1), table, 1 << 18), b"")
            if not head.strip():
                return None
            names = _json_keys(head) if file.kind == "jsonl" else _header(head, table)
    except (OSError, EOFError, pa.ArrowException, UnicodeError) as error:
        raise unreadable(file, error) from error
    return list(dict.fromkeys([*names, *file.partitions]))


def read_piece(
    file: LogFile,
    piece: Piece,
    table: Format,
    columns: list[str],
    entries: Entries | None = None,
    block_bytes: int = BLOCK_BYTES // 2,
) -> Iterator[pl.DataFrame]:
    """The named columns as text (times of Parquet keep their type), with the line of each row.

    A row that cannot be read is null in every column of the file.

    Args:
        file: The file.
        piece: Which part of it.
        table: Its format.
        columns: Columns that the file or its folders have.
        entries: The list that each row holds, whose entries become rows.
        block_bytes: Text that a frame is of, where the piece is a stream.

    Yields:
        Frames of about ``BLOCK_BYTES`` of text: ``LINE`` int64 and then ``columns``, ``LINE_COLUMN`` and those of
        entries.

    Raises:
        ArtifactError: The file as a whole cannot be read.
    """
    own = [c for c in columns if c not in file.partitions]
    added = [pl.lit(file.partitions[c], pl.String).alias(c) for c in columns if c in file.partitions]
    try:
        frames = (
            _parquet(file, piece, own)
            if file.kind == "parquet"
            else _text(file, piece, table, own, block_bytes)
        )
        for frame in frames:
            rows = frame.with_columns(added) if added else frame
            yield _entries(rows, entries) if entries else rows
    except (OSError, EOFError, pa.ArrowException, UnicodeError) as error:
        raise unreadable(file, error) from error


def with_lines(rows: pl.DataFrame, file: LogFile) -> pl.DataFrame:
    """The rows with ``LINE_COLUMN``."""
    line = pl.concat_str(pl.lit(f"{file.name}:"), pl.col(LINE).cast(pl.String))
    return rows.with_columns(line.alias(LINE_COLUMN))


def _text(
    file: LogFile, piece: Piece, table: Format, columns: list[str], block_bytes: int
) -> Iterator[pl.DataFrame]:
    line, header, skip = piece.line, table.header or [], 0
    if file.kind == "csv" and table.header is None:
        head = next(_blocks(file, Piece(0, 0, -1, 1), table, 1 << 18))
        header = _header(head, table)
        if piece.start == 0:
            skip, line = head.find(b"\n") + 1 or len(head), line + 1
    for block in _blocks(file, piece, table, block_bytes, skip):
        frame = _parse(file.kind, block, line, table, header, columns)
        line += _newlines(block) if piece.stop < 0 else 0  # others are one block
        del block  # not to be held while the rows are worked on
        yield frame


def _parse(
    kind: str, block: bytes, line: int, table: Format, header: list[str], columns: list[str]
) -> pl.DataFrame:
    try:
        return (
            _fast_json(block, line, columns)
            if kind == "jsonl"
            else _fast_csv(block, line, table, header, columns)
        )
    except BrokenRowsError:  # record by record, then, so that each broken one gets its reason
        records = (
            json_records(block, line, columns)
            if kind == "jsonl"
            else csv_records(block, line, header, columns, table, LONGEST_RECORD)
        )
    schema = {LINE: pl.Int64, **dict.fromkeys(columns, pl.String)}
    return pl.DataFrame(list(records), schema=schema, orient="row")


def _fast_csv(block: bytes, line: int, table: Format, header: list[str], columns: list[str]) -> pl.DataFrame:
    quoted = table.quotes and b'"' in block  # nearly always there is none, and then all is faster
    lines = _row_lines(block, line, quoted=quoted)
    separator = table.separator
    if len(separator.encode()) > 1:
        block, separator = block.replace(separator.encode(), UNIT.encode()), UNIT
    try:
        frame = pl.read_csv(
            block,
            has_header=False,
            infer_schema=False,
            schema=dict.fromkeys(header, pl.String),
            columns=[header.index(c) for c in columns],
            separator=separator,
            quote_char='"' if quoted else None,
        )
    except pl.exceptions.PolarsError as error:
        raise BrokenRowsError(str(error)) from error
    if frame.height != len(lines):
        raise BrokenRowsError(f"{frame.height} rows on {len(lines)} lines")
    return frame.select(pl.Series(LINE, lines), *columns)


def _fast_json(block: bytes, line: int, columns: list[str]) -> pl.DataFrame:
    lines = _row_lines(block, line, quoted=False)
    try:
        frame = pl.read_ndjson(block, schema=dict.fromkeys(columns, pl.String))
    except pl.exceptions.PolarsError as error:
        raise BrokenRowsError(str(error)) from error
    if frame.height != len(lines):  # blank lines between
        raise BrokenRowsError(f"{frame.height} rows on {len(lines)} lines")
    return frame.select(pl.Series(LINE, lines), *columns)


def _row_lines(block: bytes, line: int, *, quoted: bool) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Line on which each row begins. int64 [rows]

    Raises:
        BrokenRowsError: A quote stays open, or a row has more lines than is likely.
    """
    unended = int(len(block) > 0 and block[-1] != NEWLINE)
    if not quoted:
        return np.arange(line, line + _newlines(block) + unended)
    values = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(values == NEWLINE)
    opened = np.cumsum(values == QUOTE, dtype=np.uint8) & 1
    if opened[-1]:
        raise BrokenRowsError("a quote stays open")
    whole = np.flatnonzero(opened[ends] == 0)  # numbers of the lines that end a row
    starts = np.concatenate([[0], whole + 1])[: len(whole) + unended]
    if len(starts) and np.diff(np.append(starts, len(ends))).max(initial=0) > LONGEST_RECORD:
        raise BrokenRowsError("a row has too many lines")
    return (line + starts).astype(np.int64)


def _newlines(block: bytes) -> int:
    values = np.frombuffer(block, np.uint8)
    parts = (values[start : start + CHUNK_BYTES] for start in range(0, len(values), CHUNK_BYTES))
    return sum(int(np.count_nonzero(part == NEWLINE)) for part in parts)


def _parquet(file: LogFile, piece: Piece, columns: list[str]) -> Iterator[pl.DataFrame]:
    line = piece.line
    with file.filesystem.open_input_file(file.path) as stream, pq.ParquetFile(stream) as reader:
        groups = list(range(piece.start, piece.stop))
        for batch in reader.iter_batches(
            batch_size=ROW_GROUP_ROWS // 2, row_groups=groups, columns=columns, use_threads=False
        ):
            frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            kept = [c if t.is_temporal() else pl.col(c).cast(pl.String) for c, t in frame.schema.items()]
            numbers = pl.int_range(line, line + frame.height, dtype=pl.Int64).alias(LINE)
            yield frame.select(numbers, *kept).select(LINE, *columns)
            line += frame.height


def _blocks(file: LogFile, piece: Piece, table: Format, size: int, skip: int = 0) -> Iterator[bytes]:
    """The piece's bytes as UTF-8 without a byte order mark and the first ``skip``, in blocks that end with a row."""
    with file.filesystem.open_input_file(file.path) as source:
        if piece.stop >= 0:
            mark = piece.start == 0 and source.read_at(len(BLANK_BOM), 0) == BLANK_BOM
            start = piece.start + (len(BLANK_BOM) if mark else 0) + skip
            yield source.read_at(piece.stop - start, start)
            return
        stream: IO[bytes] = igzip.open(source, "rb") if file.gzipped else source
        decoder = codecs.getincrementaldecoder(table.encoding)("replace")
        kept, part = b"", stream.read(size).removeprefix(BLANK_BOM)
        while part:
            following = stream.read(size)
            text = decoder.decode(part).encode() if table.encoding != "utf-8" else part
            end = (
                _last_row_end(kept, text, quoted=table.quotes and file.kind == "csv")
                if following
                else len(text)
            )
            if end is None:
                kept += text
            else:
                yield (kept + text[:end])[skip:]
                kept, skip = text[end:], 0
            part = following


def _last_row_end(kept: bytes, part: bytes, *, quoted: bool) -> int | None:
    """Where in ``part`` the last whole row ends; None where none does and there is little so far."""
    if not quoted or (b'"' not in kept and b'"' not in part):
        return part.rfind(b"\n") + 1 or None
    values = np.frombuffer(part, np.uint8)
    opened = (np.cumsum(values == QUOTE, dtype=np.uint8) + kept.count(b'"')) & 1
    ends = np.flatnonzero((values == NEWLINE) & (opened == 0))
    if len(ends):
        return int(ends[-1]) + 1
    return None if len(kept) < BLOCK_BYTES else part.rfind(b"\n") + 1 or None


def _header(head: bytes, table: Format) -> list[str]:
    if table.header is not None:
        return table.header
    line = head.partition(b"\n")[0].decode("utf-8", "replace").strip("\r\n")
    if len(table.separator) > 1 or not table.quotes:
        return line.split(table.separator)
    return next(csv.reader([line], delimiter=table.separator), [])


def _json_keys(head: bytes) -> list[str]:
    keys: dict[str, None] = {}
    for text in io.StringIO(head.decode("utf-8", "replace")):
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            continue
        keys.update(dict.fromkeys(content) if isinstance(content, dict) else {})
    return list(keys)


def _entries(rows: pl.DataFrame, entries: Entries) -> pl.DataFrame:
    """One row an entry of the list, with the columns its pattern makes and ``PLACE_COLUMN``."""
    listed = pl.col(entries.column).str.strip_chars().str.split(entries.separator)
    many = rows.with_columns(
        listed.alias("__entry__"), pl.int_ranges(listed.list.len()).alias(PLACE_COLUMN)
    ).explode("__entry__", PLACE_COLUMN)
    made = pl.col("__entry__").str.extract_groups(entries.pattern)
    return (
        many.with_columns(made.alias("__made__"), pl.col(PLACE_COLUMN).cast(pl.String))
        .unnest("__made__")
        .drop("__entry__")
    )


def made_columns(entries: Entries | None) -> list[str]:
    """Columns that the pattern of the entries makes."""
    return list(re.compile(entries.pattern).groupindex) if entries else []
