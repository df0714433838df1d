"""A bench in real time whose host is on a CAN bus: the ARM firmware under QEMU, slcan on a pseudo-terminal, a drive."""

from __future__ import annotations

import time
from pathlib import Path

from firmware_bridge.hil.echo_plant import EchoPlant
from firmware_bridge.host.can_transport import CanOptions, CanTransport, open_can
from firmware_bridge.host.emulator import Emulator, EmulatorOptions
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import ChunkEncoding, McuMessage
from tests.link.bench import CLOCK_ERROR_NS, STALL_S, Bench
from tests.link.fake_mcu import LIMITS


class CanBench(Bench):
    """Context manager."""

    def __init__(self, firmware: Path, *, fd: bool) -> None:
        self.fd = fd
        super().__init__("qemu", firmware, EmulatorOptions(can=True))

    def _open(self) -> None:
        self.emulator = Emulator("qemu", self._options, out=self._firmware)
        self.plant = EchoPlant(self.emulator.open_drive())
        self.transport: CanTransport = open_can(CanOptions("slcan", self.emulator.can_tty, fd=self.fd))
        self.link = Link(
            self.transport, LIMITS, max_clock_error_ns=CLOCK_ERROR_NS, encoding=ChunkEncoding.I16_LSB
        )
        self.heard: list[McuMessage] = []
        self.policy = 0
        self._began_s, self._waited_s = time.monotonic(), _run_delay_s(self.emulator.pid)
        self.longest_cycle_s = 0.0
        """Of the control loop here, which asks for a turn every 10 ms."""

    @property
    def starved(self) -> bool:
        """By four witnesses that are not what is tested: this loop, the plant's thread, the MCU's longest wait, and the
        kernel's account of how long the emulator's threads were ready to run and did not."""
        waited_s = _run_delay_s(self.emulator.pid) - self._waited_s
        if waited_s > 0.25 * (time.monotonic() - self._began_s):
            return True
        stats = self.link._stats
        gap_us = stats.tick_gap_max_us if stats is not None else 0
        if self.longest_cycle_s > STALL_S:
            return True
        return self.plant.longest_gap_s > STALL_S or gap_us > STALL_S * 1e6

    def run(self, seconds: float) -> None:
        """The control loop at 100 Hz."""
        end = due = time.monotonic_ns()
        end += round(seconds * 1e9)
        while due < end:
            self.policy += 1
            self.link.heartbeat(self.policy, 0)
            self.heard += self.link.poll()
            due += 10_000_000
            self.link.service(due)
            self.longest_cycle_s = max(self.longest_cycle_s, 0.01 + (time.monotonic_ns() - due) * 1e-9)

    def close(self) -> None:
        self.link.close()
        self.plant.close()
        self.emulator.close()


def _run_delay_s(pid: int) -> float:
    """Longest time that a thread of a process was kept waiting for its processor since it was started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return max((int(task.read_text(encoding="ascii").split()[1]) for task in tasks), default=0) * 1e-9
