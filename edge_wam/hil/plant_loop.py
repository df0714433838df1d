"""The arm at the end of a drive stream, in a thread: as many milliseconds pass for it as the microcontroller counts.

An order per control tick is its clock. Where the MCU says nothing any more, the wall's goes on: gravity does not wait.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import numpy as np

from edge_wam.contracts import F64
from edge_wam.sim.arm import ArmPlant, ArmSpec, PlantFault
from firmware_bridge.errors import TransportClosed
from firmware_bridge.host.plant_port import DriveCommand, PlantPort
from firmware_bridge.host.transport import Transport

ENCODER_TICKS = 20
"""50 Hz: each of 60 bytes costs an emulated UART 15 us, and 100 us where others use its core too."""
_SILENT_S = 0.04
_CATCH_UP_TICKS = 500
_TURN_S = 0.001


class PlantLoop:
    """Context manager."""

    def __init__(
        self, transport: Transport, spec: ArmSpec, *, free_running: bool = True, encoder_ticks: int = ENCODER_TICKS
    ) -> None:
        self._arm = ArmPlant(spec)
        self._port: PlantPort | None = PlantPort(transport)
        self._free_running = free_running
        self._encoder_ticks = encoder_ticks
        self._lock = threading.Lock()
        self._commands: list[DriveCommand] = []
        self._ticks: list[int] = []
        self._joints: list[F64] = []
        self._wanted: list[tuple[str, PlantFault]] = []
        self.broken: list[tuple[str, int]] = []
        """(kind, control tick after which) of every fault that was made."""
        self.longest_gap_s = 0.0
        """Between two turns of this thread, which asks for one every millisecond: the machine's stall."""
        self._offset: int | None = None
        self._last_tick = 0
        self._sent_at = 0
        self._sent_s = 0.0
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="plant")
        self._thread.start()

    def break_it(self, kind: str, fault: PlantFault) -> None:
        """From the next order on."""
        with self._lock:
            self._wanted.append((kind, fault))

    def attach(self, transport: Transport) -> None:
        """A new microcontroller stands where the old one was."""
        with self._lock:
            if self._port is not None:
                self._port.close()
            self._port = PlantPort(transport)

    def commands(self) -> list[DriveCommand]:
        with self._lock:
            return list(self._commands)

    def joints(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], F64]:
        """(control tick of the first boot [M], where the links were [M, D])."""
        with self._lock:
            return np.array(self._ticks, np.int64), np.array(self._joints, np.float64).reshape(len(self._joints), -1)

    def close(self) -> None:
        self._stop = True
        self._thread.join()
        if self._port is not None:
            self._port.close()

    def __enter__(self) -> PlantLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        last = heard = time.monotonic()
        while not self._stop:
            now = time.monotonic()
            self.longest_gap_s, passed_s, last = max(self.longest_gap_s, now - last), now - last, now
            with self._lock:
                commands = self._poll()
                for command in commands:
                    self._obey(command)
                if commands:
                    heard = now
                elif self._free_running and now - heard > _SILENT_S:
                    self._pass(min(_CATCH_UP_TICKS, round(passed_s * 1e3)))
                # By its own ticks; by the wall's clock until the first order and where nothing is ordered any more.
                if self._arm.ticks - self._sent_at >= self._encoder_ticks or now - self._sent_s >= _SILENT_S:
                    self._sent_s = now
                    self._report()
            time.sleep(_TURN_S)

    def _poll(self) -> list[DriveCommand]:
        if self._port is None:
            return []
        try:
            return self._port.poll()
        except TransportClosed:
            self._port.close()
            self._port = None
            return []

    def _obey(self, command: DriveCommand) -> None:
        if self._commands and self._commands[-1].tick == command.tick:
            return
        back = bool(self._commands) and command.tick < self._last_tick
        count = 1 if back or not self._commands else min(_CATCH_UP_TICKS, command.tick - self._last_tick)
        self._last_tick = command.tick
        self._commands.append(command)
        if self._offset is None:
            self._offset = command.tick - self._arm.ticks - count
        if len(command.setpoint) == 0 and not command.enabled:
            self._arm.switch_off()  # a microcontroller's last words
        self._arm.order(command.setpoint, enabled=command.enabled, brake=command.brake)
        for kind, fault in self._wanted:
            self._arm.break_it(fault)
            self.broken.append((kind, command.tick))
        self._wanted.clear()
        self._pass(count)

    def _pass(self, ticks: int) -> None:
        for _ in range(ticks):
            self._arm.tick()
            self._ticks.append(self._arm.ticks + (self._offset or 0))
            self._joints.append(self._arm.position)

    def _report(self) -> None:
        self._sent_at = self._arm.ticks
        reading = self._arm.encoder()
        if reading is not None and self._port is not None:
            with suppress(TransportClosed):
                self._port.send_encoder(np.clip(reading, -190.0, 190.0), self._arm.effort())
