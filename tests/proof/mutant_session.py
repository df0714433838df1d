"""One pytest session in which every mutant is asked: tests are collected once, each library is tried in a fork of it.

Importing and collecting costs a second, a test that notices a mistake a millisecond. In the fork every library of the
core that was loaded is exchanged for the mutant's. Processor time counts: a busy machine makes no mutant hang.

The tests come in the order in which they are likely to end it soonest: the neighbour of a mistake that a test has
noticed is mostly noticed by the same test, and a cheap test is asked before a dear one. All of them are asked before a
mutant has survived.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from firmware_bridge.mcu import build as mcu_build

BASE_S = 20.0
SLOWER = 5.0
"""A mutant hangs when a test takes so many times longer (and BASE_S more): on the board the watchdog would bite."""
_FORGET = 0.9
"""What a test noticed counts so much less with every mutant that comes after."""
Ask = Callable[[Path], str]
"""A library -> "killed", "hangs" or "survived"."""


_PLAIN: set[str] = set()
"""Libraries without a mistake with which sessions of this process were collected."""


def _loaded() -> list[ctypes.CDLL]:
    """Libraries of the core in this process."""
    return [one for one in gc.get_objects() if isinstance(one, ctypes.CDLL) and one._name in _PLAIN]


def _exchange(libraries: Sequence[ctypes.CDLL], new: Path) -> None:
    """Every loaded library of the core becomes the mutant's, with functions that were looked up already."""
    for library in libraries:
        fresh = ctypes.CDLL(str(new))
        for name, function in list(vars(library).items()):
            if isinstance(function, ctypes._CFuncPtr):
                other = fresh[name]
                other.argtypes, other.restype = function.argtypes, function.restype
                setattr(library, name, other)
        library._handle = fresh._handle


class MutantSession:
    """A plugin of pytest; ``work`` is called once the tests are collected."""

    def __init__(self, plain: Path, work: Callable[[Ask], None]) -> None:
        _PLAIN.add(str(plain))
        self.work = work
        self.plain = self.library = plain
        self.libraries: list[ctypes.CDLL] = []
        self.loaded_late = False
        self.items: list[pytest.Item] = []
        self.cost_s: list[float] = []  # processor time of each test without a mistake; empty: not known yet
        self.noticed: list[float] = []  # how many mutants each test has ended, of late

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile("mutant", phases=(Phase.explicit, Phase.generate), database=None, derandomize=True,
                                  deadline=None, report_multiple_bugs=False)  # fmt: skip
        settings.load_profile("mutant")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of the tests once: the tests for each mutant, each time in a fork."""
        self.items = session.items
        self.noticed = [0.0] * len(self.items)
        if session.testsfailed or not self.items:
            raise pytest.UsageError("the tests cannot be collected")
        self.libraries = _loaded()
        gc.collect()
        gc.freeze()  # the forks share it
        self.work(self.ask)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In a fork: the first test that fails ends it."""
        if report.failed:
            os._exit(1)

    def order(self) -> list[int]:
        """Places in ``items``: what a test may notice in a second of it, the most first."""
        if not self.cost_s:
            return list(range(len(self.items)))
        return sorted(range(len(self.items)), key=lambda i: -(self.noticed[i] + 0.01) / (self.cost_s[i] + 0.001))

    def ask(self, library: Path) -> str:
        """What the tests say of a library."""
        order = self.order()
        with mmap.mmap(-1, 8 * (len(order) + 1)) as shared, memoryview(shared).cast("d") as told:
            pid = os.fork()
            if pid == 0:
                try:
                    self._child(library, order, told)
                finally:
                    os._exit(99)
            _, status = os.waitpid(pid, 0)
            last, cost_s = int(told[0]), list(told[1:])
        code = os.waitstatus_to_exitcode(status)
        if code == 99:
            raise SystemExit("a fork of the tests went wrong")
        if library == self.plain:
            self.cost_s = cost_s
        elif code != 0:
            self.noticed = [_FORGET * count for count in self.noticed]
            self.noticed[last] += 1.0
        return "survived" if code == 0 else "hangs" if code == -signal.SIGPROF else "killed"

    def _child(self, library: Path, order: Sequence[int], told: memoryview[float]) -> None:
        """told: the place of the test that runs, then the processor time of each."""
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        if library != self.plain:
            _exchange(self.libraries, library)
        self.library = library  # for tests that have not loaded it yet
        for i, following in zip(order, [*order[1:], None], strict=True):
            told[0] = i
            if self.cost_s:
                signal.setitimer(signal.ITIMER_PROF, BASE_S + SLOWER * self.cost_s[i])
            begun_s = time.process_time()
            item, next_item = self.items[i], None if following is None else self.items[following]
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=next_item)
            told[1 + i] = time.process_time() - begun_s
        os._exit(0 if self.libraries or self.loaded_late else 99)  # 99: nothing was asked about the library


_SESSIONS: list[MutantSession] = []
_plain_build = mcu_build.build


def _build(target: str, *more: Path) -> Path:
    """In the place of ``firmware_bridge.mcu.build.build``: the library that is asked about now."""
    if target != "lib":
        return _plain_build(target, *more)
    _SESSIONS[-1].loaded_late = True
    return _SESSIONS[-1].library


def ask_all(plain: Path, tests: Sequence[Path], work: Callable[[Ask], None]) -> None:
    """Collect the tests against ``plain`` and call ``work`` with what asks them.

    Raises:
        SystemExit: if the tests cannot be collected or a fork goes wrong.
    """
    session = MutantSession(plain, work)
    _SESSIONS.append(session)
    mcu_build.build = _build  # for good: what is imported in the first session keeps this name
    options = ["-q", "-x", "-s", "--assert=plain", "--timeout=0", "--durations=0", "--durations-min=1000"]
    options += ["-p", "no:cacheprovider", "-p", "no:faulthandler"]
    code = pytest.main([*options, *map(str, tests)], plugins=[session])
    if code != pytest.ExitCode.OK:
        raise SystemExit(f"pytest ended with {code!r}")
