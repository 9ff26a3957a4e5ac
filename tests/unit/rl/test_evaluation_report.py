"""The report: its schema, its plain first sentence, its table and its page."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import rl.evaluation
from rl.evaluation.fitness import Check, build_fitness
from rl.evaluation.front import build_front
from rl.evaluation.histogram import weights_histogram
from rl.evaluation.html import render_html
from rl.evaluation.page_tables import estimate_text, front_chart, worst_slices
from rl.evaluation.plots import NUM_COLOURS, Mark, line_chart, scatter
from rl.evaluation.report import Evidence, Setting, add_truth, build_report, log_counts
from rl.evaluation.text import text_table

SCHEMA = json.loads((Path(rl.evaluation.__file__).parent / "report.schema.json").read_text())
SETTING = Setting("ppo", ("view", "purchase"), np.array([0.25, 0.75], dtype=np.float32), 0.95)
ESTIMATE = {"mean": 0.2, "low": 0.1, "high": 0.3, "n": 40}


def returns_of(**means: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: rng.normal(mean, 1.0, size=(300, 2)) for name, mean in means.items()}


def a_slice(kind: str, name: str, gap: float, p: float) -> dict:
    difference = {"mean": gap, "low": gap - 0.1, "high": gap + 0.1, "n": 40}
    exposure = {"candidate": 0.5, "reference": 0.25, "catalogue": 0.125} if kind == "items" else None
    pair = {"candidate": ESTIMATE, "reference": ESTIMATE}
    return {
        "kind": kind,
        "name": name,
        "num_states": 50,
        **pair,
        "difference": difference,
        "exposure": exposure,
        "p": p,
    }


def example_report(**means: float) -> dict:
    evidence = Evidence(
        verdict={"promote": False, "reasons": ["Because 1 < 2 & so on."]},
        simulated=returns_of(**(means or {"logging": 1, "clone": 1.2, "ppo": 3})),
        ranking={
            "view": [
                {"name": name, "hit@10": ESTIMATE, "ndcg@10": ESTIMATE, "mrr@10": ESTIMATE}
                for name in ("ppo", "popular")
            ],
            "purchase": [],
        },
        overall=[{"name": "ppo", "ndcg": ESTIMATE}],
        comparisons=[
            {"task": "view", "first": "popular", "second": "ppo", "difference": ESTIMATE, "p": 0.03}
        ],
        lists=[
            {
                "name": "ppo",
                "coverage": 0.5,
                "gini": 0.25,
                "diversity": ESTIMATE,
                "novelty": ESTIMATE,
                "calibration": None,
            }
        ],
        segments={
            "candidate": "ppo",
            "reference": "popular",
            "rows": [
                a_slice("users", "new", -0.2, 0.001),
                a_slice("items", "rare", -0.3, 0.5),
                a_slice("items", "popular", 0.1, 0.001),
            ],
        },
        fitness=build_fitness(
            [
                Check("Slates?", "yes", "Yes: many.", {"slates": 3}),
                Check("Delay?", "unknown", "Unknown.", {}),
            ],
            [Check("Better?", "no", "Not shown.", {"difference": -0.5})],
        ),
        examples=[
            {
                "past": ["view: <b>lamp</b>"],
                "session": [],
                "next": "a bulb",
                "slate": [
                    {"title": "a shade", "propensity": 0.25, "reasons": ["liked in general (odds ×2)"]}
                ],
            }
        ],
        importance=weights_histogram(np.array([0.0, 0.15, 3.0, 12.0])),
        front=build_front(
            {"ppo": np.ones((4, 2)), "popular": np.zeros((4, 2))},
            {"view": np.full((4, 2), [2.0, 0.5])},
            [],
            "ppo",
            ("view", "purchase"),
        ),
        off_policy=[
            {
                "policy": "ppo",
                "estimator": "snips",
                "task": "weighted",
                "estimate": ESTIMATE,
                "effective_sample_size": 12.5,
                "largest_weight": 30.0,
            }
        ],
        simulator={
            "auc": {"view": 0.8, "purchase": None},
            "calibration": {"view": [{"predicted": 0.1, "observed": 0.12, "n": 50}]},
        },
        log=log_counts(np.array([0, 0, 1, 2], dtype=np.int8), 12, 7, ["a", "b", "a", "c"]),
        kept={"policy": "ppo", "iterations": [1]},
        learning_curve=[
            {"iteration": 0, "training": 1.0, "held_out": None},
            {"iteration": 1, "training": 2.0},
        ],
    )
    return build_report(SETTING, evidence)


def test_report_fits_its_schema_with_and_without_truth():
    report = example_report()
    with_truth = add_truth(report, returns_of(random=1, ppo=2, oracle=5), "oracle")

    validator = jsonschema.Draft202012Validator(SCHEMA)
    for content in (report, with_truth, json.loads(json.dumps(with_truth, allow_nan=False))):
        assert [error.message for error in validator.iter_errors(content)] == []
    assert set(report) == set(SCHEMA["properties"])
    for spoilt in (
        {name: part for name, part in report.items() if name != "verdict"},
        {**report, "extra": 1},
        {**report, "version": 2},
        {**report, "overall": [{"name": "ppo", "ndcg": 0.5}]},
    ):
        assert not validator.is_valid(spoilt)


def test_weighted_return_adds_the_tasks_by_weight():
    returns = {"ppo": np.array([[4.0, 0.0], [0.0, 8.0]])}
    report = add_truth(example_report(), returns, None)

    policy = report["truth"]["policies"][0]

    assert policy["weighted"]["mean"] == pytest.approx((1 + 6) / 2)
    assert policy["tasks"]["view"]["mean"] == pytest.approx(2)
    assert policy["tasks"]["purchase"]["mean"] == pytest.approx(4)
    assert policy["weighted"]["n"] == 2


def test_upper_bound_stands_apart_from_the_policies():
    report = add_truth(example_report(), returns_of(random=1, ppo=2, oracle=5), "oracle")

    assert [p["name"] for p in report["truth"]["policies"]] == ["random", "ppo"]
    assert report["truth"]["upper_bound"]["name"] == "oracle"
    assert report["truth"]["upper_bound"]["mean"] == pytest.approx(5, abs=0.3)
    with pytest.raises(ValueError, match="planner"):
        add_truth(report, returns_of(ppo=2), "planner")


@pytest.mark.parametrize(
    ("means", "says"),
    [
        ({"popular": 1, "ppo": 3}, "is worth it here: ppo"),
        ({"popular": 3, "random": 1, "ppo": 1}, "is not worth it here, a simple rival is better"),
        ({"popular": 1, "ppo": 1}, "is not shown to be worth it here, a simple rival is as good"),
        ({"ppo": 1}, "unknown: no rival"),
    ],
)
def test_summary_answers_the_plainest_question(means, says):
    assert says in example_report(**means)["summary"]


def test_summary_goes_by_the_truth_where_there_is_one():
    report = example_report(popular=1, ppo=3)

    assert "held-out simulator" in report["summary"]
    assert "is better" in add_truth(report, returns_of(popular=3, ppo=1), None)["summary"]


def test_returns_of_another_shape_are_refused_by_name():
    with pytest.raises(ValueError, match=r"returns of ppo: expected \[sessions, 2\]"):
        add_truth(example_report(), {"ppo": np.zeros((5, 3))}, None)


def test_text_table_has_a_row_a_policy_and_the_bound_on_top():
    report = add_truth(example_report(), returns_of(random=1, ppo=2, oracle=5), "oracle")

    lines = text_table(report, "truth").splitlines()

    assert re.split(r"\s{2,}", lines[0]) == ["policy", "weighted", "view", "purchase", "sessions"]
    assert [line.split("  ")[0] for line in lines[1:]] == ["upper bound (oracle)", "ppo", "random"]
    assert estimate_text(report["truth"]["policies"][1]["weighted"]) in lines[2]
    with pytest.raises(ValueError, match="made-up shop"):
        text_table(example_report(), "truth")


class _Page(HTMLParser):
    """Checks that tags close in order and gathers what would go to the network."""

    VOID = frozenset({"meta", "line", "circle", "polyline", "rect"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.remote: list[str] = []
        self.count: dict[str, int] = {}

    def handle_starttag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.remote += [value for name, value in attrs if name in {"src", "href", "xlink:href"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.count[tag] = self.count.get(tag, 0) + 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_needs_no_network():
    report = add_truth(example_report(), returns_of(random=1, ppo=2, oracle=5), "oracle")

    html = render_html(report)

    page = _Page()
    page.feed(html)
    assert page.open == []
    assert page.remote == []
    assert "@import" not in html
    assert "url(" not in html
    # one table with a policy that was only ranked, truth with its bound, simulated, front, ranking, worst, weights,
    # curve and calibration
    assert page.count["svg"] == 3 + 3 + 3 + 1 + 2 + 1 + 1 + 2
    order = [
        report["summary"][:40],
        "Should you use",
        "Slates? Yes: many.",
        "Do not promote",
        "All policies",
        "Worst slices",
    ]
    places = [html.index(text) for text in order]
    assert places == sorted(places)
    for text in (
        "1 of 3 things",
        "users: new",
        "12.5%",
        "view: &lt;b&gt;lamp",
        "odds ×2",
        "ppo for view alone *",
        "0.0300",
    ):
        assert text in html, text


def test_worst_slices_are_those_shown_to_lose():
    assert [row["name"] for row in worst_slices(example_report())] == ["new"]


def test_front_marks_what_nothing_beats_and_takes_the_weightiest_tasks():
    report = example_report()

    best = {point["name"]: point["best"] for point in report["front"]["points"]}

    assert best == {"ppo": True, "popular": False, "ppo for view alone": True}
    assert "return a session of purchase" in front_chart(report)
    assert front_chart(report | {"front": None}) == ""


def test_names_of_points_do_not_lie_on_one_another():
    points = [Mark(f"p{i}", 1.0, 1.0 if i else 2.0, "rival") for i in range(12)]

    chart = scatter(points, "x", "y")

    levels = [float(y) for y in re.findall(r'<text class="rival" x="300" y="([0-9.]+)"', chart)]
    height = float(re.search(r'viewBox="0 0 480 (\d+)"', chart).group(1))
    assert len(levels) == 12
    assert all(below - above >= 15.9 for above, below in pairwise(levels))
    assert max(levels) < height
    assert scatter([], "x", "y") == ""


def test_log_without_slates_has_no_calibration_to_show():
    report = example_report()
    fitness = build_fitness([Check("Slates?", "no", "No.", {})], [])

    assert "observed rate" in render_html(report)
    assert "observed rate" not in render_html({**report, "fitness": fitness})
    assert "no logged rate can be held against them" in render_html({**report, "fitness": fitness})


def test_histogram_counts_every_weight_once():
    content = weights_histogram(np.array([0.0, 0.0005, 0.15, 3.0, 1e5, 1e6]))

    counts = dict(zip(content["edges"], content["counts"], strict=False))
    assert sum(content["counts"]) == 6
    assert (counts[0.0], counts[0.1], counts[2.0], counts[1000.0]) == (2, 1, 1, 2)


def test_page_escapes_names_and_reasons():
    report = example_report(**{"<script>alert(1)</script>": 1.0, "ppo": 2.0})

    html = render_html(report)

    assert "<script" not in html
    assert "Because 1 &lt; 2 &amp; so on." in html


def test_page_of_a_bare_report_says_what_is_missing():
    bare = build_report(
        SETTING, Evidence({"promote": False, "reasons": ["none"]}, simulated={}, ranking={"view": []})
    )

    html = render_html(bare)

    jsonschema.validate(bare, SCHEMA)
    assert "No policy was played." in html
    assert "does not fire in a test session" in html
    assert "no slates with propensities" in html


def test_no_two_lines_of_a_chart_look_alike() -> None:
    chart = line_chart({str(n): [(0.0, n), (1.0, n)] for n in range(2 * NUM_COLOURS)}, "x", "y")

    for looks in (r'class="line" style="([^"]+)"', r'class="swatch" style="([^"]+)"'):
        styles = re.findall(looks, chart)
        assert len(set(styles)) == len(styles) == 2 * NUM_COLOURS
