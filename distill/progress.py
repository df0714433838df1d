"""What a long command shows: one bar for each stage, or lines where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

ERR = Console(stderr=True, highlight=False)
Update = Callable[[str, int, int, str], None]
"""Called with the stage, how much is done, of how much, and a remark."""


@contextmanager
def progress(shown: bool = True) -> Iterator[Update]:
    """One bar per stage on stderr; without a terminal a line now and then (a log file is read by people too)."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=ERR, disable=not (shown and ERR.is_terminal)) as bars:
        tasks = {}
        said: dict[str, int] = {}

        def update(stage: str, done: int, total: int, remark: str) -> None:
            if not shown:
                return
            if not ERR.is_terminal:
                percent = 100 * done // max(1, total)
                if said.get(stage) != percent:
                    said[stage] = percent
                    ERR.print(f"{stage} {done}/{total}  {remark}", markup=False)
                return
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, remark="")
            bars.update(tasks[stage], completed=done, total=total, remark=remark)

        yield update
