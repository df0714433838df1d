"""One microcontroller core in this process, driven tick by tick: the harness of the firmware tests."""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from firmware_bridge.host import messages as m
from firmware_bridge.host.framing import FrameReceiver, crc32c, encode_frame
from firmware_bridge.host.limits import sim_drive
from firmware_bridge.mcu.build import build

# Micro-units (jerk: milli) as in LIMITS_SET: position_min, position_max, velocity_max, acceleration_max,
# following_error_max, jump_max, lsb, jerk_max, effort_max, move_max, window_max, velocity_lsb. An arm axis, a gripper.
WIDE = (-500_000, 500_000, 800_000, 10_000_000, 250_000, 80_000, 20, 4_000_000, 0, 1_000_000, 200_001, 25)
GRIPPER = (
    -1_000_000, 1_000_000, 20_000_000, 400_000_000, 2_500_000, 2_000_000, 40, 400_000_000, 0, 2_000_000, 5_000_001, 611
)  # fmt: skip


def limits(axis: int, row: Sequence[int], /, **changes: object) -> m.LimitsSet:
    """The LIMITS_SET of one axis; a row may end early, the rest is then that of WIDE."""
    fields = (axis, *row, *WIDE[len(row) :], m.AxisKind.REVOLUTE, b"axis".ljust(m.NAME_BYTES, b"\0"))
    return replace(m.LimitsSet(*fields), **changes)  # type: ignore[arg-type]


NO_SECOND_STAGE = m.StopsSet(0, 0)


def table_crc(rows: Sequence[m.LimitsSet], stops: m.StopsSet = NO_SECOND_STAGE) -> int:
    """Of a table whose axes are all SIM."""
    messages = [*rows, *(sim_drive(row.axis) for row in rows), stops]
    return crc32c(b"".join(message.pack() for message in messages))


def load(path: Path | None = None) -> ctypes.CDLL:
    """The shared library with its types declared."""
    lib = ctypes.CDLL(str(path or build("lib")))
    pointer, size, u64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint64
    i32s = ctypes.POINTER(ctypes.c_int32)
    for name, result, arguments in (
        ("ewl_create", pointer, (ctypes.c_uint32, u64)),
        ("ewl_destroy", None, (pointer,)),
        ("ewl_reset", None, (pointer, ctypes.c_uint8, ctypes.c_uint32, u64)),
        ("ewl_rx", None, (pointer, ctypes.c_char_p, size, u64)),
        ("ewl_tx", size, (pointer, ctypes.c_char_p, size)),
        ("ewl_tick", None, (pointer, u64)),
        ("ewl_slices", None, (pointer, ctypes.c_uint8)),
        ("ewl_work", ctypes.c_uint8, (pointer, u64)),
        ("ewl_encoder", None, (pointer, i32s, i32s, ctypes.c_uint8, u64)),
        ("ewl_setpoint", ctypes.c_uint8, (pointer, i32s, ctypes.c_uint8, ctypes.c_char_p)),
        ("ewl_drive_rx", None, (pointer, ctypes.c_char_p, size, u64)),
        ("ewl_drive_tx", size, (pointer, ctypes.c_char_p, size)),
        ("ewl_servo_tx", size, (pointer, ctypes.c_char_p, size, u64)),
        ("ewl_servo_rx", None, (pointer, ctypes.c_char_p, size, u64)),
        ("ewl_motor_tx", ctypes.c_uint8, (pointer, ctypes.POINTER(ctypes.c_uint16), ctypes.c_char_p, u64)),
        ("ewl_motor_rx", None, (pointer, ctypes.c_uint16, ctypes.c_char_p, ctypes.c_uint8, u64)),
        ("ewl_last_words", size, (pointer, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint16), ctypes.c_char_p)),
        ("ewl_state", ctypes.c_uint8, (pointer,)),
        ("ewl_feed_allowed", ctypes.c_uint8, (pointer,)),
        ("ewl_schema_hash", ctypes.c_uint32, ()),
        ("ewl_wants_checks", None, (pointer, ctypes.c_uint8)),
        ("ewl_watches_code", None, (pointer, pointer, ctypes.c_uint32)),
        ("ewl_estop_input", None, (pointer, ctypes.c_uint8)),
        ("ew_check_in", None, (pointer, ctypes.c_uint8)),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, list(arguments)
    return lib


_LIB: list[ctypes.CDLL] = []


class Mcu:
    """A core with a perfect drive: every 5 ms the encoder repeats the last setpoint, unless told otherwise."""

    def __init__(self, axes: Sequence[tuple[int, ...]] = (WIDE,), *, seed: int = 1, now_us: int = 1_000_000) -> None:
        if not _LIB:
            _LIB.append(load())
        self.lib = _LIB[0]
        self.axes = list(axes)
        self.now_us = now_us
        self.handle = self.lib.ewl_create(seed, now_us)
        self.session = self.epoch = 0
        self.seq = 0
        self.receiver = FrameReceiver()
        self.inbox: list[m.McuMessage] = []
        self.position = [0] * len(self.axes)
        self.encoder_on = True
        self.heartbeat_on = False
        self.policy_on = True
        self.policy_counter = 0
        self.degrade = int(m.Degrade.NOMINAL)
        self.armed_bit = True
        self.stops = NO_SECOND_STAGE
        self.chunk_id = 0
        self._ticks = 0
        self.pump()
        self.session = self._last_session

    def __del__(self) -> None:
        if getattr(self, "handle", None):
            self.lib.ewl_destroy(self.handle)
            self.handle = None

    # ---- streams ----

    def pump(self) -> list[m.McuMessage]:
        """Reads what the MCU has sent; new messages are returned and kept in ``inbox``."""
        buffer = ctypes.create_string_buffer(4096)
        fresh: list[m.McuMessage] = []
        while count := self.lib.ewl_tx(self.handle, buffer, 4096):
            for body in self.receiver.feed(buffer.raw[:count]):
                self.epoch = body[1]
                self._last_session = struct.unpack_from("<H", body, 4)[0]
                fresh.append(m.MCU_MESSAGES[body[0]].unpack(body[6:]))
        self.inbox += fresh
        return fresh

    def raw(self, data: bytes) -> None:
        """Bytes on the host link, now."""
        self.lib.ewl_rx(self.handle, data, len(data), self.now_us)

    def frame(
        self, message_type: int, payload: bytes, *, session: int | None = None, epoch: int | None = None
    ) -> bytes:
        """The bytes of one frame with the next sequence number, of the newest epoch unless said otherwise."""
        self.seq = (self.seq + 1) & 0xFFFF
        of = self.session if session is None else session
        head = struct.pack("<BBHH", message_type, self.epoch if epoch is None else epoch, self.seq, of)
        return encode_frame(head + payload)

    def send(self, message: m.HostMessage, *, session: int | None = None) -> list[m.McuMessage]:
        """One message, now; returns what came back at once."""
        self.pump()
        self.raw(self.frame(message.TYPE, message.pack(), session=session))
        return self.pump()

    def ask(self, message: m.HostMessage, *, session: int | None = None) -> m.Ack:
        """One command and its ACK."""
        (ack,) = [a for a in self.send(message, session=session) if isinstance(a, m.Ack)]
        assert ack.of_type == message.TYPE and ack.of_seq == self.seq
        return ack

    def slices(self) -> None:
        """From now on what may wait is done by ``work`` only."""
        self.lib.ewl_slices(self.handle, 1)

    def work(self, slices: int = 1) -> bool:
        """So many slices of what may wait; whether there is more."""
        return [self.lib.ewl_work(self.handle, self.now_us) for _ in range(slices)][-1] == 1

    # ---- time ----

    def heartbeat(self) -> None:
        flags = m.HEARTBEAT_FLAG_ARMED if self.armed_bit else 0
        if self.policy_on:
            self.policy_counter += 1
        beat = m.Heartbeat(self.now_us, self.policy_counter, 0, self.degrade, flags)
        self.raw(self.frame(m.Heartbeat.TYPE, beat.pack()))

    def encoder(self, position: Sequence[int], effort: Sequence[int] | None = None) -> None:
        array = (ctypes.c_int32 * len(position))(*position)
        efforts = (ctypes.c_int32 * len(position))(*(effort or [0] * len(position)))
        self.lib.ewl_encoder(self.handle, array, efforts, len(position), self.now_us)

    def tick(self, count: int = 1) -> list[tuple[int, ...]]:
        """Runs ticks of 1 ms; returns the setpoint after each."""
        out = []
        for _ in range(count):
            if self.encoder_on and self._ticks % 5 == 0:
                self.encoder(self.position)
            if self.heartbeat_on and self._ticks % 20 == 0:
                self.heartbeat()
            self.now_us += 1000
            self._ticks += 1
            self.lib.ewl_tick(self.handle, self.now_us)
            setpoint = self.setpoint()
            if self.drive_on:
                self.position = list(setpoint)
            out.append(setpoint)
            self.pump()
        return out

    def until(self, state: m.McuState, limit_ticks: int = 5000) -> int:
        """Ticks until the state is reached."""
        for ticks in range(limit_ticks):
            if self.state == state:
                return ticks
            self.tick()
        raise AssertionError(f"still {self.state!r} after {limit_ticks} ticks, wanted {state!r}")

    # ---- views ----

    def setpoint(self) -> tuple[int, ...]:
        array = (ctypes.c_int32 * m.MAX_AXES)()
        enable = ctypes.create_string_buffer(1)
        count = self.lib.ewl_setpoint(self.handle, array, m.MAX_AXES, enable)
        self.drive_on = enable.raw[0] == 1
        return tuple(array[:count])

    @property
    def state(self) -> m.McuState:
        return m.McuState(self.lib.ewl_state(self.handle))

    def report(self) -> m.State:
        """The newest STATE, after up to 10 ticks."""
        for _ in range(10):
            self.inbox.clear()
            self.tick()
            states = [s for s in self.inbox if isinstance(s, m.State)]
            if states:
                return states[-1]
        raise AssertionError("no STATE in 10 ms")

    def hello(self) -> m.Hello:
        """At once, or when the last HELLO is 10 ms ago."""
        found = [h for h in self.send(m.HelloReq(7)) if isinstance(h, m.Hello)]
        for _ in range(m.HELLO_PERIOD_US // 1000):
            if not found:
                self.inbox.clear()
                self.tick()
                found = [h for h in self.inbox if isinstance(h, m.Hello)]
        (hello,) = found
        return hello

    # ---- sequences ----

    def table(self) -> list[m.LimitsSet]:
        return [limits(axis, row) for axis, row in enumerate(self.axes)]

    def limits_crc(self) -> int:
        return table_crc(self.table(), self.stops)

    def configure(self) -> None:
        for row in self.table():
            assert self.ask(row).code == m.AckCode.OK
        if self.stops != NO_SECOND_STAGE:
            assert self.ask(self.stops).code == m.AckCode.OK
        assert self.ask(m.LimitsCommit(len(self.axes), self.limits_crc())).code == m.AckCode.OK

    def arm(self) -> m.Ack:
        return self.ask(m.Arm(self.limits_crc(), m.SCHEMA_HASH))

    def ready(self, position: Sequence[int] | None = None) -> Mcu:
        """Armed, with heartbeats and encoder going."""
        if position is not None:
            self.position = list(position)
        self.heartbeat_on = True
        self.tick(21)
        self.configure()
        assert self.arm().code == m.AckCode.OK
        self.tick()
        assert self.state == m.McuState.ARMED
        return self

    def chunk(
        self, knots: Iterable[Sequence[int]], *, lead_us: int = 50_000, dt_us: int = 50_000, blend_ms: int = 20,
        chunk_id: int | None = None, encoding: int = m.ChunkEncoding.I32_MICRO, axes: int | None = None,
        interpolation: int = m.ChunkInterpolation.HERMITE, velocities: Iterable[Sequence[int]] = (),
    ) -> m.Chunk:  # fmt: skip
        """A chunk whose first knot is ``lead_us`` from now; velocities in micro-units/s."""
        rows = [list(row) for row in knots]
        speeds = [list(row) for row in velocities]
        if chunk_id is None:
            self.chunk_id += 1
            chunk_id = self.chunk_id
        flat = [value for row in [*rows, *speeds] for value in row]
        if encoding == m.ChunkEncoding.I16_LSB:
            table = self.table()
            flat = [
                value // (limit.lsb if i < len(rows) * len(table) else limit.velocity_lsb)
                for i, (value, limit) in enumerate(zip(flat, itertools.cycle(table), strict=False))
            ]
        samples = struct.pack(f"<{len(flat)}{'i' if encoding == m.ChunkEncoding.I32_MICRO else 'h'}", *flat)
        return m.Chunk(
            chunk_id, (self.now_us + lead_us) & 0xFFFFFFFF, dt_us // 10, len(rows),
            len(self.axes) if axes is None else axes, int(encoding), 0, blend_ms, int(interpolation), samples,
        )  # fmt: skip
