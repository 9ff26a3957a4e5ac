"""Which of the looks at the held-out simulator decides what training keeps."""

import numpy as np
import torch

from pipelines.checkpoints import Progress, clearly_worse
from rl.policy.network import PolicyShape, SlatePolicy


def progress_after(
    returns: list[float], error: float, excess: list[float] | None = None, tolerance: float = 0.0
) -> Progress:
    shape = PolicyShape(num_items=3, text_width=2, num_tasks=1, slate_length=1, history_length=1)
    policy = SlatePolicy(shape, np.zeros((3, 2), np.float32))
    progress = Progress(None, None, policy, tolerance)  # type: ignore[arg-type]
    for iteration, value in enumerate(returns, 1):
        record = {"iteration": float(iteration), "held_out/weighted": value, "held_out/error": error}
        record["held_out/excess"] = 0.0 if excess is None else excess[iteration - 1]
        progress.note(iteration, record, {"round": torch.tensor(iteration)})
    return progress


def test_latest_policy_within_an_error_of_the_highest_return_is_kept() -> None:
    progress = progress_after([2.0, 3.0, 2.95, 2.5], error=0.1)

    assert progress.best_iteration == 3
    assert progress.best["round"] == 3


def test_slow_decline_is_measured_from_the_highest_return_not_from_the_one_kept() -> None:
    progress = progress_after([3.0, 2.92, 2.84, 2.76], error=0.1)

    assert progress.best_iteration == 2
    assert progress.best_return == 3.0


def test_later_policy_within_the_tolerance_is_kept_and_one_below_it_is_not() -> None:
    progress = progress_after([1.0, 4.0, 3.3, 3.1], error=0.1, tolerance=0.2)

    assert progress.best_iteration == 3
    assert progress.kept["held_out/weighted"] == 3.3
    assert progress_after([-4.0, -4.7, -5.0], error=0.1, tolerance=0.2).best_iteration == 2


def test_policy_that_keeps_the_limits_is_kept_before_one_that_returns_more() -> None:
    progress = progress_after([5.0, 4.0, 2.0, 4.5, 2.1], error=0.01, excess=[0.5, 0.2, 0.0, 0.3, 0.0])

    assert progress.best_iteration == 5
    assert progress.best_return == 2.1

    progress = progress_after([5.0, 4.0, 4.5], error=0.01, excess=[0.5, 0.2, 0.3])

    assert progress.best_iteration == 2


def test_another_look_is_better_only_clearly_or_by_the_limits_of_costs() -> None:
    def look(weighted: float, excess: float = 0.0) -> dict[str, float]:
        return {"held_out/weighted": weighted, "held_out/error": 0.1, "held_out/excess": excess}

    assert clearly_worse(look(7.9), look(10.0), tolerance=0.2)
    assert not clearly_worse(look(8.1), look(10.0), tolerance=0.2)
    assert clearly_worse(look(-12.1), look(-10.0), tolerance=0.2)
    assert not clearly_worse(look(9.95), look(10.0), tolerance=0.0)
    assert clearly_worse(look(10.0, excess=0.2), look(1.0, excess=0.1), tolerance=0.2)
    assert not clearly_worse(look(1.0, excess=0.1), look(10.0, excess=0.2), tolerance=0.2)
