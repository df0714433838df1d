"""Real-time tests on a machine that others use: a failure while the machine demonstrably stood still is no result."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_wam.errors import EdgeWamError
from firmware_bridge.errors import FirmwareError

ATTEMPTS = 4
STALL_S = 0.03
"""Longer than any real-time claim about a control cycle of 10 ms and a camera of 50 ms could stand."""
_TURN_S = 0.002
FAILURES = (AssertionError, FirmwareError, EdgeWamError, pytest.fail.Exception)


class Witness:
    """Context manager: a thread that only asks for a turn every 2 ms, and is no part of what is tested."""

    def __init__(self) -> None:
        self.longest_gap_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="witness", daemon=True)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._stop.wait(_TURN_S):
            now = time.monotonic()
            self.longest_gap_s, last = max(self.longest_gap_s, now - last), now

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Queue:
    """How long a process had to wait for a processor: the longest wait that ended while this watched it, in seconds.

    Linux adds a wait to the thread's schedstat when it ends, so that a lump in it is one wait. A process that was
    stopped, or has nothing to do, does not wait.
    """

    def __init__(self, pid: int) -> None:
        self.longest_s = 0.0
        self._path = Path(f"/proc/{pid}/schedstat")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue witness", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = self._waited_ns()
        while not self._stop.wait(5 * _TURN_S):
            now = self._waited_ns()
            if last is not None and now is not None:
                self.longest_s = max(self.longest_s, (now - last) / 1e9)
            last = now

    def _waited_ns(self) -> int | None:
        try:
            return int(self._path.read_text().split()[1])
        except (OSError, IndexError):  # it has ended
            return None

    def close(self) -> None:
        self._stop.set()
        self._thread.join()


def judge(
    test: Callable[[], None], renew: Callable[[], None], *, witness: Callable[[], Witness] = Witness,
    before_s: Callable[[], float] = lambda: 0.0,
) -> None:  # fmt: skip
    """Run ``test``; one that failed while the machine stalled is done again after ``renew``.

    A failure without such a stall is a failure at once; four stalled ones are a failure too, never a skip.

    Args:
        before_s: longest stall of what the test was given, since that was begun.
    """
    for attempt in range(1, ATTEMPTS + 1):
        with witness() as seen:
            try:
                if attempt > 1:
                    renew()
                test()
            except FAILURES as error:
                gap_s = max(seen.longest_gap_s, before_s())
                if attempt == ATTEMPTS or gap_s < STALL_S:
                    raise
                print(f"attempt {attempt} is void, the machine stood still for {gap_s:.3f} s: {error}")
            else:
                return
