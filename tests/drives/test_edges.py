"""The drivers without a core that keeps to the rules: what they do when they are asked for what cannot be."""

from __future__ import annotations

import ctypes
import struct

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import DamiaoMotor, FeetechServo
from firmware_bridge.host.drive_emulation import feetech as ft
from tests.drives.arm import Arm, motor_set, servo_set
from tests.drives.core import LIB, Drives, Receiver

OFF = b"\xff" * 7 + b"\xfd"
ON = b"\xff" * 7 + b"\xfc"


def hushed(drives: Drives) -> Drives:
    """After what every servo is told at boot."""
    for _ in range(3):
        assert drives.packet() == ft.packet(254, ft.WRITE, bytes([40, 0]))
        assert drives.packet() == b""
        drives.now_us += 2_080
    return drives


def motors(count: int = 1, **changes: int) -> tuple[Drives, list[DamiaoMotor]]:
    """Damiao drives, bound and READY."""
    drives = Drives([motor_set(axis, axis + 1, **changes) for axis in range(count)])
    there = [DamiaoMotor(axis + 1, axis + 17) for axis in range(count)]
    drives.bind()
    for _ in range(30):
        pass_frames(drives, there)
    assert drives.not_ready == count
    return drives, there


def pass_frames(drives: Drives, there: list[DamiaoMotor], *, on: bool = False) -> list[tuple[int, bytes]]:
    """One tick with its frames and their answers."""
    drives.tick(on)
    sent = drives.frames()
    for identifier, data in sent:
        for motor in there:
            answer = motor.receive(identifier, data, drives.now_us)
            if answer is not None:
                drives.frame(motor.reply, answer)
    return sent


def servos(count: int = 1, **changes: int) -> tuple[Drives, list[FeetechServo]]:
    """Servos, bound and READY."""
    drives = hushed(Drives([servo_set(axis, axis + 1, **changes) for axis in range(count)]))
    there = [FeetechServo(axis + 1) for axis in range(count)]
    drives.bind()
    for _ in range(30 * count):
        pass_packets(drives, there)
    assert drives.not_ready == count
    return drives, there


def pass_packets(drives: Drives, there: list[FeetechServo], *, on: bool = False) -> list[bytes]:
    """One tick with up to four packets and their answers."""
    drives.tick(on)
    sent = []
    for _ in range(4):
        packet = drives.packet()
        if packet:
            sent.append(packet)
            bus = ft.FeetechBus(there)
            bus.master(packet, 0)
            drives.answer(bus.answers(100_000))
        drives.now_us += 200
    drives.now_us -= 800
    return sent


@pytest.mark.parametrize(
    ("setpoint", "velocity"), [(13_000_000, 0), (-13_000_000, 0), (0, 31_000_000), (2**31 - 1, 0), (0, -(2**31))]
)
def test_a_setpoint_that_a_motor_drive_cannot_carry_is_not_sent_and_is_an_error(setpoint: int, velocity: int) -> None:
    drives, there = motors(2)
    for _ in range(10):
        pass_frames(drives, there, on=True)
    assert there[0].enabled and drives.in_error == 2
    drives.head.setpoint[1], drives.head.velocity[1] = setpoint, velocity
    sent = [pass_frames(drives, there, on=True) for _ in range(4)]
    assert drives.in_error == 1
    assert all(identifier == 1 for frames in sent for identifier, _ in frames)


@pytest.mark.parametrize("setpoint", [3_200_000, -3_200_000, 100_000_000, 2_000_000_000])
def test_a_setpoint_that_a_servo_cannot_carry_is_not_sent_and_is_not_switched_on(setpoint: int) -> None:
    drives, there = servos(2)
    drives.head.setpoint[1] = setpoint
    goals = [packet for _ in range(10) for packet in pass_packets(drives, there, on=True) if packet[5] == 42]
    assert drives.in_error == 1 and [servo.torque_on for servo in there] == [True, False]
    assert goals and all(packet[7::3][:-1] == b"\x01" for packet in goals)


def test_a_frame_that_nobody_fetches_does_not_become_two() -> None:
    drives, there = motors()
    for _ in range(20):
        drives.tick()
    assert len(drives.frames()) == 1 and len(pass_frames(drives, there)) == 1


@pytest.mark.parametrize("make", [motors, servos])
def test_off_goes_out_also_before_the_start_is_through(make: object) -> None:
    make_motor = make is motors
    drives = hushed(Drives([motor_set(0, 1) if make_motor else servo_set(0, 1)]))
    drives.bind()
    drives.tick(True)
    if not make_motor:
        assert drives.packet()[4] == ft.READ, "no goal for a servo that is not ready"
        drives.now_us += 10_000
    drives.tick(False)
    if make_motor:
        assert drives.frames(1) == [(1, OFF)]
    else:
        assert drives.packet() == ft.packet(254, ft.SYNC_WRITE, bytes([40, 1, 1, 0]))
    assert drives.not_ready == 0


def test_an_enable_that_is_confirmed_after_it_was_taken_back_does_not_count() -> None:
    drives, there = motors()
    drives.tick(True)
    assert drives.frames() == [(1, ON)]
    there[0].receive(1, ON, 0)
    drives.tick(False)
    drives.frame(17, there[0].feedback())
    assert (1, OFF) in drives.frames()
    there[0].receive(1, OFF, 0)
    for _ in range(3):
        pass_frames(drives, there)
    assert drives.not_ready == 1 and drives.in_error == 1


def test_a_drive_that_is_off_when_it_is_to_be_off_is_no_error() -> None:
    drives, there = motors()
    for _ in range(5):
        pass_frames(drives, there, on=True)
    drives.tick(False)
    there[0].enabled = False
    drives.frame(17, there[0].feedback())
    assert drives.in_error == 1


def test_what_a_ratio_makes_unspeakable_is_an_error() -> None:
    """Valid codes, of an axis that would be at 1,200 rad, faster than 2,147 rad/s or stronger than 2,000 N m."""
    for ratio, raw in (
        ((1000, 1), (60_000, 2048, 2048)), ((1000, 1), (32_768, 4095, 2048)), ((1, 1000), (32_768, 2048, 4095))
    ):  # fmt: skip
        drives, there = motors(ratio_num=ratio[0], ratio_den=ratio[1])
        assert drives.in_error == 1
        there[0].raw = raw
        pass_frames(drives, there)
        assert drives.in_error == 0
    for ratio, field, value in (((1000, 1), 56, 3000), ((1000, 1), 58, 4095), ((1, 10_000), 60, 1000)):
        servo_drives, servo_there = servos(ratio_num=ratio[0], ratio_den=ratio[1])
        assert servo_drives.in_error == 1
        body = bytearray(servo_there[0].read(56, 8))
        body[field - 56 : field - 54] = struct.pack("<H", value)
        while servo_drives.packet()[4:5] != bytes([ft.SYNC_READ]):
            servo_drives.now_us += 100
            if servo_drives.now_us % 1000 == 0:
                servo_drives.tick()
        servo_drives.answer(ft.packet(1, 0, bytes(body)))
        assert servo_drives.in_error == 0


def test_a_load_below_what_a_servo_can_say_is_an_error() -> None:
    drives, there = servos()
    there[0].load = -1001
    for _ in range(4):
        pass_packets(drives, there)
    assert drives.in_error == 0


@pytest.mark.parametrize("answer", ["02 00 33 0A 01 00 00 00", "01 01 33 0A 01 00 00 00", "01 00 55 0A 01 00 00 00",
                                    "01 00 33 0B 01 00 00 00"])  # fmt: skip
def test_a_register_answer_that_is_not_the_one_asked_is_nobodys(answer: str) -> None:
    drives = Drives([motor_set(0, 1)])
    drives.bind()
    for _ in range(3):
        drives.tick()
        asked = drives.frames()
    assert asked == [(0x7FF, bytes.fromhex("01 00 33 0A 00 00 00 00"))]
    drives.frame(17, bytes.fromhex(answer))
    drives.tick()
    assert drives.frames() == asked
    drives.frame(17, bytes.fromhex("01 00 33 0A 01 00 00 00"), remote=True)
    drives.tick()
    assert drives.frames() == asked
    drives.frame(17, bytes.fromhex("01 00 33 0A 01 00 00 00"))
    drives.tick()
    assert drives.frames() == [(0x7FF, bytes.fromhex("01 00 33 15 00 00 00 00"))]


def test_a_refused_drive_is_neither_asked_nor_listened_to() -> None:
    drives = Drives([motor_set(0, 1), servo_set(1, 1)])
    drives.bind()
    for _ in range(3):
        drives.tick()
        drives.frames()
    drives.frame(17, bytes.fromhex("01 00 33 0A 02 00 00 00"))
    assert drives.in_error == 0
    drives.frame(17, bytes.fromhex("01 00 33 0A 01 00 00 00"))
    drives.frame(17, bytes.fromhex("11 80 00 80 08 00 20 20"))
    drives.tick()
    assert drives.frames() == [] and drives.not_ready == 0


@pytest.mark.parametrize(
    ("sets", "unfit"),
    [
        ([motor_set(0, 1, reply=0), motor_set(1, 2, reply=0)], 2),  # as delivered: told apart by the number inside
        ([motor_set(0, 1, reply=0), motor_set(1, 0x21, reply=0)], 1),  # the same number inside
        ([motor_set(0, 1), motor_set(1, 2), motor_set(2, 1, reply=30)], 2),
        ([motor_set(0, 1, zero=-11_600_000)], 0),
        ([motor_set(0, 1, zero=11_600_000)], 0),
        ([motor_set(0, 1, zero=11_500_000)], 0),  # the outermost code below
        ([motor_set(0, 1, zero=-11_500_000)], 0),  # and above
        ([motor_set(0, 1, zero=11_499_000)], 1),
        ([servo_set(0, 1, zero=2_200_000)], 0),
        ([servo_set(0, 1, zero=-2_200_000)], 0),
        ([servo_set(0, 1, zero=99_000_000, ratio_den=1000)], 0),
        ([servo_set(0, 1, zero=2_100_000)], 1),
    ],
)
def test_what_can_be_told_apart_and_carried(sets: list[m.DriveSet], unfit: int) -> None:
    assert Drives(sets).unfit() == unfit


def test_no_more_is_written_than_there_is_room_for() -> None:
    drives, _ = servos()
    for _ in range(10):
        drives.tick()
        assert drives.packet(63) == b""
    motor_drives, _ = motors(3)
    ids = (ctypes.c_uint16 * 3)()
    assert LIB.ew_mit_last_words(motor_drives.memory, ids, 2) == 2 and list(ids) == [1, 2, 0]


@pytest.mark.parametrize("length", [0, 1, 61, 255])
def test_a_packet_of_an_impossible_length_is_dropped_and_counted(length: int) -> None:
    receiver = Receiver(64)
    assert receiver.feed(bytes([0xFF, 0xFF, 1, length])) == [] and receiver.broken.value == 1
    good = ft.packet(1, 0, bytes(8))
    assert receiver.feed(good) == [good]


def test_a_header_may_begin_with_more_than_two_bytes() -> None:
    good = ft.packet(1, 0, bytes(8))
    receiver = Receiver()
    assert receiver.feed(b"\xff\xff\xff" + good) == [good] and receiver.broken.value == 0


def test_state_shows_an_old_encoder_before_anything_is_bound() -> None:
    arm = Arm([servo_set(0, 1)])
    arm.encoder([5])
    assert arm.report().flags & m.STATE_FLAG_ENCODER_FRESH
    arm.encoder_on = False
    arm.tick(60)
    assert not arm.report().flags & m.STATE_FLAG_ENCODER_FRESH
