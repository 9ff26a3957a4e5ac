"""Embeddings kept by the content of their texts, so that only what changed is computed again.

A store is a folder on a ``pyarrow.fs`` file system. Each space (a model with all that decides its vectors)
has a folder in it, and each call of ``append`` writes one shard there under a name of its own. Shards never
change, so writers need no lock; where two of them wrote the same text, the first by name counts.
"""

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from numpy.typing import NDArray

from encoders.config import Pooling, Precision

KEY_BYTES = 16


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
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True)
class Found:
    """What a store knows of some keys."""

    vectors: NDArray[np.float32]  # [B, D], 0 where absent
    cut: NDArray[np.bool_]  # [B], whether the text was longer than the model reads
    present: NDArray[np.bool_]  # [B]


def text_key(text: str) -> bytes:
    """Content hash of a text, 16 bytes."""
    return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).digest()


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
            {
                "key": pa.array(keys, pa.binary(KEY_BYTES)),
                "cut": pa.array(cut),
                "embedding": vector_column(vectors),
            }
        )
        name = f"{self.path}/{uuid.uuid4().hex}.parquet"
        self.filesystem.create_dir(self.path, recursive=True)
        with self.filesystem.open_output_stream(name + ".tmp") as stream:
            pq.write_table(table, stream, compression="none", use_dictionary=False, write_statistics=False)
        self.filesystem.move(name + ".tmp", name)

    def missing(self, keys: Sequence[bytes]) -> NDArray[np.bool_]:
        """Which keys have no vector yet. bool [B].

        Raises:
            StoreError: A shard is damaged.
        """
        wanted = pa.array(keys, pa.binary(KEY_BYTES))
        present = np.zeros(len(keys), dtype=np.bool_)  # [B]
        for shard in self._shards():
            present |= _numpy(pc.is_in(wanted, value_set=self._read(shard, ["key"]).column("key")))
        return ~present

    def read(self, keys: Sequence[bytes], width: int) -> Found:
        """Vectors of keys.

        Args:
            keys: ``text_key`` of each text. [B].
            width: D.

        Raises:
            StoreError: A shard is damaged or of another width.
        """
        wanted = pa.array(keys, pa.binary(KEY_BYTES))
        vectors = np.zeros((len(keys), width), dtype=np.float32)  # [B, D]
        cut = np.zeros(len(keys), dtype=np.bool_)
        present = np.zeros(len(keys), dtype=np.bool_)
        for shard in self._shards():
            if present.all():
                break
            table = self._read(shard, ["key", "cut", "embedding"])
            places = pc.fill_null(pc.index_in(wanted, value_set=table.column("key").combine_chunks()), -1)
            rows = _numpy(places)
            new = np.flatnonzero((rows >= 0) & ~present)
            if not len(new):
                continue
            found = vector_matrix(table.column("embedding"))
            if found.shape[1] != width:
                raise StoreError(
                    f"{shard}: expected embeddings of width {width}, got {found.shape[1]}. Delete it."
                )
            vectors[new] = found[rows[new]]
            cut[new] = _numpy(table.column("cut"))[rows[new]]
            present[new] = True
        return Found(vectors, cut, present)

    def _shards(self) -> list[str]:
        selector = pafs.FileSelector(self.path, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        return sorted(info.path for info in infos if info.path.endswith(".parquet"))

    def _read(self, shard: str, columns: list[str]) -> pa.Table:
        try:
            return pq.read_table(shard, columns=columns, filesystem=self.filesystem)
        except (pa.ArrowInvalid, OSError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise StoreError(
                f"{shard}: expected readable Parquet, {reason}. Delete it and run again."
            ) from error


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
