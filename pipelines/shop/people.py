"""What all made-up worlds share: hidden states of many users at once, and how a funnel of responses is drawn."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    People = TypeVar("People", bound=DataclassInstance)
else:
    People = TypeVar("People")


@dataclass(frozen=True)
class Answer:
    """What a slate brought."""

    responses: NDArray[np.float32]  # [B, L, K], 0 or 1
    ended: NDArray[np.bool_]  # [B], the user left
    leaving: NDArray[np.float32]  # [B], the chance of that


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x))."""
    probability: NDArray[np.float64] = 1 / (1 + np.exp(-x))
    return probability


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """The vectors at length 1."""
    scaled: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return scaled


def rows(people: People, index: NDArray[np.int64]) -> People:
    """A copy of the users at these rows; ``people`` is a dataclass of arrays with a row a user."""
    return type(people)(*(getattr(people, field.name)[index].copy() for field in fields(people)))


def put(people: People, index: NDArray[np.int64], source: People) -> None:
    """Overwrite the users at these rows."""
    for field in fields(people):
        getattr(people, field.name)[index] = getattr(source, field.name)


def of_items(columns: NDArray[np.float64], kinds: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each user's column [B, T] of each item's kind; kinds of all items [N] or of slates [B, L]. [B, N or L]."""
    return columns[:, kinds] if kinds.ndim == 1 else np.take_along_axis(columns, kinds, 1)


def draw_funnel(
    chances: NDArray[np.float64], position_cost: float, dice: np.random.Generator
) -> NDArray[np.int64]:
    """Responses drawn along a funnel, each only after the one before it.

    Args:
        chances: Of each response at the first position, joint along the funnel. float64 [B, L, K].
        position_cost: Taken off the first response's logit a position.
        dice: Random numbers.

    Returns:
        0 or 1. int64 [B, L, K].
    """
    first = chances[..., :1].clip(1e-9, 1 - 1e-9)
    logit = np.log(first / (1 - first)) - position_cost * np.arange(chances.shape[1])[:, None]
    given = chances[..., 1:] / np.concatenate([first, chances[..., 1:-1]], -1)
    given = np.concatenate([sigmoid(logit), given], -1)  # [B, L, K]
    drawn: NDArray[np.int64] = np.cumprod(dice.random(given.shape) < given, -1)
    return drawn
