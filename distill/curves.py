"""Training curves: a CSV that every program reads, and a picture of it.

Numbers are written so that a float32 comes back to the bit. A resumed run cuts away what was written after its
checkpoint and writes it again.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from distill.run import write_whole
from edge_wam.errors import ConfigError
from edge_wam.report.svg import WIDTH, Line, line_chart

HEIGHT = 150
STYLE = (
    "text{font:9px sans-serif;fill:#444}.grid{stroke:#ddd;stroke-width:.5}"
    ".curve{fill:none;stroke:#0a6;stroke-width:1}.title{font-weight:bold}"
)


class Curves:
    """A CSV file whose first column is ``step``; every row is flushed when written."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> tuple[list[str], list[list[float]]]:
        """Column names and rows; a row that a kill cut short is none."""
        if not self.path.exists():
            return [], []
        text = self.path.read_text()
        lines = text[: text.rfind("\n") + 1].splitlines()
        if not lines:
            return [], []
        columns = lines[0].split(",")
        try:
            rows = [[float(value) for value in line.split(",")] for line in lines[1:]]
        except ValueError as error:
            raise ConfigError(f"{self.path}: {error}", expected="numbers", remedy="delete it") from error
        return columns, [row for row in rows if len(row) == len(columns)]

    def rewind(self, step: int) -> int:
        """Forget the rows after ``step``; returns the last step there was."""
        columns, rows = self.rows()
        if columns:
            kept = [row for row in rows if row[0] <= step]
            write_whole(self.path, "".join([",".join(columns) + "\n", *(_line(row) for row in kept)]))
        return int(rows[-1][0]) if rows else 0

    def add(self, step: int, values: dict[str, float]) -> None:
        """Append one row. The first one names the columns.

        Raises:
            ConfigError: other columns than the file has.
        """
        columns = ["step", *values]
        if not self.path.exists():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(",".join(columns) + "\n")
        with self.path.open() as file:
            known = file.readline().strip().split(",")
        if known != columns:
            raise ConfigError(f"{self.path} has the curves {', '.join(known)}", expected=", ".join(columns))
        with self.path.open("a") as file:
            file.write(_line([step, *values.values()]))

    def draw(self) -> None:
        """Write the picture beside the CSV, one chart for each column."""
        columns, rows = self.rows()
        if not rows:
            return
        table = np.array(rows)
        x = table[:, 0]
        parts = []
        for number, name in enumerate(columns[1:]):
            y = table[:, number + 1]
            chart = line_chart(
                name, f"{name} by training step", [Line(name, "curve", x, y)], x_range=(float(x[0]), float(x[-1])),
                height=HEIGHT, x_unit="",
            )  # fmt: skip
            top = number * (HEIGHT + 20)
            parts.append(f'<text class="title" x="8" y="{top + 14}">{name}</text>')
            parts.append(chart.replace("<svg ", f'<svg y="{top + 18}" width="{WIDTH}" height="{HEIGHT}" ', 1))
        height = (len(columns) - 1) * (HEIGHT + 20) + 10
        write_whole(
            self.path.with_suffix(".svg"),
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{2 * WIDTH}" '
            f'height="{2 * height}"><style>{STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
            f"{''.join(parts)}</svg>\n",
        )


def _line(row: list[float]) -> str:
    """Nine digits are what a float32 needs to come back."""
    return ",".join(f"{value:.9g}" if not math.isnan(value) else "nan" for value in row) + "\n"
