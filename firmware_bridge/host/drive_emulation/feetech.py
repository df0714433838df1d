"""Feetech servos of the STS/SMS and SCS series on their half-duplex bus.

Sources, read as facts: Feetech "Communication Protocol User Manual" (instruction and status packets, check byte, SYNC
READ, SYNC WRITE, REG WRITE, ACTION), the STS3215 memory table v3.6, the SMS/STS and SCSCL memory tables as LeRobot has
them (src/lerobot/motors/feetech/tables.py, with the model numbers), Feetech's FTServo SDK (sign bits: position and
speed 15, load 10, offset 11; words high byte first in the SCS series).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from firmware_bridge.host.drive_emulation.motor import Motor

BYTE_US = 10
"""1 Mbaud, 8N1."""
BROADCAST = 0xFE
PING, READ, WRITE, REG_WRITE, ACTION, SYNC_READ, SYNC_WRITE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x82, 0x83

VOLTAGE, ANGLE, OVERHEAT, OVERCURRENT, OVERLOAD = 0x01, 0x02, 0x04, 0x08, 0x20
"""Bits of the status byte."""


def checksum(body: Iterable[int]) -> int:
    """Of everything between the header and the check byte."""
    return ~sum(body) & 0xFF


def packet(number: int, instruction: int, parameters: bytes = b"") -> bytes:
    """An instruction packet; a status packet has the status in place of the instruction."""
    body = bytes([number, len(parameters) + 2, instruction]) + parameters
    return b"\xff\xff" + body + bytes([checksum(body)])


def sign_magnitude(value: int, bit: int) -> int:
    """As the memory table writes negative numbers."""
    return (1 << bit) | -value if value < 0 else value


@dataclass(frozen=True, slots=True)
class FeetechModel:
    """What differs between the series."""

    number: int
    steps: int
    range_rad: float
    high_first: bool
    sync_read: bool
    lock: int
    has_mode: bool


MODELS = {
    "STS3215": FeetechModel(777, 4096, math.tau, False, True, 55, True),
    "STS3215_12V": FeetechModel(777, 4096, math.tau, False, True, 55, True),
    "STS3250": FeetechModel(2825, 4096, math.tau, False, True, 55, True),
    "SM8512BL": FeetechModel(11272, 4096, math.tau, False, True, 55, True),
    "SCS0009": FeetechModel(1284, 1024, math.radians(300.0), True, False, 48, False),
}


@dataclass
class FeetechServo:
    """One servo with its memory table.

    Faults to inject: ``silent`` (no answers), ``corrupt`` (so many answers with a wrong check byte), ``frozen``
    (answers repeat the first position), ``raw_position`` (what it claims to be at), ``error`` (status bits), ``deaf``
    (ignores broadcasts), ``late_us`` (answers later than its delay register says).
    """

    number: int
    model_name: str = "STS3215"
    motor: Motor = field(default_factory=Motor)
    silent: bool = False
    corrupt: int = 0
    frozen: bool = False
    deaf: bool = False
    raw_position: int | None = None
    error: int = 0
    late_us: int = 0
    load: int = 0
    """Per mille of the largest duty cycle, signed."""

    def __post_init__(self) -> None:
        self.model = MODELS[self.model_name]
        self.table = bytearray(256)
        self._registered: tuple[int, bytes] | None = None
        self._held: int | None = None
        self.put(3, self.model.number)
        self.table[5] = self.number
        self.table[8] = 1
        self.put(9, 0)
        self.put(11, self.model.steps - 1)
        self.table[13:16] = bytes([70, 80, 40])
        self.put(16, 1000)
        self.table[19] = 0x2C
        self.table[20] = 0x2F
        self.put(48 if self.model.has_mode else 16, 1000)
        self.table[62] = 74
        self.put(42, self.raw())

    def put(self, address: int, word: int) -> None:
        """A word in the byte order of the series."""
        self.table[address : address + 2] = word.to_bytes(2, "big" if self.model.high_first else "little")

    def get(self, address: int) -> int:
        return int.from_bytes(self.table[address : address + 2], "big" if self.model.high_first else "little")

    @property
    def torque_on(self) -> bool:
        return self.table[40] == 1

    def raw(self) -> int:
        """Its position in steps, the middle of its range being 0 rad."""
        steps = self.model.steps
        return round(self.motor.position * steps / self.model.range_rad) + steps // 2

    def advance(self, dt_s: float) -> None:
        """Time passes for the shaft; the goal is taken from the memory table."""
        steps = self.model.steps
        self.motor.goal = (self.get(42) - steps // 2) * self.model.range_rad / steps
        self.motor.follow(self.torque_on, dt_s)

    def _refresh(self) -> None:
        raw = self.raw()
        if self.frozen:
            raw = self._held = raw if self._held is None else self._held
        if self.raw_position is not None:
            raw = self.raw_position
        speed = round(self.motor.velocity * self.model.steps / self.model.range_rad)
        self.put(56, sign_magnitude(raw, 15))
        self.put(58, sign_magnitude(speed, 15))
        self.put(60, sign_magnitude(self.load, 10))
        self.table[63] = round(self.motor.temperature)
        self.table[65] = self.error
        self.table[66] = int(abs(self.motor.velocity) > 0.01)

    def status(self, parameters: bytes = b"") -> bytes:
        """The bytes that it answers with."""
        answer = bytearray(packet(self.number, self.error, parameters))
        if self.corrupt > 0:
            self.corrupt -= 1
            answer[-1] ^= 0xFF
        return bytes(answer)

    def read(self, address: int, count: int) -> bytes:
        self._refresh()
        return bytes(self.table[address : address + count])

    def write(self, address: int, data: bytes) -> None:
        """EEPROM (below 40) is only taken while the lock is open."""
        if address == 40 and data[:1] == b"\x80":  # the present position becomes the middle
            self.motor.position = 0.0
            return
        for at, byte in enumerate(data, address):
            if at >= 40 or self.table[self.model.lock] == 0:
                self.table[at] = byte
        if self.torque_on and self.error & OVERLOAD:
            self.table[40] = 0

    def obey(self, instruction: int, parameters: bytes, *, answers: bool) -> bytes | None:
        """One instruction for it; the answer, or None."""
        answer: bytes | None = b""
        if instruction == READ and len(parameters) == 2:
            answer = self.read(parameters[0], parameters[1])
        elif instruction == WRITE and parameters:
            self.write(parameters[0], parameters[1:])
        elif instruction == REG_WRITE and parameters:
            self._registered = (parameters[0], parameters[1:])
        elif instruction == ACTION:
            if self._registered is not None:
                self.write(*self._registered)
            self._registered = None
        elif instruction != PING:
            answer = None
        says_all = self.table[8] == 1 or instruction in {PING, READ}
        return self.status(answer) if answers and says_all and answer is not None else None


class FeetechBus:
    """The wire with its servos: give it what the master sends, and when; take what comes back, and when.

    Times are microseconds. A servo begins to answer its return delay (register 7, 2 us each) and ``turn_us`` after the
    end of the question; in a SYNC READ each waits for the one before, and for ``slot_us`` if that one says nothing.
    """

    def __init__(self, servos: Iterable[FeetechServo], *, turn_us: int = 20, slot_us: int = 200) -> None:
        self.servos = list(servos)
        self.turn_us = turn_us
        self.slot_us = slot_us
        self.sent: list[tuple[int, bytes]] = []
        """Every packet of the master with the time of its first byte."""
        self.collisions = 0
        """Packets of the master that began while a servo spoke, or it itself."""
        self.damage = 0
        """So many of the next packets of the master are not understood."""
        self._answers: list[tuple[int, bytes]] = []
        self._busy_until = 0

    def master(self, data: bytes, now_us: int) -> None:
        """One packet, its first bit at ``now_us``."""
        self.sent.append((now_us, data))
        if now_us < self._busy_until:
            self.collisions += 1
            return
        end_us = now_us + BYTE_US * len(data)
        self._busy_until = end_us
        if self.damage > 0:
            self.damage -= 1
            return
        for at in range(len(data)):
            if data[at : at + 2] == b"\xff\xff" and len(data) >= at + 6:
                length = data[at + 3]
                whole = data[at : at + 4 + length]
                if len(whole) == 4 + length and checksum(whole[2:-1]) == whole[-1]:
                    self._instruct(whole[2], whole[4], whole[5:-1], end_us)

    def _instruct(self, number: int, instruction: int, parameters: bytes, end_us: int) -> None:
        at_us = end_us
        if instruction == SYNC_READ:
            for wanted in parameters[2:]:
                servo = self._of(wanted)
                known = servo is not None and servo.model.sync_read  # the SCS series does not know this instruction
                at_us = self._speak(servo if known else None, READ, parameters[:2], at_us)
            return
        if instruction == SYNC_WRITE:
            address, width = parameters[0], parameters[1]
            for start in range(2, len(parameters), width + 1):
                servo = self._of(parameters[start])
                if servo is not None and not servo.deaf:
                    servo.write(address, parameters[start + 1 : start + 1 + width])
            return
        for servo in self.servos:
            if number == BROADCAST and not servo.deaf and not servo.silent:
                servo.obey(instruction, parameters, answers=False)
        if number != BROADCAST:
            self._speak(self._of(number), instruction, parameters, at_us)

    def _of(self, number: int) -> FeetechServo | None:
        return next((servo for servo in self.servos if servo.number == number), None)

    def _speak(self, servo: FeetechServo | None, instruction: int, parameters: bytes, at_us: int) -> int:
        if servo is None or servo.silent:
            return at_us + self.slot_us
        answer = servo.obey(instruction, parameters, answers=True)
        if answer is None:
            return at_us
        begin_us = at_us + self.turn_us + 2 * servo.table[7] + servo.late_us
        end_us = begin_us + BYTE_US * len(answer)
        self._answers.append((end_us, answer))
        self._busy_until = max(self._busy_until, end_us)
        return end_us

    def answers(self, now_us: int) -> bytes:
        """What has arrived by now."""
        due = [data for end_us, data in self._answers if end_us <= now_us]
        self._answers = [(end_us, data) for end_us, data in self._answers if end_us > now_us]
        return b"".join(due)

    def advance(self, dt_s: float) -> None:
        """Time passes for every shaft."""
        for servo in self.servos:
            servo.advance(dt_s)
