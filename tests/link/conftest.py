"""Firmware built once for the whole run, and a bench for each kind of emulated microcontroller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.link.bench import ROOT, Bench


@pytest.fixture(scope="session")
def firmware() -> Path:
    """Where builds are kept between runs."""
    return ROOT / "build" / "firmware"


@pytest.fixture(params=["host", "qemu"])
def bench(request: pytest.FixtureRequest, firmware: Path) -> Iterator[Bench]:
    with Bench(request.param, firmware) as bench:
        yield bench
