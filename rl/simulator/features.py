"""What response models read of embeddings: leading directions, and those in which texts are compared."""

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

_MOST_ROWS = 20_000  # that directions are found from
_RIDGE = 0.1  # of the mean variance of a direction
_ROUNDING = 1e-8  # of the mean square: smaller variances say nothing
_LEAST_APART = 0.01  # deviations within categories, by which they must differ in a direction


def whitened_directions(embeddings: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Projection [D, width] onto the leading directions, of unit variance each; zero where there are fewer.

    Text embeddings are wide; a few directions carry what a model can use.
    """
    centred = (embeddings - embeddings.mean(0))[:_MOST_ROWS].astype(np.float64)
    _, spread, vectors = np.linalg.svd(centred, full_matrices=False)
    deviations = spread / max(np.sqrt(len(centred)), 1)
    told = int((deviations > 1e-6 * max(deviations[0], 1e-12)).sum()) or 1
    keep = min(width, told)
    return _filled(vectors[:keep].T / np.maximum(deviations[:keep], 1e-6), width)


def compared_texts(
    embeddings: NDArray[np.float32], categories: NDArray[np.int64], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Texts of items as they are compared, and the projection that makes a past comparable.

    An item stands for its category, in the directions that tell categories apart: linear discriminants (Rao, 1948),
    widest first. Where every item is a category of its own these are the leading directions of the texts.

    Args:
        embeddings: float32 [N, D].
        categories: Of the items, from 0. int64 [N].
        width: How many directions; zero where there are fewer.

    Returns:
        Texts of unit length, float32 [N, width], and the projection, float32 [D, width].
    """
    mean, counts = embeddings.mean(0), np.bincount(categories).astype(np.float32)
    share = 1 / counts[categories]
    centres = sparse.csr_matrix((share, (categories, np.arange(len(share))))) @ embeddings - mean  # [C, D]
    every = (embeddings[:_MOST_ROWS] - mean).astype(np.float64)
    inside = every - centres[categories[:_MOST_ROWS]]
    size = float(np.square(embeddings[:_MOST_ROWS], dtype=np.float64).mean())
    ridge = max(_RIDGE * float(np.square(every).mean()), _ROUNDING * size, float(np.finfo(np.float32).tiny))
    within = inside.T @ inside / len(inside) + ridge * np.eye(len(mean))
    between = (centres * (counts / len(embeddings))[:, None]).T @ centres
    ratios, vectors = linalg.eigh(between.astype(np.float64), within)  # rising
    told = int((ratios > _LEAST_APART**2).sum())
    projection = _filled(vectors[:, ::-1][:, : min(width, told)], width)
    texts = centres @ projection
    texts /= np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-6)
    return texts[categories], projection


def _filled(projection: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    filled = np.zeros((len(projection), width), dtype=np.float32)
    filled[:, : projection.shape[1]] = projection
    return filled
