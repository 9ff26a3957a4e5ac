"""The stage finetune: here and on Ray Train's workers, and its model on to embed."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cluster.connection import connect
from encoders.model_files import resolve_model
from pipelines import finetune
from pipelines.artifacts import ArtifactError, RunDirectory
from pipelines.config import Config, build_config, override_config
from pipelines.embed import EMBED
from pipelines.finetune import FINETUNE_STAGE
from pipelines.stages import run_stage
from tests.unit.encoders.tiny_models import save_bert

pytestmark = pytest.mark.ray

TITLES = [
    f"{colour} {thing}"
    for colour in ("red", "blue", "green")
    for thing in ("shoe", "phone", "lamp", "samsung")
]
SETTINGS = {
    "num_steps": 40,
    "check_every": 20,
    "batch_histories": 16,
    "batch_pairs": 16,
    "learning_rate": 0.01,
    "temperature": 0.3,
    "pairs_per_session": 4,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="module", autouse=True)
def one_ray() -> Iterator[None]:
    with connect(build_config({"cluster": {"num_cpus": 4}}).cluster):
        yield


def test_finetune_finds_later_items_better_and_embed_takes_its_model(tmp_path: Path, model: Path) -> None:
    config = _run_directory(tmp_path, model)

    result = run_stage(FINETUNE_STAGE, config)["result"]

    assert result["after"]["ndcg@10"]["low"] > result["before"]["ndcg@10"]["high"]
    assert result["difference"]["ndcg@10"]["low"] > 0
    run = RunDirectory(config.paths.run)
    report = run.folder("finetune").read_json("report.json")
    assert report["after"] == result["after"]
    assert [row["step"] for row in report["curve"]] == [0, 20, 40]
    assert not run.exists("finetune/checkpoint.safetensors")

    plain = run_stage(EMBED, config)["result"]
    vectors = run.folder("embed").read_table("items.parquet")
    tuned = run_stage(EMBED, override_config(config, {"encoder.tuned": True}))["result"]

    written = run.folder("embed").read_json("encoder.json")
    assert plain["num_encoded"] == tuned["num_encoded"] > 0
    assert vectors != run.folder("embed").read_table("items.parquet")
    assert written["weights_sha256"] == result["weights_sha256"]
    assert written["weights_sha256"] == resolve_model(run.join("finetune/model")).weights_sha256
    assert written["model"] == f"{model} tuned"
    assert written["revision"] == f"finetune {run.manifest('finetune')['key'][:16]}"
    assert len(list((tmp_path / "run" / "embeddings").iterdir())) == 2  # a space for each model


def test_finetune_after_an_interruption_ends_as_if_there_had_been_none(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_stage(FINETUNE_STAGE, _run_directory(tmp_path / "whole", model))["result"]
    config = _run_directory(tmp_path / "cut", model)

    def interrupt(row: dict[str, float]) -> None:
        if row["step"] == 40:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "_show_check", interrupt)
        run_stage(FINETUNE_STAGE, config)
    steps: list[float] = []
    monkeypatch.setattr(finetune, "_show_check", lambda row: steps.append(row["step"]))
    again = run_stage(FINETUNE_STAGE, config)["result"]

    assert steps == [40]  # not from 0
    assert again["weights_sha256"] == whole["weights_sha256"]


def test_finetune_on_two_workers_learns_one_model(tmp_path: Path, model: Path) -> None:
    config = override_config(_run_directory(tmp_path, model), {"finetune.num_workers": 2})

    result = run_stage(FINETUNE_STAGE, config)["result"]

    assert result["num_steps"] == 40
    assert result["after"]["ndcg@10"]["low"] > result["before"]["ndcg@10"]["high"]
    names = RunDirectory(config.paths.run).folder("finetune").files()
    assert "model/model.safetensors" in names
    assert not any(name.startswith("ray/") for name in names)


def test_embed_asks_for_finetune_where_its_model_is_not_there(tmp_path: Path, model: Path) -> None:
    config = override_config(_run_directory(tmp_path, model), {"encoder.tuned": True})

    with pytest.raises(
        ArtifactError, match=r"encoder.tuned: .*finetune is not finished. Run `slatewise finetune`"
    ):
        run_stage(EMBED, config)


def _run_directory(folder: Path, model: Path) -> Config:
    """A log in which a thing is followed by the same thing in the next colour, and the config for it."""
    run = RunDirectory(str(folder / "run"))
    dice = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for user in range(90):
        thing, split = user % 4, ("train", "train", "train", "validation", "test")[user // 4 % 5]
        for step, colour in enumerate(dice.permutation(3)):
            rows.append(
                {
                    "user_id": f"u{user:02d}",
                    "session_id": f"s{user:02d}-{step // 2}",
                    "item_id": f"i{4 * colour + thing:02d}",
                    "behaviour": "view",
                    "timestamp": start + timedelta(hours=step),
                    "split": split,
                }
            )
    partial = run.partial("ingest", "0" * 64)
    table = pa.Table.from_pylist(rows)
    table = table.set_column(4, "timestamp", table["timestamp"].cast(pa.timestamp("us", "UTC")))
    partial.write_table("behaviours/shard-00000.parquet", table)
    items = [{"item_id": f"i{row:02d}", "title": title} for row, title in enumerate(TITLES)]
    partial.write_table("items.parquet", pa.Table.from_pylist(items))
    run.publish("ingest", partial, {"key": "0" * 64, "seconds": 0.0, "result": {}})
    encoder = {"model": str(model), "max_tokens": 32, "precision": "fp32", "pooling": "mean", "num_actors": 1}
    return build_config({"paths": {"run": run.uri}, "encoder": encoder, "finetune": SETTINGS})
