"""Bytes that others have published, against our core and our emulations: neither may be right only by the other.

Feetech: the maker's Python SDK (ping, read, write, sync write, sync read), the examples in the STS3215 memory table,
and a recording of the maker's debug tool talking to two servos. Damiao: a gripper maker's protocol manual for a DM
motor 0x08/0x18 (MIT frames, feedback, register frames). CubeMars: AK series driver manual v1.0.8.
"""

from __future__ import annotations

import ctypes

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import CubeMarsMotor, DamiaoMotor, FeetechBus, FeetechServo, Motor
from firmware_bridge.host.drive_emulation import feetech as ft
from firmware_bridge.host.framing import FrameReceiver
from tests.drives.arm import JOINT, Arm, motor_set, servo_set
from tests.drives.core import LIB, Receiver, sealed


def h(text: str) -> bytes:
    return bytes.fromhex(text)


INSTRUCTIONS = [
    # number, instruction, parameters, the packet
    (1, 0x01, "", "FF FF 01 02 01 FB"),
    (5, 0x02, "37 01", "FF FF 05 04 02 37 01 BC"),
    (1, 0x02, "38 02", "FF FF 01 04 02 38 02 BE"),
    (5, 0x03, "2A E8 03", "FF FF 05 05 03 2A E8 03 DD"),
    (254, 0x03, "37 00", "FF FF FE 04 03 37 00 C3"),
    (1, 0x03, "13 20", "FF FF 01 04 03 13 20 C4"),
    (2, 0x03, "2A E8 03 00 00 00 00", "FF FF 02 09 03 2A E8 03 00 00 00 00 DC"),
    (1, 0x03, "29 32 E8 03 00 00 E8 03", "FF FF 01 0A 03 29 32 E8 03 00 00 E8 03 C0"),
    (254, 0x83, "2A 02 05 E8 03 06 00 00", "FF FF FE 0A 83 2A 02 05 E8 03 06 00 00 52"),
    (254, 0x82, "1E 02 0B 0C", "FF FF FE 06 82 1E 02 0B 0C 42"),
]
RECORDED = "FF FF 01 13 00 FC 07 00 00 28 04 45 19 00 00 00 00 08 00 00 00 00 56"
"""Answer of a STS3215 to a read of 17 bytes from 56."""
IDENTITY = "FF FF 01 0B 00 03 09 00 09 03 01 00 00 01 D9"
"""Its answer to a read of 9 bytes from 0: firmware 3.9, model 777, number 1, 1 Mbaud, no delay, answers everything."""


@pytest.mark.parametrize(("number", "instruction", "parameters", "whole"), INSTRUCTIONS)
def test_instruction_packets_are_those_of_the_maker(number: int, instruction: int, parameters: str, whole: str) -> None:
    assert sealed(number, instruction, h(parameters)) == h(whole)
    assert ft.packet(number, instruction, h(parameters)) == h(whole)


@pytest.mark.parametrize("recorded", [RECORDED, IDENTITY])
def test_recorded_answers_are_taken(recorded: str) -> None:
    receiver = Receiver()
    assert receiver.feed(b"\x00\xff" + h(recorded)) == [h(recorded)]
    assert receiver.feed(h(recorded)[:-1] + b"\x00") == [] and receiver.broken.value == 1
    assert receiver.feed(h(recorded)) == [h(recorded)]


def test_a_recorded_answer_is_read_as_the_memory_table_says() -> None:
    """Position 2044, at rest, load -40 per mille, 6.9 V, 25 degrees."""
    values = h(RECORDED)[5:]
    assert LIB.ew_ft_word(values[0:2], False) == 2044
    assert LIB.ew_ft_signed(LIB.ew_ft_word(values[2:4], False), 15) == 0
    assert LIB.ew_ft_signed(LIB.ew_ft_word(values[4:6], False), 10) == -40
    assert (values[6], values[7]) == (69, 25)


def test_the_emulated_servo_says_what_the_recorded_one_said() -> None:
    servo = FeetechServo(1, motor=Motor(position=(2044 - 2048) * 2 * 3.141592653589793 / 4096, temperature=25.0))
    servo.load = -40
    servo.table[0:2] = h("03 09")
    servo.table[62] = 69
    bus = FeetechBus([servo])
    bus.master(h("FF FF 01 04 02 38 11 AF"), 0)
    answer = bytearray(bus.answers(10_000))
    answer[17] = 8  # address 68 of the recording, which the memory table does not name
    assert answer[:-1] == h(RECORDED)[:-1]
    bus.master(ft.packet(1, ft.READ, bytes([0, 9])), 20_000)
    assert bus.answers(30_000) == h(IDENTITY)


def test_the_emulated_servo_obeys_the_packets_of_the_memory_table() -> None:
    servo = FeetechServo(2)
    bus = FeetechBus([servo])
    bus.master(h("FF FF 02 09 03 2A E8 03 00 00 00 00 DC"), 0)
    assert servo.get(42) == 1000 and bus.answers(1_000) == h("FF FF 02 02 00 FB")
    bus.master(h("FF FF 01 02 01 FB"), 2_000)
    assert bus.answers(3_000) == b"", "another servo's ping"


def test_the_emulated_servo_keeps_a_registered_write_for_the_action_and_its_eeprom_behind_the_lock() -> None:
    servo = FeetechServo(1)
    bus = FeetechBus([servo])
    bus.master(ft.packet(1, ft.REG_WRITE, h("2A E8 03")), 0)
    assert servo.get(42) == 2048 and bus.answers(1_000) == h("FF FF 01 02 00 FC")
    bus.master(ft.packet(254, ft.ACTION), 2_000)
    assert servo.get(42) == 1000 and bus.answers(3_000) == b"", "nobody answers a broadcast"
    bus.master(h("FF FF FE 04 03 37 00 C3"), 4_000)  # lock open
    bus.master(h("FF FF 01 04 03 13 20 C4"), 5_000)
    assert servo.table[19] == 0x20
    bus.master(ft.packet(1, ft.WRITE, bytes([55, 1])), 6_000)
    bus.master(ft.packet(1, ft.WRITE, bytes([19, 0x2C])), 7_000)
    assert servo.table[19] == 0x20


def test_the_cores_goals_are_the_makers_sync_write() -> None:
    """Two servos, numbers 5 and 6, that stand at 1000 and at 0."""
    whole = (-3_141_593, 3_000_000, *JOINT[2:])
    servos = [FeetechServo(number) for number in (5, 6)]
    for servo, raw in zip(servos, (1000, 0), strict=True):
        servo.motor.position = (raw - 2048) * servo.model.range_rad / 4096
    arm = Arm([servo_set(0, 5), servo_set(1, 6)], servos=servos, axes=[whole, whole])
    arm.start()
    arm.tick(3)
    assert h("FF FF FE 0A 83 2A 02 05 E8 03 06 00 00 52") in [data for _, data in arm.servo_bus.sent]


MIT_ZERO = "7F FF 7F F0 00 00 07 FF"  # everything 0
MIT_GAINS = "79 DA 7F F3 33 66 67 FF"  # -0.6 rad, 0, kp 100, kd 2, 0
FEEDBACK = "18 79 DA 7F F7 FF 23 28"  # on, -0.600252 rad, -0.007326 rad/s, -0.002442 N m, 35 and 40 degrees


def damiao_at(position: float, **changes: int) -> tuple[Arm, DamiaoMotor]:
    motor = DamiaoMotor(8, 0x18, motor=Motor(position=position))
    return Arm([motor_set(0, 8, reply=0x18, **changes)], motors=[motor]), motor


@pytest.mark.parametrize(("position", "published"), [(0.0, MIT_ZERO), (-0.6, MIT_GAINS)])
def test_the_cores_mit_frames_are_the_published_ones(position: float, published: str) -> None:
    """The makers cut the position code off where we round: at most one code, 381 urad, apart."""
    arm, _ = damiao_at(position, kp=100_000, kd=2_000)
    arm.start()
    arm.tick(3)
    ours = next(data for _, _, data in reversed(arm.motor_bus.sent) if data[:6] != b"\xff" * 6)
    p_ours, p_published = (int.from_bytes(data[:2], "big") for data in (ours, h(published)))
    assert 0 <= p_ours - p_published <= 1
    assert ours[2:] == h(MIT_GAINS)[2:], "velocity 0, kp 100, kd 2, torque 0"
    assert h(MIT_ZERO)[2:4][0:1] == ours[2:3] and h(MIT_ZERO)[7:] == ours[7:]


def test_published_feedback_is_read_as_published() -> None:
    arm, motor = damiao_at(-0.6)
    motor.silent = False
    arm.heartbeat_on = True
    arm.tick(21)
    arm.configure()
    arm.tick(20)
    motor.silent = True
    arm.lib.ewl_motor_rx(arm.handle, 0x18, h(FEEDBACK.replace("18 ", "08 ", 1)), 8, arm.now_us)
    state = arm.report()
    assert state.position == (-600_252,) and state.effort == (-2_442,)


def test_the_emulated_drive_answers_with_the_published_feedback() -> None:
    motor = DamiaoMotor(8, 0x18, motor=Motor(position=-0.6, temperature=40.0))
    motor.power_stage_temperature = 35.0
    motor.receive(8, b"\xff" * 7 + b"\xfc", 0)
    assert motor.receive(8, h(MIT_GAINS), 0) == h(FEEDBACK)
    assert motor.receive(0x7FF, h("08 00 CC 00 00 00 00 00"), 0) == h(FEEDBACK)
    assert motor.receive(0x7FF, h("08 00 33 09 00 00 00 00"), 0) == h("08 00 33 09 A0 0F 00 00")


def test_the_cores_register_frames_are_the_published_ones() -> None:
    arm, _ = damiao_at(0.0)
    arm.start()
    sent = [(identifier, data) for _, identifier, data in arm.motor_bus.sent]
    for published in ("08 00 33 09 00 00 00 00", "08 00 CC 00 00 00 00 00"):
        assert (0x7FF, h(published)) in sent
    for word in ("FD", "FB", "FC"):
        assert (8, h("FF " * 7 + word)) in sent or word == "FC"
    arm.tick(3)
    assert (8, h("FF " * 7 + "FC")) in [(identifier, data) for _, identifier, data in arm.motor_bus.sent]
    assert (8, h("FF " * 7 + "FE")) not in [(identifier, data) for _, identifier, data in arm.motor_bus.sent]


def test_an_ak_motor_answers_as_the_manual_lays_it_out() -> None:
    """Number, position 16, velocity 12, torque 12 bits, temperature, error."""
    motor = CubeMarsMotor(1, 1, "AK80_9", motor=Motor(position=12.5, velocity=-50.0, torque=18.0, temperature=-5.0))
    motor.error = 3
    assert motor.feedback() == h("01 FF FF 00 0F FF FB 03")


def test_last_words_are_torque_off_for_everyone() -> None:
    """The broadcast of the memory table, over and over; and the disable frame's identifiers."""
    arm = Arm([servo_set(0, 5), motor_set(1, 8, reply=0x18), motor_set(2, 9, reply=0x19)])
    arm.configure()
    servo, ids, count = ctypes.create_string_buffer(64), (ctypes.c_uint16 * 16)(), ctypes.create_string_buffer(1)
    length = arm.lib.ewl_last_words(arm.handle, servo, ids, count)
    assert servo.raw[:length] == h("FF FF FE 04 03 28 00 D2") * 8
    assert list(ids[: count.raw[0]]) == [8, 9]
    assert bytes((ctypes.c_uint8 * 8).in_dll(arm.lib, "ew_mit_off")) == h("FF " * 7 + "FD")


def test_last_words_to_the_stream_end_what_was_under_way_and_drop_the_enable() -> None:
    out = ctypes.create_string_buffer(16)
    LIB.ew_drive_off.restype = ctypes.c_size_t
    count = LIB.ew_drive_off(out)
    (body,) = FrameReceiver().feed(b"\x07\x01half a frame" + out.raw[:count])
    assert body[0] == m.Setpoint.TYPE and m.Setpoint.unpack(body[1:]) == m.Setpoint(0, 0, ())


@pytest.mark.parametrize("cut", range(1, 56, 7))
def test_last_words_reach_a_servo_in_the_middle_of_a_packet(cut: int) -> None:
    """Whatever of our longest packet went out before, one of the repetitions is read as it is meant."""
    longest = ft.packet(254, ft.SYNC_WRITE, bytes([42, 2]) + bytes(3 * 16))
    receiver = Receiver(256)
    receiver.feed(longest[:cut])
    off = h("FF FF FE 04 03 28 00 D2")
    assert off in receiver.feed(off * 8)


def test_models_are_named_alike_on_both_sides() -> None:
    from firmware_bridge.host.drive_emulation import feetech, mit

    assert {model.name for model in m.FeetechModel} - {"NONE"} == set(feetech.MODELS)
    assert {model.name for model in m.MitModel} - {"NONE"} == set(mit.RANGES)
