"""The microcontroller's own C core in this process, for lockstep: simulated time, deterministic, faster than real time.

The transport is the source of time. Whoever waits on it makes simulated milliseconds pass, one control tick each, so a
link on ``transport.now_ns`` as its clock works unchanged and never sleeps.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from firmware_bridge.errors import FirmwareError, TransportClosed
from firmware_bridge.host.drive_emulation.wires import Wires
from firmware_bridge.host.link_state import F64
from firmware_bridge.host.messages import MAX_AXES, SCHEMA_HASH, TICK_US, McuState, ResetCause
from firmware_bridge.host.plant_port import DriveCommand, effort_micro, encoder_micro

_TX_BYTES = 4096


def _load(path: Path) -> ctypes.CDLL:
    """The library with its signatures declared (``mcu/ports/host/lib.h``)."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise FirmwareError(
            f"{path} cannot be loaded: {error}", expected="the MCU core as a shared library of this machine",
            remedy="build it: edge-wam firmware build lib",
        ) from error
    handle, u8, u32, u64, size = ctypes.c_void_p, ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_size_t
    i32s = ctypes.POINTER(ctypes.c_int32)
    for name, result, arguments in (
        ("ewl_create", handle, [u32, u64]),
        ("ewl_destroy", None, [handle]),
        ("ewl_reset", None, [handle, u8, u32, u64]),
        ("ewl_rx", None, [handle, ctypes.c_char_p, size, u64]),
        ("ewl_tx", size, [handle, ctypes.c_char_p, size]),
        ("ewl_tick", None, [handle, u64]),
        ("ewl_encoder", None, [handle, i32s, i32s, u8, u64]),
        ("ewl_setpoint", u8, [handle, i32s, u8, ctypes.POINTER(u8)]),
        ("ewl_servo_tx", size, [handle, ctypes.c_char_p, size, u64]),
        ("ewl_servo_rx", None, [handle, ctypes.c_char_p, size, u64]),
        ("ewl_motor_tx", u8, [handle, ctypes.POINTER(ctypes.c_uint16), ctypes.c_char_p, u64]),
        ("ewl_motor_rx", None, [handle, ctypes.c_uint16, ctypes.c_char_p, u8, u64]),
        ("ewl_state", u8, [handle]),
        ("ewl_schema_hash", u32, []),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    if library.ewl_schema_hash() != SCHEMA_HASH:
        raise FirmwareError(
            f"{path} speaks protocol {library.ewl_schema_hash():08x}", expected=f"{SCHEMA_HASH:08x}",
            remedy="build it again: edge-wam firmware build lib",
        )
    return library


class LibraryTransport:
    """One simulated microcontroller, powered on at ``start_ns``; its own clock starts there at zero.

    Args:
        library: ``libedgewam_mcu.so``.
        seed: makes the session numbers reproducible.
        start_ns: simulated host time of power-on.
        on_tick: called after every control tick, whoever let time pass: here a simulator takes :meth:`setpoint`,
            moves its plant by one millisecond and reports :meth:`encoder`.
        wires: to emulated drives, for axes that are not on the drive stream.

    Raises:
        FirmwareError: the library is missing or of another protocol.
    """

    dropped_frames = 0
    backlog = 0

    def __init__(
        self,
        library: Path,
        *,
        seed: int = 1,
        start_ns: int = 1_000_000_000,
        on_tick: Callable[[], None] | None = None,
        wires: Wires | None = None,
    ) -> None:
        self.on_tick = on_tick
        self.wires = wires
        self._identifier = ctypes.c_uint16()
        self._library = _load(library)
        self._start_ns = start_ns
        self._ticks = 0
        self._out = bytearray()
        self._buffer = ctypes.create_string_buffer(_TX_BYTES)
        self._setpoint = (ctypes.c_int32 * MAX_AXES)()
        self._enable = ctypes.c_uint8()
        self._mcu: int | None = self._library.ewl_create(seed, 0)
        if self._mcu is None:
            raise FirmwareError("no memory for a simulated microcontroller")

    def now_ns(self) -> int:
        """Simulated host time."""
        return self._start_ns + self._ticks * TICK_US * 1000

    @property
    def mcu_us(self) -> int:
        """The MCU's own clock."""
        return self._ticks * TICK_US

    def tick(self) -> None:
        """One millisecond passes."""
        if self.wires is not None:
            self.wires.run(self, self.mcu_us, self.mcu_us + TICK_US)
        self._ticks += 1
        self._library.ewl_tick(self._handle(), self.mcu_us)
        if self.on_tick is not None:
            self.on_tick()

    def servo_tx(self, now_us: int) -> bytes:
        """The next packet for a bus of servos, empty: none now."""
        count = self._library.ewl_servo_tx(self._handle(), self._buffer, _TX_BYTES, now_us)
        return self._buffer.raw[:count] if count else b""

    def servo_rx(self, data: bytes, now_us: int) -> None:
        self._library.ewl_servo_rx(self._handle(), data, len(data), now_us)

    def motor_tx(self, now_us: int) -> tuple[int, bytes] | None:
        """The next frame for a bus of motor drives, None: none now."""
        if not self._library.ewl_motor_tx(self._handle(), ctypes.byref(self._identifier), self._buffer, now_us):
            return None
        return self._identifier.value, self._buffer.raw[:8]

    def motor_rx(self, identifier: int, data: bytes, now_us: int) -> None:
        self._library.ewl_motor_rx(self._handle(), identifier, data, len(data), now_us)

    def setpoint(self) -> DriveCommand:
        """What the MCU orders the drive to do since the last tick."""
        axes = self._library.ewl_setpoint(self._handle(), self._setpoint, MAX_AXES, ctypes.byref(self._enable))
        return DriveCommand(self._ticks, self._enable.value == 1, np.array(self._setpoint[:axes], np.float64) / 1e6)

    def encoder(self, position: Sequence[float] | F64, effort: Sequence[float] | F64 | None = None) -> None:
        """Where the axes are [D], axis units, and what it takes [D], N m or N (None: not measured); at least every
        50 ms while armed.

        Raises:
            FirmwareError: a number that is none; nothing was reported.
        """
        micro = encoder_micro(position)
        efforts = effort_micro(effort, len(micro))
        values, loads = (v.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)) for v in (micro, efforts))
        self._library.ewl_encoder(self._handle(), values, loads, len(micro), self.mcu_us)

    def reset(self, cause: ResetCause, pc: int = 0) -> None:
        """What a reset does: everything is lost but the no-init record."""
        self._library.ewl_reset(self._handle(), int(cause), pc, self.mcu_us)

    @property
    def mcu_state(self) -> McuState:
        """Seen from inside, without the wire."""
        return McuState(self._library.ewl_state(self._handle()))

    def write(self, frame: bytes) -> None:
        self._library.ewl_rx(self._handle(), frame, len(frame), self.mcu_us)

    def read(self) -> bytes:
        self._drain()
        data = bytes(self._out)
        self._out.clear()
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        """Let simulated time pass, tick by tick, until the MCU says something."""
        self._drain()
        for _ in range(max(1, round(timeout_s * 1000))):
            if self._out:
                return True
            self.tick()
            self._drain()
        return bool(self._out)

    def close(self) -> None:
        if self._mcu is not None:
            self._library.ewl_destroy(self._mcu)
            self._mcu = None

    def _drain(self) -> None:
        while count := self._library.ewl_tx(self._handle(), self._buffer, _TX_BYTES):
            self._out += self._buffer.raw[:count]

    def _handle(self) -> int:
        if self._mcu is None:
            raise TransportClosed("the simulated microcontroller was closed")
        return self._mcu
