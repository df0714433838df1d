"""The machine under a measurement, by name."""

from __future__ import annotations

import platform
from pathlib import Path


def processor() -> str:
    """As the kernel names it; empty where it does not (no /proc, some ARM cores)."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def machine() -> str:
    """Processor name and architecture."""
    return f"{processor() or 'unnamed processor'} ({platform.machine()})"
