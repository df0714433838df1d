"""A whole arm of Feetech servos through the core: found, armed, moved, and every way in which a servo can fail."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import FeetechServo
from firmware_bridge.host.drive_emulation import feetech as ft
from tests.drives.arm import Arm, servo_set

SIX = 6
SILENT_TICKS = m.ENCODER_TIMEOUT_US // m.TICK_US


def servo_arm(count: int = SIX, *, delay: int = 0, **changes: int) -> Arm:
    servos = [FeetechServo(number) for number in range(1, count + 1)]
    for servo in servos:
        servo.table[7] = delay
    return Arm([servo_set(axis, axis + 1, **changes) for axis in range(count)], servos=servos)


def goal_times(arm: Arm) -> list[int]:
    """When setpoints went out, us."""
    return [at for at, data in arm.servo_bus.sent if data[4] == ft.SYNC_WRITE and data[5] == 42]


def running() -> Arm:
    return servo_arm().run()


def test_six_servos_are_found_checked_armed_and_moved_without_a_jerk_or_a_collision() -> None:
    arm = servo_arm()
    for axis, servo in enumerate(arm.servo_bus.servos):
        servo.motor.position = 0.1 * axis - 0.2
    before = [servo.raw() for servo in arm.servo_bus.servos]
    assert arm.start() <= 60, "three transactions with each of six servos, one a cycle"
    assert not any(arm.torques()), "armed a moment ago, the bus has not said so yet"
    arm.tick(3)
    assert arm.torques() == [True] * SIX
    arm.tick(20)
    assert [servo.raw() for servo in arm.servo_bus.servos] == before
    target = [200_000, -200_000, 100_000, 0, 300_000, -300_000]
    arm.go(target)
    arm.tick(700)
    for servo, wanted in zip(arm.servo_bus.servos, target, strict=True):
        assert abs(servo.motor.position * 1e6 - wanted) <= 1534, "one step"
    assert arm.servo_bus.collisions == 0
    assert arm.report().fault == m.Fault.NONE


def test_nothing_but_goals_torque_and_the_lock_is_ever_written() -> None:
    arm = servo_arm()
    tables = [bytes(servo.table[:40]) for servo in arm.servo_bus.servos]
    arm.start()
    arm.tick(5)
    arm.go([100_000] * SIX)
    arm.tick(600)
    assert [bytes(servo.table[:40]) for servo in arm.servo_bus.servos] == tables
    written = {data[5] for _, data in arm.servo_bus.sent if data[4] in {ft.WRITE, ft.SYNC_WRITE}}
    assert written == {40, 42, 55}


@pytest.mark.parametrize(
    ("servos", "delay", "period_us"),
    [(1, 0, 1000), (2, 0, 1000), (3, 0, 2000), (6, 0, 2000), (7, 0, 3000), (12, 0, 4000), (16, 0, 5000),
     (6, 250, 6000)],
)  # fmt: skip
def test_the_bus_carries_a_setpoint_as_often_as_its_bytes_allow(servos: int, delay: int, period_us: int) -> None:
    """1 Mbaud: every second tick for six servos that answer at once, every sixth if they wait for 0.5 ms."""
    arm = servo_arm(servos, delay=delay)
    arm.start(limit_ticks=600)
    arm.tick(20)
    arm.servo_bus.sent.clear()
    arm.tick(100)
    times = goal_times(arm)
    assert {b - a for a, b in pairwise(times)} <= {period_us, period_us - 20, period_us + 20}
    assert arm.servo_bus.collisions == 0


def test_the_setpoint_that_goes_out_is_the_newest() -> None:
    arm = running()
    arm.servo_bus.sent.clear()
    setpoints = [arm.tick()[0] for _ in range(20)]
    goals = [
        [int.from_bytes(data[8 + 3 * k : 10 + 3 * k], "little") for k in range(SIX)]
        for _, data in arm.servo_bus.sent
        if data[4] == ft.SYNC_WRITE
    ]
    possible = [[2048 + round(micro * 4096 / 6283185.307179586) for micro in row] for row in setpoints]
    assert len(goals) in {9, 10, 11}
    for goal in goals[1:]:
        assert goal in possible
    order = [possible.index(goal) for goal in goals[1:]]
    assert order == sorted(order)


def refusal(arm: Arm) -> tuple[int, int, dict[int, int]]:
    """Code and axis of the ARM, and the errors by axis that were told, after everything had time to be checked."""
    arm.heartbeat_on = True
    arm.tick(21)
    arm.configure()
    arm.tick(120)
    ack = arm.arm()
    assert not any(arm.torques()) and arm.state == m.McuState.CONFIGURED
    return ack.code, ack.arg, {event.arg0: event.arg1 for event in arm.events(m.EventKind.DRIVE)}


def test_a_servo_that_is_not_there_is_named_and_nothing_is_armed() -> None:
    arm = servo_arm()
    arm.servo_bus.servos[3].silent = True
    assert refusal(arm) == (m.AckCode.DRIVE, 3, {})


def put(address: int, value: int) -> Callable[[FeetechServo], None]:
    def change(servo: FeetechServo) -> None:
        servo.table[address] = value

    return change


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda servo: servo.put(3, 2825), m.DRIVE_ERR_MODEL),  # another model answers under this number
        (put(5, 9), m.DRIVE_ERR_MODEL),
        (put(33, 1), m.DRIVE_ERR_SETUP),  # speed mode
        (put(8, 0), m.DRIVE_ERR_SETUP),  # does not acknowledge
        (put(19, 0x0C), m.DRIVE_ERR_SETUP),  # overload protection off
        (put(19, 0x28), m.DRIVE_ERR_SETUP),  # over-temperature protection off
        (lambda servo: servo.put(9, 1500), m.DRIVE_ERR_RANGE),  # would stop before the axis' limit
        (lambda servo: servo.put(11, 2600), m.DRIVE_ERR_RANGE),
    ],
)
def test_a_servo_that_is_not_what_was_bound_or_not_set_up_safely_is_refused(
    change: Callable[[FeetechServo], None], error: int
) -> None:
    arm = servo_arm()
    change(arm.servo_bus.servos[2])
    assert refusal(arm) == (m.AckCode.DRIVE, 2, {2: error})


def test_swapped_numbers_of_unlike_models_are_found() -> None:
    arm = servo_arm()
    for servo, number in zip(arm.servo_bus.servos[:2], (2825, 777), strict=True):
        servo.put(3, number)
    arm.drives[1] = servo_set(1, 2, model=m.FeetechModel.STS3250)
    assert refusal(arm) == (m.AckCode.DRIVE, 0, {0: m.DRIVE_ERR_MODEL, 1: m.DRIVE_ERR_MODEL})


def test_a_servo_in_error_is_told_and_cannot_be_armed() -> None:
    arm = servo_arm()
    arm.servo_bus.servos[4].error = ft.OVERHEAT
    assert refusal(arm) == (m.AckCode.DRIVE, 4, {4: ft.OVERHEAT})
    arm.servo_bus.servos[4].error = 0
    arm.tick(10)
    assert arm.arm().code == m.AckCode.OK


def test_every_servo_lets_go_when_the_mcu_boots_whatever_is_bound() -> None:
    """A servo has no watchdog: after a reset it would hold on until somebody arms and disarms it."""
    arm = running()
    assert all(arm.torques())
    arm.lib.ewl_reset(arm.handle, m.ResetCause.WATCHDOG, 0, arm.now_us)
    arm.tick(3)
    assert not any(arm.torques()), "also where the first order met an answer to an older question"


def test_servos_that_are_slower_than_planned_slow_the_bus_and_nothing_else() -> None:
    arm = servo_arm()
    for servo in arm.servo_bus.servos:
        servo.late_us = 200
    arm.start()
    arm.tick(20)
    arm.go([200_000] * SIX)
    arm.servo_bus.sent.clear()
    arm.tick(300)
    times = goal_times(arm)
    assert {b - a for a, b in pairwise(times)} <= {2000, 3000, 4000} and len(times) > 90
    assert arm.state == m.McuState.RUN and arm.servo_bus.collisions == 0


def test_a_servo_that_falls_silent_is_a_lost_encoder_with_its_axis_and_the_torque_goes_off() -> None:
    arm = running()
    arm.servo_bus.servos[3].silent = True
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.ENCODER_LOST, 3)
    assert SILENT_TICKS - 2 <= ticks <= SILENT_TICKS + 3
    arm.off_ticks(400)
    assert arm.state == m.McuState.FAULT
    arm.servo_bus.servos[3].silent = False
    arm.tick(50)
    assert not any(arm.torques()), "nothing comes back by itself"


@pytest.mark.parametrize("bit", [ft.VOLTAGE, ft.ANGLE, ft.OVERHEAT, ft.OVERCURRENT, ft.OVERLOAD])
def test_an_error_of_a_servo_is_a_fault_within_two_cycles(bit: int) -> None:
    arm = running()
    arm.servo_bus.servos[5].error = bit
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.DRIVE_ERROR, 5) and ticks <= 5
    assert [(event.arg0, event.arg1) for event in arm.events(m.EventKind.DRIVE)] == [(5, bit)]
    assert arm.off_ticks(400) < 300


def test_answers_that_come_too_late_belong_to_nothing_and_are_a_lost_encoder() -> None:
    arm = running()
    before = arm.report().position
    arm.servo_bus.servos[5].late_us = 2_500
    assert arm.fault()[0] == m.Fault.ENCODER_LOST
    for was, now in zip(before, arm.report().position, strict=True):
        assert abs(now - was) < 100_000, "nobody's answer became somebody else's position"


def test_some_broken_answers_are_no_fault_and_only_broken_ones_are_a_lost_encoder() -> None:
    arm = running()
    arm.servo_bus.servos[0].corrupt = 10
    arm.tick(100)
    assert arm.state in {m.McuState.RUN, m.McuState.STARVED}
    arm.servo_bus.servos[0].corrupt = 1_000_000
    fault, axis, _ = arm.fault()
    assert (fault, axis) == (m.Fault.ENCODER_LOST, 0)
    arm.tick(1000)
    stats = [message for message in arm.inbox if isinstance(message, m.Stats)][-1]
    assert stats.drive_bad > 10 and stats.drive_frames > 1000


@pytest.mark.parametrize("raw", [4096, -1, 30_000])
def test_a_position_beyond_the_range_is_an_error_and_not_a_position(raw: int) -> None:
    arm = running()
    arm.servo_bus.servos[1].raw_position = raw
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.DRIVE_ERROR, 1) and ticks <= 5
    assert abs(arm.report().position[1]) < 400_000, "the last one that was valid"


def test_a_load_beyond_what_a_servo_can_say_is_an_error() -> None:
    arm = running()
    arm.servo_bus.servos[1].load = 1001
    assert arm.fault()[:2] == (m.Fault.DRIVE_ERROR, 1)


def test_a_stuck_feedback_is_a_following_error() -> None:
    arm = running()
    arm.servo_bus.servos[1].frozen = True
    arm.go([-900_000] * SIX, knots=20, dt_us=100_000)
    fault, axis, _ = arm.fault(2000)
    assert (fault, axis) == (m.Fault.FOLLOWING_ERROR, 1)


def test_load_is_reported_as_effort_with_its_sign() -> None:
    arm = running()
    arm.servo_bus.servos[0].load = -250
    arm.servo_bus.servos[1].load = 1000
    arm.tick(5)
    assert arm.report().effort[:3] == (-477_500, 1_910_000, 0), "a quarter of, and the whole stall torque of 1.91 N m"


def test_a_servo_that_drops_its_torque_is_found_by_looking() -> None:
    """A brown-out of one servo: no error bit, no torque. One servo a cycle is looked at."""
    arm = running()
    arm.servo_bus.servos[2].table[40] = 0
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.DRIVE_ERROR, 2) and ticks <= 2 * SIX + 4
    assert arm.events(m.EventKind.DRIVE)[0].arg1 == m.DRIVE_ERR_DROPPED


def test_a_servo_that_missed_the_enable_is_not_enabled_later_but_a_fault() -> None:
    arm = servo_arm()
    arm.heartbeat_on = True
    arm.tick(21)
    arm.configure()
    arm.tick(60)
    arm.servo_bus.servos[3].deaf = True
    assert arm.arm().code == m.AckCode.OK
    fault, axis, ticks = arm.fault()
    assert (fault, axis) == (m.Fault.DRIVE_ERROR, 3) and ticks <= 2 * SIX + 6
    arm.servo_bus.servos[3].deaf = False
    arm.tick(20)
    assert not arm.servo_bus.servos[3].torque_on
    arm.off_ticks()


@pytest.mark.parametrize("how", [m.Disarm(), m.Estop()])
def test_torque_goes_off_in_the_cycle_after_the_core_lets_go(how: m.HostMessage) -> None:
    arm = servo_arm()
    arm.start()
    arm.tick(10)
    arm.ask(how)
    arm.tick(1)
    assert arm.off_ticks() <= 3
    offs = [data for _, data in arm.servo_bus.sent if data[4] == ft.SYNC_WRITE and data[5] == 40 and data[8] == 0]
    assert len(offs) == 1 and len(offs[0]) == 8 + 2 * SIX, "one packet for all"


def test_a_damaged_torque_off_is_repeated_to_each_servo_until_it_says_so() -> None:
    arm = servo_arm()
    arm.start()
    arm.tick(10)
    arm.ask(m.Disarm())
    arm.servo_bus.damage = 4
    arm.tick(60)
    assert not any(arm.torques())
    arm.servo_bus.servos[1].table[40] = 1  # somebody else, over the maker's own tool
    arm.tick(60)
    assert not any(arm.torques())


def test_an_arm_can_be_armed_again_after_the_cause_is_gone() -> None:
    arm = running()
    arm.servo_bus.servos[5].error = ft.OVERLOAD
    arm.fault()
    arm.off_ticks(400)
    arm.servo_bus.servos[5].error = 0
    assert arm.ask(m.FaultAck(m.Fault.DRIVE_ERROR)).code == m.AckCode.OK
    arm.start()
    arm.tick(5)
    assert arm.torques() == [True] * SIX


def test_ratio_direction_and_zero_are_those_of_the_binding() -> None:
    """A reduction of 2, turned round, the servo's middle at 0.25 rad of the axis."""
    servo = FeetechServo(1)
    arm = Arm([servo_set(0, 1, zero=250_000, ratio_num=-1, ratio_den=2)], servos=[servo])
    servo.motor.position = 0.1
    arm.start()
    arm.tick(3)
    assert arm.report().position[0] == pytest.approx(250_000 - 50_000, abs=800)
    arm.go([0])
    arm.tick(700)
    assert servo.motor.position == pytest.approx(0.5, abs=0.002)
    servo.load = 100
    arm.tick(3)
    assert arm.report().effort[0] == pytest.approx(-191_000 * 2, abs=2)


def test_a_scs_servo_is_read_one_by_one_and_high_byte_first() -> None:
    servos = [FeetechServo(1), FeetechServo(2, "SCS0009"), FeetechServo(3, "SCS0009")]
    servos[1].motor.position = 0.3
    arm = Arm(
        [servo_set(0, 1), *(servo_set(axis, axis + 1, model=m.FeetechModel.SCS0009) for axis in (1, 2))], servos=servos
    )
    arm.start()
    arm.tick(5)
    assert arm.report().position[1] == pytest.approx(300_000, abs=5200), "1024 steps over 300 degrees: 5.1 mrad"
    arm.go([100_000, -400_000, 400_000], knots=20)
    arm.tick(1200)
    for servo, wanted in zip(servos, (0.1, -0.4, 0.4), strict=True):
        assert servo.motor.position == pytest.approx(wanted, abs=0.0052) and servo.torque_on
    assert arm.servo_bus.collisions == 0
    servos[2].silent = True
    assert arm.fault()[:2] == (m.Fault.ENCODER_LOST, 2)


def test_echoes_and_strangers_are_counted_and_taken_for_nothing() -> None:
    """A port that hears itself, and a servo that nobody asked."""
    arm = servo_arm(1)
    arm.heartbeat_on = True
    arm.tick(21)
    arm.configure()
    arm.servo_bus.servos[0].silent = True
    for _ in range(2000):
        before = len(arm.servo_bus.sent)
        arm.wires()
        for _, data in arm.servo_bus.sent[before:]:
            arm.lib.ewl_servo_rx(arm.handle, data, len(data), arm.now_us)
            stranger = ft.packet(9, 0, bytes(8))
            arm.lib.ewl_servo_rx(arm.handle, stranger, len(stranger), arm.now_us)
        arm.now_us += 20
    assert arm.arm().code == m.AckCode.DRIVE and arm.report().position == (0,)
