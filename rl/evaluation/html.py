"""The report as one self-contained page: no network, light and dark, readable on a phone and in print."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from rl.evaluation import page_tables as tables

TEMPLATE = Path(__file__).parent / "report.html"
STYLE = Path(__file__).parent / "page.css"


def render_html(report: Mapping[str, Any]) -> str:
    """The page of a report that fits ``report.schema.json``. Every text in it is escaped."""
    return render(
        TEMPLATE,
        report=report,
        one_table=tables.one_table(report),
        returns=tables.returns_tables(report),
        ranking=tables.ranking_tables(report),
        worst=tables.worst_slices(report),
        groups=tables.group_rows(report),
        front=Markup(tables.front_chart(report)),
        curve=Markup(tables.learning_chart(report)),
        calibration=Markup(tables.calibration_chart(report)),
        weights=Markup(tables.weights_chart(report)),
        slates=tables.has_slates(report),
        facts=tables.facts(report["simulator"]),
    )


def render(template: Path, **content: Any) -> str:
    """A page of ours from its template, with the style that all share."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters["figure"] = tables.figure
    environment.filters["estimate"] = tables.estimate_text
    environment.filters["chance"] = tables.chance_text
    style = Markup(STYLE.read_text(encoding="utf-8"))
    return environment.from_string(template.read_text(encoding="utf-8")).render(style=style, **content)
