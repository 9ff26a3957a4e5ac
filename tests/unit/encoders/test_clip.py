"""Texts and pictures in one space, against transformers itself, on a tiny random CLIP."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.clip import PictureModel, join_vectors
from encoders.config import FinetuneConfig
from encoders.language_model import LanguageModel, choose_pooling, model_width
from encoders.model_files import ModelError, resolve_model
from encoders.tuning import Tuner
from tests.unit.encoders.tiny_models import save_clip

TEXTS = ["red shoe", "a", "viewed : blue lamp ; green phone"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


def picture(colour: str, size: tuple[int, int] = (40, 24)) -> bytes:
    """A PNG of one colour with a darker corner."""
    image = Image.new("RGB", size, colour)
    image.paste((10, 20, 30), (0, 0, size[0] // 3, size[1] // 2))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def test_clip_texts_equal_transformers_one_by_one(clip: Path) -> None:
    from transformers import AutoTokenizer, CLIPModel

    raw, tokenizer = CLIPModel.from_pretrained(clip).eval(), AutoTokenizer.from_pretrained(clip)
    with torch.no_grad():
        expected = []
        for text in TEXTS:
            inputs = tokenizer(text, return_tensors="pt")
            pooled = raw.text_model(**{k: inputs[k] for k in ("input_ids", "attention_mask")}).pooler_output
            expected.append(raw.text_projection(pooled)[0])
        unit = torch.nn.functional.normalize(torch.stack(expected), dim=-1)
    files = resolve_model(str(clip))

    encoded = LanguageModel(files, max_tokens=16, precision="fp32").encode(TEXTS)

    np.testing.assert_allclose(encoded.vectors, unit, atol=1e-5)
    assert np.abs(encoded.vectors[0] - encoded.vectors[1]).max() > 0.01
    assert (model_width(files), choose_pooling("auto", files)) == (12, "last")


def test_pictures_equal_transformers_one_by_one(clip: Path) -> None:
    from transformers import CLIPImageProcessorPil, CLIPModel

    raw, processor = CLIPModel.from_pretrained(clip).eval(), CLIPImageProcessorPil.from_pretrained(clip)
    pictures = [picture("red"), picture("blue", (20, 60)), picture("green", (16, 16))]
    with torch.no_grad():
        expected = []
        for data in pictures:
            pixels = processor(Image.open(io.BytesIO(data)), return_tensors="pt")["pixel_values"]
            expected.append(raw.visual_projection(raw.vision_model(pixels).pooler_output)[0])
        unit = torch.nn.functional.normalize(torch.stack(expected), dim=-1)

    vectors, problems = PictureModel(resolve_model(str(clip)), "fp32").encode(pictures)

    assert not problems
    np.testing.assert_allclose(vectors, unit, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 0.01


def test_pictures_in_batches_keep_their_rows(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = PictureModel(resolve_model(str(clip)), "fp32")
    pictures = [picture(colour) for colour in ("red", "blue", "green", "white", "black")]
    whole, _ = model.encode(pictures)
    monkeypatch.setattr("encoders.clip.BATCH_PICTURES", 2)

    np.testing.assert_allclose(model.encode(pictures)[0], whole, atol=1e-6)


def test_file_that_is_no_picture_is_named_and_stops_nothing(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = PictureModel(resolve_model(str(clip)), "fp32")
    monkeypatch.setattr("encoders.clip.MAX_PIXELS", 1000)
    pictures = [b"no picture", picture("red"), picture("red")[:60], picture("red", (50, 50))]

    vectors, problems = model.encode(pictures)

    assert sorted(problems) == [0, 2, 3]
    assert all(reason.startswith("not a readable picture: ") for reason in problems.values())
    assert "50 x 50 pixels, more than 1000" in problems[3]
    assert np.linalg.norm(vectors, axis=1).round(3).tolist() == [0, 1, 0, 0]


def test_join_vectors_is_the_middle_or_what_there_is() -> None:
    texts = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], dtype=np.float32)
    pictures = np.array([[0, 1], [0, 0], [0, 1], [0, 0]], dtype=np.float32)

    joined = join_vectors(texts, pictures)

    half = 0.5**0.5
    np.testing.assert_allclose(joined, [[half, half], [1, 0], [0, 1], [0, 0]], atol=1e-6)


def test_clip_refuses_other_poolings_long_texts_and_tuning(clip: Path) -> None:
    files = resolve_model(str(clip))

    with pytest.raises(ModelError, match="expected auto, as CLIP pools by itself, got mean"):
        LanguageModel(files, pooling="mean", max_tokens=16)
    with pytest.raises(ModelError, match="max_tokens: expected at most the model's 32, got 64"):
        LanguageModel(files, max_tokens=64)
    with pytest.raises(ModelError, match="expected a model of texts to tune, got a CLIP"):
        Tuner(files, "last", FinetuneConfig(), seed=0)
