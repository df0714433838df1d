"""Every number of the supervision at its boundary: the tick before nothing happens, at the tick it does."""

from __future__ import annotations

import itertools

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.messages import AckCode, McuState, StopCause
from tests.firmware.mcu import GRIPPER, WIDE, Mcu


def running(mcu: Mcu | None = None) -> Mcu:
    """RUN, at 0.4 m/s and more: 16 knots of a ramp from -0.4 m."""
    mcu = (mcu or Mcu()).ready([-400_000])
    assert mcu.ask(mcu.chunk([(-400_000 + 1_200 * k * k,) for k in range(16)])).code == AckCode.OK
    mcu.tick(400)
    assert mcu.state == McuState.RUN
    return mcu


def decelerates_to_rest(mcu: Mcu) -> None:
    """From here on the axis stops as fast as its limits allow and then stays where it is: 10 um/tick^2, reached and
    left by 4 um/tick^3, each seen through positions that are rounded to 1 um."""
    setpoints = []
    for _ in range(200):
        (q,) = mcu.tick()[0]
        if not mcu.drive_on:  # from then on the setpoint repeats the encoder, which comes every 5 ms
            break
        setpoints.append(q)
    steps = [b - a for a, b in itertools.pairwise(setpoints)]
    assert all(abs(b) <= abs(a) + 1 for a, b in itertools.pairwise(steps)), "speed only falls"
    falls = [a - b for a, b in itertools.pairwise(steps)]
    assert max(abs(fall) for fall in falls) <= 12
    assert max(abs(b - a) for a, b in itertools.pairwise(falls)) <= 8
    moving = sum(step != 0 for step in steps)
    assert moving <= abs(steps[0]) / 10 + 10 / 4 + 2, "braked as hard as allowed"


def stop_cause(mcu: Mcu) -> StopCause:
    return StopCause(mcu.report().stop_cause)


def test_a_silent_host_stops_the_arm_100_ms_after_its_last_heartbeat_and_not_before() -> None:
    mcu = running()
    mcu.heartbeat()
    mcu.heartbeat_on = False
    mcu.tick(m.HOST_SILENT_US // 1000 - 1)
    assert mcu.state == McuState.RUN
    mcu.tick()
    assert mcu.state == McuState.STOP
    decelerates_to_rest(mcu)
    assert mcu.drive_on and stop_cause(mcu) == StopCause.HOST_SILENT


def test_a_host_that_stays_away_for_2_s_disarms_and_one_that_returns_before_does_not_move_the_arm() -> None:
    mcu = running()
    mcu.heartbeat()
    mcu.heartbeat_on = False
    mcu.tick(m.HOST_GONE_US // 1000 - 1)
    assert mcu.state == McuState.STOP and mcu.drive_on
    mcu.tick()
    assert mcu.state == McuState.DISARMED and not mcu.drive_on
    assert stop_cause(mcu) == StopCause.HOST_GONE

    mcu = running()
    mcu.heartbeat_on = False
    mcu.tick(500)
    mcu.heartbeat_on = True
    mcu.tick(3000)
    assert mcu.state == McuState.STOP and mcu.drive_on
    still = mcu.setpoint()
    assert mcu.ask(mcu.chunk([still] * 16)).code == AckCode.BAD_STATE
    assert mcu.arm().code == AckCode.BAD_STATE
    assert set(mcu.tick(100)) == {still}


def test_only_heartbeats_are_signs_of_life() -> None:
    mcu = running()
    mcu.heartbeat_on = False
    for _ in range(10):
        mcu.tick(20)
        mcu.send(m.HelloReq(1))
        mcu.send(m.TimeReq(1))
        mcu.raw(mcu.frame(m.Heartbeat.TYPE, b"\0" * 13))
        mcu.raw(mcu.frame(m.Heartbeat.TYPE, m.Heartbeat(0, 1, 0, 5, 1).pack()))
        mcu.raw(mcu.frame(m.Heartbeat.TYPE, m.Heartbeat(0, 1, 0, 0, 1).pack(), session=mcu.session ^ 1))
    assert mcu.state == McuState.STOP


def test_the_age_of_the_host_is_told_from_0_to_what_the_field_holds() -> None:
    mcu = Mcu()
    mcu.tick(20)
    assert mcu.report().heartbeat_age_ms == 2**16 - 1, "never"
    mcu.now_us += 15_000
    mcu.heartbeat()  # while the loop is late: what is caught up is told as the newest of these ticks found it
    mcu.inbox.clear()
    mcu.tick()
    assert [s.heartbeat_age_ms for s in mcu.inbox if isinstance(s, m.State)] == [1]
    mcu.slices()
    mcu.tick(10)
    mcu.now_us += 500
    mcu.heartbeat()  # after the tick of which the STATE that is due tells
    mcu.inbox.clear()
    mcu.work()
    assert [s.heartbeat_age_ms for s in mcu.pump() if isinstance(s, m.State)] == [0]
    mcu.lib.ewl_slices(mcu.handle, 0)
    sent_us = mcu.now_us
    mcu.now_us += 500
    for _ in range(2**16 + 100):
        mcu.now_us += 1000
        mcu.lib.ewl_tick(mcu.handle, mcu.now_us)
        if mcu.now_us % 10_000 == 0:
            for state in (s for s in mcu.pump() if isinstance(s, m.State)):
                assert state.heartbeat_age_ms == min((state.now_us - sent_us) // 1000, 2**16 - 2)


def test_a_frozen_policy_stops_the_arm_after_250_ms_although_heartbeats_go_on() -> None:
    mcu = running()
    mcu.tick(20 - mcu._ticks % 20)
    mcu.heartbeat()  # the counter changes now, for the last time
    mcu.policy_on = False
    mcu.tick(m.POLICY_FROZEN_US // 1000 - 1)
    assert mcu.state == McuState.RUN
    mcu.tick()
    assert mcu.state == McuState.STOP
    decelerates_to_rest(mcu)
    assert stop_cause(mcu) == StopCause.POLICY_FROZEN


@pytest.mark.parametrize("degrade", [m.Degrade.COAST, m.Degrade.HOLD])
def test_a_host_that_says_that_it_does_not_plan_is_not_frozen_and_the_timeline_runs_dry(degrade: m.Degrade) -> None:
    mcu = running()
    mcu.policy_on = False
    mcu.degrade = degrade
    assert mcu.until(McuState.STARVED) > 300
    assert mcu.report().stop_cause == StopCause.NONE


def test_the_counter_is_held_against_the_host_again_when_it_says_that_it_plans() -> None:
    mcu = running()
    mcu.policy_on = False
    assert mcu.ask(mcu.chunk([mcu.setpoint()] * 60)).code == AckCode.OK
    mcu.degrade = m.Degrade.COAST
    mcu.tick(1000)
    mcu.degrade = m.Degrade.NOMINAL
    mcu.tick(229)  # counted from the last heartbeat in COAST, up to 20 ms ago
    assert mcu.state == McuState.RUN
    mcu.tick(22)
    assert mcu.state == McuState.STOP


def test_an_armed_arm_without_a_plan_needs_no_policy() -> None:
    mcu = Mcu().ready()
    mcu.policy_on = False
    mcu.tick(2000)
    assert mcu.state == McuState.ARMED


@pytest.mark.parametrize(
    ("degrade", "state", "cause"),
    [
        (m.Degrade.NOMINAL, McuState.RUN, StopCause.NONE),
        (m.Degrade.COAST, McuState.RUN, StopCause.NONE),
        (m.Degrade.HOLD, McuState.RUN, StopCause.NONE),
        (m.Degrade.SOFT_STOP, McuState.STOP, StopCause.HOST_SOFT_STOP),
        (m.Degrade.SAFE_OFF, McuState.DISARMED, StopCause.HOST_SAFE_OFF),
    ],
)
def test_the_hosts_degrade_state_takes_permission_away(degrade: m.Degrade, state: McuState, cause: StopCause) -> None:
    mcu = running()
    mcu.degrade = degrade
    mcu.heartbeat()
    before = mcu.setpoint()[0]
    mcu.tick()
    assert mcu.drive_on and mcu.setpoint()[0] != before, "brakes first, and switches off at standstill"
    mcu.tick(150)
    assert mcu.state == state and stop_cause(mcu) == cause


def test_safe_off_while_stopped_disarms() -> None:
    mcu = running()
    mcu.degrade = m.Degrade.SOFT_STOP
    mcu.until(McuState.STOP)
    mcu.tick(200)
    mcu.degrade = m.Degrade.SAFE_OFF
    mcu.tick(22)
    assert mcu.state == McuState.DISARMED


def test_a_host_that_forgets_that_it_armed_stops_the_arm_but_one_that_has_not_heard_yet_does_not() -> None:
    mcu = Mcu()
    mcu.armed_bit = False
    mcu.ready()
    mcu.tick(100)
    assert mcu.state == McuState.ARMED
    mcu.armed_bit = True
    mcu.tick(21)
    mcu.armed_bit = False
    mcu.tick(21)
    assert mcu.state == McuState.STOP and stop_cause(mcu) == StopCause.HOST_NOT_ARMED


def test_a_dry_timeline_brakes_holds_resumes_within_500_ms_and_disarms_after() -> None:
    mcu = running()
    mcu.until(McuState.STARVED)
    end = mcu.setpoint()[0]
    mcu.tick(498)
    assert mcu.state == McuState.STARVED and mcu.drive_on
    assert -400_000 < end <= mcu.setpoint()[0] <= -400_000 + 1_200 * 15 * 15, "nothing beyond the last knot"
    assert mcu.ask(mcu.chunk([mcu.setpoint()] * 4)).code == AckCode.OK
    assert mcu.state == McuState.RUN
    mcu.until(McuState.STARVED)
    mcu.tick(m.STARVED_MAX_US // 1000 - 1)
    assert mcu.state == McuState.STARVED
    mcu.tick()
    assert mcu.state == McuState.DISARMED and not mcu.drive_on
    assert stop_cause(mcu) == StopCause.STARVED


def test_a_lost_encoder_is_a_fault_after_50_ms_and_not_before() -> None:
    mcu = running()
    mcu.encoder(mcu.position)
    mcu.encoder_on = False
    mcu.tick(m.ENCODER_TIMEOUT_US // 1000 - 1)
    assert mcu.state == McuState.RUN
    mcu.tick()
    assert mcu.state == McuState.FAULT and mcu.drive_on
    mcu.tick(100)
    assert not mcu.drive_on and mcu.report().fault == m.Fault.ENCODER_LOST


def test_encoder_values_of_another_number_of_axes_do_not_count() -> None:
    mcu = running()
    mcu.encoder_on = False
    for _ in range(12):
        mcu.encoder([0, 0])
        mcu.encoder([])
        mcu.tick(5)
    assert mcu.state == McuState.FAULT


@pytest.mark.parametrize(("away", "state"), [(250_000, McuState.ARMED), (250_001, McuState.FAULT)])
@pytest.mark.parametrize("side", [-1, 1])
def test_the_following_error_is_judged_at_its_limit(away: int, state: McuState, side: int) -> None:
    mcu = Mcu().ready([0])
    mcu.encoder_on = False
    for share in range(1, 20):  # not at once: that no encoder can believe
        mcu.encoder([side * away * share // 20])
        mcu.tick(5)
    mcu.encoder([side * away])
    mcu.tick()
    assert mcu.state == state
    if state == McuState.FAULT:
        mcu.tick(2)
        assert not mcu.drive_on
        events = [e for e in mcu.inbox if isinstance(e, m.Event) and e.kind == m.EventKind.FAULT]
        assert (events[-1].arg0, events[-1].arg1) == (m.Fault.FOLLOWING_ERROR, 0)


@pytest.mark.parametrize(("gap_us", "faulty"), [(m.TICK_GAP_MAX_US, False), (m.TICK_GAP_MAX_US + 1, True)])
def test_a_late_tick_is_a_fault_above_4_ms_while_the_drive_is_on(gap_us: int, faulty: bool) -> None:
    mcu = running()
    mcu.now_us += gap_us - 1000
    mcu.tick()
    assert (mcu.state == McuState.FAULT) == faulty
    assert (mcu.report().fault == m.Fault.TICK_OVERRUN) == faulty

    mcu = Mcu()
    mcu.tick(5)
    mcu.now_us += 100_000
    mcu.tick()
    assert mcu.state == McuState.DISARMED


def test_missed_ticks_are_caught_up_and_what_is_too_much_is_skipped_and_counted() -> None:
    for missed, run, late in ((2, 3, 2), (19, 20, 19), (40, 20, 40)):
        mcu = Mcu()
        mcu.tick(3)
        before = mcu.report().tick
        mcu.now_us += missed * 1000
        mcu.tick()
        mcu.inbox.clear()
        mcu.tick(1001)
        stats = [s for s in mcu.inbox if isinstance(s, m.Stats)][-1]
        assert stats.late_ticks == late
        assert mcu.report().tick - before >= run
        assert stats.tick_gap_max_us == 1000 or stats.tick_gap_max_us == (missed + 1) * 1000
        assert mcu.report().now_us == mcu.now_us


def test_ticks_are_not_run_twice_and_time_that_goes_back_changes_nothing() -> None:
    mcu = Mcu()
    mcu.tick(10)
    before = mcu.report().tick
    for offset in (0, 1, 999, -1, -5000):
        mcu.lib.ewl_tick(mcu.handle, mcu.now_us + offset)
    assert mcu.report().tick - before <= 10


def test_braking_that_takes_too_long_ends_with_the_drive_off_after_2_s() -> None:
    soft = (-500_000, 500_000, 800_000, 4000, 1_000_000, 80_000, 20)
    mcu = Mcu([soft]).ready([-400_000])
    for start in range(14):
        mcu.ask(mcu.chunk([(min(490_000, -400_000 + 15_000 * (start * 4 + k)),) for k in range(16)], lead_us=20_000))
        mcu.tick(200)
    mcu.ask(m.Estop())
    ticks = 0
    while mcu.drive_on:
        mcu.tick()
        ticks += 1
    assert ticks in (m.BRAKE_MAX_US // 1000, m.BRAKE_MAX_US // 1000 + 1)


def test_every_axis_brakes_at_its_own_limit() -> None:
    mcu = Mcu([WIDE, GRIPPER]).ready([0, -900_000])
    mcu.ask(mcu.chunk([(2_000 * k, -900_000 + 100_000 * k) for k in range(16)]))
    mcu.tick(300)
    mcu.ask(m.Hold())
    positions = mcu.tick(100)
    for axis, most in ((0, 11), (1, 401)):
        steps = [b[axis] - a[axis] for a, b in itertools.pairwise(positions)]
        assert max(abs(b - a) for a, b in itertools.pairwise(steps)) <= most
        assert steps[-1] == 0
    assert mcu.state == McuState.ARMED and stop_cause(mcu) == StopCause.HOLD
