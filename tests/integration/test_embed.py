"""The stage embed on an ingest folder made by hand, with a tiny model, through Ray Data."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from cluster.connection import connect
from encoders.language_model import LanguageModel
from encoders.model_files import ModelError, resolve_model
from encoders.store import Space, vector_matrix
from encoders.text import EMPTY_PAST
from pipelines import embed
from pipelines.artifacts import RunDirectory
from pipelines.config import Config, build_config
from pipelines.embed import EMBED
from pipelines.stages import run_stage
from tests.unit.encoders.tiny_models import save_bert

pytestmark = pytest.mark.ray

ITEMS = [
    {"item_id": "1", "category": "electronics.smartphone", "brand": "samsung"},
    {"item_id": "2", "category": "electronics.smartphone", "brand": "samsung"},
    {"item_id": "3", "category": "shoe", "brand": None},
    {"item_id": "4", "category": None, "brand": None},
]
ROWS = [  # user, session, item, behaviour, minute
    ("u", "s1", "1", "view", 0),
    ("u", "s1", "1", "purchase", 1),
    ("u", "s3", "3", "impression", 90),
    ("u", "s3", "3", "view", 91),
    ("v", "s2", "4", "view", 40),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    with connect(build_config({"cluster": {"num_cpus": 2}}).cluster):
        yield


def test_embed_writes_the_contract_and_then_encodes_only_what_is_new(tmp_path: Path, model: Path) -> None:
    config = _run_directory(tmp_path, model)

    manifest = run_stage(EMBED, config)

    folder = RunDirectory(config.paths.run).folder("embed")
    alone = LanguageModel(resolve_model(str(model)), max_tokens=32, precision="fp32")
    phone = "electronics smartphone, samsung"
    expected = {
        "items.parquet": {"1": phone, "2": phone, "3": "shoe", "4": "4"},
        "pasts.parquet": {"s1": EMPTY_PAST, "s3": f"purchased: {phone}", "s2": EMPTY_PAST},
        "users.parquet": {"u": f"purchased: {phone}. viewed: shoe", "v": "viewed: 4"},
    }
    for name, texts in expected.items():
        table = folder.read_table(name)
        assert table.column(0).to_pylist() == list(texts)
        assert str(table.schema.field("embedding").type) == "fixed_size_list<element: float>[16]"
        vectors = vector_matrix(table.column("embedding"))
        np.testing.assert_allclose(vectors, alone.encode(list(texts.values())).vectors, atol=1e-6)
    written = folder.read_json("encoder.json")
    np.testing.assert_allclose(written["empty_past"], alone.encode([EMPTY_PAST]).vectors[0], atol=1e-6)
    assert {key: written[key] for key in ("pooling", "precision", "width", "max_tokens", "revision")} == {
        "pooling": "mean",
        "precision": "fp32",
        "width": 16,
        "max_tokens": 32,
        "revision": "local",
    }
    assert (written["num_texts"], written["num_distinct"], written["num_cut"]) == (9, 7, 0)
    assert manifest["result"]["num_encoded"] == 7

    assert run_stage(EMBED, config)["skipped"]

    # v's past as a whole is new; the past before s4 was v's whole past until now
    longer = run_stage(EMBED, _run_directory(tmp_path, model, ("v", "s4", "3", "cart", 200)))
    assert (longer["skipped"], longer["result"]["num_encoded"]) == (False, 1)


def test_embed_goes_on_after_an_interruption(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = _run_directory(tmp_path, model)

    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(embed, "_write", interrupted)
        run_stage(EMBED, config)
    assert RunDirectory(config.paths.run).manifest("embed") is None
    shard = next((tmp_path / "run" / "embeddings").rglob("*.parquet"))
    table = pl.read_parquet(shard)
    shard.unlink()
    table.head(3).write_parquet(shard)

    manifest = run_stage(EMBED, config)

    assert manifest["result"]["num_encoded"] == len(table) - 3 == 4


def test_embed_with_two_actors_equals_none(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "BATCH_TEXTS", 2)
    config = _run_directory(tmp_path, model, num_actors=2)

    run_stage(EMBED, config)

    table = RunDirectory(config.paths.run).folder("embed").read_table("users.parquet")
    alone = LanguageModel(resolve_model(str(model)), max_tokens=32, precision="fp32")
    expected = alone.encode(["purchased: electronics smartphone, samsung. viewed: shoe", "viewed: 4"]).vectors
    np.testing.assert_allclose(vector_matrix(table.column("embedding")), expected, atol=1e-6)
    assert len(list((tmp_path / "run" / "embeddings").rglob("*.parquet"))) == 4


def test_embed_when_an_actor_finds_other_weights_says_so_in_one_line(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Space("f" * 64, "mean", "fp32", 32)
    monkeypatch.setattr(embed, "_space", lambda config, files: (space, 16))

    with pytest.raises(
        ModelError, match=r"^encoder.model: expected weights ffffffffffffffff on every host[^\n]*$"
    ):
        run_stage(EMBED, _run_directory(tmp_path, model))


def _run_directory(
    folder: Path, model: Path, *more: tuple[str, str, str, str, int], num_actors: int = 1
) -> Config:
    """A run directory with a finished ingest stage, and the config for it."""
    run = RunDirectory(str(folder / "run"))
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [(*row[:4], start + timedelta(minutes=row[4])) for row in [*ROWS, *more]]
    partial = run.partial("ingest", "0" * 64)
    for shard, user in enumerate("uv"):
        columns = list(zip(*(row for row in rows if row[0] == user), strict=True))
        names = ("user_id", "session_id", "item_id", "behaviour", "timestamp")
        arrays = [pa.array(column) for column in columns]
        arrays[-1] = arrays[-1].cast(pa.timestamp("us", "UTC"))
        partial.write_table(
            f"behaviours/shard-{shard:05d}.parquet", pa.table(dict(zip(names, arrays, strict=True)))
        )
    schema = pa.schema([(name, pa.string()) for name in ("item_id", "category", "brand")])
    partial.write_table("items.parquet", pa.Table.from_pylist(ITEMS, schema=schema))
    run.publish("ingest", partial, {"key": json.dumps(rows, default=str), "seconds": 0.0, "result": {}})
    encoder = {
        "model": str(model),
        "max_tokens": 32,
        "precision": "fp32",
        "num_cpus": 1,
        "num_actors": num_actors,
    }
    return build_config({"paths": {"run": str(folder / "run")}, "encoder": encoder})
