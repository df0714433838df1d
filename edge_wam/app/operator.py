"""The operator's hand while a session runs: Ctrl-C (or the end of the terminal) stops the arm in order, always."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def stoppable(
    say: Callable[[str], None] = lambda text: None, doing: str = "stopping the arm"
) -> Iterator[Event]:
    """An event that turns set on the first signal. No signal interrupts anything: the arm is braked, then disarmed.

    Further signals change nothing; whoever kills this process outright leaves the arm to the control process, which
    stops it, and whoever kills that one to the microcontroller, which stops it too.
    """
    stop = Event()

    def on_signal(number: int, _frame: FrameType | None) -> None:
        if not stop.is_set():
            say(f"{signal.Signals(number).name}: {doing} ...")
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
