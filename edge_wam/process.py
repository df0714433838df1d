"""Start one child process: a named entry function, JSON arguments, inherited descriptors. Nothing is pickled or forked.

The child dies with its parent (PR_SET_PDEATHSIG), sits in its own process group so that Ctrl-C in the terminal reaches
only the supervisor (which then stops the arm in order), and is told to stop by SIGTERM.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from edge_wam.errors import ConfigError

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One row of the process table.

    Attributes:
        name: shown in events and in ``ps``.
        entry: ``package.module:function``; called as ``function(arguments, stop)``; ``stop()`` turns true on SIGTERM.
        arguments: JSON values only. Descriptors go in as numbers and must be listed in ``fds`` too.
        fds: descriptors to inherit, under the same numbers.
        critical: its death while armed degrades the robot (PROCESS_DIED).
        death_signal: what the kernel sends it when its parent dies. The control process takes SIGTERM, which it
            answers with a controlled stop.
    """

    name: str
    entry: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    fds: tuple[int, ...] = ()
    critical: bool = True
    death_signal: int = signal.SIGKILL


class Child:
    """A started process."""

    def __init__(self, spec: ProcessSpec, popen: subprocess.Popen[bytes]) -> None:
        self.spec = spec
        self._popen = popen

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that killed it."""
        return self._popen.poll()

    def wait(self, timeout_s: float) -> bool:
        """True when it has ended within ``timeout_s``."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, grace_s: float = 5.0) -> int:
        """SIGTERM, then SIGKILL after ``grace_s``; returns the exit code."""
        if self._popen.poll() is None:
            self._popen.terminate()
            if not self.wait(grace_s):
                self._popen.kill()
                self._popen.wait()
        return int(self._popen.returncode)


def start(spec: ProcessSpec, *, log: IO[bytes] | None = None) -> Child:
    """Start a process of the table; its stdout and stderr go to ``log`` (default: the parent's stderr)."""
    target = log if log is not None else sys.stderr.fileno()
    argv = [sys.executable, "-m", "edge_wam.process", spec.name, spec.entry, str(spec.death_signal), str(os.getpid()),
            json.dumps(dict(spec.arguments))]
    popen = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=target, stderr=target, pass_fds=spec.fds, start_new_session=True
    )
    return Child(spec, popen)


def stop_all(children: Sequence[Child], grace_s: float = 5.0) -> None:
    """Ask all to end at once, then kill those that have not within ``grace_s``."""
    for child in children:
        if child.exit_code is None:
            os.kill(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    for child in children:
        if not child.wait(max(0.0, deadline - time.monotonic())):
            child.stop(0.0)


def resolve(entry: str) -> Callable[..., Any]:
    """``package.module:function`` -> the function.

    Raises:
        ConfigError: no such module or function.
    """
    module_name, _, attribute = entry.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"no entry point {entry!r}: {error}", expected="package.module:function") from error
    if not callable(found):
        raise ConfigError(f"entry point {entry!r} is {type(found).__name__}", expected="a function")
    return found  # type: ignore[no-any-return]


class StopFlag:
    """True once SIGTERM or SIGINT has arrived. What stopping means is the process' own matter."""

    def __init__(self) -> None:
        self._set = False
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self._set = True

    def __call__(self) -> bool:
        return self._set


def _main(argv: list[str]) -> int:
    name, entry, death_signal, parent, arguments = argv
    libc = ctypes.CDLL(None, use_errno=True)
    stop = StopFlag()
    libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    libc.prctl(_PR_SET_NAME, f"ew-{name}"[:15].encode(), 0, 0, 0)
    if os.getppid() != int(parent):  # the parent died before prctl took effect
        return 1
    resolve(entry)(json.loads(arguments), stop)
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
