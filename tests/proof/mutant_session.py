"""One pytest session in which every mutant is asked: tests are collected once, each library is tried in a fork of it.

Importing and collecting costs a second, a test that notices a mistake a millisecond. In the fork every library of the
core that was loaded is exchanged for the mutant's. Processor time counts: a busy machine makes no mutant hang.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from firmware_bridge.mcu import build as mcu_build

BASE_S = 10
SLOWER = 5.0
"""A mutant whose tests take so many times longer (and BASE_S more) hangs: on the board the watchdog would bite."""
Ask = Callable[[Path], str]
"""A library -> "killed", "hangs" or "survived"."""


_PLAIN: set[str] = set()
"""Libraries without a mistake with which sessions of this process were collected."""


def _exchange(new: Path) -> int:
    """Every loaded library of the core becomes the mutant's, with functions that were looked up already; how many."""
    libraries = [one for one in gc.get_objects() if isinstance(one, ctypes.CDLL) and one._name in _PLAIN]
    for library in libraries:
        fresh = ctypes.CDLL(str(new))
        for name, function in list(vars(library).items()):
            if isinstance(function, ctypes._CFuncPtr):
                other = fresh[name]
                other.argtypes, other.restype = function.argtypes, function.restype
                setattr(library, name, other)
        library._handle = fresh._handle
    return len(libraries)


class MutantSession:
    """A plugin of pytest; ``work`` is called once the tests are collected."""

    def __init__(self, plain: Path, work: Callable[[Ask], None]) -> None:
        _PLAIN.add(str(plain))
        self.work = work
        self.plain = self.library = plain
        self.items: list[pytest.Item] = []
        self.limit_s = 0.0

    def pytest_configure(self) -> None:
        from hypothesis import Phase, settings

        settings.register_profile("mutant", phases=(Phase.explicit, Phase.generate), database=None, derandomize=True,
                                  deadline=None)  # fmt: skip
        settings.load_profile("mutant")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Instead of the tests once: the tests for each mutant, each time in a fork."""
        self.items = session.items
        if session.testsfailed or not self.items:
            raise pytest.UsageError("the tests cannot be collected")
        self.work(self.ask)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """In a fork: the first test that fails ends it."""
        if report.failed:
            os._exit(1)

    def ask(self, library: Path) -> str:
        """What the tests say of a library."""
        pid = os.fork()
        if pid == 0:
            try:
                self._child(library)
            finally:
                os._exit(99)
        _, status, used = os.wait4(pid, 0)
        if library == self.plain:
            self.limit_s = BASE_S + SLOWER * (used.ru_utime + used.ru_stime)
        code = os.waitstatus_to_exitcode(status)
        if code == 99:
            raise SystemExit("a fork of the tests went wrong")
        return "survived" if code == 0 else "hangs" if code == -signal.SIGXCPU else "killed"

    def _child(self, library: Path) -> None:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        if self.limit_s:
            limit = int(self.limit_s) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
        if library != self.plain and _exchange(library) == 0:
            os._exit(99)  # nothing would be asked about the mutant
        self.library = library
        for item, following in zip(self.items, [*self.items[1:], None], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        os._exit(0)


_SESSIONS: list[MutantSession] = []
_plain_build = mcu_build.build


def _build(target: str, *more: Path) -> Path:
    """In the place of ``firmware_bridge.mcu.build.build``: the library that is asked about now."""
    return _SESSIONS[-1].library if target == "lib" else _plain_build(target, *more)


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
