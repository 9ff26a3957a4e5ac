"""How importance weights are spread."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

EDGES = (
    0.0,
    0.001,
    0.01,
    0.1,
    0.2,
    0.5,
    1.0,
    2.0,
    5.0,
    10.0,
    100.0,
    1000.0,
)  # and one more, the largest weight


def weights_histogram(weights: NDArray[np.float64]) -> dict[str, Any]:
    """The report's ``importance``: counts between fixed edges, the last of which is the largest weight or above it.

    Args:
        weights: Of the logged slates. float64 [R], >= 0.
    """
    edges = np.array([*EDGES, max(float(weights.max(initial=0.0)), 10 * EDGES[-1])])
    counts, _ = np.histogram(weights, edges)
    return {"edges": edges.tolist(), "counts": [int(count) for count in counts]}
