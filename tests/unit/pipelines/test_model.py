"""Which model embeds: as configured, or tuned, here or fetched from where the run lies."""

import json
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from encoders.config import EncoderConfig
from encoders.model_files import resolve_model
from pipelines import model as model_module
from pipelines.artifacts import RunDirectory
from pipelines.model import find_model, prompts
from tests.unit.encoders.tiny_models import save_bert


def test_model_as_configured(tmp_path: Path) -> None:
    base = save_bert(tmp_path / "base")

    assert find_model(EncoderConfig(model=str(base)), str(tmp_path / "run")) == resolve_model(str(base))


def test_tuned_model_has_a_name_and_hash_of_its_own(tmp_path: Path) -> None:
    base = save_bert(tmp_path / "base")
    _finish_tuning(tmp_path / "run")

    files = find_model(EncoderConfig(model=str(base), tuned=True), str(tmp_path / "run"))

    assert (files.name, files.revision) == (f"{base} tuned", "finetune " + "7" * 16)
    assert files.weights_sha256 != resolve_model(str(base)).weights_sha256


def test_tuned_model_of_a_run_elsewhere_is_fetched_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _finish_tuning(tmp_path / "far" / "run")
    far = pafs.SubTreeFileSystem(str(tmp_path / "far"), pafs.LocalFileSystem())
    monkeypatch.setattr("pipelines.artifacts.open_filesystem", lambda uri: (far, "run"))
    monkeypatch.setattr(model_module, "gettempdir", lambda: str(tmp_path / "here"))
    encoder = EncoderConfig(model="base", tuned=True)

    first = find_model(encoder, "s3://bucket/run")
    stamps = {path: path.stat().st_mtime_ns for path in first.directory.iterdir()}
    again = find_model(encoder, "s3://bucket/run")

    assert first == again
    assert first.directory.parent == tmp_path / "here"
    assert first.weights_sha256 == resolve_model(str(tmp_path / "far/run/finetune/model")).weights_sha256
    assert stamps == {path: path.stat().st_mtime_ns for path in again.directory.iterdir()}


def test_prompts_of_the_config_win_over_the_models_own(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    content = {"prompts": {"query": "query: ", "document": "passage: "}}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(content))
    files = resolve_model(str(folder))

    assert prompts(EncoderConfig(), files) == ("passage: ", "query: ")
    assert prompts(EncoderConfig(item_prompt="item: ", past_prompt=""), files) == ("item: ", "")


def _finish_tuning(run: Path) -> None:
    save_bert(run / "finetune" / "model", seed=1)
    RunDirectory(str(run)).folder("finetune").write_json(
        "manifest.json", {"schema_version": 1, "key": "7" * 64, "result": {}}
    )
