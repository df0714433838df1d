"""What stands at the other end while the link is measured: a microcontroller of one's choice, with a drive that obeys.

The arm holds within a few milliradians of its start, so an encoder that always says the same follows closely enough and
costs the measured loop one write of ready-made bytes every 5 ms.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.emulator import Emulator, EmulatorOptions, Kind, choose_kind
from firmware_bridge.host.framing import encode_frame
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.limits import LimitTable
from firmware_bridge.host.link_state import F64
from firmware_bridge.host.messages import Encoder
from firmware_bridge.host.transport import Transport
from firmware_bridge.mcu.build import build

AXES = 7
KNOTS = 16
DT_NS = 50_000_000
LEAD_NS = 60_000_000
ENCODER_NS = 5_000_000
SWAY_RAD, SWAY_HZ = 0.005, 0.5

LIMITS = LimitTable.from_si(
    [f"joint_{k + 1}" for k in range(AXES)],
    position_min=[-3.0] * AXES,
    position_max=[3.0] * AXES,
    velocity_max=[2.0] * AXES,
    acceleration_max=[10.0] * AXES,
    jerk_max=[500.0] * AXES,
    following_error_max=[0.25] * AXES,
)


def sway(at_ns: int) -> F64:
    """Knots of a chunk from ``at_ns`` on: [16, 7] rad, a function of time, so that chunks agree where they meet."""
    seconds = (at_ns + np.arange(KNOTS)[:, None] * DT_NS) * 1e-9
    return np.asarray(SWAY_RAD * np.sin(2 * np.pi * SWAY_HZ * seconds + np.arange(AXES)), dtype=np.float64)


class WithDrive:
    """The link of an MCU whose drive stream is served beside it, by whoever reads."""

    def __init__(self, link: Transport, drive: Transport) -> None:
        self._link, self._drive = link, drive
        frame = Encoder(0, AXES, (0,) * AXES, (0,) * AXES)
        self._encoder = encode_frame(bytes([Encoder.TYPE]) + frame.pack())
        self._due_ns = 0
        self.quiet = False
        """The drive is left alone: what is measured now shall be the link's."""

    @property
    def dropped_frames(self) -> int:
        return self._link.dropped_frames

    @property
    def backlog(self) -> int:
        return self._link.backlog

    def write(self, frame: bytes) -> None:
        self._link.write(frame)

    def read(self) -> bytes:
        now = time.monotonic_ns()
        if now >= self._due_ns and not self.quiet:
            self._due_ns = now + ENCODER_NS
            self._drive.read()
            self._drive.write(self._encoder)
        return self._link.read()

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        return self._link.wait(timeout_s, gather_s)

    def close(self) -> None:
        self._link.close()
        self._drive.close()


class LibraryByTheWall(LibraryTransport):
    """The MCU's core in this process, its ticks by the wall clock: what is left of a round trip without any UART,
    scheduler or emulator on the MCU's side."""

    def __init__(self) -> None:
        super().__init__(build("lib"), on_tick=lambda: self.encoder(np.zeros(AXES)))
        self._begin_ns = time.monotonic_ns() - self.now_ns()

    def read(self) -> bytes:
        while self._begin_ns + self.now_ns() < time.monotonic_ns():
            self.tick()
        return super().read()

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._drain()
            if self._out:
                return True
            if self._begin_ns + self.now_ns() < time.monotonic_ns():
                self.tick()
        return False


@dataclass(frozen=True, slots=True)
class Mcu:
    """One kind of microcontroller to measure against."""

    name: str
    what: str
    target: str = ""


MCUS = {
    mcu.name: mcu
    for mcu in (
        Mcu("library", "the core in this process"),
        Mcu("host", "the core as a Linux process behind a socket", "host"),
        Mcu("mps2-an386", "ARM firmware in QEMU, UART without FIFO", "mps2-an386-realtime"),
        Mcu("ast1030-evb", "ARM firmware in QEMU, 16550 UART", "ast1030-evb-realtime"),
        Mcu("lm3s6965evb", "ARM firmware in QEMU, PL011 UART", "lm3s6965evb-realtime"),
    )
}


def known(name: str) -> str:
    """The name itself.

    Raises:
        FirmwareError: nothing is called that.
    """
    if name not in MCUS:
        raise FirmwareError(f"microcontroller {name!r} is unknown", expected=" | ".join(MCUS))
    return name


def available() -> list[str]:
    """What can run here: the emulated boards need QEMU and a compiler."""
    return [name for name in MCUS if name in ("library", "host") or choose_kind() == "qemu"]


@contextlib.contextmanager
def apart() -> Iterator[int]:
    """This process on one core and the emulator (whose core is given) on another, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    try:
        yield cores[-1]
    finally:
        os.sched_setaffinity(0, cores)


@contextlib.contextmanager
def running(mcu: Mcu) -> Iterator[Transport]:
    """A transport to a fresh microcontroller of that kind.

    Raises:
        FirmwareError: a tool is missing or the firmware does not come up.
    """
    if mcu.name == "library":
        library = LibraryByTheWall()
        try:
            yield library
        finally:
            library.close()
        return
    kind: Kind = "host" if mcu.name == "host" else "qemu"
    with contextlib.ExitStack() as stack:
        options = EmulatorOptions(target=mcu.target, core=stack.enter_context(apart()))
        emulator = stack.enter_context(Emulator(kind, options))
        both = WithDrive(emulator.open_link(), emulator.open_drive())
        try:
            yield both
        finally:
            both.close()
