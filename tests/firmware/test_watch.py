"""What is watched beside the limiter: way per chunk and window, effort, jumps of an encoder, the end of a stop."""

from __future__ import annotations

import ctypes
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.framing import FrameReceiver
from firmware_bridge.host.messages import AckCode, Fault, McuState, StopCause
from tests.firmware.mcu import WIDE, Mcu

EFFORT_MS = m.EFFORT_TIME_US // 1000


def row(**changes: int) -> tuple[int, ...]:
    """WIDE with other limits."""
    names = (
        "position_min", "position_max", "velocity_max", "acceleration_max", "following_error_max", "jump_max", "lsb",
        "jerk_max", "effort_max", "move_max", "window_max", "velocity_lsb",
    )  # fmt: skip
    return tuple(changes.get(name, value) for name, value in zip(names, WIDE, strict=True))


def causes(mcu: Mcu) -> list[tuple[int, int]]:
    return [(e.arg0, e.arg1) for e in mcu.inbox if isinstance(e, m.Event) and e.kind == m.EventKind.FAULT]


# ---- way of a chunk ----


@pytest.mark.parametrize("encoding", list(m.ChunkEncoding))
@pytest.mark.parametrize(("way", "code"), [(100_000, AckCode.OK), (100_020, AckCode.MOVE)])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_chunk_that_moves_an_axis_farther_than_its_move_max_is_refused(
    way: int, code: AckCode, side: int, encoding: int
) -> None:
    mcu = Mcu([WIDE, row(move_max=100_000)]).ready([0, 0])
    steps = [0, 20_000, 40_000, 60_000, 80_000, way, way]
    ack = mcu.ask(mcu.chunk([(3 * q, side * q) for q in steps], dt_us=90_000, encoding=encoding))
    assert (ack.code, ack.arg) == (code, 1 if code == AckCode.MOVE else 0)
    assert mcu.state == (McuState.RUN if code == AckCode.OK else McuState.ARMED)


# ---- way in a window ----


def shuttle(mcu: Mcu, amplitude: int, period_ms: int, turns: int, *, every_ms: int) -> int:
    """There and back by one chunk after the other; ticks until the MCU stops it."""
    start = mcu.now_us + 50_000

    def plan(at_us: int) -> int:
        return round(amplitude * (1 - math.cos(2 * math.pi * max(0, at_us - start) / 1000 / period_ms)))

    for ticks in range(turns * period_ms):
        if mcu.state == McuState.STOP:
            return ticks
        if ticks % every_ms == 0:
            knots = [(plan(mcu.now_us + 40_000 + 10_000 * k),) for k in range(30)]
            mcu.ask(mcu.chunk(knots, lead_us=40_000, dt_us=10_000))
        mcu.tick()
    return turns * period_ms


@pytest.mark.parametrize("every_ms", [20, 50, 130])
def test_the_way_in_any_window_is_bounded_however_it_is_cut_into_chunks(every_ms: int) -> None:
    """20 mm there and back in 400 ms is up to 27 mm of way in 250 ms and never farther than 20 mm away."""
    mcu = Mcu([row(window_max=30_000)]).ready([0])
    assert shuttle(mcu, 10_000, 400, 3, every_ms=every_ms) == 1200 and mcu.state == McuState.RUN
    mcu = Mcu([row(window_max=20_000)]).ready([0])
    path = [0]
    original = mcu.tick

    def tick(count: int = 1) -> list[tuple[int, ...]]:
        out = original(count)
        path.extend(q for (q,) in out)
        return out

    mcu.tick = tick  # type: ignore[method-assign]
    assert shuttle(mcu, 10_000, 400, 3, every_ms=every_ms) < 1200
    ways = [sum(abs(b - a) for a, b in zip(path[i : i + 250], path[i + 1 : i + 251], strict=False))
            for i in range(len(path) - 1)]  # fmt: skip
    assert 20_000 - 300 <= max(ways) <= 20_000 + 400, "stopped on the tick; each of 250 positions is rounded to 1 um"
    assert mcu.report().stop_cause == StopCause.WINDOW


@settings(max_examples=40, deadline=None)
@given(st.integers(1_000, 200_000), st.integers(1, 4))
def test_more_way_than_the_window_allows_stops_the_axis_and_clearly_less_does_not(window_max: int, speed: int) -> None:
    """A long straight move at 0.2 m/s per step of speed: 250 ms of it are 50 mm, a little more while it starts."""
    mcu = Mcu([row(window_max=window_max, position_max=2_000_000, move_max=2_000_000, jump_max=1_000_000)]).ready([0])
    velocity = speed * 199_000
    knots = [(velocity * k // 20,) for k in range(30)]
    assert mcu.ask(mcu.chunk(knots)).code == AckCode.OK
    mcu.tick(1400)
    way = velocity // 4
    if way < window_max * 0.85:
        assert mcu.report().stop_cause == StopCause.NONE
    elif way > window_max * 1.001 + 30:
        assert mcu.report().stop_cause == StopCause.WINDOW


def test_an_axis_at_its_velocity_limit_never_meets_the_window_that_belongs_to_it() -> None:
    mcu = Mcu([row(position_max=2_000_000, move_max=2_000_000)]).ready([0])
    mcu.ask(mcu.chunk([(40_000 * k,) for k in range(40)]))
    mcu.tick(1500)
    assert mcu.state == McuState.RUN


@pytest.mark.parametrize("side", [-1, 1])
def test_an_axis_that_goes_farther_in_one_tick_than_in_a_window_is_stopped_at_once_and_named(side: int) -> None:
    """At 10 um/tick^2 the first tick of the move may already be more than 1 um."""
    mcu = Mcu([WIDE, row(window_max=1), row(window_max=1)]).ready([0, 0, 0])
    assert mcu.ask(mcu.chunk([(0, side * 10_000 * k, side * 10_000 * k) for k in range(16)])).code == AckCode.OK
    mcu.until(McuState.STOP, 200)
    mcu.tick(100)
    assert mcu.report().stop_cause == StopCause.WINDOW and mcu.state == McuState.STOP
    assert abs(mcu.setpoint()[1]) < 500


# ---- effort ----


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(
    ("effort", "most", "fault"), [(1_001, 1_000, True), (1_000, 1_000, False), (2**31 - 1, 0, False)]
)
def test_effort_above_its_limit_for_50_ms_is_a_fault_and_not_before(
    effort: int, most: int, fault: bool, side: int
) -> None:
    mcu = Mcu([WIDE, row(effort_max=most)]).ready([0, 0])
    mcu.encoder_on = False
    for ticks in range(EFFORT_MS + 1):
        assert mcu.state == McuState.ARMED
        mcu.encoder([0, 0], [7_000_000, side * effort])
        mcu.tick()
        if mcu.state == McuState.FAULT:
            assert ticks == EFFORT_MS
    assert mcu.state == (McuState.FAULT if fault else McuState.ARMED)
    if fault:
        mcu.tick(2)
        assert not mcu.drive_on and causes(mcu)[-1] == (Fault.EFFORT, 1)


def test_of_several_axes_that_need_too_much_the_first_is_named() -> None:
    mcu = Mcu([WIDE, row(effort_max=1_000), row(effort_max=1_000)]).ready([0, 0, 0])
    mcu.encoder_on = False
    for _ in range(EFFORT_MS + 1):
        mcu.encoder([0, 0, 0], [0, 1_001, -1_001])
        mcu.tick()
    mcu.tick(2)
    assert causes(mcu) == [(Fault.EFFORT, 1)]


def test_a_peak_of_effort_that_ends_in_time_is_forgotten() -> None:
    mcu = Mcu([row(effort_max=1_000)]).ready([0])
    mcu.encoder_on = False
    for ticks in range(400):
        mcu.encoder([0], [2_000 if ticks % 50 else 1_000])
        mcu.tick()
    assert mcu.state == McuState.ARMED


# ---- encoder ----


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize(("way", "fault"), [(40_001, False), (40_002, True)])
def test_an_encoder_that_jumps_farther_than_its_axis_can_move_is_a_fault(way: int, fault: bool, side: int) -> None:
    """Twice 0.8 m/s over the 5 ms between two reports and 20 ms of their lateness is 40 mm."""
    mcu = Mcu().ready([0])
    mcu.encoder_on = False
    mcu.encoder([0])
    mcu.tick(5)
    mcu.encoder([side * way])
    mcu.tick()
    assert mcu.state == (McuState.FAULT if fault else McuState.ARMED)
    if fault:
        mcu.tick(2)
        assert causes(mcu)[-1] == (Fault.ENCODER_IMPLAUSIBLE, 0)


def test_after_a_jump_of_the_encoder_nobody_arms_for_50_ms() -> None:
    mcu = Mcu()
    mcu.heartbeat_on = True
    mcu.tick(21)
    mcu.configure()
    mcu.position = [200_000]
    mcu.tick(6)
    assert mcu.state == McuState.CONFIGURED, "an arm that is off may be moved by hand"
    assert mcu.arm().code == AckCode.NO_ENCODER
    mcu.tick(50)
    assert mcu.arm().code == AckCode.OK


# ---- second stage of a stop ----


def flags(mcu: Mcu) -> int:
    """Of the newest SETPOINT."""
    buffer, receiver = ctypes.create_string_buffer(4096), FrameReceiver()
    mcu.lib.ewl_drive_tx(mcu.handle, buffer, 4096)
    mcu.tick()
    count = mcu.lib.ewl_drive_tx(mcu.handle, buffer, 4096)
    (body,) = receiver.feed(buffer.raw[:count])
    return m.Setpoint.unpack(body[1:]).flags


ON, BRAKE = m.SETPOINT_FLAG_ENABLE, m.SETPOINT_FLAG_BRAKE


def braked(stops: m.StopsSet) -> Mcu:
    """Moving, then stopped by the silence of the host; called at the tick of the stop."""
    mcu = Mcu()
    mcu.stops = stops
    mcu.ready([0])
    mcu.ask(mcu.chunk([(10_000 * k,) for k in range(16)]))
    mcu.tick(300)
    mcu.degrade = int(m.Degrade.SOFT_STOP)
    mcu.until(McuState.STOP)
    return mcu


def test_a_stop_holds_then_closes_the_brakes_then_lets_go_of_the_torque_each_in_its_time() -> None:
    mcu = braked(m.StopsSet(brake_after_ms=200, torque_off_after_ms=100))
    still = 0
    while mcu.report().flags & m.STATE_FLAG_MOVING:
        still += 1
        assert still < 20
    for _ in range(170):
        assert mcu.state == McuState.STOP and flags(mcu) == ON
    mcu.tick(40)
    for _ in range(50):
        assert mcu.state == McuState.STOP and flags(mcu) == ON | BRAKE
        assert mcu.drive_on
    assert mcu.report().flags & m.STATE_FLAG_BRAKE_ON and mcu.report().flags & m.STATE_FLAG_DRIVE_ON
    mcu.tick(80)
    assert mcu.state == McuState.DISARMED and not mcu.drive_on
    assert flags(mcu) == BRAKE, "the brakes stay closed without torque"
    report = mcu.report()
    assert report.flags & m.STATE_FLAG_BRAKE_ON and not report.flags & m.STATE_FLAG_DRIVE_ON
    assert report.stop_cause == StopCause.HOST_SOFT_STOP
    mcu.degrade = int(m.Degrade.NOMINAL)
    mcu.tick(60)
    mcu.configure()
    assert mcu.arm().code == AckCode.OK and flags(mcu) == ON, "arming opens them"


def test_without_a_second_stage_a_stop_holds_for_as_long_as_there_is_a_host() -> None:
    mcu = braked(m.StopsSet(0, 0))
    mcu.tick(5000)
    assert mcu.state == McuState.STOP and flags(mcu) == ON


def test_brakes_without_a_time_to_let_go_close_and_the_drive_stays_on() -> None:
    mcu = braked(m.StopsSet(200, 0))
    mcu.tick(5000)
    assert mcu.state == McuState.STOP and flags(mcu) == ON | BRAKE


@pytest.mark.parametrize("cut", [m.Estop(), m.Disarm()])
def test_torque_never_goes_before_the_brakes_have_had_their_time(cut: m.HostMessage) -> None:
    mcu = Mcu()
    mcu.stops = m.StopsSet(brake_after_ms=1000, torque_off_after_ms=100)
    mcu.ready([0])
    mcu.tick(50)
    mcu.ask(cut)
    gripping = 0
    while (seen := flags(mcu)) & ON:
        gripping += bool(seen & BRAKE)
        assert gripping < 200
    assert 95 <= gripping <= 100 and seen == BRAKE
    assert mcu.state in (McuState.ESTOP, McuState.DISARMED)


def test_brakes_that_are_given_too_long_do_not_keep_a_disarmed_drive_on_for_more_than_2_s() -> None:
    mcu = Mcu()
    mcu.stops = m.StopsSet(brake_after_ms=1000, torque_off_after_ms=60_000)
    mcu.ready([0])
    mcu.tick(50)
    mcu.ask(m.Disarm())
    mcu.tick(m.BRAKE_MAX_US // 1000 - 52)
    assert mcu.state == McuState.STOP and mcu.drive_on
    mcu.tick(52)
    assert mcu.state == McuState.DISARMED and not mcu.drive_on
    assert flags(mcu) == BRAKE


@pytest.mark.parametrize(
    ("stops", "code"),
    [((0, 0), AckCode.OK), ((1, 0), AckCode.OK), ((1, 1), AckCode.OK), ((2**32 - 1, 2**32 - 1), AckCode.OK),
     ((0, 1), AckCode.BAD_VALUE)],
)  # fmt: skip
def test_torque_off_needs_brakes(stops: tuple[int, int], code: AckCode) -> None:
    ack = Mcu().ask(m.StopsSet(*stops))
    assert (ack.code, ack.arg) == (code, 0 if code == AckCode.OK else 1)
