"""A drive that is always where it was told to be, and writes down every order: what the axis did, in MCU ticks."""

from __future__ import annotations

import threading
import time

import numpy as np

from firmware_bridge.errors import TransportClosed
from firmware_bridge.hil.trace import Trace
from firmware_bridge.host.plant_port import DriveCommand, PlantPort
from firmware_bridge.host.transport import Transport

HOME = (0.0, 0.6, 0.2, 0.0)
ENCODER_PERIOD_S = 0.01
"""100 Hz: each byte costs the emulated UART 15 us or more of a core that others use too."""


class EchoPlant:
    """Context manager; runs in a thread. ``silent`` and ``stuck`` break it on purpose."""

    def __init__(self, transport: Transport, home: tuple[float, ...] = HOME) -> None:
        self.silent = False
        self.stuck = False
        self.position = np.array(home)
        self._port = PlantPort(transport)
        self.longest_gap_s = 0.0
        """Between two turns of this thread, which asks for one every few milliseconds: the machine's stall."""
        self._commands: list[DriveCommand] = []
        self._lock = threading.Lock()
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="plant")
        self._thread.start()

    def commands(self) -> list[DriveCommand]:
        with self._lock:
            return list(self._commands)

    def trace(self) -> Trace:
        """The orders since the last boot of the MCU."""
        commands = self.commands()
        first = max((i for i in range(1, len(commands)) if commands[i].tick < commands[i - 1].tick), default=0)
        return Trace.of(commands[first:])

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        self._port.close()

    def __enter__(self) -> EchoPlant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        due = last = time.monotonic()
        try:
            while not self._stop:
                turn = time.monotonic()
                self.longest_gap_s, last = max(self.longest_gap_s, turn - last), turn
                commands = self._port.poll()
                if commands:
                    with self._lock:
                        self._commands += commands
                    if commands[-1].enabled and not self.stuck and len(commands[-1].setpoint) == len(self.position):
                        self.position = np.array(commands[-1].setpoint)
                now = time.monotonic()
                if now >= due:
                    due = max(due + ENCODER_PERIOD_S, now)
                    if not self.silent:
                        self._port.send_encoder(self.position)
                # No wait() for single orders: at 1 kHz each wake-up would cost more than the order.
                time.sleep(max(0.0005, due - time.monotonic()))
        except TransportClosed:
            return  # the emulator was ended by its test
