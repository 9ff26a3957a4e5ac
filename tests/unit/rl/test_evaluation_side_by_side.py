"""Runs side by side: figures of each in its column, and what makes them hard to compare."""

import pytest

from rl.evaluation.report import add_truth
from rl.evaluation.side_by_side import compare_reports, comparison_html, comparison_text
from tests.unit.rl.test_evaluation_report import example_report, returns_of


def test_every_policy_has_a_row_and_every_run_a_column():
    comparison = compare_reports({"a": example_report(popular=1, ppo=3), "b": example_report(ppo=1)})

    assert comparison["where"] == "simulated"
    assert comparison["policies"]["popular"]["a"]["return"]["mean"] == pytest.approx(1, abs=0.3)
    assert "b" not in comparison["policies"]["popular"]
    assert comparison["warnings"] == []
    lines = comparison_text(comparison).splitlines()
    (popular,) = [line for line in lines if line.startswith("popular")]
    assert popular.split()[-1] == "-"
    first = next(i for i, line in enumerate(lines) if line.startswith("weighted return"))
    assert "each in its own held-out simulator" in lines[first]
    assert [line.split()[0] for line in lines[first + 2 : first + 4]] == ["ppo", "popular"]
    assert any(line.startswith("a: Reinforcement learning is worth it") for line in lines)


def test_truth_is_compared_where_all_have_it_and_else_said_to_be_missing():
    known = add_truth(example_report(), returns_of(popular=1, ppo=7), None)

    assert compare_reports({"a": known, "b": known})["where"] == "truth"
    mixed = compare_reports({"a": known, "b": example_report()})
    assert mixed["where"] == "simulated"
    assert "only some of the runs know the truth" in mixed["warnings"][0]


def test_other_weights_and_other_logs_are_minded():
    report = example_report()
    other = {
        **report,
        "task_weights": {"view": 0.5, "purchase": 0.5},
        "log": {**report["log"], "sessions": 9},
    }

    warnings = compare_reports({"a": report, "b": other})["warnings"]

    assert len(warnings) == 2
    assert "weigh tasks differently" in warnings[0] and "different logs" in warnings[1]
    assert "Mind: the runs weigh" in comparison_text(compare_reports({"a": report, "b": other}))


def test_page_is_self_contained_and_escapes_run_names():
    html = comparison_html(compare_reports({"<i>a": example_report(popular=1, ppo=3), "b": example_report()}))

    assert "&lt;i&gt;a" in html and "<i>" not in html
    assert "url(" not in html and "src=" not in html and "href=" not in html
    assert (
        html.count("<svg") == 2 + 3 + 2
    )  # returns of ppo and popular; of logging, clone and ppo; NDCG of ppo
    assert "prefers-color-scheme" in html


@pytest.mark.parametrize(
    ("reports", "says"), [({}, "at least one run"), ({"x": {"version": 7}}, "x: expected")]
)
def test_nothing_and_other_versions_are_refused(reports, says):
    with pytest.raises(ValueError, match=says):
        compare_reports(reports)
