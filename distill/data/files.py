"""Files that are there whole or not at all, and the hashes by which a run knows its data again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from edge_wam.errors import ConfigError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; on leaving without an error it is flushed to the disk and takes the name ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    yield partial
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, value: object) -> None:
    """``value`` as indented JSON."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def write_jsonl(path: Path, rows: Iterable[object]) -> None:
    """One JSON value a line."""
    with replacing(path) as partial:
        partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_parquet(table: pa.Table, path: Path) -> None:
    """One table as one file."""
    with replacing(path) as partial:
        pq.write_table(table, partial)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy="restore the file") from error


def content_hash(
    root: Path, files: Iterable[Path], report: Callable[[int, int], None] = lambda done, total: None
) -> str:
    """SHA-256 over the names below ``root`` and the contents of ``files``: neither their order nor dates matter.

    Args:
        report: called after every file with how many are done and of how many.

    Raises:
        ConfigError: a file cannot be read.
    """
    ordered = sorted({path.relative_to(root).as_posix(): path for path in files}.items())
    digest = hashlib.sha256()
    for done, (name, path) in enumerate(ordered, 1):
        digest.update(f"{name}\0{sha256_of(path)}\n".encode())
        report(done, len(ordered))
    return digest.hexdigest()
