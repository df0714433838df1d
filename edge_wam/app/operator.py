"""The operator's hand while a session runs: Ctrl-C (or the end of the terminal) stops the arm in order, always."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread
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
    # A handler runs in the middle of whatever the main thread does, of a print or of a lock that it holds, too: it may
    # neither print nor lock. It writes one byte; a thread of its own does the rest.
    heard, told = os.pipe()
    os.set_blocking(told, False)

    def on_signal(number: int, _frame: FrameType | None) -> None:
        with suppress(BlockingIOError):  # the pipe is full of signals: one of them is enough
            os.write(told, bytes([number]))

    def listen() -> None:
        while number := os.read(heard, 1):
            if not stop.is_set():
                stop.set()
                say(f"{signal.Signals(number[0]).name}: {doing} ...")

    listener = Thread(target=listen, name="operator", daemon=True)
    listener.start()
    before = {number: signal.signal(number, on_signal) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(told)
        listener.join()
        os.close(heard)
