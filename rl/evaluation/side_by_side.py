"""Several reports side by side."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rl.evaluation.html import render
from rl.evaluation.page_tables import estimate_text, interval_plot, spread_of
from rl.evaluation.report import REPORT_VERSION

TEMPLATE = Path(__file__).parent / "compare.html"
FIGURES = (("return", "weighted return a session"), ("ndcg", "NDCG on later sessions, weighted by task"))


def compare_reports(reports: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each run's verdict, and every policy's figures in every run.

    Args:
        reports: Content of ``report.json`` by the run's name, as many as wanted.

    Returns:
        ``runs``: by name ``summary``, ``promote``, ``candidate``, ``task_weights``, ``reasons`` against promotion.
        ``where``: ``truth`` where every run has one, else ``simulated``: what the returns are of.
        ``policies``: by name, then run, ``return`` and ``ndcg``, each an estimate or None.
        ``warnings``: what makes the runs hard to compare.

    Raises:
        ValueError: There is no report, or one is of another version.
    """
    if not reports:
        raise ValueError(
            "compare: expected at least one run, got none. Name them, as `slatewise compare a b`."
        )
    for name, report in reports.items():
        if report.get("version") != REPORT_VERSION:
            raise ValueError(
                f"{name}: expected a report of version {REPORT_VERSION}, got {report.get('version')}. "
                "Run `slatewise evaluate` again."
            )
    where = "truth" if all(report["truth"] is not None for report in reports.values()) else "simulated"
    policies: dict[str, dict[str, dict[str, Any]]] = {}
    for run, report in reports.items():
        returns = {policy["name"]: policy["weighted"] for policy in report[where]["policies"]}
        ranked = {row["name"]: row["ndcg"] for row in report.get("overall", [])}
        for name in dict.fromkeys([*returns, *ranked]):
            policies.setdefault(name, {})[run] = {"return": returns.get(name), "ndcg": ranked.get(name)}
    return {
        "runs": {name: _run(report) for name, report in reports.items()},
        "where": where,
        "policies": policies,
        "warnings": _warnings(reports),
    }


def comparison_text(comparison: Mapping[str, Any]) -> str:
    """The comparison for a terminal: a column a run."""
    runs, out = comparison["runs"], StringIO()
    console = Console(file=out, width=1000, color_system=None)
    table = _text_table(["", *runs])
    table.add_row("verdict", *("promote" if run["promote"] else "do not promote" for run in runs.values()))
    table.add_row("candidate", *(run["candidate"] for run in runs.values()))
    console.print(table, highlight=False, markup=False)
    for figure, title in FIGURES:
        rows = [(name, by_run) for name, by_run in comparison["policies"].items() if _any(by_run, figure)]
        if not rows:
            continue
        console.print(f"\n{title}{_place(comparison, figure)}", highlight=False, markup=False)
        table = _text_table(["policy", *runs])
        for name, by_run in sorted(rows, key=lambda row: -_best(row[1], figure)):
            table.add_row(name, *(_cell(by_run.get(run), figure) for run in runs))
        console.print(table, highlight=False, markup=False)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    lines += ["", *(f"{name}: {run['summary']}" for name, run in runs.items())]
    return "\n".join([*lines, *(f"Mind: {warning}" for warning in comparison["warnings"])])


def comparison_html(comparison: Mapping[str, Any]) -> str:
    """The comparison as one self-contained page."""
    tables = []
    for figure, title in FIGURES:
        rows = [(name, by_run) for name, by_run in comparison["policies"].items() if _any(by_run, figure)]
        ends = spread_of(cell[figure] for _, by_run in rows for cell in by_run.values() if cell[figure])
        body = [
            {
                "name": name,
                "cells": [_page_cell(name, by_run.get(run), figure, ends) for run in comparison["runs"]],
            }
            for name, by_run in sorted(rows, key=lambda row: -_best(row[1], figure))
        ]
        if body:
            tables.append({"title": f"{title}{_place(comparison, figure)}", "rows": body})
    return render(TEMPLATE, comparison=comparison, tables=tables)


def _run(report: Mapping[str, Any]) -> dict[str, Any]:
    verdict = report["verdict"]
    return {
        "summary": report["summary"],
        "promote": verdict["promote"],
        "candidate": report["candidate"],
        "task_weights": report["task_weights"],
        "reason": verdict["reasons"][0],
        "log": report["log"],
    }


def _warnings(reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    out = []
    if len({tuple(sorted(report["task_weights"].items())) for report in reports.values()}) > 1:
        out.append("the runs weigh tasks differently, so their weighted figures are of different things.")
    if len({tuple(sorted(report["log"].items())) for report in reports.values()}) > 1:
        out.append("the runs are of different logs or splits: their sessions are not the same.")
    if len({report["truth"] is None for report in reports.values()}) > 1:
        out.append(
            "only some of the runs know the truth, so returns are of each run's own held-out simulator."
        )
    return out


def _place(comparison: Mapping[str, Any], figure: str) -> str:
    if figure != "return":
        return ""
    return (
        ", in the made-up shop" if comparison["where"] == "truth" else ", each in its own held-out simulator"
    )


def _any(by_run: Mapping[str, Any], figure: str) -> bool:
    return any(cell[figure] for cell in by_run.values())


def _best(by_run: Mapping[str, Any], figure: str) -> float:
    return max(float(cell[figure]["mean"]) for cell in by_run.values() if cell[figure])


def _cell(cell: Mapping[str, Any] | None, figure: str) -> str:
    return estimate_text(cell[figure]) if cell and cell[figure] else "-"


def _page_cell(name: str, cell: Mapping[str, Any] | None, figure: str, ends: list[float]) -> dict[str, Any]:
    if not cell or not cell[figure]:
        return {"text": "–", "plot": ""}
    return {"text": estimate_text(cell[figure]), "plot": interval_plot(name, cell[figure], ends)}


def _text_table(header: list[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table
