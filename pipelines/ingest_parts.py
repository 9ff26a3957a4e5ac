"""Ingest's intermediate files: Arrow, uncompressed, of which a reader takes only the record batches it needs."""

import polars as pl
import pyarrow as pa
import pyarrow.ipc

from pipelines.artifacts import Folder


def write_ipc(folder: Folder, name: str, frames: list[pl.DataFrame]) -> None:
    """Write frames of one schema as an Arrow file, each as one record batch, atomically."""
    writer = PartWriter(folder, name)
    for frame in frames:
        writer.write(frame)
    writer.publish()


def read_ipc(folder: Folder, name: str, *, first: int = 0, every: int = 1) -> pl.DataFrame:
    """An Arrow file, or of its record batches only number ``first`` and each ``every`` further on."""
    with folder.filesystem.open_input_file(folder.join(name)) as stream, pa.ipc.open_file(stream) as reader:
        numbers = range(first, reader.num_record_batches, every)
        table = pa.Table.from_batches([reader.get_batch(n) for n in numbers], schema=reader.schema)
        frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame


class PartWriter:
    """An Arrow file under a temporary name until it is whole."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._filesystem, self._path = folder.filesystem, folder.join(name)
        self._filesystem.create_dir(self._path.rsplit("/", 1)[0], recursive=True)
        self._stream = self._filesystem.open_output_stream(self._path + ".tmp")
        self._writer: pa.ipc.RecordBatchFileWriter | None = None

    def write(self, frame: pl.DataFrame) -> None:
        """Append a frame as exactly one record batch."""
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).combine_chunks()
        if self._writer is None:
            self._writer = pa.ipc.new_file(self._stream, table.schema)
        batches = table.to_batches() or [pa.RecordBatch.from_pylist([], schema=table.schema)]
        assert len(batches) == 1, len(batches)
        self._writer.write_batch(batches[0])

    def publish(self) -> None:
        """Close the file and give it its name; a file without a batch is not kept."""
        if self._writer is not None:
            self._writer.close()
        self._stream.close()
        if self._writer is None:
            self._filesystem.delete_file(self._path + ".tmp")
        else:
            self._filesystem.move(self._path + ".tmp", self._path)

    def abandon(self) -> None:
        """Close and delete what was written."""
        self._stream.close()
        self._filesystem.delete_file(self._path + ".tmp")
