"""The table of returns for the terminal."""

from collections.abc import Mapping
from io import StringIO
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from rl.evaluation.page_tables import estimate_text


def text_table(report: Mapping[str, Any], part: Literal["truth", "simulated"]) -> str:
    """Weighted and per-task return of each policy with its interval, highest first, the upper bound on top.

    Raises:
        ValueError: The report has no such part, as for the truth of a real log.
    """
    content = report[part]
    if content is None:
        raise ValueError(
            f"report.{part}: expected returns by policy, got none. Only the made-up shop has a truth."
        )
    policies = sorted(content["policies"], key=lambda policy: -policy["weighted"]["mean"])
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("policy")
    for name in ("weighted", *report["task_weights"]):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("sessions", justify="right")
    bound = content.get("upper_bound")
    if bound is not None:
        policies.insert(
            0, {"name": f"upper bound ({bound['name']})", "weighted": bound, "tasks": bound["tasks"]}
        )
    for policy in policies:
        tasks = [estimate_text(policy["tasks"][task]) for task in report["task_weights"]]
        weighted = policy["weighted"]
        table.add_row(policy["name"], estimate_text(weighted), *tasks, f"{weighted['n']:,}")
    out = StringIO()
    console = Console(file=out, width=1000, color_system=None)  # wide enough for any number of tasks
    console.print(table, highlight=False, markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())
