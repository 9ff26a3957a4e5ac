"""What response models read of embeddings: leading directions, and texts as they are compared."""

import numpy as np
import pytest
from numpy.typing import NDArray

from rl.simulator.features import compared_texts, whitened_directions


def embeddings(scale: tuple[float, ...] = (3.0, 1.0, 0.1, 0.1), count: int = 500) -> NDArray[np.float32]:
    """Independent columns of these deviations. float32 [count, D]."""
    drawn = np.random.default_rng(0).normal(size=(count, len(scale))) * np.array(scale) + 5.0
    return drawn.astype(np.float32)


def alike(texts: NDArray[np.float32], pasts: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosines of pasts and texts. float32 [B, N]."""
    return pasts / np.linalg.norm(pasts, axis=1, keepdims=True) @ texts.T


def test_leading_directions_have_unit_variance_and_the_rest_is_zero():
    texts = embeddings()

    projection = whitened_directions(texts, 6)

    assert projection.shape == (4, 6)
    np.testing.assert_allclose(((texts - texts.mean(0)) @ projection)[:, :4].std(0), 1.0, rtol=0.05)
    assert not projection[:, 4:].any()


def test_without_categories_texts_are_compared_as_long_as_they_are():
    texts = embeddings()
    centred = texts - texts.mean(0)

    compared, projection = compared_texts(texts, np.arange(len(texts)), 2)

    plain = centred[:, :2] / np.linalg.norm(centred[:, :2], axis=1, keepdims=True)
    np.testing.assert_allclose(compared @ compared.T, plain @ plain.T, atol=0.15)
    spread = (centred @ projection).std(0)
    np.testing.assert_allclose(spread[0] / spread[1], 3.0, rtol=0.1)


def test_what_sets_categories_apart_counts_and_not_what_is_loudest():
    category = np.arange(600) % 3
    told = np.array([[1.0, 0.0], [-0.5, 0.8], [-0.5, -0.8]])[category]
    texts = embeddings((4.0, 4.0, 0.3, 0.3), 600)  # loud words that say nothing of the category,
    texts[:, 2:] += told  # quiet ones that do

    compared, projection = compared_texts(texts, category, 8)

    assert not projection[:, 2:].any()  # three categories are told apart in two directions
    cosines = compared @ compared.T
    same = category[:, None] == category
    np.testing.assert_allclose(cosines[same], 1.0, atol=1e-5)
    assert cosines[~same].max() < -0.3
    pasts = (texts - texts.mean(0)) @ projection  # a past of one item each
    best = category[alike(compared, pasts).argmax(1)]
    assert (best == category).mean() > 0.95


def test_items_without_a_category_keep_their_own_text():
    texts = embeddings((1.0, 1.0), 60)
    category = np.where(np.arange(60) < 40, np.arange(60) % 2, 2 + np.arange(60))
    category = np.unique(category, return_inverse=True)[1]

    compared, _ = compared_texts(texts, category, 2)

    assert len(np.unique(compared[:40].round(5), axis=0)) == 2
    assert len(np.unique(compared[40:].round(5), axis=0)) == 20


@pytest.mark.parametrize("value", [0.0, 0.3, 1234.5])
def test_equal_texts_are_alike_in_nothing(value: float):
    compared, projection = compared_texts(np.full((30, 3), value, np.float32), np.arange(30) % 3, 4)

    assert np.isfinite(compared).all() and not compared.any() and not projection.any()
