"""Reading text record by record: slow, and survives whatever a file holds."""

import csv
import io
import json
from collections.abc import Iterator

from encoders.columns import Format

Record = tuple[int | str | None, ...]


def csv_records(
    block: bytes, line: int, header: list[str], columns: list[str], table: Format, longest: int
) -> Iterator[Record]:
    """Line number and chosen fields of each CSV record; all None where a record is broken.

    Args:
        block: Bytes that begin with a row.
        line: Number of the first line.
        header: All columns.
        columns: The chosen ones.
        table: Separator and quotes.
        longest: Lines that a quoted record may have; past that its quote is taken for a stray one.
    """
    blank = (None,) * len(columns)
    chosen = [header.index(c) for c in columns]
    stream = io.StringIO(block.decode("utf-8", "surrogateescape"), newline="\n")
    lines = enumerate(stream, start=line)
    waiting: list[tuple[int, str]] = []
    while entry := (waiting.pop(0) if waiting else next(lines, None)):
        record, ahead = entry[1], list(waiting)
        if table.quotes:
            while record.count('"') % 2 and len(ahead) < longest and (more := next(lines, None)):
                ahead.append(more)
        taken = 0
        while table.quotes and record.count('"') % 2 and taken < len(ahead):
            record += ahead[taken][1]
            taken += 1
        fields = _csv_fields(record, table, len(header))
        waiting = ahead[taken:] if fields is not None else ahead
        yield entry[0], *([fields[i] or None for i in chosen] if fields is not None else blank)


def json_records(block: bytes, line: int, columns: list[str]) -> Iterator[Record]:
    """Line number and values of each line that is not empty; all None where it is no JSON object."""
    for number, text in enumerate(block.split(b"\n"), start=line):
        if not text.strip():
            continue
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        known = content if isinstance(content, dict) else {}
        yield number, *(_json_text(known.get(column)) for column in columns)


def _csv_fields(record: str, table: Format, width: int) -> list[str] | None:
    """Fields of one record, empty ones appended up to the width; None where it is broken."""
    if record.encode("utf-8", "surrogateescape").decode("utf-8", "ignore") != record:
        return None
    if not table.quotes or len(table.separator) > 1:
        rows = [record.rstrip("\r\n").split(table.separator)]
    else:
        try:
            rows = list(csv.reader(io.StringIO(record, newline=""), delimiter=table.separator, strict=True))
        except csv.Error:
            return None
    if len(rows) != 1 or len(rows[0]) > width:
        return None if rows and rows[0] else [""] * width
    return rows[0] + [""] * (width - len(rows[0]))


def _json_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        text = value
    elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        text = str(int(value))
    else:
        text = json.dumps(value, ensure_ascii=False)
    return (
        None if text is None else text.encode("utf-8", "replace").decode("utf-8")
    )  # a lone surrogate is no text
