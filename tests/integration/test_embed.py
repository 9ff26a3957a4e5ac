"""The stage embed on an ingest folder made by hand, with a tiny model, through Ray Data."""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from cluster.connection import connect
from encoders.clip import PictureModel, join_vectors
from encoders.language_model import LanguageModel
from encoders.model_files import ModelError, resolve_model
from encoders.store import EmbeddingStore, Space, text_key, vector_matrix
from encoders.text import EMPTY_PAST
from pipelines import embed, encode
from pipelines.artifacts import RunDirectory
from pipelines.config import Config, build_config, override_config
from pipelines.embed import EMBED
from pipelines.stages import run_stage
from tests.unit.encoders.test_clip import picture
from tests.unit.encoders.tiny_models import save_bert, save_clip, save_gpt2

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
    table = pq.read_table(shard)
    shard.unlink()
    pq.write_table(table.slice(0, 3), shard)

    manifest = run_stage(EMBED, config)

    assert manifest["result"]["num_encoded"] == len(table) - 3 == 4


def test_embed_with_two_actors_equals_none(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BATCH_ROWS", 2)
    config = _run_directory(tmp_path, model, num_actors=2)

    run_stage(EMBED, config)

    table = RunDirectory(config.paths.run).folder("embed").read_table("users.parquet")
    alone = LanguageModel(resolve_model(str(model)), max_tokens=32, precision="fp32")
    expected = alone.encode(["purchased: electronics smartphone, samsung. viewed: shoe", "viewed: 4"]).vectors
    np.testing.assert_allclose(vector_matrix(table.column("embedding")), expected, atol=1e-6)
    assert len(list((tmp_path / "run" / "embeddings").rglob("*.parquet"))) == 4


def test_embed_names_the_item_whose_text_the_model_cannot_take_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_gpt2(tmp_path / "gpt2")
    content = json.loads((model / "tokenizer.json").read_text())
    content["normalizer"] = {"type": "Replace", "pattern": {"String": "§"}, "content": ""}
    (model / "tokenizer.json").write_text(json.dumps(content))
    monkeypatch.setitem(ITEMS[3], "category", "§")
    config = _run_directory(tmp_path, model)

    manifest = run_stage(EMBED, config)

    folder = RunDirectory(config.paths.run).folder("embed")
    failed = folder.read_table("failed.parquet").to_pylist()
    assert failed == [
        {"kind": "item", "id": "4", "reason": "the tokenizer finds no token in it", "text": "§"},
    ]
    assert (manifest["result"]["num_failed"], manifest["result"]["num_encoded"]) == (1, 6)
    vectors = vector_matrix(folder.read_table("items.parquet").column("embedding"))
    assert np.linalg.norm(vectors, axis=1).round(3).tolist() == [1, 1, 1, 0]
    assert (
        "1 texts or pictures could not be embedded and count as unknown, the first is of item 4"
        in caplog.text
    )


def test_embed_counts_texts_that_were_cut(tmp_path: Path, model: Path) -> None:
    config = _run_directory(tmp_path, model)
    short = override_config(config, {"encoder.max_tokens": 8})

    # "[CLS] purchased : electronics smartphone , samsung [SEP]" fits; the past of u as a whole does not
    assert run_stage(EMBED, short)["result"]["num_cut"] == 1


def test_embed_when_an_actor_is_killed_loses_and_doubles_nothing(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "BATCH_ROWS", 1)
    config = _run_directory(tmp_path, model)
    files = resolve_model(str(model))
    space = Space(files.weights_sha256, "mean", "fp32", 32)
    texts = [f"a b {number}" for number in range(400)]
    at_kill: list[int] = []
    niceness: list[int] = []

    def kill_once_started() -> None:
        while len(list(tmp_path.glob("store/*/*.parquet"))) < 5:
            time.sleep(0.005)
        actor = _actor_process()
        niceness.append(os.getpriority(os.PRIO_PROCESS, actor))
        os.kill(actor, signal.SIGKILL)
        at_kill.append(len(list(tmp_path.glob("store/*/*.parquet"))))

    killer = threading.Thread(target=kill_once_started)
    killer.start()
    problems = encode.encode_texts(texts, config, space, str(tmp_path / "store"))
    killer.join()

    store = EmbeddingStore(pafs.LocalFileSystem(), str(tmp_path / "store"), space)
    keys = [text_key(text) for text in texts]
    stored = [k for f in tmp_path.glob("store/*/*.parquet") for k in pq.read_table(f)["key"].to_pylist()]
    assert at_kill[0] < len(texts)
    assert niceness == [os.getpriority(os.PRIO_PROCESS, 0)]  # else other work on the machine starves it
    assert not problems
    assert sorted(stored) == sorted(keys)
    alone = LanguageModel(files, max_tokens=32, precision="fp32").encode(texts)
    np.testing.assert_allclose(store.read(keys, 16).vectors, alone.vectors, atol=1e-6)


def _actor_process() -> int:
    """The process of the actor that encodes, among those that this one's Ray started."""
    parents = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal():
                parents[int(folder.name)] = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
    for process in parents:
        ancestor = process
        while ancestor in parents and ancestor != os.getpid():
            ancestor = parents[ancestor]
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{process}/cmdline").read_bytes()
            if ancestor == os.getpid() and b"EncodeTexts" in title:
                return process
    raise AssertionError("no actor found")


def test_embed_shares_a_store_between_runs(tmp_path: Path, model: Path) -> None:
    store = {"encoder.store": str(tmp_path / "shared")}
    first = override_config(_run_directory(tmp_path / "one", model), store)
    second = override_config(_run_directory(tmp_path / "two", model), store)

    counts = [run_stage(EMBED, config)["result"]["num_encoded"] for config in (first, second)]

    assert counts == [7, 0]


def test_embed_puts_prompts_before_texts(tmp_path: Path, model: Path) -> None:
    config = _run_directory(tmp_path, model)
    prompts = {"encoder.item_prompt": "red ", "encoder.past_prompt": "blue "}

    run_stage(EMBED, override_config(config, prompts))

    folder = RunDirectory(config.paths.run).folder("embed")
    alone = LanguageModel(resolve_model(str(model)), max_tokens=32, precision="fp32")
    for name, row, text in (("items.parquet", 2, "red shoe"), ("users.parquet", 1, "blue viewed: 4")):
        vectors = vector_matrix(folder.read_table(name).column("embedding"))
        np.testing.assert_allclose(vectors[row], alone.encode([text]).vectors[0], atol=1e-6)
    empty = folder.read_json("encoder.json")["empty_past"]
    np.testing.assert_allclose(empty, alone.encode([f"blue {EMPTY_PAST}"]).vectors[0], atol=1e-6)


def test_embed_joins_texts_and_pictures_of_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = save_clip(tmp_path / "clip")
    images = tmp_path / "images"
    images.mkdir()
    for name, colour in (("one.png", "red"), ("same.png", "red"), ("two.png", "blue")):
        (images / name).write_bytes(picture(colour))
    (images / "bad.png").write_bytes(b"no picture")
    for item, name in zip(ITEMS, ("one.png", "same.png", "two.png", "bad.png"), strict=True):
        monkeypatch.setitem(item, "image", name)
    config = override_config(_run_directory(tmp_path, model), {"encoder.images": str(images)})

    result = run_stage(EMBED, config)["result"]

    folder = RunDirectory(config.paths.run).folder("embed")
    files = resolve_model(str(model))
    texts = ["electronics smartphone, samsung", "electronics smartphone, samsung", "shoe", "4"]
    said = LanguageModel(files, max_tokens=32, precision="fp32").encode(texts).vectors
    seen, _ = PictureModel(files, "fp32").encode([picture(c) for c in ("red", "red", "blue")])
    expected = join_vectors(said, np.concatenate([seen, np.zeros((1, 12), np.float32)]))
    vectors = vector_matrix(folder.read_table("items.parquet").column("embedding"))
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    # 7 texts, and two pictures as two files are one
    assert (result["num_encoded"], result["num_pictures"], result["num_failed"]) == (9, 3, 1)
    failed = folder.read_table("failed.parquet").to_pylist()
    assert [(row["kind"], row["id"]) for row in failed] == [("picture", "4")]

    text_only = save_bert(tmp_path / "bert")
    run_stage(EMBED, override_config(config, {"encoder.model": str(text_only)}))
    assert "the items have pictures, but" in caplog.text


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
    columns = [name for name in ("item_id", "category", "brand", "image") if name in ITEMS[0]]
    schema = pa.schema([(name, pa.string()) for name in columns])
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
