"""Writes everything that is derived from ``definition.py``: ``python -m firmware_bridge.protocol.generate [--check]``.

The outputs are committed; a test runs ``--check``'s comparison, so a forgotten run does not pass.
"""

from __future__ import annotations

import sys
from pathlib import Path

from firmware_bridge.protocol.emit_c import emit_c
from firmware_bridge.protocol.emit_dbc import emit_dbc
from firmware_bridge.protocol.emit_docs import emit_faults, emit_protocol
from firmware_bridge.protocol.emit_python import emit_python

ROOT = Path(__file__).resolve().parents[2]


def outputs() -> dict[Path, str]:
    """Path relative to the repository and the text it must hold."""
    return {
        Path("firmware_bridge/mcu/core/ew_protocol.h"): emit_c(),
        Path("firmware_bridge/host/messages.py"): emit_python(),
        Path("docs/protocol.md"): emit_protocol(),
        Path("docs/mcu-faults.md"): emit_faults(),
        Path("docs/edge-wam.dbc"): emit_dbc(),
    }


def stale(root: Path = ROOT) -> list[Path]:
    """The generated files that differ from the definition."""
    return [
        path
        for path, text in outputs().items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str]) -> int:
    """Write the files, or with ``--check`` only name the stale ones (exit 1)."""
    if arguments not in ([], ["--check"]):
        print("usage: python -m firmware_bridge.protocol.generate [--check]", file=sys.stderr)
        return 2
    old = stale()
    if arguments:
        for path in old:
            print(f"{path} is stale; run: python -m firmware_bridge.protocol.generate", file=sys.stderr)
        return 1 if old else 0
    for path in old:
        (ROOT / path).write_text(outputs()[path], encoding="utf-8")
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
