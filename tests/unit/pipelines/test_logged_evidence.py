"""A candidate asked about logged slates: its means under Plackett-Luce, and which slates count."""

from dataclasses import replace

import numpy as np
import torch

from encoders.sessions import LoggedSlates
from pipelines.logged_evidence import _expectation, logged_slates
from tests.unit.rl.evaluation_logs import session_log


def test_expectation_is_over_the_items_that_are_left():
    logits = torch.tensor([[0.5, -1.0, 2.0, 0.0]], dtype=torch.float64)
    values = torch.tensor([[1.0, 0.0], [2.0, 5.0], [4.0, -1.0], [8.0, 3.0]], dtype=torch.float64)
    slates = torch.tensor([[2, 0, 3]])

    found = _expectation(logits, slates, values)[0].numpy()

    left, weight = [0, 1, 2, 3], logits[0].exp().numpy()
    for position, item in enumerate(slates[0].tolist()):
        chance = weight[left] / weight[left].sum()
        np.testing.assert_allclose(found[position], chance @ values.numpy()[left])
        left.remove(item)


def test_slates_of_test_sessions_without_gaps_count():
    log = session_log([[(0, 0)]] * 4, [0, 2, 2, 2])
    slates = LoggedSlates(
        session=np.array([0, 1, 1, 2, 3]),
        items=np.array([[0, 1]] * 5),
        responses=np.zeros((5, 2, 3), dtype=np.float32),
        values=np.zeros((5, 2, 3), dtype=np.float32),
        propensities=np.array([[0.5, 0.5], [0.5, 0.5], [0.5, np.nan], [0.5, 0.5], [0.5, 0.5]]),
        behaviours_before=np.zeros(5, dtype=np.int64),
    )

    found = logged_slates(replace(log, slates=slates))

    assert found is not None
    assert found.session.tolist() == [2, 3]
    assert logged_slates(log) is None
    unknown = replace(slates, propensities=np.full((5, 2), np.nan))
    assert logged_slates(replace(log, slates=unknown)) is None
