"""What the learning stages read: sessions, items and embeddings of a run."""

from functools import lru_cache

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from encoders.sessions import SessionLog, build_session_log
from pipelines.artifacts import Folder, RunDirectory
from pipelines.config import Config
from rl.simulator.simulation import Ensemble
from rl.simulator.storage import load_ensemble
from rl.tasks import Tasks, build_tasks

CATEGORY = "category"  # column of the item table that tastes, calibration and slices go by


def load_items(run: RunDirectory) -> pa.Table:
    """The item table; its row number is the item index."""
    return run.folder("ingest").read_table("items.parquet")


def item_column(items: pa.Table, name: str) -> list[str | None]:
    """A column of the item table as texts; None where an item has none, or nobody has."""
    if name not in items.column_names:
        return [None] * len(items)
    return [None if value in (None, "") else str(value) for value in items[name].to_pylist()]


def item_categories(items: pa.Table) -> NDArray[np.int64]:
    """Number of each item's ``category``, from 0; an item without one is a category of its own. int64 [N]."""
    numbers: dict[str | int, int] = {}
    keys = (row if name is None else name for row, name in enumerate(item_column(items, CATEGORY)))
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)


def load_item_embeddings(run: RunDirectory) -> NDArray[np.float32]:
    """Text embeddings of the items. float32 [N, D]."""
    return matrix(run.folder("embed").read_table("items.parquet", columns=["embedding"]))


def matrix(table: pa.Table) -> NDArray[np.float32]:
    """The rows of an ``embedding`` column, writable, as torch wants them. float32 [n, D]."""
    column = table["embedding"].combine_chunks()
    width = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.array(flat, dtype=np.float32).reshape(-1, width)


def load_session_log(run: RunDirectory, config: Config) -> SessionLog:
    """All sessions of a run as arrays."""
    tasks = build_tasks(config.rl.tasks)
    behaviours = pl.from_arrow(run.folder("ingest").read_table("behaviours"))
    assert isinstance(behaviours, pl.DataFrame)
    pasts = run.folder("embed").read_table("pasts.parquet")
    ids: list[str] = pasts["session_id"].to_pylist()
    items: list[str] = load_items(run)["item_id"].to_pylist()
    return build_session_log(
        behaviours,
        {item: index for index, item in enumerate(items)},
        dict(zip(ids, matrix(pasts), strict=True)),
        tasks.index,
    )


def load_simulator(run: RunDirectory, config: Config, part: str) -> Ensemble:
    """A fitted ensemble: ``train`` for learning, ``heldout`` for evaluation."""
    return read_ensemble(run.folder(f"fit-simulator/{part}"), build_tasks(config.rl.tasks))


def read_ensemble(folder: Folder, tasks: Tasks) -> Ensemble:
    """The ensemble in a folder."""
    names = ("ensemble.json", "ensemble.safetensors")
    return load_ensemble({name: folder.read_bytes(name) for name in names}, tasks)


@lru_cache(maxsize=2)
def cached_item_embeddings(uri: str) -> NDArray[np.float32]:
    """``load_item_embeddings`` once a process."""
    return load_item_embeddings(RunDirectory(uri))
