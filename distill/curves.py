"""Training curves as CSV: appended line by line, readable by anything, resumed without a second header."""

from __future__ import annotations

from pathlib import Path


class Curves:
    """A CSV file with fixed columns; every row is flushed when written."""

    def __init__(self, path: Path, columns: tuple[str, ...]) -> None:
        self.path, self.columns = path, columns
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text(",".join(columns) + "\n")

    def add(self, *values: float) -> None:
        """Append one row; one value for each column."""
        row = ",".join(f"{v:.6g}" for v in values)
        if len(values) != len(self.columns):
            raise ValueError(f"{len(values)} values for columns {self.columns}")
        with self.path.open("a") as file:
            file.write(row + "\n")
