"""One directory for each run: what was asked for, of which data and code, what happened, and the curves.

    config.toml     the exact configuration, defaults included
    run.json        stage, seed, hashes of data and teacher, code version
    journal.jsonl   started, resumed, datasets taken in, stopped, finished: one line each, with the step
    curves.csv, curves.svg
    state/          the last whole checkpoint

A run is resumed by starting it again. Anything that would make it another run is refused by the key that differs.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import time
import tomllib
from pathlib import Path
from typing import Any, TextIO

import tomli_w
import torch
from pydantic import BaseModel

import distill
import edge_wam
from distill.data.files import sha256_of
from edge_wam.errors import ConfigError, EdgeWamError

CONFIG, FACTS, JOURNAL = "config.toml", "run.json", "journal.jsonl"


class Stopped(EdgeWamError):
    """Asked to stop: the state is saved, and the same command goes on from there."""


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


def code_version() -> str:
    """Version of the package and a hash over its sources: two runs of the same code have the same."""
    digest = hashlib.sha256()
    root = Path(distill.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0{sha256_of(path)}\n".encode())
    return f"{edge_wam.__version__}+{digest.hexdigest()[:12]}"


class Run:
    """A directory that is open for one process (or for one group of them, of which the first writes)."""

    def __init__(self, folder: Path, *, leads: bool = True) -> None:
        self.folder, self.leads = folder, leads
        self._lock: TextIO | None = None

    def begin(self, stage: str, config: BaseModel, facts: dict[str, Any]) -> None:
        """Create the directory, or resume it.

        Args:
            facts: what else makes the run what it is: ``data``, ``teacher``, ... hashes, ``seed``.

        Raises:
            ConfigError: the directory belongs to another stage, configuration, data or teacher, is in use, or is
                damaged.
        """
        if not self.leads:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take()
        try:
            self._admit(stage, config, facts)
        except BaseException:
            self.end()  # who is refused does not keep others out
            raise

    def _admit(self, stage: str, config: BaseModel, facts: dict[str, Any]) -> None:
        """Compare with what the directory was begun with, or write it down."""
        wanted = json.loads(config.model_dump_json(exclude_none=True))
        document = {"stage": stage, **facts}
        if (self.folder / FACTS).exists():
            saved = self._read_facts()
            for key in sorted(set(saved) - {"code", "torch", "machine"} | set(document)):
                if saved.get(key) != document.get(key):
                    raise ConfigError(
                        f"{self.folder}: {key} was {saved.get(key)!r} and is {document.get(key)!r}",
                        expected="the same for the whole of a run", remedy="another run directory",
                    )  # fmt: skip
            self._same(_flat(self._read_config()), _flat(wanted))
            return
        write_whole(self.folder / CONFIG, tomli_w.dumps(wanted))
        machine = f"{platform.machine()}, {torch.get_num_threads()} threads"
        write_whole(
            self.folder / FACTS,
            json.dumps(document | {"code": code_version(), "torch": torch.__version__, "machine": machine}, indent=2)
            + "\n",
        )

    def end(self) -> None:
        """Let another process have the directory."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # ---- journal ------------------------------------------------------------------------------------------------

    def note(self, event: str, step: int, **values: Any) -> None:
        """Append a line to the journal; it is on disk when this returns."""
        if not self.leads:
            return
        path = self.folder / JOURNAL
        torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8") as file:
            line = json.dumps({"event": event, "step": step, "at": int(time.time()), "code": code_version(), **values})
            file.write(("\n" if torn else "") + line + "\n")
            file.flush()
            os.fsync(file.fileno())

    def notes(self, event: str) -> list[dict[str, Any]]:
        """All of one kind, oldest first. A line that a kill cut short is no event."""
        path = self.folder / JOURNAL
        if not path.exists():
            return []
        found = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["event"] == event:
                found.append(entry)
        return found

    @property
    def finished(self) -> bool:
        return bool(self.notes("finished"))

    # ---- parts --------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        self._lock = (self.folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.end()
            raise ConfigError(f"{self.folder} is in use by another process", remedy="wait for it or stop it") from error

    def _read_facts(self) -> dict[str, Any]:
        try:
            return dict(json.loads((self.folder / FACTS).read_text()))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder / FACTS} cannot be read: {error}", remedy="another directory") from error

    def _read_config(self) -> dict[str, Any]:
        try:
            return tomllib.loads((self.folder / CONFIG).read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.folder / CONFIG} cannot be read: {error}", remedy="another directory") from error

    def _same(self, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
        for key in sorted(set(saved) | set(wanted)):
            if saved.get(key) != wanted.get(key):
                raise ConfigError(
                    f"{self.folder}: {key} was {saved.get(key)!r} and is {wanted.get(key)!r}",
                    expected="the configuration that the run was started with", remedy="another run directory",
                )  # fmt: skip


def _flat(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Nested tables to dotted keys."""
    out: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and value:
            out |= _flat(value, f"{before}{key}.")
        else:
            out[before + key] = value
    return out
