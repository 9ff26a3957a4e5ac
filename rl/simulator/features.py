"""What response models read of embeddings: their leading directions."""

import numpy as np
from numpy.typing import NDArray


def fixed_features(
    embeddings: NDArray[np.float32], width: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean [D] and projection [D, W] onto the leading directions, scaled to unit variance each.

    Text embeddings are wide and their catalogues small; a few directions carry what the model can use.
    """
    mean = embeddings.mean(0)
    centred = embeddings - mean
    _, spread, directions = np.linalg.svd(centred[:20_000].astype(np.float64), full_matrices=False)
    keep = min(width, int((spread > 1e-6 * max(spread[0], 1e-12)).sum()) or 1)
    deviation = spread[:keep] / max(np.sqrt(min(len(embeddings), 20_000)), 1)
    projection = np.zeros((embeddings.shape[1], width))
    projection[:, :keep] = directions[:keep].T / np.maximum(deviation, 1e-6)
    return mean.astype(np.float32), projection.astype(np.float32)


def compared_texts(embeddings: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """Directions [D, width] in which texts are compared: the leading ones, as long as they are.

    Cosines of the rest say little. Directions keep their size, because texts are alike where they say the same, and not
    where their least words do.
    """
    centred = (embeddings - embeddings.mean(0))[:20_000].astype(np.float64)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:width]
    projection = np.zeros((embeddings.shape[1], width))
    projection[:, : len(directions)] = directions.T
    return projection.astype(np.float32)
