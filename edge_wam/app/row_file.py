"""Finished results, one JSON line each behind a line of settings. Survives being killed between any two bytes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from edge_wam.errors import ContractError


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Row = TypeVar("Row", bound=_Dataclass)


class RowFile(Generic[Row]):
    """``rows``: what is in the file. What is added is on the disk at once.

    Args:
        settings: what makes two rows comparable; a file with others is not gone on with.
        make: a row from its JSON object.

    Raises:
        ContractError: it was written with other settings, is no results file, or cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], make: Callable[[dict[str, Any]], Row]) -> None:
        self.path = path
        self.rows: list[Row] = []
        if path.exists() and path.stat().st_size:
            self._read(settings, make)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab")
        except OSError as error:
            raise ContractError(f"{path}: {error.strerror}", remedy="name a writable file with --out") from error
        if self._file.tell() == 0:
            self._write({"settings": settings})

    def _read(self, settings: dict[str, Any], make: Callable[[dict[str, Any]], Row]) -> None:
        path = self.path
        whole = path.read_bytes().rpartition(b"\n")[0]
        lines = whole.splitlines()
        try:
            found = json.loads(lines[0])["settings"] if lines else settings
            self.rows = [make(json.loads(line)) for line in lines[1:]]
        except (ValueError, KeyError, TypeError) as error:
            raise ContractError(f"{path}: no results file: {error}", remedy="name another file") from error
        if found != settings:
            odd = next(key for key in settings if found.get(key) != settings[key])
            raise ContractError(
                f"{path}: was written with {odd} = {found.get(odd)!r}, this run has {settings[odd]!r}",
                expected="the same settings", remedy="name another file with --out",
            )
        with path.open("r+b") as file:  # a half line of a killed run goes
            file.truncate(len(whole) + 1 if whole else 0)

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self._write(asdict(row))

    def close(self) -> None:
        self._file.close()

    def _write(self, value: dict[str, Any]) -> None:
        self._file.write(json.dumps(value).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
