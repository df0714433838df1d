"""Ports against the wall clock: a failure during which the machine demonstrably stalled is done again."""

from __future__ import annotations

import threading
import time

import pytest

from firmware_bridge.errors import FirmwareError
from tests.firmware.board import Board

ATTEMPTS = 4
STALL_S = 0.05
"""Half of the silence after which the microcontroller stops the arm."""


class Witness:
    """A thread that only asks for a turn every 2 ms, and notes how long it waited at most."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._over.wait(0.002):
            now = time.monotonic()
            self.longest_s = max(self.longest_s, now - last)
            last = now

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """A failure without a stall is a failure at once; four stalled ones are a failure too, never a skip."""
    if pyfuncitem.module.__name__ != "tests.firmware.test_ports":
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    for attempt in range(1, ATTEMPTS + 1):
        Board.longest_gap_us = 0
        with Witness() as witness:
            try:
                pyfuncitem.obj(**arguments)
                return True
            except (AssertionError, FirmwareError, TimeoutError) as error:
                stall_s = max(witness.longest_s, Board.longest_gap_us / 1e6)
                if attempt == ATTEMPTS or stall_s < STALL_S:
                    raise
                print(f"attempt {attempt} is void, the machine stalled for {stall_s:.3f} s: {error}")
    return True
