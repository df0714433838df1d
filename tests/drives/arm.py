"""A whole arm in this process: the core with its drivers, emulated drives on emulated wires, microseconds counted."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence

from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import FeetechBus, FeetechServo, MitBus, MitMotor
from firmware_bridge.host.framing import crc32c
from tests.firmware.mcu import Mcu

STEP_US = 20
"""How often the port looks at its wires."""
# Limits of a joint in micro-units, as in tests.firmware.mcu.WIDE: +-1 rad, 2 rad/s, 20 rad/s^2.
JOINT = (-1_000_000, 1_000_000, 2_000_000, 20_000_000, 300_000, 200_000, 40, 40_000_000, 0, 2_000_000, 500_001, 62)


def servo_set(axis: int, address: int, **changes: int) -> m.DriveSet:
    fields = dict(axis=axis, kind=m.DriveKind.FEETECH, model=m.FeetechModel.STS3215, address=address, reply=0, zero=0,
                  ratio_num=1, ratio_den=1, kp=0, kd=0)  # fmt: skip
    return m.DriveSet(**{**fields, **changes})  # type: ignore[arg-type]


def motor_set(axis: int, address: int, **changes: int) -> m.DriveSet:
    fields = dict(axis=axis, kind=m.DriveKind.MIT, model=m.MitModel.DM4310, address=address, reply=address + 16, zero=0,
                  ratio_num=1, ratio_den=1, kp=20_000, kd=1_000)  # fmt: skip
    return m.DriveSet(**{**fields, **changes})  # type: ignore[arg-type]


class Arm(Mcu):
    """Mcu with real drives. Its own perfect drive is off; SIM axes, if any, repeat their setpoint."""

    def __init__(
        self, drives: Sequence[m.DriveSet], *, servos: Iterable[FeetechServo] = (), motors: Iterable[MitMotor] = (),
        axes: Sequence[tuple[int, ...]] | None = None, turn_us: int = 20,
    ) -> None:  # fmt: skip
        super().__init__(axes or [JOINT] * len(drives))
        self.drives = list(drives)
        self.servo_bus = FeetechBus(servos, turn_us=turn_us)
        self.motor_bus = MitBus(motors)
        self.encoder_on = any(drive.kind == m.DriveKind.SIM for drive in drives)
        self._packet = ctypes.create_string_buffer(64)
        self._data = ctypes.create_string_buffer(8)
        self._id = ctypes.c_uint16()

    def run(self) -> Arm:
        """Armed, and on a second's way to 0.3 rad on every axis."""
        self.start()
        self.tick(10)
        self.go([300_000] * len(self.drives), knots=20)
        self.tick(200)
        assert self.state == m.McuState.RUN
        return self

    def off_ticks(self, limit: int = 1000) -> int:
        """Ticks until no drive has torque."""
        for ticks in range(limit):
            if not any(self.torques()):
                return ticks
            self.tick()
        raise AssertionError("a drive still has torque")

    def torques(self) -> list[bool]:
        """Of every real drive, servos first: whether it has torque, as its emulation knows."""
        return [servo.torque_on for servo in self.servo_bus.servos] + [
            motor.enabled for motor in self.motor_bus.motors
        ]

    # ---- the wires ----

    def wires(self) -> None:
        """One look of the port at both wires."""
        lib, handle, now = self.lib, self.handle, self.now_us
        if answer := self.servo_bus.answers(now):
            lib.ewl_servo_rx(handle, answer, len(answer), now)
        for identifier, data in self.motor_bus.answers(now):
            lib.ewl_motor_rx(handle, identifier, data, len(data), now)
        if count := lib.ewl_servo_tx(handle, self._packet, 64, now):
            self.servo_bus.master(self._packet.raw[:count], now)
        while lib.ewl_motor_tx(handle, ctypes.byref(self._id), self._data, now):
            self.motor_bus.send(self._id.value, self._data.raw, now)

    def tick(self, count: int = 1) -> list[tuple[int, ...]]:
        out: list[tuple[int, ...]] = []
        for _ in range(count):
            end_us = self.now_us + m.TICK_US
            while self.now_us + STEP_US < end_us:
                self.wires()
                self.now_us += STEP_US
            self.now_us = end_us - m.TICK_US
            out += super().tick()
            self.wires()
            self.servo_bus.advance(m.TICK_US / 1e6)
            self.motor_bus.advance(m.TICK_US / 1e6, self.now_us)
        return out

    # ---- sequences ----

    def uploads(self) -> list[m.LimitsSet | m.DriveSet | m.StopsSet]:
        return [*self.table(), *self.drives, self.stops]

    def limits_crc(self) -> int:
        return crc32c(b"".join(message.pack() for message in self.uploads()))

    def configure(self) -> None:
        for message in self.uploads():
            ack = self.ask(message)
            assert ack.code == m.AckCode.OK, (message, ack)
            self.tick()  # a millisecond has room for so many answers
        ack = self.ask(m.LimitsCommit(len(self.axes), self.limits_crc()))
        assert ack.code == m.AckCode.OK, ack

    def start(self, limit_ticks: int = 400) -> int:
        """Configured, and every drive found and checked; the ticks that took."""
        self.heartbeat_on = True
        self.tick(21)
        self.configure()
        for ticks in range(limit_ticks):
            if self.arm().code == m.AckCode.OK:
                return ticks
            self.tick()
        raise AssertionError(f"not armed after {limit_ticks} ticks: {self.arm()}, {self.events(m.EventKind.DRIVE)}")

    def events(self, kind: m.EventKind) -> list[m.Event]:
        return [message for message in self.inbox if isinstance(message, m.Event) and message.kind == kind]

    def fault(self, limit_ticks: int = 400) -> tuple[m.Fault, int, int]:
        """The latched fault, its axis, and the ticks until it came."""
        self.inbox.clear()
        for ticks in range(limit_ticks):
            self.tick()
            for event in self.events(m.EventKind.FAULT):
                return m.Fault(event.arg0), event.arg1, ticks + 1
        raise AssertionError(f"no fault in {limit_ticks} ticks, state {self.state!r}")

    def go(self, target: Sequence[int], *, knots: int = 10, dt_us: int = 50_000) -> None:
        """A smooth chunk from the present setpoint to ``target`` micro-units."""
        begin = self.setpoint()
        rows = []
        for k in range(knots):
            s = k / (knots - 1)
            blend = s * s * (3.0 - 2.0 * s)
            rows.append([round(a + (b - a) * blend) for a, b in zip(begin, target, strict=True)])
        ack = self.ask(self.chunk(rows, lead_us=20_000, dt_us=dt_us))
        assert ack.code == m.AckCode.OK, ack
