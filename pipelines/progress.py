"""Progress of long work on a terminal; silent elsewhere."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def track(iterable: Iterable[Item], total: int | None, what: str) -> Iterator[Item]:
    """The items one by one, with a bar on standard error where that is a terminal.

    Args:
        iterable: What is worked through.
        total: How many items there will be; None shows a bar without an end.
        what: What is counted, as shown beside the bar.
    """
    if not sys.stderr.isatty():
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(iterable, total=total, description=what)
