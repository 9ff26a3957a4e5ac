"""Parity of judged and served policy on a bundle of five items."""

import numpy as np

from pipelines.artifacts import RunDirectory
from pipelines.parity import parity_gap
from rl.policy.bundle import load_bundle
from tests.unit.rl.evaluation_logs import session_log
from tests.unit.serve.small_shop import ITEMS, random_policy, write_small_bundle

LOG = session_log(
    [[(0, 0), (1, 1), (3, 0), (2, 0)], [(4, 0), (2, 1)], [(1, 0)]], [2, 2, 2], users=["ann", "bob", "new"]
)
SESSIONS = np.arange(3)


def test_bundle_of_the_judged_policy_serves_what_was_judged(tmp_path):
    write_small_bundle(tmp_path)

    assert (
        parity_gap(load_bundle(RunDirectory(str(tmp_path))), random_policy().eval(), LOG, ITEMS, SESSIONS)
        < 1e-4
    )


def test_another_policys_weights_are_seen(tmp_path):
    write_small_bundle(tmp_path, policy=random_policy(seed=1))

    assert (
        parity_gap(load_bundle(RunDirectory(str(tmp_path))), random_policy().eval(), LOG, ITEMS, SESSIONS)
        > 1e-2
    )


def test_items_in_another_order_are_seen(tmp_path):
    write_small_bundle(tmp_path)
    turned = ITEMS[1:] + ITEMS[:1]

    assert (
        parity_gap(load_bundle(RunDirectory(str(tmp_path))), random_policy().eval(), LOG, turned, SESSIONS)
        > 1e-2
    )


def test_items_that_were_never_judged_are_infinitely_far(tmp_path):
    write_small_bundle(tmp_path)
    bundle = load_bundle(RunDirectory(str(tmp_path)))
    named = [*ITEMS[:4], "another"]
    log = session_log([[(0, 0), (1, 0)]] * 20, [2] * 20)

    assert parity_gap(bundle, random_policy().eval(), log, named, np.arange(20)) == np.inf
