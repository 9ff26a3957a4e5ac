"""What response models read of embeddings: their leading directions."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_MOST_ROWS = 20_000  # that directions are found from


class Directions(NamedTuple):
    """Of embeddings [N, D], the widest first. Text embeddings are wide; a few directions carry what a model can use."""

    mean: NDArray[np.float32]  # [D]
    deviations: NDArray[np.float64]  # [R]
    vectors: NDArray[np.float64]  # [R, D]

    def whitened(self, width: int) -> NDArray[np.float32]:
        """Projection [D, width] onto the leading ones, scaled to unit variance each; zero where there are fewer."""
        told = int((self.deviations > 1e-6 * max(self.deviations[0], 1e-12)).sum()) or 1
        keep = min(width, told)
        return _filled(self.vectors[:keep].T / np.maximum(self.deviations[:keep], 1e-6), width)

    def plain(self, width: int) -> NDArray[np.float32]:
        """Projection [D, width] onto the leading ones as long as they are: texts are alike where they say the same."""
        return _filled(self.vectors[:width].T, width)


def leading_directions(embeddings: NDArray[np.float32]) -> Directions:
    """Directions of embeddings [N, D]."""
    mean = embeddings.mean(0)
    centred = (embeddings - mean)[:_MOST_ROWS].astype(np.float64)
    _, spread, vectors = np.linalg.svd(centred, full_matrices=False)
    return Directions(mean.astype(np.float32), spread / max(np.sqrt(len(centred)), 1), vectors)


def _filled(projection: NDArray[np.float64], width: int) -> NDArray[np.float32]:
    filled = np.zeros((len(projection), width), dtype=np.float32)
    filled[:, : projection.shape[1]] = projection
    return filled
