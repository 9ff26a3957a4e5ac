"""Finding a log's files, knowing them by their content, and cutting them into pieces."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from blake3 import blake3

from encoders.columns import Format
from pipelines.artifacts import ArtifactError, open_filesystem

SUFFIXES = {  # suffix: (kind, bytes a row has, about)
    ".csv": ("csv", 100),
    ".csv.gz": ("csv", 20),
    ".tsv": ("csv", 100),
    ".tsv.gz": ("csv", 20),
    ".jsonl": ("jsonl", 160),
    ".jsonl.gz": ("jsonl", 25),
    ".ndjson": ("jsonl", 160),
    ".parquet": ("parquet", 15),
}
KIND_SUFFIX = {"csv": ".csv", "jsonl": ".jsonl", "parquet": ".parquet"}
BLOCK_BYTES = 1 << 25  # of text that a task holds at once
CHUNK_BYTES = 1 << 18  # of a file that is only looked at: it fits the processor's cache
ROW_GROUP_ROWS = 500_000  # of Parquet, likewise
SHARD_ROWS = 300_000  # keeps a task's memory flat as the log grows
ABSENT_PARTITION = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class LogFile:
    """One file of a log; ``name`` is its path below the log's folder, for messages and for rejected rows."""

    filesystem: pafs.FileSystem
    path: str
    name: str
    size: int
    mtime_ns: int
    kind: str  # csv, jsonl or parquet

    @property
    def gzipped(self) -> bool:
        """Whether it is compressed as a whole."""
        return self.name.lower().endswith(".gz")

    @property
    def partitions(self) -> dict[str, str | None]:
        """Columns that the names of its folders hold, as ``date=2019-10-01``."""
        pairs = [part.partition("=") for part in self.path.split("/")[:-1] if "=" in part]
        return {key: None if value == ABSENT_PARTITION else unquote(value) for key, _, value in pairs}

    @property
    def rows_about(self) -> float:
        """Rows it may have, judged by its size."""
        suffix = KIND_SUFFIX[self.kind] + (".gz" if self.gzipped else "")
        return self.size / SUFFIXES.get(suffix, (self.kind, 100))[1]


@dataclass(frozen=True)
class Survey:
    """What one look at a file's bytes tells."""

    content: str  # BLAKE3 of the bytes
    newlines: tuple[int, ...]  # of each block of BLOCK_BYTES; of text that has several
    quotes: tuple[int, ...]


_SEEN: dict[tuple[object, ...], Survey] = {}


@dataclass(frozen=True)
class Piece:
    """What one task reads: bytes of a text file that begin and end with a row, or row groups of Parquet."""

    file: int  # place in the list of files
    start: int
    stop: int  # -1: to the end, as a stream
    line: int  # of the first row; of Parquet, its number from 1


def find_files(where: str, setting: str, table: Format) -> list[LogFile]:
    """Files at a path, below a folder or at a glob, in name order. ``**`` in a glob crosses folders.

    Args:
        where: Local path or URI.
        setting: The config key it came from, for messages.
        table: The format; ``auto`` goes by each file's name.

    Raises:
        ArtifactError: There is none, or a file is of no known format.
    """
    fixed, pattern = _split_glob(where)
    filesystem, path = open_filesystem(fixed)
    try:
        found = _list(filesystem, path, pattern)
    except OSError as error:
        raise ArtifactError(f"{setting}: expected to list {where}, {' '.join(str(error).split())}") from error
    if found is None:
        raise ArtifactError(f"{setting}: expected a file, a folder or a glob, found nothing at {where}.")
    known = tuple(SUFFIXES)
    if not found:
        raise ArtifactError(f"{setting}: expected files ({', '.join(known)}), found none at {where}.")
    files = []
    for name, info in sorted(found.items()):
        suffix = next((s for s in sorted(known, key=len, reverse=True) if name.lower().endswith(s)), None)
        kind = SUFFIXES[suffix][0] if suffix and table.kind == "auto" else table.kind
        if kind == "auto":
            key = setting.replace("paths.log", "ingest.format").replace("paths.items", "ingest.item_format")
            raise ArtifactError(
                f"{setting}: expected files that end in {', '.join(known)}, found {name}. "
                f"Choose the others by a glob such as 'log/*.csv', or say what it is, as {key}.kind=csv."
            )
        files.append(LogFile(filesystem, info.path, name, info.size, info.mtime_ns or 0, kind))
    return files


def survey(files: Sequence[LogFile]) -> list[Survey]:
    """A look at the bytes of every file, two at once; at each only once a process."""
    keys = [(file.filesystem.type_name, file.path, file.size, file.mtime_ns, file.kind) for file in files]
    new = {key: file for key, file in zip(keys, files, strict=True) if key not in _SEEN}
    with ThreadPoolExecutor(max_workers=2) as pool:
        _SEEN.update(zip(new, pool.map(_survey, new.values()), strict=True))
    return [_SEEN[key] for key in keys]


def cut(files: Sequence[LogFile], surveys: Sequence[Survey], table: Format) -> list[Piece]:
    """Pieces of all files in order; the same for any number of workers."""
    pieces: list[Piece] = []
    for number, (file, seen) in enumerate(zip(files, surveys, strict=True)):
        if file.kind == "parquet":
            pieces += _row_groups(number, file)
        elif _is_stream(file, seen, table):
            pieces.append(Piece(number, 0, -1, 1))
        else:
            pieces += _byte_ranges(number, file, seen, quoted=table.quotes and file.kind == "csv")
    return pieces


def num_shards(files: Sequence[LogFile]) -> int:
    """One a ``SHARD_ROWS`` rows, judged by the size of the files, so that it does not depend on the machine.

    Many are a multiple of four, so that two or four workers end together.
    """
    about = sum(file.rows_about for file in files) / SHARD_ROWS
    return max(1, round(about) if about < 4 else 4 * round(about / 4))


def unreadable(file: LogFile, error: Exception) -> ArtifactError:
    """The error of a file that cannot be read as what it is named for."""
    reason = " ".join(str(error).split()).rstrip(".")
    return ArtifactError(
        f"{file.path}: expected readable {file.kind}, {reason}. Replace the file, or leave it out."
    )


def _list(filesystem: pafs.FileSystem, path: str, pattern: str | None) -> dict[str, pafs.FileInfo] | None:
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.NotFound:
        return None
    if info.type == pafs.FileType.File:
        return {info.base_name: info}
    selector = pafs.FileSelector(path, recursive=True)
    cut_at = len(path.rstrip("/")) + 1
    infos = [i for i in filesystem.get_file_info(selector) if i.type == pafs.FileType.File]
    named = {i.path[cut_at:]: i for i in infos}
    seen = {n: i for n, i in named.items() if not any(part[0] in "._" for part in n.split("/"))}
    return {n: i for n, i in seen.items() if pattern is None or _matches(n.split("/"), pattern.split("/"))}


def _survey(file: LogFile) -> Survey:
    whole, newlines, quotes = blake3(), [0], [0]
    text = file.kind != "parquet" and not file.gzipped and file.size > BLOCK_BYTES
    left = BLOCK_BYTES
    with file.filesystem.open_input_file(file.path) as stream:
        while count := len(part := stream.read_buffer(min(CHUNK_BYTES, left))):
            whole.update(part)
            if text:
                values = np.frombuffer(part, np.uint8)
                newlines[-1] += int(np.count_nonzero(values == ord("\n")))
                quotes[-1] += int(np.count_nonzero(values == ord('"')))
            left -= count
            if left == 0:
                newlines.append(0)
                quotes.append(0)
                left = BLOCK_BYTES
    return Survey(whole.hexdigest(), tuple(newlines), tuple(quotes))


def _is_stream(file: LogFile, seen: Survey, table: Format) -> bool:
    """Whether a file can only be read from its start: compressed, recoded, or with a quote that never ends."""
    unbalanced = table.quotes and file.kind == "csv" and sum(seen.quotes) % 2 == 1
    return file.gzipped or table.encoding != "utf-8" or unbalanced


def _byte_ranges(number: int, file: LogFile, seen: Survey, *, quoted: bool) -> list[Piece]:
    starts, lines = [0], [1]
    with file.filesystem.open_input_file(file.path) as stream:
        for block in range(1, len(seen.newlines)):
            opened = quoted and sum(seen.quotes[:block]) % 2 == 1
            found = _next_row(stream, block * BLOCK_BYTES, opened=opened, quoted=quoted)
            if found is not None and starts[-1] < found[0] < file.size:
                starts.append(found[0])
                lines.append(1 + sum(seen.newlines[:block]) + found[1])
    stops = [*starts[1:], file.size]
    ranges = zip(starts, stops, lines, strict=True)
    return [Piece(number, start, stop, line) for start, stop, line in ranges if stop > start]


def _next_row(stream: pa.NativeFile, start: int, *, opened: bool, quoted: bool) -> tuple[int, int] | None:
    """Where the first row after a place begins, and how many lines end up to there; None if nowhere in a block."""
    stream.seek(start)
    lines, read = 0, 0
    while read < BLOCK_BYTES and (part := stream.read(1 << 16)):
        for place in np.flatnonzero(np.isin(np.frombuffer(part, np.uint8), (ord("\n"), ord('"')))):
            if part[place] == ord('"'):
                opened ^= quoted
            else:
                lines += 1
                if not opened:
                    return start + read + int(place) + 1, lines
        read += len(part)
    return None


def _row_groups(number: int, file: LogFile) -> Iterator[Piece]:
    try:
        with file.filesystem.open_input_file(file.path) as stream:
            metadata = pq.ParquetFile(stream).metadata
            rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    except (OSError, pa.ArrowException) as error:
        raise unreadable(file, error) from error
    start, line, held = 0, 1, 0
    for group, count in enumerate(rows):
        held += count
        if held >= ROW_GROUP_ROWS or group == len(rows) - 1:
            yield Piece(number, start, group + 1, line)
            start, line, held = group + 1, line + held, 0


def _split_glob(where: str) -> tuple[str, str | None]:
    """The folder before the first part with a wildcard, and the pattern from there on. A URI may have a query."""
    remote = "://" in where
    path, mark, query = where.partition("?") if remote else (where, "", "")
    wild = "*[" if remote else "*?["
    if not any(c in path for c in wild) or (not remote and Path(path).expanduser().exists()):
        return where, None
    parts = path.split("/")
    first = next(i for i, part in enumerate(parts) if any(c in part for c in wild))
    folder = "/".join(parts[:first]) or ("/" if path.startswith("/") else ".")
    return folder + mark + query, "/".join(parts[first:])


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern or not parts:
        return not parts and all(p == "**" for p in pattern)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
