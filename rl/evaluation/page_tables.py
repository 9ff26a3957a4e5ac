"""The report's parts as the page shows them: rows in order, each with its plot."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rl.evaluation.plots import Mark, histogram, line_chart, scatter, whisker

NUM_WORST = 10
WORST_P = 0.05
Report = Mapping[str, Any]


def figure(value: float | int | None) -> str:
    """A number for people: three significant digits, thousands separated."""
    if value is None:
        return "unknown"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def chance_text(p: float) -> str:
    """A p-value for people."""
    return "< 0.0001" if p < 1e-4 else f"{p:.4f}" if p < 0.1 else f"{p:.2f}"


def estimate_text(estimate: Mapping[str, Any]) -> str:
    """``mean [low, high]``."""
    if estimate["low"] is None or estimate["high"] is None:
        return f"{figure(estimate['mean'])} [no interval]"
    return f"{figure(estimate['mean'])} [{figure(estimate['low'])}, {figure(estimate['high'])}]"


def spread_of(estimates: Iterable[Mapping[str, Any]]) -> list[float]:
    """All means and bounds of a plot, so that its rows share one axis."""
    ends = [estimate[key] for estimate in estimates for key in ("mean", "low", "high")]
    return [end for end in ends if end is not None]


def interval_plot(name: str, estimate: Mapping[str, Any], values: Sequence[float]) -> Markup:
    """An estimate as a whisker on the axis of ``values``."""
    label = f"{name}: {estimate_text(estimate)}"
    return Markup(whisker(estimate["mean"], estimate["low"], estimate["high"], values, label))


def returns_tables(report: Report) -> list[dict[str, Any]]:
    """The truth where there is one, and the held-out simulator's returns."""
    parts = []
    if report["truth"] is not None:
        truth = report["truth"]
        parts.append(
            _returns_table(
                "True return a session, in the made-up shop", truth["policies"], truth["upper_bound"]
            )
        )
    simulated = report["simulated"]["policies"]
    return [*parts, _returns_table("Return a session, in the held-out simulator", simulated, None)]


def ranking_tables(report: Report) -> list[dict[str, Any]]:
    """For each task its rows, NDCG first and highest first, with whiskers and the test against the candidate."""
    tests = {
        (row["task"], frozenset((row["first"], row["second"]))): row["p"] for row in report["comparisons"]
    }
    tables = []
    for task, rows in report["ranking"].items():
        keys = [key for key in rows[0] if key != "name"] if rows else []
        main = next((key for key in keys if key.startswith("ndcg")), None)
        rows = sorted(rows, key=lambda row: -row[main]["mean"]) if main else []
        values = spread_of(row[main] for row in rows)
        tables.append(
            {
                "task": task,
                "keys": keys,
                "rows": [
                    row
                    | {
                        "plot": interval_plot(row["name"], row[main], values),
                        "p": tests.get((task, frozenset((row["name"], report["candidate"])))),
                        "n": row[main]["n"],
                    }
                    for row in rows
                ],
            }
        )
    return tables


def one_table(report: Report) -> list[dict[str, Any]]:
    """Every policy in one row: return in the simulator, overall ranking, and what its lists are like."""
    simulated = {policy["name"]: policy["weighted"] for policy in report["simulated"]["policies"]}
    overall = {row["name"]: row["ndcg"] for row in report["overall"]}
    lists = {row["name"]: row for row in report["lists"]}
    names = list(dict.fromkeys([*simulated, *overall, *lists]))
    ends = spread_of(simulated.values())
    rows = [
        {
            "name": name,
            "return": simulated.get(name),
            "plot": interval_plot(name, simulated[name], ends) if name in simulated else "",
            "ndcg": overall.get(name),
            "lists": lists.get(name, {}),
        }
        for name in names
    ]
    return sorted(rows, key=lambda row: -row["return"]["mean"] if row["return"] else float("inf"))


def worst_slices(report: Report) -> list[dict[str, Any]]:
    """Slices in which the candidate is shown to rank worse than the best rival, the greatest loss first."""
    segments = report["segments"]
    rows = segments["rows"] if segments else []
    lost = [row for row in rows if row["difference"]["mean"] < 0 and row["p"] < WORST_P]
    ends = spread_of(row["difference"] for row in lost)
    return [row | {"plot": interval_plot(row["name"], row["difference"], ends)} for row in lost[:NUM_WORST]]


def group_rows(report: Report) -> list[dict[str, Any]]:
    """Slices by kind, as they stand: cold items and users, item groups, categories, places in the session."""
    segments = report["segments"]
    rows = segments["rows"] if segments else []
    kinds = list(
        dict.fromkeys(["items", "item group", "users", "place in session", *(row["kind"] for row in rows)])
    )
    return [
        {"kind": kind, "rows": own} for kind in kinds if (own := [row for row in rows if row["kind"] == kind])
    ]


def front_chart(report: Report) -> str:
    """Returns of the two weightiest tasks against each other; empty with fewer than two."""
    front = report["front"]
    if not front or len(front["tasks"]) < 2:
        return ""
    order = sorted(range(len(front["tasks"])), key=lambda k: -report["task_weights"][front["tasks"][k]])[:2]
    styles = {"candidate": "candidate", "one task": "candidate", "rival": "rival", "trial": "trial"}
    marks = [
        Mark(
            point["name"] + (" *" if point["best"] else ""),
            point["returns"][order[0]],
            point["returns"][order[1]],
            styles[point["kind"]],
        )
        for point in front["points"]
    ]
    x, y = (f"return a session of {front['tasks'][k]}" for k in order)
    return scatter(marks, x, y)


def weights_chart(report: Report) -> str:
    """Histogram of the importance weights; empty where there are none."""
    importance = report["importance"]
    if not importance:
        return ""
    return histogram(importance["edges"], importance["counts"], "importance weight, from", "logged slates")


def learning_chart(report: Report) -> str:
    """Weighted return by iteration."""
    curve = report["learning_curve"]
    names = list(dict.fromkeys(name for point in curve for name in point if name != "iteration"))
    series = {
        name.replace("_", " "): [(p["iteration"], p[name]) for p in curve if p.get(name) is not None]
        for name in names
    }
    return line_chart(series, "iteration", "weighted return a session")


def calibration_chart(report: Report) -> str:
    """The simulator's predicted rates against the observed ones, by task; empty for a log without slates.

    There a chance is a share of the whole catalogue, which no observed rate answers to.
    """
    if not has_slates(report):
        return ""
    series = {
        task: sorted((bin_["predicted"], bin_["observed"]) for bin_ in bins)
        for task, bins in (report["simulator"].get("calibration") or {}).items()
    }
    return line_chart(series, "predicted rate", "observed rate", diagonal=True)


def has_slates(report: Report) -> bool:
    """Whether the log says what was shown; taken for granted where the report does not tell."""
    fitness = report["fitness"]
    return not fitness or not fitness["log"] or fitness["log"][0]["answer"] == "yes"


def facts(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Numbers and texts of a nested report, flattened for a table; lists are left to the plots."""
    out: list[tuple[str, str]] = []
    for name, value in content.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            out += facts(value, f"{label}, ")
        elif isinstance(value, bool | str):
            out.append((label, str(value)))
        elif isinstance(value, int | float) or value is None:
            out.append((label, figure(value)))
    return out


def _returns_table(
    title: str, policies: Sequence[Mapping[str, Any]], bound: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Rows of a table of returns, highest first, the upper bound above them all."""
    rows = [dict(policy) for policy in sorted(policies, key=lambda p: -p["weighted"]["mean"])]
    if bound is not None:
        name = f"upper bound ({bound['name']})"
        rows.insert(0, {"name": name, "weighted": bound, "tasks": bound["tasks"]})
    values = spread_of(row["weighted"] for row in rows)
    for row in rows:
        row["plot"] = interval_plot(row["name"], row["weighted"], values)
    return {"title": title, "rows": rows, "tasks": list(rows[0]["tasks"]) if rows else []}
