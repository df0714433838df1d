"""Drives of different kinds on one arm, and what the core asks of them all."""

from __future__ import annotations

import ctypes

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import CubeMarsMotor, DamiaoMotor, FeetechServo
from firmware_bridge.host.limits import sim_drive
from tests.drives.arm import Arm, motor_set, servo_set
from tests.drives.core import Drives
from tests.drives.test_motor_arm import brakes_open


def mixed() -> Arm:
    """Two CAN drives at the shoulder, a simulated axis, two servos at the hand."""
    return Arm(
        [motor_set(0, 1, model=m.MitModel.DM4340), motor_set(1, 2, model=m.MitModel.AK70_10, reply=2), sim_drive(2),
         servo_set(3, 1), servo_set(4, 2, model=m.FeetechModel.STS3215_12V)],
        servos=[FeetechServo(1), FeetechServo(2, "STS3215_12V")],
        motors=[DamiaoMotor(1, 17, "DM4340"), CubeMarsMotor(2, 2, "AK70_10")],
    )  # fmt: skip


def powered(arm: Arm) -> list[bool]:
    return [motor.enabled for motor in arm.motor_bus.motors] + [servo.torque_on for servo in arm.servo_bus.servos]


def test_kinds_can_be_mixed_and_stop_together() -> None:
    arm = mixed()
    arm.start()
    arm.tick(8)
    assert powered(arm) == [True] * 4
    target = [200_000, -200_000, 100_000, 300_000, -300_000]
    arm.go(target)
    arm.tick(800)
    assert arm.report().position == pytest.approx(target, abs=3000)
    arm.motor_bus.motors[1].error = 6
    assert arm.fault()[:2] == (m.Fault.DRIVE_ERROR, 1)
    for _ in range(400):
        arm.tick()
    assert powered(arm) == [False] * 4


def test_torque_off_falls_due_for_the_motors_among_the_drives() -> None:
    arm = mixed()
    lib = arm.lib
    lib.ew_motor_off_due.restype, lib.ew_motor_off_due.argtypes = ctypes.c_bool, [ctypes.c_void_p]
    arm.start()
    arm.tick(8)
    assert not lib.ew_motor_off_due(arm.handle)
    arm.ask(m.Disarm())
    due = []
    wires = arm.wires

    def watched() -> None:
        due.append(lib.ew_motor_off_due(arm.handle))
        wires()

    arm.wires = watched  # type: ignore[method-assign]
    arm.tick(20)
    assert any(due) and not due[-1] and powered(arm)[:2] == [False] * 2


def test_brakes_open_when_the_real_drives_have_confirmed_their_torque() -> None:
    arm = mixed()
    arm.stops = m.StopsSet(brake_after_ms=10, torque_off_after_ms=30)
    arm.start()
    seen = [(brakes_open(arm), all(powered(arm))) for _ in range(10) if arm.tick()]
    assert (False, False) in seen and (True, True) in seen and (True, False) not in seen
    alone = Arm([sim_drive(0)])
    alone.start()
    alone.tick()
    assert brakes_open(alone), "a stream says nothing of its torque"


def test_the_simulated_axis_is_the_stream_and_its_silence_is_nobodys_number() -> None:
    arm = mixed()
    arm.start()
    arm.tick(8)
    arm.encoder_on = False
    assert arm.fault()[:2] == (m.Fault.ENCODER_LOST, -1)


def test_arming_waits_for_the_stream_too() -> None:
    arm = mixed()
    arm.encoder_on = False
    arm.heartbeat_on = True
    arm.tick(21)
    arm.configure()
    arm.tick(100)
    assert arm.arm().code == m.AckCode.NO_ENCODER


def test_a_frame_of_more_axes_than_there_can_be_is_nothing() -> None:
    arm = mixed()
    arm.start()
    arm.tick(3)
    arm.encoder([9_000_000] * 17)
    arm.tick(3)
    assert arm.state == m.McuState.ARMED


def test_an_encoder_frame_does_not_speak_for_a_drive() -> None:
    arm = mixed()
    arm.start()
    arm.tick(3)
    arm.encoder([9_000_000] * 5)
    assert arm.report().position[0] < 100_000
    arm.tick(3)
    assert arm.state == m.McuState.FAULT, "the simulated axis is where its frame says"


def test_after_disarming_drives_stay_off_and_may_be_bound_otherwise() -> None:
    arm = mixed()
    arm.start()
    arm.tick(8)
    arm.ask(m.Disarm())
    arm.tick(50)
    assert powered(arm) == [False] * 4 and arm.state == m.McuState.DISARMED
    arm.drives = [sim_drive(axis) for axis in range(5)]
    arm.start()
    before = len(arm.motor_bus.sent), len(arm.servo_bus.sent)
    arm.tick(50)
    assert before == (len(arm.motor_bus.sent), len(arm.servo_bus.sent)), "what is bound to the stream is not spoken to"
    assert arm.state == m.McuState.ARMED and powered(arm) == [False] * 4


@pytest.mark.parametrize(
    ("buses", "unfit"), [(0, 1), (1 << m.DriveKind.FEETECH, 2), (1 << m.DriveKind.MIT, 1), (6, 3)]
)
def test_a_board_without_the_wire_refuses_the_axis(buses: int, unfit: int) -> None:
    assert Drives([sim_drive(0), servo_set(1, 1), motor_set(2, 2)], buses=buses).unfit() == unfit


@pytest.mark.parametrize(
    ("drive", "field"),
    [
        (m.DriveSet(0, m.DriveKind.SIM, 1, 0, 0, 0, 1, 1, 0, 0), 2),
        (m.DriveSet(0, m.DriveKind.SIM, 0, 0, 0, 1, 1, 1, 0, 0), 5),
        (m.DriveSet(0, m.DriveKind.SIM, 0, 0, 0, 0, 2, 1, 0, 0), 6),
        (m.DriveSet(0, m.DriveKind.SIM, 0, 0, 0, 0, 1, 2, 0, 0), 6),
        (servo_set(0, 1, model=0), 2),
        (servo_set(0, 1, model=6), 2),
        (servo_set(0, 254), 3),
    ],
)
def test_bindings_of_other_kinds_are_refused_by_field(drive: m.DriveSet, field: int) -> None:
    ack = Arm([sim_drive(0)]).ask(drive)
    assert (ack.code, ack.arg) == (m.AckCode.BAD_VALUE, field)


@pytest.mark.parametrize(
    "second", [servo_set(1, 1), servo_set(1, 2, zero=2_500_000), servo_set(1, 2, ratio_den=4)]
)
def test_servo_bindings_that_cannot_work_are_refused_at_the_commit(second: m.DriveSet) -> None:
    """Two on one number; limits beyond the half turn that the servo has on each side."""
    arm = Arm([servo_set(0, 1), second])
    for message in arm.uploads():
        assert arm.ask(message).code == m.AckCode.OK
    ack = arm.ask(m.LimitsCommit(2, arm.limits_crc()))
    assert (ack.code, ack.arg) == (m.AckCode.DRIVE, 1) and arm.state == m.McuState.DISARMED
