"""Firmware built once for the whole run, and a bench for each kind of emulated microcontroller."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_bridge.errors import FirmwareError
from tests.link.bench import ROOT, Bench

ATTEMPTS = 4


@pytest.fixture(scope="session")
def firmware() -> Path:
    """Where builds are kept between runs."""
    return ROOT / "build" / "firmware"


@pytest.fixture(params=["host", "qemu"])
def bench(request: pytest.FixtureRequest, firmware: Path) -> Iterator[Bench]:
    with Bench(request.param, firmware) as bench:
        yield bench


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """A real-time test that failed while the machine demonstrably stalled its bench is done again, from power-on.

    A failure without such a stall is a failure at once; four stalled ones are a failure too, never a skip.
    """
    bench = pyfuncitem.funcargs.get("bench")
    if not isinstance(bench, Bench):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            pyfuncitem.obj(**arguments)
            return True
        except (AssertionError, FirmwareError) as error:
            if attempt == ATTEMPTS or not bench.starved:
                raise
            print(f"attempt {attempt} is void, the machine stalled the bench: {error}")
            bench.renew()
    return True
