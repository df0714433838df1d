"""Motor drives on CAN in MIT mode: Damiao DM series and CubeMars AK series.

Sources, read as facts: Damiao DM-J4310-2EC manual (MIT frame, FF..FC/FD/FE/FB, feedback frame with state nibble and two
temperatures, registers over 7FF with 33/55/AA/CC), the maker's range table as LeRobot
(src/lerobot/motors/damiao/tables.py) and DM_CAN have it; CubeMars "AK Series Actuator Driver Manual" v1.0.8, section
5.3 (ranges, feedback with temperature and error code). Codes are made as in the makers' sample code:
(x - min) * (2^bits - 1) / (max - min), cut off, not rounded.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field

from firmware_bridge.host.drive_emulation.motor import Motor

FRAME_US = 135
"""A classic frame of 8 bytes at 1 Mbit/s with the most stuff bits."""
KP_MAX, KD_MAX = 500.0, 5.0
REGISTERS = 0x7FF
_SPECIAL = b"\xff" * 7

RANGES: dict[str, tuple[float, float, float]] = {
    "DM4310": (12.5, 30.0, 10.0),
    "DM4310_48V": (12.5, 50.0, 10.0),
    "DM4340": (12.5, 8.0, 28.0),
    "DM4340_48V": (12.5, 10.0, 28.0),
    "DM6006": (12.5, 45.0, 20.0),
    "DM8006": (12.5, 45.0, 40.0),
    "DM8009": (12.5, 45.0, 54.0),
    "DM10010L": (12.5, 25.0, 200.0),
    "DM10010": (12.5, 20.0, 200.0),
    "DMH3510": (12.5, 280.0, 1.0),
    "DMH6215": (12.5, 45.0, 10.0),
    "DMG6220": (12.5, 45.0, 10.0),
    "AK10_9": (12.5, 50.0, 65.0),
    "AK60_6": (12.5, 45.0, 15.0),
    "AK70_10": (12.5, 50.0, 25.0),
    "AK80_6": (12.5, 76.0, 12.0),
    "AK80_9": (12.5, 50.0, 18.0),
    "AK80_64": (12.5, 8.0, 144.0),
}
"""rad, rad/s, N m; each from minus to plus."""


def to_code(value: float, low: float, high: float, bits: int) -> int:
    """As the makers' ``float_to_uint``, which a drive uses for its feedback: clamped at the ends."""
    code = int((value - low) * ((1 << bits) - 1) / (high - low))
    return max(0, min((1 << bits) - 1, code))


def from_code(code: int, low: float, high: float, bits: int) -> float:
    """As the makers' ``uint_to_float``."""
    return code * (high - low) / ((1 << bits) - 1) + low


@dataclass(frozen=True, slots=True)
class MitCommand:
    """What a MIT frame says: rad, rad/s, N m/rad, N m s/rad, N m."""

    position: float
    velocity: float
    kp: float
    kd: float
    torque: float


@dataclass
class MitMotor(ABC):
    """One drive.

    Faults to inject: ``silent``, ``error`` (its own code), ``answers_as`` (the number in its answers), ``frozen``
    (feedback repeats), ``raw`` (p, v, t codes that it claims), ``enabled`` set false (it lets go without an error).
    """

    number: int
    reply: int
    model_name: str = "DM4310"
    motor: Motor = field(default_factory=Motor)
    enabled: bool = False
    silent: bool = False
    frozen: bool = False
    error: int = 0
    answers_as: int | None = None
    raw: tuple[int, int, int] | None = None
    timeout_us: int = 200_000
    """Its own watchdog: without a command for so long it lets go; 0: never."""

    def __post_init__(self) -> None:
        self.ranges = RANGES[self.model_name]
        self.command = MitCommand(0.0, 0.0, 0.0, 0.0, 0.0)
        self.heard_us = 0
        self._codes: tuple[int, int, int] | None = None

    def parse(self, data: bytes) -> MitCommand:
        """A MIT frame."""
        p, v, t = self.ranges
        return MitCommand(
            from_code(data[0] << 8 | data[1], -p, p, 16),
            from_code(data[2] << 4 | data[3] >> 4, -v, v, 12),
            from_code((data[3] & 15) << 8 | data[4], 0.0, KP_MAX, 12),
            from_code(data[5] << 4 | data[6] >> 4, 0.0, KD_MAX, 12),
            from_code((data[6] & 15) << 8 | data[7], -t, t, 12),
        )

    def codes(self) -> tuple[int, int, int]:
        """Position, velocity, torque as it reports them."""
        p, v, t = self.ranges
        now = (
            to_code(self.motor.position, -p, p, 16),
            to_code(self.motor.velocity, -v, v, 12),
            to_code(self.motor.torque, -t, t, 12),
        )
        if not self.frozen or self._codes is None:
            self._codes = now
        return self.raw or self._codes

    def values(self) -> bytes:
        p, v, t = self.codes()
        return bytes([p >> 8, p & 255, v >> 4, (v & 15) << 4 | t >> 8, t & 255])

    def advance(self, dt_s: float, now_us: int) -> None:
        """The drive's own loop: torque from the last command, then the shaft moves."""
        if self.enabled and self.timeout_us and now_us - self.heard_us >= self.timeout_us:
            self.timed_out()
        c, m, t = self.command, self.motor, self.ranges[2]
        wanted = c.kp * (c.position - m.position) + c.kd * (c.velocity - m.velocity) + c.torque
        m.torque = max(-t, min(t, wanted)) if self.enabled and not self.error else 0.0
        m.swing(dt_s)

    def receive(self, identifier: int, data: bytes, now_us: int) -> bytes | None:
        """One frame; its answer, or None if the frame is not for it."""
        if self.silent or identifier != self.number or len(data) != 8:
            return None
        self.heard_us = now_us
        if data[:7] == _SPECIAL and data[7] in {0xFB, 0xFC, 0xFD, 0xFE}:
            self.special(data[7])
        elif self.enabled:
            self.command = self.parse(data)
        return self.feedback()

    def special(self, word: int) -> None:
        if word == 0xFC and not self.error:
            self.enabled = True
            self.command = MitCommand(0.0, 0.0, 0.0, 0.0, 0.0)
        elif word == 0xFD:
            self.enabled = False
        elif word == 0xFE:
            self.motor.position = 0.0

    @abstractmethod
    def timed_out(self) -> None:
        """What its own watchdog does."""

    @abstractmethod
    def feedback(self) -> bytes:
        """The 8 bytes of its answer."""


class DamiaoMotor(MitMotor):
    """DM series. State nibble: 0 off, 1 on, 8 over-voltage, 9 under-voltage, A over-current, B power stage too hot,
    C motor too hot, D communication lost, E overload."""

    def __post_init__(self) -> None:
        super().__post_init__()
        p, v, t = self.ranges
        self.registers: dict[int, bytes] = {
            7: struct.pack("<I", self.reply),
            8: struct.pack("<I", self.number),
            9: struct.pack("<I", 4000),
            10: struct.pack("<I", 1),
            21: struct.pack("<f", p),
            22: struct.pack("<f", v),
            23: struct.pack("<f", t),
        }
        self.power_stage_temperature = 30.0

    def special(self, word: int) -> None:
        super().special(word)
        if word == 0xFB:
            self.error = 0

    def timed_out(self) -> None:
        self.enabled = False
        self.error = 0xD

    def feedback(self) -> bytes:
        state = self.error or int(self.enabled)
        number = self.number if self.answers_as is None else self.answers_as
        temperatures = bytes([round(self.power_stage_temperature), round(self.motor.temperature)])
        return bytes([(number & 15) | state << 4]) + self.values() + temperatures

    def receive(self, identifier: int, data: bytes, now_us: int) -> bytes | None:
        if identifier != REGISTERS:
            return super().receive(identifier, data, now_us)
        if self.silent or struct.unpack_from("<H", data)[0] != self.number:
            return None
        if data[2] == 0xCC:
            return self.feedback()
        if data[2] == 0x33 and data[3] in self.registers:
            return data[:4] + self.registers[data[3]]
        return None


class CubeMarsMotor(MitMotor):
    """AK series. Error code: 1 motor too hot, 2 over-current, 3 over-voltage, 4 under-voltage, 5 encoder, 6 power stage
    too hot, 7 stall. It does not say whether it is on, and whatever is sent to it, it answers."""

    def timed_out(self) -> None:
        self.enabled = False

    def feedback(self) -> bytes:
        number = self.number if self.answers_as is None else self.answers_as
        return bytes([number]) + self.values() + struct.pack("bB", round(self.motor.temperature), self.error)


class MitBus:
    """The CAN wire with its drives: frames in, answers out, in the order of the wire and with its time.

    ``off``: the controller has left the bus (bus-off); nothing passes. ``loss``: so many of the next answers get lost.
    """

    def __init__(self, motors: Iterable[MitMotor]) -> None:
        self.motors = list(motors)
        self.sent: list[tuple[int, int, bytes]] = []
        """Every frame to a drive: time, identifier, data."""
        self.off = False
        self.loss = 0
        self.load_us = 0
        """Wire time used since the start."""
        self._free_us = 0
        self._answers: list[tuple[int, int, bytes]] = []

    def send(self, identifier: int, data: bytes, now_us: int) -> None:
        self.sent.append((now_us, identifier, data))
        if self.off:
            return
        self._free_us = max(self._free_us, now_us) + FRAME_US
        self.load_us += FRAME_US
        for motor in self.motors:
            answer = motor.receive(identifier, data, self._free_us)
            if answer is not None:
                self._free_us += FRAME_US
                self.load_us += FRAME_US
                if self.loss > 0:
                    self.loss -= 1
                else:
                    self._answers.append((self._free_us, motor.reply, answer))

    def answers(self, now_us: int) -> list[tuple[int, bytes]]:
        """Identifier and data of what has arrived by now."""
        due = [(identifier, data) for at_us, identifier, data in self._answers if at_us <= now_us]
        self._answers = [answer for answer in self._answers if answer[0] > now_us]
        return [] if self.off else due

    def advance(self, dt_s: float, now_us: int) -> None:
        """Time passes for every shaft."""
        for motor in self.motors:
            motor.advance(dt_s, now_us)
