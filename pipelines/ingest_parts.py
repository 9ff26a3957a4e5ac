"""Ingest's intermediate files: Arrow, uncompressed, of which a reader takes only the record batches it needs."""

import os
from types import TracebackType
from typing import Self

import polars as pl
import pyarrow as pa
import pyarrow.ipc

from pipelines.artifacts import UNFINISHED, Folder


def write_ipc(folder: Folder, name: str, frame: pl.DataFrame) -> None:
    """Write a frame as an Arrow file of one record batch, atomically."""
    with PartWriter(folder, name) as writer:
        writer.write(record_batch(frame))


def record_batch(frame: pl.DataFrame) -> pa.RecordBatch:
    """A frame as Arrow has it."""
    table = frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest())
    batches = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
    assert len(batches) == 1, len(batches)
    return batches[0]


def read_ipc(folder: Folder, name: str) -> pl.DataFrame:
    """What ``write_ipc`` wrote."""
    return pl.DataFrame(pl.from_arrow(pa.Table.from_batches([read_batch(folder, name, 0)])))


def read_batch(folder: Folder, name: str, number: int) -> pa.RecordBatch:
    """One of an Arrow file's record batches."""
    with folder.filesystem.open_input_file(folder.join(name)) as stream, pa.ipc.open_file(stream) as reader:
        return reader.get_batch(number)


class PartWriter:
    """An Arrow file under a temporary name, of its own for each process, until it is whole."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._filesystem, self._path = folder.filesystem, folder.join(name)
        self._temporary = f"{self._path}.{os.getpid()}{UNFINISHED}"
        self._filesystem.create_dir(folder.path, recursive=True)
        self._stream = self._filesystem.open_output_stream(self._temporary)
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a record batch."""
        if self._writer is None:
            self._writer = pa.ipc.new_file(self._stream, batch.schema)
        self._writer.write_batch(batch)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the file its name, or delete it where something failed."""
        if self._writer is not None and error is None:
            self._writer.close()
        self._stream.close()
        if self._writer is None or error is not None:
            self._filesystem.delete_file(self._temporary)
        else:
            self._filesystem.move(self._temporary, self._path)
