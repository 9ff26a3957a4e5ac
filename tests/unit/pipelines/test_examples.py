"""Example users: who is chosen, and how their items are called."""

import pyarrow as pa

from pipelines.examples import MAX_ACTS, _past, choose_states, item_titles
from rl.evaluation.pasts import user_pasts
from rl.evaluation.ranking import ranking_states
from tests.unit.rl.evaluation_logs import TASKS, session_log

VIEW, RETURN = 0, 2


def test_ten_users_three_of_them_new_each_at_the_end_of_its_last_session():
    train = [[(0, VIEW)] * (user % 5) for user in range(50)]  # a fifth of the users have no past
    test = [[(item, VIEW) for item in range(1 + user // 10)] for user in range(50)]
    users = [f"u{user:02}" for user in range(50)]
    log = session_log(
        train + test + [[(3, VIEW), (4, VIEW)]], [0] * 50 + [2] * 51, users=[*users, *users, "u49"]
    )
    judged, pasts = ranking_states(log, 3, 4, 1000), user_pasts(log, TASKS)

    chosen = choose_states(judged, pasts)

    assert len(set(pasts.users[judged.sessions[chosen]])) == 10
    known = pasts.counts_before(judged.sessions[chosen])
    assert known[:3].tolist() == [0, 0, 0] and known[3] == 1 and known[-1] == 4 + 5  # u49's second session
    assert known[3:].tolist() == sorted(known[3:])
    assert judged.before[chosen][:3].tolist() == [0, 2, 4]  # all but the last item of the session
    assert judged.targets[chosen[-1]] == 4
    assert choose_states(judged.rows(slice(0, 0)), pasts) == []


def test_few_users_are_all_examples():
    log = session_log([[(0, VIEW)]] * 4, [2] * 4)

    assert sorted(choose_states(ranking_states(log, 3, 4, 10), user_pasts(log, TASKS))) == [0, 1, 2, 3]


def test_past_holds_the_latest_acts_of_earlier_sessions_costs_included():
    log = session_log([[(i, VIEW) for i in range(9)], [(3, RETURN)], [(1, VIEW)]], [0, 0, 2], users=["a"] * 3)

    acts = _past(log, user_pasts(log, TASKS), 2, [f"t{i}" for i in range(9)], TASKS)

    assert len(acts) == MAX_ACTS
    assert acts[-2:] == ["view: t8", "return: t3"]


def test_items_go_by_title_then_category_and_brand_then_id():
    titles, categories, brands = ["Lamp", None, None], ["a", "b", None], [None, "c", ""]
    table = pa.table({"item_id": ["1", "2", "3"], "title": titles, "category": categories, "brand": brands})

    assert item_titles(table) == ["Lamp", "b, c (2)", "3"]
    assert item_titles(table.select(["item_id"])) == ["1", "2", "3"]
