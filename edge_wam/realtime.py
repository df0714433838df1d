"""Time discipline: absolute deadlines with an account of their lateness, and what a process asks of the OS."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edge_wam.errors import ConfigError
from edge_wam.histogram import Histogram

_MCL_CURRENT, _MCL_FUTURE = 1, 2
_LAG_WINDOW = 100
_LAG_RATIO = 0.9
_AUTOGROUP = Path("/proc/self/autogroup")


class Pacer:
    """Periodic deadlines that do not drift: the next one is the last one plus the period, never "now" plus the period.

    A loop that falls behind by whole periods skips them (they are counted in ``missed``) instead of running a burst:
    a control step for a moment that has passed is worth nothing.
    """

    def __init__(self, rate_hz: float, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        if not rate_hz > 0:
            raise ConfigError(f"rate {rate_hz} Hz", expected="> 0")
        self.period_ns = round(1e9 / rate_hz)
        self.deadline_ns = 0
        self.ticks = 0
        self.missed = 0
        self.lateness = Histogram()
        self._clock_ns = clock_ns
        self._last_ns = 0
        self._dt = [self.period_ns] * _LAG_WINDOW
        self._dt_sum = self.period_ns * _LAG_WINDOW

    def start(self, now_ns: int) -> None:
        """The first deadline is one period from now."""
        self._last_ns = now_ns
        self.deadline_ns = now_ns + self.period_ns

    def arrive(self, now_ns: int) -> int:
        """Account for the tick that begins now and set the next deadline; returns the lateness of this one in ns."""
        late_ns = now_ns - self.deadline_ns
        self.lateness.add(late_ns)
        slot = self.ticks % _LAG_WINDOW
        dt = now_ns - self._last_ns
        self._dt_sum += dt - self._dt[slot]
        self._dt[slot] = dt
        self._last_ns = now_ns
        self.ticks += 1
        self.deadline_ns += self.period_ns
        if self.deadline_ns <= now_ns:
            skipped = (now_ns - self.deadline_ns) // self.period_ns + 1
            self.missed += skipped
            self.deadline_ns += skipped * self.period_ns
        return late_ns

    @property
    def lagging(self) -> bool:
        """True when the last 100 periods averaged more than 1/0.9 of what was asked."""
        return self._dt_sum > self.period_ns * _LAG_WINDOW / _LAG_RATIO

    def sleep(self) -> int:
        """Sleep until the deadline, then :meth:`arrive`."""
        wait_ns = self.deadline_ns - self._clock_ns()
        if wait_ns > 0:
            time.sleep(wait_ns / 1e9)
        return self.arrive(self._clock_ns())


def prefer_process(
    *, nice: int = 0, fifo_priority: int = 0, cpus: Sequence[int] = (), lock_memory: bool = False
) -> tuple[str, ...]:
    """Ask the OS for what a timely process needs; returns the refusals in words (they are reported, not fatal).

    Args:
        nice: absolute nice level, -20..19; 0 asks for nothing.
        fifo_priority: SCHED_FIFO priority 1..99; 0 keeps the normal scheduler. Never use it beside an emulator on a
            shared machine: it starves everything else.
        cpus: cores to stay on; empty: any.
        lock_memory: mlockall, so that no page fault meets the loop.
    """
    refused: list[str] = []
    try:
        if nice:
            os.setpriority(os.PRIO_PROCESS, 0, nice)
            _prefer_session(nice)
    except OSError as error:
        refused.append(f"nice {nice}: {error.strerror}")
    try:
        if fifo_priority:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(fifo_priority))
    except OSError as error:
        refused.append(f"SCHED_FIFO {fifo_priority}: {error.strerror}")
    try:
        if cpus:
            os.sched_setaffinity(0, cpus)
    except OSError as error:
        refused.append(f"cores {list(cpus)}: {error.strerror}")
    if lock_memory:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE) != 0:
            refused.append(f"mlockall: {os.strerror(ctypes.get_errno())}")
    return tuple(refused)


def _prefer_session(nice: int) -> None:
    """Where the kernel schedules sessions against each other (autogroup, the default of Debian and Ubuntu), the nice
    level of a process counts only inside its own session; the session's has to be set too. Only its leader does."""
    if os.getsid(0) == os.getpid() and _AUTOGROUP.exists():
        _AUTOGROUP.write_text(str(nice), encoding="ascii")


def quiet_garbage_collector() -> None:
    """After warm-up: what lives now is never scanned again, and no cycle collection interrupts the loop.

    The loop makes no reference cycles; :func:`collect_garbage` runs while disarmed.
    """
    gc.collect()
    gc.freeze()
    gc.disable()


def collect_garbage() -> None:
    """One full collection, for a moment when nothing moves."""
    gc.collect()
