"""The report as one self-contained page: no network, light and dark, readable on a phone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rl.evaluation.plots import line_chart, whisker

TEMPLATE = Path(__file__).parent / "report.html"


def render_html(report: Mapping[str, Any]) -> str:
    """The page of a report that fits ``report.schema.json``. Every text in it is escaped."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["figure"] = figure
    environment.filters["estimate"] = estimate_text
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        report=report,
        returns=[_returns_table(title, part, bound) for title, part, bound in _parts(report)],
        curve=Markup(_learning_curve(report["learning_curve"])),
        calibration=Markup(_calibration(report["simulator"].get("calibration"))),
        facts=[(name, value) for name, value in _facts(report["simulator"])],
    )


def figure(value: float | int | None) -> str:
    """A number for people: three significant digits, thousands separated."""
    if value is None:
        return "unknown"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


def estimate_text(estimate: Mapping[str, Any]) -> str:
    """``mean [low, high]``."""
    if estimate["low"] is None or estimate["high"] is None:
        return f"{figure(estimate['mean'])} [no interval]"
    return f"{figure(estimate['mean'])} [{figure(estimate['low'])}, {figure(estimate['high'])}]"


def _parts(report: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]], dict[str, Any] | None]]:
    parts: list[tuple[str, list[dict[str, Any]], dict[str, Any] | None]] = []
    if report["truth"] is not None:
        title = "True return a session, in the made-up shop"
        parts.append((title, report["truth"]["policies"], report["truth"]["upper_bound"]))
    parts.append(("Return a session, in the held-out simulator", report["simulated"]["policies"], None))
    return parts


def _returns_table(
    title: str, policies: Sequence[Mapping[str, Any]], bound: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Rows of a table of returns, highest first, the upper bound above them all."""
    rows = [dict(policy) for policy in sorted(policies, key=lambda p: -p["weighted"]["mean"])]
    if bound is not None:
        name = f"upper bound ({bound['name']})"
        rows.insert(0, {"name": name, "weighted": bound, "tasks": bound["tasks"]})
    ends = [row["weighted"][key] for row in rows for key in ("mean", "low", "high")]
    values = [end for end in ends if end is not None]
    for row in rows:
        w = row["weighted"]
        label = f"{row['name']}: {estimate_text(w)}"
        row["plot"] = Markup(whisker(w["mean"], w["low"], w["high"], values, label))
    return {"title": title, "rows": rows, "tasks": list(rows[0]["tasks"]) if rows else []}


def _learning_curve(curve: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(name for point in curve for name in point if name != "iteration"))
    series = {
        name.replace("_", " "): [(p["iteration"], p[name]) for p in curve if p.get(name) is not None]
        for name in names
    }
    return line_chart(series, "iteration", "weighted return a session")


def _calibration(calibration: Mapping[str, Sequence[Mapping[str, float]]] | None) -> str:
    series = {
        task: sorted((bin_["predicted"], bin_["observed"]) for bin_ in bins)
        for task, bins in (calibration or {}).items()
    }
    return line_chart(series, "predicted rate", "observed rate", diagonal=True)


def _facts(content: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Numbers and texts of a nested report, flattened for a table; lists are left to the plots."""
    facts: list[tuple[str, str]] = []
    for name, value in content.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            facts += _facts(value, f"{label}, ")
        elif isinstance(value, bool | str):
            facts.append((label, str(value)))
        elif isinstance(value, int | float) or value is None:
            facts.append((label, figure(value)))
    return facts
