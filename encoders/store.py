"""Embeddings kept by the content of their texts, so that only what changed is computed again.

A store is a folder on a ``pyarrow.fs`` file system, which several runs may share. Each space (a model with all
that decides its vectors) has a folder in it, and each call of ``append`` writes one shard there, named by the
texts in it. Shards never change, so writers need no lock: who writes the same texts again, after a kill perhaps,
replaces a shard by its like, and where two shards hold the same text, the first by name counts.
"""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encoders.config import Pooling, Precision

KEY_BYTES = 16
FORMAT = 2  # of the shards; another one's are left alone
READERS = 8  # shards read at a time; a store on S3 waits, it does not compute


class StoreError(ValueError):
    """A shard of the store is damaged."""


@dataclass(frozen=True)
class Space:
    """What decides a text's vector besides the text."""

    weights_sha256: str
    pooling: Pooling
    precision: Precision
    max_tokens: int

    @property
    def name(self) -> str:
        """Folder of the space: a hash of its fields, hexadecimal."""
        content = {"format": FORMAT, **asdict(self)}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Found:
    """What a store knows of some keys."""

    vectors: NDArray[np.float32]  # [B, D], 0 where absent
    cut: NDArray[np.bool_]  # [B], whether the text was longer than the model reads
    present: NDArray[np.bool_]  # [B]


def text_key(text: str) -> bytes:
    """Content hash of a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


def picture_key(data: bytes) -> bytes:
    """Content hash of a picture's file, apart from those of texts, 16 bytes."""
    return hashlib.blake2b(data, digest_size=KEY_BYTES, person=b"picture").digest()


class EmbeddingStore:
    """Vectors of one space."""

    def __init__(self, filesystem: pafs.FileSystem, path: str, space: Space) -> None:
        """Open the store at ``path``; the folder need not exist."""
        self.filesystem = filesystem
        self.path = f"{path.rstrip('/')}/{space.name}"

    def append(self, keys: Sequence[bytes], vectors: NDArray[np.float32], cut: NDArray[np.bool_]) -> None:
        """Write a shard, whole or not at all.

        Args:
            keys: ``text_key`` of each text. [B].
            vectors: float32 [B, D].
            cut: Whether the text was cut. bool [B].

        Raises:
            ValueError: The three differ in length.
        """
        if not len(keys) == len(vectors) == len(cut):
            raise ValueError(
                f"store: expected as many keys as vectors and cuts, got {len(keys)}, {len(vectors)} "
                f"and {len(cut)}."
            )
        table = pa.table(
            {"key": pa.array(keys, pa.binary(KEY_BYTES)), "cut": pa.array(cut), "embedding": _bytes(vectors)}
        )
        name = hashlib.blake2b(b"".join(keys), digest_size=KEY_BYTES).hexdigest()
        partial = f"{self.path}/{name}.{uuid4().hex}.tmp"
        self.filesystem.create_dir(self.path, recursive=True)
        with self.filesystem.open_output_stream(partial) as stream:
            pq.write_table(table, stream, compression="none", use_dictionary=False, write_statistics=False)
        self.filesystem.move(partial, f"{self.path}/{name}.parquet")

    def missing(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Which keys have no vector yet. bool [B].

        Raises:
            StoreError: A shard is damaged.
        """
        stored = [table.column("key") for table in self._read_all(self._shards(), ["key"])]
        return _places(keys, stored) < 0

    def read(self, keys: Sequence[bytes], width: int) -> Found:
        """Vectors of keys.

        Args:
            keys: ``text_key`` of each text. [B].
            width: D.

        Raises:
            StoreError: A shard is damaged or of another width.
        """
        shards = self._shards()
        tables = self._read_all(shards, ["key", "cut"])
        places = _places(keys, [table.column("key") for table in tables])  # [B]
        present = places >= 0
        starts = np.cumsum([0, *(len(table) for table in tables)])
        of = np.searchsorted(starts, places, side="right") - 1  # [B], shard of each key, -1 where absent
        vectors = np.zeros((len(keys), width), dtype=np.float32)  # [B, D]
        cut = np.zeros(len(keys), dtype=np.bool_)
        by_shard = np.argsort(of, kind="stable")
        used, begins = np.unique(of[by_shard], return_index=True)
        groups = np.split(by_shard, begins[1:])

        def fill(shard: int, rows: NDArray[np.int64]) -> None:
            found = self._vectors(shards[shard], width)
            vectors[rows] = found[places[rows] - starts[shard]]
            cut[rows] = _numpy(tables[shard].column("cut"))[places[rows] - starts[shard]]

        with ThreadPoolExecutor(READERS) as threads:
            wanted = [(shard, rows) for shard, rows in zip(used, groups, strict=True) if shard >= 0]
            list(threads.map(lambda pair: fill(*pair), wanted))
        return Found(vectors, cut, present)

    def _vectors(self, shard: str, width: int) -> NDArray[np.float32]:
        """All vectors of a shard; of a local one a view of the mapped file. float32 [n, D]."""
        column = self._read(shard, ["embedding"]).column("embedding")
        if column.type != pa.binary(4 * width):
            raise StoreError(
                f"{shard}: expected embeddings of {4 * width} bytes, got {column.type}. Delete it."
            )
        rows = [
            np.frombuffer(c.buffers()[1], "<f4", len(c) * width, c.offset * 4 * width) for c in column.chunks
        ]
        return np.concatenate([np.zeros(0, np.float32), *rows] if len(rows) != 1 else rows).reshape(-1, width)

    def _shards(self) -> list[str]:
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.path for info in infos if info.path.endswith(".parquet"))

    def _read_all(self, shards: Sequence[str], columns: list[str]) -> list[pa.Table]:
        with ThreadPoolExecutor(READERS) as threads:
            return list(threads.map(lambda shard: self._read(shard, columns), shards))

    def _read(self, shard: str, columns: list[str]) -> pa.Table:
        try:
            with pq.ParquetFile(shard, filesystem=self.filesystem) as file:
                return file.read(columns, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise StoreError(
                f"{shard}: expected readable Parquet, {reason}. Delete it and run again."
            ) from error


def _places(keys: Sequence[bytes], stored: Sequence[pa.ChunkedArray]) -> NDArray[np.int64]:
    """Row of each key among all stored ones, -1 where absent. int64 [B]."""
    chunks = [chunk for column in stored for chunk in column.chunks]
    known = pa.chunked_array(chunks, pa.binary(KEY_BYTES)).combine_chunks()
    wanted = pa.array(keys, pa.binary(KEY_BYTES))
    return _numpy(pc.fill_null(pc.index_in(wanted, value_set=known), -1)).astype(np.int64)


def _bytes(vectors: NDArray[np.float32]) -> pa.Array:
    """Rows of a matrix as a column of bytes, which Parquet reads ten times faster than lists."""
    data = pa.py_buffer(np.ascontiguousarray(vectors, dtype="<f4"))
    return pa.Array.from_buffers(pa.binary(4 * vectors.shape[1]), len(vectors), [None, data])


def vector_column(vectors: NDArray[np.float32]) -> pa.Array:
    """Rows of a matrix as a column: fixed_size_list<float>[D]."""
    flat = pa.array(np.ascontiguousarray(vectors, dtype=np.float32).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])


def vector_matrix(column: pa.Array | pa.ChunkedArray) -> NDArray[np.float32]:
    """A column of fixed-size lists as a matrix. float32 [B, D]."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    width = column.type.list_size
    parts = [np.zeros((0, width), np.float32)]
    parts += [_numpy(chunk.flatten()).reshape(-1, width) for chunk in chunks]
    return np.concatenate(parts)


def _numpy(array: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    if isinstance(array, pa.ChunkedArray):
        return np.asarray(array.to_numpy())
    return np.asarray(array.to_numpy(zero_copy_only=False))
