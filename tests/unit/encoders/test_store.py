"""The embedding store: what is written is found, once, whoever wrote it."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow.fs as pafs
import pytest

from encoders.store import EmbeddingStore, Space, StoreError, text_key, vector_column, vector_matrix

SPACE = Space("0" * 64, "mean", "fp32", 128)


def test_store_returns_what_was_written_in_the_order_asked(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_keys("a", "b"), _vectors(1, 2), np.array([False, True]))
    store.append(_keys("c"), _vectors(3), np.array([False]))

    found = store.read(_keys("c", "x", "b", "c"), width=2)

    assert found.vectors[:, 0].tolist() == [3, 0, 2, 3]
    assert found.cut.tolist() == [False, False, True, False]
    assert found.present.tolist() == [True, False, True, True]


def test_store_when_new_misses_all(tmp_path: Path) -> None:
    assert _store(tmp_path).missing(_keys("a", "b")).tolist() == [True, True]
    assert not _store(tmp_path).read(_keys("a"), width=2).present.any()


def test_store_resumes_with_what_is_missing(tmp_path: Path) -> None:
    _store(tmp_path).append(_keys("a", "b"), _vectors(1, 2), np.zeros(2, bool))

    assert _store(tmp_path).missing(_keys("b", "c")).tolist() == [False, True]


def test_store_keeps_spaces_apart(tmp_path: Path) -> None:
    _store(tmp_path).append(_keys("a"), _vectors(1), np.zeros(1, bool))

    for other in (
        Space("1" * 64, "mean", "fp32", 128),
        Space("0" * 64, "cls", "fp32", 128),
        Space("0" * 64, "mean", "bf16", 128),
        Space("0" * 64, "mean", "fp32", 64),
    ):
        assert _store(tmp_path, other).missing(_keys("a")).all()


def test_store_ignores_half_written_shards(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_keys("a"), _vectors(1), np.zeros(1, bool))
    shard = next((tmp_path / SPACE.name).glob("*.parquet"))
    (shard.parent / "0.parquet.tmp").write_bytes(shard.read_bytes()[:50])

    assert store.read(_keys("a"), width=2).present.all()


def test_store_when_a_shard_is_damaged_names_it(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_keys("a"), _vectors(1), np.zeros(1, bool))
    shard = next((tmp_path / SPACE.name).glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:50])

    with pytest.raises(
        StoreError, match=rf"{shard.name}: expected readable Parquet.*Delete it and run again"
    ):
        store.missing(_keys("a"))


def test_store_when_the_width_differs_is_refused(tmp_path: Path) -> None:
    store = _store(tmp_path)
    store.append(_keys("a"), _vectors(1), np.zeros(1, bool))

    with pytest.raises(StoreError, match="expected embeddings of 12 bytes, got fixed_size_binary"):
        store.read(_keys("a"), width=3)


def test_store_when_lengths_differ_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="as many keys as vectors and cuts, got 2, 1 and 1"):
        _store(tmp_path).append(_keys("a", "b"), _vectors(1), np.zeros(1, bool))


def test_store_when_a_killed_writer_repeats_itself_holds_nothing_twice(tmp_path: Path) -> None:
    for _ in range(2):
        _store(tmp_path).append(_keys("a", "b"), _vectors(1, 2), np.zeros(2, bool))

    assert len(list((tmp_path / SPACE.name).iterdir())) == 1


def test_store_where_two_shards_hold_a_text_gives_one_of_them(tmp_path: Path) -> None:
    _store(tmp_path).append(_keys("a", "b"), _vectors(1, 2), np.zeros(2, bool))
    _store(tmp_path).append(_keys("b", "c"), _vectors(2, 3), np.zeros(2, bool))

    assert _store(tmp_path).read(_keys("c", "b", "a"), width=2).vectors[:, 0].tolist() == [3, 2, 1]


def test_store_with_concurrent_writers_loses_nothing(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_write_ten, [tmp_path] * 2, [0, 5]))

    texts = [f"text {i}" for i in range(15)]
    found = _store(tmp_path).read(_keys(*texts), width=2)
    assert found.present.all()
    assert found.vectors[:, 0].tolist() == list(range(15))
    assert len(list((tmp_path / SPACE.name).glob("*.parquet"))) == 15  # five of the twenty are the same


def _write_ten(folder: Path, first: int) -> None:
    store = _store(folder)
    for i in range(first, first + 10):
        store.append(_keys(f"text {i}"), _vectors(i), np.zeros(1, bool))


def test_vector_column_round_trip() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)

    column = vector_column(vectors)

    assert str(column.type) == "fixed_size_list<item: float>[3]"
    np.testing.assert_array_equal(vector_matrix(column), vectors)
    np.testing.assert_array_equal(vector_matrix(column.slice(1, 2)), vectors[1:3])


def _store(folder: Path, space: Space = SPACE) -> EmbeddingStore:
    return EmbeddingStore(pafs.LocalFileSystem(), str(folder), space)


def _keys(*texts: str) -> list[bytes]:
    return [text_key(text) for text in texts]


def _vectors(*values: float) -> np.ndarray:
    return np.array([[value, 0] for value in values], dtype=np.float32)
