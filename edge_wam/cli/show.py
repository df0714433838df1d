"""How things are printed: results on stdout, everything else (progress, refusals) on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Without a terminal there is no width to fit into: tables then take what they need.
OUT = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
ERR = Console(stderr=True, highlight=False)


def refusal(what: str, expected: str, remedy: str) -> None:
    """One refusal, on stderr, in three lines at most."""
    ERR.print("refused: ", style="bold red", end="")
    ERR.print(what, markup=False, soft_wrap=True)
    for name, text in (("expected", expected), ("remedy", remedy)):
        if text:
            ERR.print(f"  {name}: ", style="bold", end="")
            ERR.print(text, markup=False, soft_wrap=True)


def note(text: str) -> None:
    """A remark that is no result."""
    ERR.print(text, style="dim", markup=False, soft_wrap=True)


def as_json(value: object) -> None:
    """The machine's form of a result: one JSON document on stdout, nothing else there."""
    sys.stdout.write(json.dumps(value, indent=2, sort_keys=True, default=_plain, allow_nan=False) + "\n")
    sys.stdout.flush()


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def table(columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]], title: str = "") -> None:
    """Columns are (heading, ``left`` or ``right``); no cell is ever cut: a narrow terminal wraps it."""
    made = Table(title=title or None, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading, justify in columns:
        made.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    OUT.print(made)


def facts(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, aligned. Values are never broken over lines: a path must be one that can be copied."""
    listed = list(rows)
    width = max((len(name) for name, _ in listed), default=0)
    for name, value in listed:
        OUT.print(f"{name:{width}}  ", style="bold", end="", markup=False)
        say(value)


def short(path: Path) -> str:
    """A path as one would type it here."""
    full = path.resolve()
    return str(full.relative_to(Path.cwd())) if full.is_relative_to(Path.cwd()) else str(full)


def say(text: str, style: str | None = None) -> None:
    """One line or paragraph as it is: no markup, no line breaks put in."""
    OUT.print(text, style=style, markup=False, soft_wrap=True)


@contextmanager
def progress(label: str, total: int | None) -> Iterator[Callable[[int, str], None]]:
    """A progress bar on stderr; the given function takes (done, remark). Without a terminal: silent."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
    )
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as bar:
        task = bar.add_task(label, total=total, remark="")

        def update(done: int, remark: str = "") -> None:
            bar.update(task, completed=done, remark=remark)

        yield update
