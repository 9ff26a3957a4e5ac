"""The coverage benchmark's policies, truth and figures."""

import json

import numpy as np
import pytest

from tests.benchmarks import coverage
from tests.benchmarks.gate_trials import GateResult
from tests.benchmarks.shop_candidates import coverage_candidates, gate_candidates, open_shop
from tests.benchmarks.shop_policies import FADE, Policy, ShopSlates, play, slate_log_chance
from tests.benchmarks.shop_truth import Truth


@pytest.fixture(scope="module")
def shop():
    return open_shop(3)


def test_chance_of_a_slate_is_plackett_luces_with_interest_and_kept_slates(shop):
    world, logging = shop
    viewed = np.zeros((1, 12))
    viewed[0, world.catalogue.topic[7]] = 2.0
    log = ShopSlates(np.zeros(1, int), np.array([[7, 3, 9, 1, 4]]), np.zeros((1, 4)), viewed, 1)
    policy = Policy("p", logging.scores - world.catalogue.bait, interest=0.4, kept=0.3)

    found = np.exp(slate_log_chance(world, policy, logging, log))[0]

    own = np.exp(policy.scores + 0.4 * np.minimum(viewed[0, world.catalogue.topic], 3.0))
    slow = 0.0
    for share, weight in ((0.7, own), (0.3, np.exp(logging.scores))):
        chance, left = 1.0, weight.sum()
        for item in log.items[0]:
            chance *= weight[item] / left
            left -= weight[item]
        slow += share * chance
    assert found == pytest.approx(slow)


def test_slates_are_drawn_as_often_as_their_chance_says(shop):
    world, logging = shop
    policy = Policy("p", 3 * logging.scores, interest=0.5, kept=0.2)
    log = play(world, policy, logging, 4000, 1)

    ratio = np.exp(
        slate_log_chance(world, logging, logging, log) - slate_log_chance(world, policy, logging, log)
    )

    assert ratio.mean() == pytest.approx(1, abs=5 * ratio.std() / np.sqrt(len(ratio)))
    assert all(len(set(slate)) == 5 for slate in log.items[:200].tolist())


def test_views_before_a_slate_fade_and_start_at_none(shop):
    world, logging = shop

    log = play(world, logging, logging, 50, 2)

    first = np.r_[True, log.session[1:] != log.session[:-1]]
    assert (log.viewed[first] == 0).all()
    for row in np.flatnonzero(~first)[:100]:
        gained = (log.viewed[row] - FADE * log.viewed[row - 1]).round(9)
        assert gained.sum() == log.rewards[row - 1, 1]


def test_live_sessions_and_weighted_logs_agree_on_the_truth(shop):
    world, logging = shop
    policy = coverage_candidates(world, logging)[0]

    live, live_error = Truth(world, logging, live=8000, pool=100, seed=5).gains([policy])[0]
    joined, joined_error = Truth(world, logging, live=8000, pool=8000, seed=5).gains([policy])[0]

    assert joined_error[0] < 0.7 * live_error[0]
    assert abs(live[0] - joined[0]) < 3 * live_error[0]


def test_candidates_are_of_many_kinds_and_the_same_for_the_same_seed(shop):
    world, logging = shop

    first, again = (
        [policy for policy, _ in zip(gate_candidates(world, logging, 4), range(30), strict=False)]
        for _ in range(2)
    )

    assert [policy.name for policy in first] == [policy.name for policy in again]
    assert len({policy.name.split()[1] for policy in first}) >= 5
    assert len({policy.scores.tobytes() for policy in first}) == 30


def test_gate_figures_count_the_worse_and_the_better(shop):
    results = [
        GateResult("a", -0.1, -0.1, 0.9, False, "a loss is shown"),
        GateResult("b", -0.01, -0.1, 0.9, True, ""),
        GateResult("c", 0.1, 0.0, 0.5, True, ""),
        GateResult("d", 0.1, 0.0, 0.5, False, "about 7,000 more slates would show it"),
        GateResult("e", 0.1, 0.0, 0.01, False, "Low effective sample size: no word of what would help"),
    ]
    cell = coverage.Cell()
    cell.add(1.0, 0.0, 2.0, 1.5, 0.5)
    cell.add(1.0, 0.0, 2.0, 2.5, 0.5)
    cells = {("controlled", "x", size): cell for size in (100, 400)}

    figures = coverage.figures(cells, (100, 400), results)

    assert (figures["false_promotion"], figures["power"]) == (0.5, 0.5)
    assert figures["refusals_that_name_what_decides"] == 0.5
    assert figures["coverage"] == 0.5
    assert figures["error_exponent"] == 0


@pytest.mark.slow
def test_quick_run_prints_tables_and_figures_and_writes_the_page(tmp_path, capsys):
    coverage.main(["--quick", "--write", str(tmp_path)])

    out = capsys.readouterr().out
    figures = json.loads(out.splitlines()[-1])
    assert {"coverage", "false_promotion", "power", "error_exponent"} <= set(figures)
    assert "controlled" in (tmp_path / "coverage.md").read_text()
    assert "<svg" in (tmp_path / "coverage.svg").read_text()
