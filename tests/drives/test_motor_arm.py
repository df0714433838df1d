"""A whole arm of MIT drives through the core: found, armed, moved, and every way in which a drive can fail."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import CubeMarsMotor, DamiaoMotor
from firmware_bridge.host.drive_emulation.mit import FRAME_US, RANGES
from tests.drives.arm import JOINT, Arm, motor_set

SIX = 6
SILENT_TICKS = m.ENCODER_TIMEOUT_US // m.TICK_US
OFF = b"\xff" * 7 + b"\xfd"
ON = b"\xff" * 7 + b"\xfc"


def motor_arm(count: int = SIX, **changes: int) -> Arm:
    motors = [DamiaoMotor(number, number + 16) for number in range(1, count + 1)]
    return Arm([motor_set(axis, axis + 1, **changes) for axis in range(count)], motors=motors)


def damiao(arm: Arm, axis: int) -> DamiaoMotor:
    motor = arm.motor_bus.motors[axis]
    assert isinstance(motor, DamiaoMotor)
    return motor


def running(count: int = SIX) -> Arm:
    return motor_arm(count).run()


def test_six_drives_are_found_checked_armed_and_moved() -> None:
    arm = motor_arm()
    for axis, motor in enumerate(arm.motor_bus.motors):
        motor.motor.position = 0.1 * axis - 0.2
    assert arm.start() <= 40, "eight frames with each, every second tick"
    assert not any(arm.torques())
    before = [motor.motor.position for motor in arm.motor_bus.motors]
    arm.tick(6)
    assert arm.torques() == [True] * SIX
    arm.tick(50)
    for motor, position in zip(arm.motor_bus.motors, before, strict=True):
        # One code (the drive cuts off), and 0 rad/s and 0 N m, which lie half a code beside a code: 0.4 and 0.1 mrad.
        assert motor.motor.position == pytest.approx(position, abs=0.0009), "it holds where it was"
    target = [200_000, -200_000, 100_000, 0, 300_000, -300_000]
    arm.go(target)
    arm.tick(1200)
    for motor, wanted in zip(arm.motor_bus.motors, target, strict=True):
        assert motor.motor.position == pytest.approx(wanted / 1e6, abs=0.001)
    assert arm.report().fault == m.Fault.NONE


def test_velocity_is_fed_forward_and_the_gains_are_those_of_the_binding() -> None:
    arm = motor_arm(1, kp=80_000, kd=1_500)
    arm.start()
    arm.tick(5)
    arm.go([500_000], knots=10, dt_us=60_000)
    fastest = 0.0
    for _ in range(500):
        arm.tick()
        command = arm.motor_bus.motors[0].command
        fastest = max(fastest, command.velocity)
    assert command.kp == pytest.approx(80.0, abs=500 / 4095) and command.kd == pytest.approx(1.5, abs=5 / 4095)
    assert 1.2 < fastest < 1.6, "the middle of 0.5 rad in 0.54 s"
    assert command.torque == pytest.approx(0.0, abs=20 / 4095)


@pytest.mark.parametrize(("count", "ticks"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (16, 6)])
def test_a_drive_is_commanded_as_often_as_the_bus_allows_and_its_load_stays_below_it(count: int, ticks: int) -> None:
    motors = [DamiaoMotor(number, 0x100 + number) for number in range(1, count + 1)]
    sets = [motor_set(axis, axis + 1, reply=0x101 + axis) for axis in range(count)]
    arm = Arm(sets, motors=motors)
    arm.start()
    arm.tick(20)
    arm.motor_bus.sent.clear()
    load = arm.motor_bus.load_us
    arm.tick(120)
    times = [at for at, identifier, _ in arm.motor_bus.sent if identifier == 1]
    assert {b - a for a, b in pairwise(times)} == {ticks * m.TICK_US}
    assert (arm.motor_bus.load_us - load) / (120 * m.TICK_US) <= 6 * FRAME_US / m.TICK_US


def refusal(arm: Arm) -> tuple[int, int, dict[int, int]]:
    arm.heartbeat_on = True
    arm.tick(21)
    arm.configure()
    arm.tick(120)
    ack = arm.arm()
    assert not any(arm.torques()) and arm.state == m.McuState.CONFIGURED
    return ack.code, ack.arg, {event.arg0: event.arg1 for event in arm.events(m.EventKind.DRIVE)}


def register(number: int, value: bytes) -> Callable[[DamiaoMotor], None]:
    def change(motor: DamiaoMotor) -> None:
        motor.registers[number] = value

    return change


def single(value: float) -> bytes:
    return struct.pack("<f", value)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (register(10, struct.pack("<I", 2)), m.DRIVE_ERR_SETUP),  # position mode: MIT frames mean something else
        (register(21, single(12.566)), m.DRIVE_ERR_MODEL),  # every position would be 0.5 % off
        (register(22, single(8.0)), m.DRIVE_ERR_MODEL),
        (register(23, single(28.0)), m.DRIVE_ERR_MODEL),
        (register(21, single(float("nan"))), m.DRIVE_ERR_MODEL),
        (register(21, single(-12.5)), m.DRIVE_ERR_MODEL),
        (register(21, single(0.0)), m.DRIVE_ERR_MODEL),
        (register(9, struct.pack("<I", 0)), m.DRIVE_ERR_TIMEOUT),  # would hold its last torque for ever
        (register(9, struct.pack("<I", 20_001)), m.DRIVE_ERR_TIMEOUT),
    ],
)
def test_a_drive_that_is_not_what_was_bound_or_not_set_up_safely_is_refused(
    change: Callable[[DamiaoMotor], None], error: int
) -> None:
    arm = motor_arm()
    change(damiao(arm, 2))
    assert refusal(arm) == (m.AckCode.DRIVE, 2, {2: error})


@pytest.mark.parametrize(
    ("model", "ranges"), [(model, RANGES[model.name]) for model in m.MitModel if model.name.startswith("DM")]
)
def test_every_damiao_of_the_table_has_the_ranges_that_the_maker_states(
    model: m.MitModel, ranges: tuple[float, float, float]
) -> None:
    slow = (*JOINT[:2], min(JOINT[2], int(ranges[1] * 1e6)), *JOINT[3:])
    arm = Arm([motor_set(0, 1, model=model)], motors=[DamiaoMotor(1, 17, model.name)], axes=[slow])
    arm.start()
    arm.tick(5)
    assert arm.torques() == [True]


@pytest.mark.parametrize("model", [model for model in m.MitModel if model.name.startswith("AK")])
def test_every_ak_motor_is_armed_moved_and_reports_its_torque_in_its_own_range(model: m.MitModel) -> None:
    motor = CubeMarsMotor(3, 3, model.name)
    arm = Arm([motor_set(0, 3, model=model, reply=3)], motors=[motor])
    arm.start()
    arm.tick(5)
    assert motor.enabled
    arm.go([400_000])
    arm.tick(1200)
    assert motor.motor.position == pytest.approx(0.4, abs=0.002)
    motor.raw = (32768, 2048, 4095)
    arm.tick(2)
    assert arm.report().effort == (round(motor.ranges[2] * 1e6),)


def test_a_missing_drive_and_a_drive_on_another_number_are_named() -> None:
    arm = motor_arm()
    arm.motor_bus.motors[3].silent = True
    assert refusal(arm)[:2] == (m.AckCode.DRIVE, 3)
    arm = motor_arm()
    arm.motor_bus.motors[1].reply = 0x55
    assert refusal(arm)[:2] == (m.AckCode.DRIVE, 1)


def test_swapped_numbers_of_unlike_models_are_found() -> None:
    arm = motor_arm(2)
    arm.motor_bus.motors[0] = DamiaoMotor(1, 17, "DM4340")
    arm.drives[1] = motor_set(1, 2, model=m.MitModel.DM4340)
    assert refusal(arm) == (m.AckCode.DRIVE, 0, {0: m.DRIVE_ERR_MODEL, 1: m.DRIVE_ERR_MODEL})


def test_an_answer_with_a_foreign_number_is_nobodys() -> None:
    arm = running()
    arm.motor_bus.motors[2].answers_as = 9
    assert arm.fault()[:2] == (m.Fault.ENCODER_LOST, 2)


def test_a_drive_that_falls_silent_is_a_lost_encoder_with_its_axis_and_all_go_off() -> None:
    arm = running()
    arm.motor_bus.motors[4].silent = True
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.ENCODER_LOST, 4) and SILENT_TICKS - 3 <= ticks <= SILENT_TICKS + 3
    arm.motor_bus.motors[4].silent = False
    assert arm.off_ticks() < 300


def test_lost_answers_are_borne_and_a_bus_that_is_off_is_a_lost_encoder() -> None:
    arm = running()
    arm.motor_bus.loss = 60
    arm.tick(60)
    assert arm.state == m.McuState.RUN
    arm.motor_bus.off = True
    assert arm.fault()[0] == m.Fault.ENCODER_LOST
    arm.tick(500)
    assert not any(arm.torques()), "the drives' own watchdogs: no frame reaches them"


@pytest.mark.parametrize("code", [0x8, 0x9, 0xA, 0xB, 0xC, 0xD, 0xE])
def test_an_error_of_a_drive_is_a_fault_at_once_and_its_code_is_told(code: int) -> None:
    arm = running()
    arm.motor_bus.motors[5].error = code
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.DRIVE_ERROR, 5) and ticks <= 4
    assert arm.events(m.EventKind.DRIVE)[0].arg1 & 0xFFFF == code
    assert arm.off_ticks() < 300


def test_an_error_is_cleared_by_configuring_anew_and_stays_if_its_cause_does() -> None:
    arm = running()
    arm.motor_bus.motors[5].error = 0xB
    arm.fault()
    arm.off_ticks()
    assert arm.ask(m.FaultAck(m.Fault.DRIVE_ERROR)).code == m.AckCode.OK
    arm.start()
    arm.tick(10)
    assert arm.torques() == [True] * SIX


def test_a_drive_that_lets_go_without_an_error_is_one() -> None:
    arm = running()
    arm.motor_bus.motors[0].enabled = False
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.DRIVE_ERROR, 0) and ticks <= 4
    assert arm.events(m.EventKind.DRIVE)[0].arg1 == m.DRIVE_ERR_DROPPED


def test_a_drive_that_does_not_come_on_is_an_error() -> None:
    class Stubborn(DamiaoMotor):
        def special(self, word: int) -> None:
            super().special(word)
            self.enabled = False

    arm = motor_arm(2)
    arm.motor_bus.motors[1] = Stubborn(2, 18)
    arm.start()
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.DRIVE_ERROR, 1) and 200 <= ticks <= 205


@pytest.mark.parametrize("raw", [(0, 2048, 2048), (65535, 2048, 2048)])
def test_the_outermost_codes_are_a_drive_beyond_its_range(raw: tuple[int, int, int]) -> None:
    arm = running()
    arm.motor_bus.motors[1].raw = raw
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.DRIVE_ERROR, 1) and ticks <= 4
    assert arm.events(m.EventKind.DRIVE)[0].arg1 == m.DRIVE_ERR_VALUE


@pytest.mark.parametrize("how", [m.Disarm(), m.Estop()])
def test_torque_off_goes_before_everything_else(how: m.HostMessage) -> None:
    arm = motor_arm()
    arm.start()
    arm.tick(10)
    arm.ask(how)
    arm.motor_bus.sent.clear()
    arm.tick(2)
    assert not any(arm.torques())
    frames = [(identifier, data) for _, identifier, data in arm.motor_bus.sent]
    first = frames.index((1, OFF))
    assert frames[first : first + SIX] == [(number, OFF) for number in range(1, SIX + 1)], "six in one breath"


def test_a_lost_torque_off_is_repeated_until_it_is_acknowledged() -> None:
    arm = motor_arm()
    arm.start()
    arm.tick(10)
    arm.motor_bus.motors[2].silent = True
    arm.ask(m.Disarm())
    arm.tick(5)
    assert arm.torques() == [False, False, True, False, False, False]
    arm.motor_bus.motors[2].silent = False
    arm.tick(5)
    assert not any(arm.torques())


def test_a_drive_that_somebody_else_switches_on_is_switched_off() -> None:
    arm = motor_arm()
    arm.heartbeat_on = True
    arm.tick(21)
    arm.configure()
    arm.tick(60)
    arm.motor_bus.motors[3].enabled = True
    arm.tick(6)
    assert not any(arm.torques())


def test_a_drive_that_was_on_before_the_mcu_booted_is_switched_off_first() -> None:
    arm = motor_arm()
    for motor in arm.motor_bus.motors:
        motor.enabled = True
    arm.tick(2)
    arm.configure()
    arm.motor_bus.sent.clear()
    arm.tick(4)
    assert not any(arm.torques())
    assert arm.motor_bus.sent[0][2] == OFF


def test_frames_of_other_lengths_and_identifiers_are_counted_and_taken_for_nothing() -> None:
    arm = running(1)
    position = arm.report().position
    for identifier, data in ((17, bytes(7)), (17, b""), (99, bytes(8)), (1, ON), (0x7FF, bytes(8))):
        arm.lib.ewl_motor_rx(arm.handle, identifier, data, len(data), arm.now_us)
    arm.tick(1000)
    assert arm.report().fault == m.Fault.NONE and arm.report().position != position
    stats = [message for message in arm.inbox if isinstance(message, m.Stats)]
    assert not stats or stats[-1].drive_bad == 5


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        (dict(kind=3), 1), (dict(model=0), 2), (dict(model=99), 2), (dict(address=0), 3), (dict(address=0x7FF), 3),
        (dict(reply=0x7FF), 4), (dict(zero=m.POSITION_ABS_MAX + 1), 5), (dict(zero=-m.POSITION_ABS_MAX - 1), 5),
        (dict(ratio_num=0), 6), (dict(ratio_num=m.DRIVE_RATIO_MAX + 1), 6), (dict(ratio_num=-m.DRIVE_RATIO_MAX - 1), 6),
        (dict(ratio_den=0), 7), (dict(ratio_den=-1), 7), (dict(ratio_den=m.DRIVE_RATIO_MAX + 1), 7),
        (dict(kp=0), 8), (dict(kp=500_001), 8), (dict(kd=0), 9), (dict(kd=5_001), 9), (dict(axis=16), 0),
    ],
)  # fmt: skip
def test_a_binding_is_refused_by_field(changes: dict[str, int], field: int) -> None:
    arm = motor_arm(1)
    message = arm.drives[0]
    ack = arm.ask(replace(message, **changes))
    assert (ack.code, ack.arg) == (m.AckCode.BAD_VALUE, field)
    assert arm.ask(message).code == m.AckCode.OK
    (read,) = [answer for answer in arm.send(m.DriveGet(0)) if isinstance(answer, m.Drive)]
    assert read.pack() == message.pack()


def commit(arm: Arm) -> tuple[int, int]:
    for message in arm.uploads():
        assert arm.ask(message).code == m.AckCode.OK
    ack = arm.ask(m.LimitsCommit(len(arm.axes), arm.limits_crc()))
    return ack.code, ack.arg


@pytest.mark.parametrize(
    ("second", "axes"),
    [
        (motor_set(1, 1, reply=30), None),  # two on one number
        (motor_set(1, 2, reply=1), None),  # its answers would be commands to the other
        (motor_set(1, 17, reply=30), None),  # commands to it would be answers of the other
        (motor_set(1, 0x11, reply=0x11), None),
        (motor_set(1, 2, zero=11_600_000), None),  # beyond 12.5 rad of the shaft
        (motor_set(1, 2, ratio_den=20), None),
        (motor_set(1, 2), [JOINT, (-1_000_000, 1_000_000, 30_000_001, *JOINT[3:])]),  # faster than its range
        (motor_set(1, 2), [JOINT, (-12_500_000, 1_000_000, *JOINT[2:])]),  # the outermost code
    ],
)
def test_bindings_that_cannot_work_are_refused_at_the_commit(
    second: m.DriveSet, axes: list[tuple[int, ...]] | None
) -> None:
    arm = Arm([motor_set(0, 1), second], axes=axes)
    assert commit(arm) == (m.AckCode.DRIVE, 1)
    assert arm.state == m.McuState.DISARMED


# ---- holding brakes on a wire of the board ----


def brakes_open(arm: Arm) -> bool:
    arm.lib.ew_brakes_open.restype = ctypes.c_bool
    arm.lib.ew_brakes_open.argtypes = [ctypes.c_void_p]
    return bool(arm.lib.ew_brakes_open(arm.handle))


@pytest.mark.parametrize("how", [m.Disarm(), m.Estop(), m.Hold()])
def test_brakes_open_when_every_drive_has_confirmed_its_torque_and_grip_before_it_goes(how: m.HostMessage) -> None:
    arm = motor_arm()
    arm.stops = m.StopsSet(brake_after_ms=10, torque_off_after_ms=30)
    arm.start()
    assert not brakes_open(arm)
    seen = []
    for _ in range(10):
        arm.tick()
        seen.append((brakes_open(arm), all(arm.torques())))
    assert (False, False) in seen and (True, True) in seen and (True, False) not in seen
    arm.ask(how)
    gripped = 0
    for _ in range(100):
        arm.tick()
        if not brakes_open(arm) and all(arm.torques()):
            gripped += 1
        assert not (brakes_open(arm) and not all(arm.torques()))
    assert gripped == (0 if isinstance(how, m.Hold) else pytest.approx(30, abs=3))
    assert any(arm.torques()) == brakes_open(arm) == isinstance(how, m.Hold)


def test_brakes_stay_open_while_one_drive_has_let_go_and_the_others_still_brake() -> None:
    arm = running()
    assert brakes_open(arm)
    damiao(arm, 2).enabled = False
    braking = []
    while arm.tick() and arm.drive_on:
        braking.append((arm.state, brakes_open(arm)))
    assert braking.count((m.McuState.FAULT, True)) > 10 and not any(not is_open for _, is_open in braking)
    assert arm.state == m.McuState.FAULT and not brakes_open(arm)


def test_torque_off_falls_due_for_each_motor_once_and_is_then_the_next_frame() -> None:
    arm = running()
    lib = arm.lib
    lib.ew_motor_off_due.restype, lib.ew_motor_off_due.argtypes = ctypes.c_bool, [ctypes.c_void_p]
    sent: list[tuple[bool, int, bytes]] = []
    send = arm.motor_bus.send

    def watched(identifier: int, data: bytes, now_us: int) -> None:
        sent.append((due, identifier, data))
        send(identifier, data, now_us)

    def wires() -> None:
        """As Arm.wires, and before each frame the question whether it will be a torque off."""
        nonlocal due
        for identifier, data in arm.motor_bus.answers(arm.now_us):
            lib.ewl_motor_rx(arm.handle, identifier, data, len(data), arm.now_us)
        due = bool(lib.ew_motor_off_due(arm.handle))
        while lib.ewl_motor_tx(arm.handle, ctypes.byref(arm._id), arm._data, arm.now_us):
            arm.motor_bus.send(arm._id.value, arm._data.raw, arm.now_us)
            due = bool(lib.ew_motor_off_due(arm.handle))

    due = False
    arm.motor_bus.send = watched  # type: ignore[method-assign]
    arm.wires = wires  # type: ignore[method-assign]
    arm.tick(50)
    assert sent and not any(was_due for was_due, _, _ in sent)
    arm.ask(m.Disarm())
    while any(arm.torques()):
        arm.tick()
    off = [(identifier, data) for was_due, identifier, data in sent if was_due]
    assert [data for _, data in off] == [b"\xff" * 7 + b"\xfd"] * len(arm.torques())
    assert len({identifier for identifier, _ in off}) == len(arm.torques())
