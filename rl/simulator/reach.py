"""How far running sums count in full: within the log's range, and beyond it by their logarithm."""

from torch import Tensor

UNBOUNDED = 1e9  # edge of sums before the log's range is known


def within_reach(sums: Tensor, multiples: Tensor) -> Tensor:
    """The sums while they are below 1 in ``multiples`` of their edges, and from there on by the logarithm."""
    beyond = multiples.clamp_min(1)
    return sums * (1 + beyond.log()) / beyond
