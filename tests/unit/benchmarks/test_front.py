"""The hypervolume of the benchmark of trade-offs."""

import numpy as np
import pytest

from tests.benchmarks.front import hypervolume


def slow_area(points: np.ndarray, reference: np.ndarray) -> float:
    """Share of random places below any of the points, of a square of 1."""
    places = reference + np.random.default_rng(0).random((200_000, 2))
    return float((places[:, None] <= points).all(-1).any(-1).mean())


@pytest.mark.parametrize("seed", range(4))
def test_hypervolume_against_random_places(seed: int) -> None:
    points = np.random.default_rng(seed).random((6, 2)) * 1.2 + 0.8  # some below the reference
    reference = np.array([1.0, 1.0])

    assert hypervolume(list(points), reference) == pytest.approx(slow_area(points, reference), abs=0.005)


def test_dominated_points_and_those_below_the_reference_add_nothing() -> None:
    points = [np.array(point) for point in ((2.0, 3.0), (1.5, 2.5), (0.5, 9.0))]
    assert hypervolume(points, np.array([1.0, 1.0])) == pytest.approx(2.0)
