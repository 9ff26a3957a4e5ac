"""Tuning: losses against slow references, learning on a shop whose order is known, and resuming."""

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.config import FinetuneConfig, Pooling
from encoders.language_model import LanguageModel
from encoders.model_files import ModelError, resolve_model
from encoders.tuning import Tuner, contrastive_loss, mask_tokens, retrieval_gains
from encoders.tuning_loop import TuningData, learning_rate, tune
from encoders.tuning_pairs import NextItems
from tests.unit.encoders.tiny_models import save_bert, save_gpt2

needs_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="the extra lora is not installed"
)
ITEMS = ["red shoe", "blue lamp", "green phone", "apple phone"]
FOLLOWS = {"red": 1, "blue": 2, "green": 3, "samsung": 0}  # a history's first word names the next item


def test_contrastive_loss_equals_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    query, items = (
        torch.nn.functional.normalize(torch.randn(n, 3, generator=generator), dim=-1) for n in (4, 6)
    )
    ids, popularity = torch.tensor([5, 7, 5, 9, 2, 9]), torch.tensor([-1.0, -2.0, -1.0, -0.5, -3.0, -0.5])

    loss = contrastive_loss(query, items, ids, popularity, temperature=0.1)

    expected = 0.0
    for b in range(4):
        scores = {}
        for other in range(6):
            if other == b or ids[other] != ids[b]:
                scores[other] = float(query[b] @ items[other]) / 0.1 - float(popularity[other])
        expected -= math.log(math.exp(scores[b]) / sum(math.exp(score) for score in scores.values())) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_contrastive_loss_with_correction_is_the_loss_over_the_catalogue() -> None:
    """Drawn by popularity and corrected, a large batch's softmax is that over all items."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.tensor([1.0, -0.5, 0.3])  # of one query with three items
    shares = torch.tensor([0.6, 0.3, 0.1])
    drawn = torch.multinomial(shares, 20_000, replacement=True, generator=generator)
    corrected = torch.logsumexp((scores - shares.log())[drawn], 0) - math.log(20_000)

    assert corrected.item() == pytest.approx(torch.logsumexp(scores, 0).item(), abs=0.03)


def test_mask_tokens_hides_a_share_and_never_padding() -> None:
    ids, mask = torch.arange(1, 2001).reshape(20, 100), torch.ones(20, 100, dtype=torch.long)
    mask[:, 60:] = 0

    hidden, targets = mask_tokens(ids, mask, 0, np.random.default_rng(0))

    changed = hidden != ids
    assert not changed[:, 60:].any()
    assert changed.sum() / mask.sum() == pytest.approx(0.15, abs=0.03)
    assert torch.equal(targets[changed], ids[changed])
    assert (targets[~changed] == -100).all()


def test_retrieval_gains_count_ties_half() -> None:
    items = np.eye(4, dtype=np.float32)[[0, 1, 2, 2]]
    queries = np.array([[1, 0.5, 0, 0], [0, 0, 1, 0]], dtype=np.float32)

    hits, ndcg = retrieval_gains(queries, items, np.array([1, 3]), k=1)
    assert hits.tolist() == [0, 1]  # item 3 ties with item 2 for the first place
    np.testing.assert_allclose(ndcg, [0, 1 / math.log2(2.5)])

    hits, ndcg = retrieval_gains(queries, items, np.array([1, 0]), k=2)
    assert hits.tolist() == [1, 0]
    np.testing.assert_allclose(ndcg, [1 / math.log2(3), 0])


def test_learning_rate_rises_and_falls() -> None:
    config = FinetuneConfig(num_steps=20, learning_rate=1.0)

    rates = [learning_rate(step, config) for step in range(20)]

    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx(1 / 18)


@pytest.mark.parametrize(
    ("save", "pooling", "options"),
    [
        (save_bert, "cls", {}),
        (save_bert, "mean", {"language_modelling": 0.2}),
        (save_gpt2, "last", {"language_modelling": 0.2}),
        pytest.param(save_bert, "cls", {"method": "lora"}, marks=needs_peft),
        pytest.param(save_gpt2, "last", {"method": "lora", "num_steps": 80}, marks=needs_peft),
    ],
)
def test_tuning_learns_what_follows_and_its_files_embed(
    tmp_path: Path, save: Callable[[Path], Path], pooling: Pooling, options: dict[str, Any]
) -> None:
    files = resolve_model(str(save(tmp_path / "base")))
    steps = {"num_steps": 50, "batch_pairs": 8, "check_every": 25, "learning_rate": 0.01, "temperature": 0.3}
    config = FinetuneConfig(**{**steps, **options})
    tuner = Tuner(files, pooling, config, seed=0)
    before = _ndcg(LanguageModel(files, pooling=pooling, max_tokens=32, precision="fp32"))

    curve = tune(tuner, _data(), config, seed=0, load=lambda: None, save=lambda content: None)
    tuner.save(str(tmp_path / "tuned"))

    tuned = resolve_model(str(tmp_path / "tuned"))
    model = LanguageModel(tuned, pooling=pooling, max_tokens=32, precision="fp32")
    assert before < 0.75
    assert curve[-1]["ndcg"] > 0.9
    assert _ndcg(model) > 0.9
    np.testing.assert_allclose(model.encode(ITEMS).vectors, tuner.embed(ITEMS), atol=0.02)  # bf16 may tune
    assert tuned.weights_sha256 != files.weights_sha256


def test_tuning_continues_from_a_checkpoint_to_the_same_end(tmp_path: Path) -> None:
    files = resolve_model(str(save_bert(tmp_path / "base")))
    config = FinetuneConfig(num_steps=8, check_every=4, batch_histories=4, batch_pairs=2, learning_rate=0.01)
    checkpoints: list[bytes] = []
    whole = Tuner(files, "mean", config, seed=0)
    curve = tune(whole, _data(), config, seed=0, load=lambda: None, save=checkpoints.append)

    resumed = Tuner(files, "mean", config, seed=0)
    again = tune(resumed, _data(), config, seed=0, load=lambda: checkpoints[0], save=lambda content: None)

    assert len(checkpoints) == 2
    assert [row["step"] for row in again] == [0, 4, 8]
    assert again == [pytest.approx(row) for row in curve]
    np.testing.assert_allclose(resumed.embed(ITEMS), whole.embed(ITEMS), atol=1e-5)


def test_tuning_stops_when_checks_stop_gaining_and_keeps_the_best(tmp_path: Path) -> None:
    files = resolve_model(str(save_bert(tmp_path / "base")))
    config = FinetuneConfig(num_steps=50, check_every=1, patience=2, learning_rate=1e-9, batch_pairs=2)
    tuner = Tuner(files, "mean", config, seed=0)

    curve = tune(tuner, _data(), config, seed=0, load=lambda: None, save=lambda content: None)

    assert [row["step"] for row in curve] == [0, 1, 2]


def test_lora_without_peft_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)

    with pytest.raises(ModelError, match="expected the package peft for lora, found none"):
        Tuner(resolve_model(str(save_bert(tmp_path / "b"))), "mean", FinetuneConfig(method="lora"), seed=0)


def test_tuning_on_a_log_that_is_too_short_says_so(tmp_path: Path) -> None:
    tuner = Tuner(resolve_model(str(save_bert(tmp_path / "b"))), "mean", FinetuneConfig(), seed=0)
    nothing = NextItems([], np.zeros(0, np.int64), [])

    with pytest.raises(ValueError, match="expected validation sessions of a user with a past"):
        data = TuningData(ITEMS, _data().train, nothing, np.zeros((0, 2), np.int64))
        tune(tuner, data, FinetuneConfig(), seed=0, load=lambda: None, save=lambda content: None)


def _data() -> TuningData:
    histories = [f"{word} {more}" for word in FOLLOWS for more in ("a", "b", "c", "d")]
    moments = NextItems(histories, np.repeat(list(FOLLOWS.values()), 4), ["u"] * 16)
    return TuningData(ITEMS, moments, moments, np.array([[0, 1]]))


def _ndcg(model: LanguageModel) -> float:
    moments = _data().validation
    vectors = model.encode(moments.history).vectors
    gains = retrieval_gains(vectors, model.encode(ITEMS).vectors, moments.item)
    return float(gains[1].mean())
