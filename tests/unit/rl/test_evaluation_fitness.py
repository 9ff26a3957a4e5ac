"""Should reinforcement learning be used: each check on logs that have, and lack, what it looks for."""

from dataclasses import replace

import numpy as np
import pytest

from encoders.sessions import LoggedSlates, SessionLog
from rl.evaluation import delay
from rl.evaluation.delay import find_delay, wald_test
from rl.evaluation.fitness import build_fitness, log_checks, policy_checks
from rl.evaluation.report import Setting
from rl.tasks import TaskConfig, build_tasks
from tests.unit.rl.evaluation_logs import session_log

TASKS = build_tasks({"view": TaskConfig()})
SETTING = Setting("ppo", ("view",), np.ones(1, np.float32), 0.95)


def logged(rows: list, propensity: float) -> LoggedSlates:
    """Slates of two from session, items, clicks and behaviours before of each."""
    return LoggedSlates(
        session=np.array([row[0] for row in rows]),
        items=np.array([row[1] for row in rows]),
        responses=np.array([row[2] for row in rows], np.float32)[..., None],
        values=np.zeros((len(rows), 2, 1), np.float32),
        propensities=np.full((len(rows), 2), propensity),
        behaviours_before=np.array([row[3] for row in rows]),
    )


def shop_log(delay: float, seed: int = 0, sessions: int = 400, propensity: float = 0.5) -> SessionLog:
    """Slates of two of eight items, drawn evenly; items 0 to 3 raise the later clicks' chance by ``delay``."""
    rng = np.random.default_rng(seed)
    rows, acts = [], []
    for session in range(sessions):
        boost, own = 0.0, []
        for _ in range(int(rng.integers(2, 6))):
            slate = rng.permutation(8)[:2]
            clicks = rng.random(2) < 0.3 + boost
            rows.append((session, slate, clicks, len(own)))
            own += [(int(item), 0) for item in slate[clicks]]
            boost += delay * float((slate < 4).mean() - 0.5)
        acts.append(own)
    log = session_log(acts, [0] * sessions, slates=logged(rows, propensity))
    return replace(log, past=rng.normal(size=(sessions, 3)).astype(np.float32))


EMBEDDINGS = np.array([[1.0, 0, i / 10] if i < 4 else [0, 1.0, i / 10] for i in range(8)], np.float32)


def test_planted_delayed_effects_are_found():
    found = find_delay(shop_log(delay=0.3), EMBEDDINGS, TASKS)

    assert found is not None
    assert found.p_value < 1e-4
    assert found.share_explained > 0.01


def test_without_delayed_effects_false_alarms_are_as_rare_as_claimed():
    p_values = [find_delay(shop_log(0.0, seed, 150), EMBEDDINGS, TASKS).p_value for seed in range(120)]

    assert np.mean(np.array(p_values) < 0.1) < 0.2
    assert np.mean(np.array(p_values) < 0.5) == pytest.approx(0.5, abs=0.17)


def test_what_rises_over_a_session_is_no_delayed_effect():
    """Who is content stays, so later steps earn more; and more of what they show was shown before."""

    def p_value(seed: int) -> float:
        rng = np.random.default_rng(seed)
        rows, acts = [], []
        for session in range(600):
            content, own = rng.random() < 0.5, []
            for _ in range(40 if content else 3):
                slate = rng.permutation(8)[:2]
                clicks = rng.random(2) < (0.9 if content else 0.05)
                rows.append((session, slate, clicks, len(own)))
                own += [(int(item), 0) for item in slate[clicks]]
            acts.append(own)
        log = session_log(acts, [0] * 600, slates=logged(rows, 0.5))
        test = find_delay(replace(log, past=rng.normal(size=(600, 3)).astype(np.float32)), EMBEDDINGS, TASKS)
        assert test is not None
        return test.p_value

    p_values = np.array([p_value(seed) for seed in range(20)])

    assert np.mean(p_values < 0.1) <= 0.3
    assert np.median(p_values) > 0.2


def test_wald_test_of_one_column_and_independent_rows_is_close_to_the_t_test():
    from scipy import stats

    rng = np.random.default_rng(0)
    x = rng.normal(size=600)
    y = 0.1 * x + rng.normal(size=600)

    test = wald_test(y, x[:, None], np.ones((600, 1)), np.arange(600))

    assert test.p_value == pytest.approx(stats.linregress(x, y).pvalue, rel=0.25)
    assert test.share_explained == pytest.approx(stats.linregress(x, y).rvalue ** 2, rel=1e-6)


def test_an_effect_of_the_detectable_size_is_found_four_times_in_five():
    rng = np.random.default_rng(2)
    sessions = np.repeat(np.arange(200), 4)
    x = rng.normal(size=(800, 3))
    share = wald_test(rng.normal(size=800), x, np.ones((800, 1)), sessions).share_detectable
    size = np.sqrt(share / (1 - share))  # of the effect, where the noise has a deviation of 1

    p_values = [
        wald_test(size * x[:, 0] + rng.normal(size=800), x, np.ones((800, 1)), sessions).p_value
        for _ in range(300)
    ]

    assert share == pytest.approx(0.0193, rel=0.1)  # a noncentrality of 15.5 over 800 rows
    assert np.mean(np.array(p_values) < 0.01) == pytest.approx(0.8, abs=0.07)


def test_later_rewards_are_discounted_within_their_session():
    rng = np.random.default_rng(3)
    session, reward = np.repeat([3, 5, 9], [4, 1, 60]), rng.random(65)

    later = delay._after(reward, session)

    for row in range(65):
        same = [r for r in range(row + 1, 65) if session[r] == session[row]]
        assert later[row] == pytest.approx(sum(reward[r] * delay.DISCOUNT ** (r - row - 1) for r in same))


def test_rows_repeated_within_a_session_do_not_count_twice():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=80), rng.normal(size=80)
    once = wald_test(y, x[:, None], np.ones((80, 1)), np.arange(80))

    again = wald_test(
        np.repeat(y, 20), np.repeat(x, 20)[:, None], np.ones((1600, 1)), np.repeat(np.arange(80), 20)
    )

    assert again.p_value == pytest.approx(once.p_value, rel=1e-6)


def answers(log, delay=None):
    return {check.question.split()[1]: check.answer for check in log_checks(log, delay)}


def test_log_with_all_that_is_needed_passes_every_check():
    log = shop_log(delay=0.3)

    checks = log_checks(log, find_delay(log, EMBEDDINGS, TASKS))

    assert [check.answer for check in checks] == ["yes"] * 5
    assert "400 sessions have 3 or more slates" in checks[2].reason
    assert checks[0].figures["share_of_behaviours"] == 1


def test_log_without_slates_has_no_propensities_and_unknown_delay():
    log = session_log([[(i, 0) for i in range(4)], [(0, 0), (0, 0), (1, 0)]], [0, 0])

    checks = log_checks(log, find_delay(log, EMBEDDINGS, TASKS))

    assert [check.answer for check in checks] == ["no", "no", "yes", "unknown", "unknown"]
    assert "50% of 2 sessions have 3 or more items acted on (median 3)" in checks[2].reason


def test_log_without_later_effects_promises_nothing():
    plain, short = (
        shop_log(0.0, seed=1, sessions=9000),
        session_log([[(0, 0)]] * 9 + [[(0, 0), (1, 0), (2, 0)]], [0] * 10),
    )

    shown, without = log_checks(plain, find_delay(plain, EMBEDDINGS, TASKS))[-2:]
    brief = log_checks(short, None)[-1]

    assert shown.answer == "no" and "would be found four times in five" in shown.reason
    assert without.answer == "no" and "9,000 sessions show no later effect" in without.reason
    assert brief.answer == "no" and "few sessions go on for long enough" in brief.reason


def test_too_few_slates_to_show_an_effect_are_said_to_be_too_few():
    few = shop_log(0.0, sessions=100)

    shown, promise = log_checks(few, find_delay(few, EMBEDDINGS, TASKS))[-2:]

    assert shown.answer == "unknown" and "Too few slates" in shown.reason
    assert promise.answer == "unknown" and "100 sessions are too few" in promise.reason


def test_propensities_unknown_or_without_choice_do_not_count():
    log = shop_log(0.0, sessions=60)
    assert log.slates is not None
    gaps = log.slates.propensities.copy()
    gaps[: int(0.7 * len(gaps)), 1] = np.nan

    unknown = log_checks(replace(log, slates=replace(log.slates, propensities=gaps)), None)[1]
    fixed = log_checks(shop_log(0.0, sessions=60, propensity=1.0), None)[1]

    assert unknown.answer == "no" and "only 30% of the slates" in unknown.reason
    assert fixed.answer == "no" and "only 0% of those left anything to chance" in fixed.reason


def test_short_sessions_are_said_to_be_short():
    log = session_log([[(0, 0)]] * 9 + [[(0, 0), (1, 0), (2, 0)]], [0] * 10)

    assert log_checks(log, None)[2].answer == "no"
    assert "only 10% of 10 sessions" in log_checks(log, None)[2].reason


def test_policies_are_compared_one_by_one_and_counted():
    rng = np.random.default_rng(0)
    returns = {
        name: rng.normal(mean, 1, size=(500, 1))
        for name, mean in {"ppo": 2.0, "clone": 1.0, "greedy": 2.0, "bandit": 3.0, "popular": 0.0}.items()
    }

    checks = policy_checks(returns, SETTING, "in the held-out simulator")

    assert [check.question for check in checks] == [
        "Is ppo better than clone?",
        "Is ppo better than greedy?",
        "Is ppo better than bandit?",
    ]
    assert [check.reason.split(":")[0] for check in checks] == ["Yes", "Not shown", "No, it is worse"]
    fitness = build_fitness([], checks)
    assert fitness["advice"] == "1 of 3 things that speak for it hold."
    assert build_fitness(fitness["policies"], [])["log"] == fitness["policies"]
