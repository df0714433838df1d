"""The link's own rules, against a microcontroller that loses, repeats and lies on demand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.errors import ChunkRefused, ClockError, LinkBusy, LinkError, TransportClosed
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import (
    HEARTBEAT_FLAG_ARMED,
    STATE_FLAG_ESTOP_LATCHED,
    Ack,
    AckCode,
    Arm,
    Chunk,
    Degrade,
    Disarm,
    Estop,
    Event,
    EventAck,
    Heartbeat,
    Hello,
    Hold,
    Limits,
    LimitsCommit,
    LimitsSet,
    McuMessage,
    McuState,
    ResetCause,
    TimeResp,
)
from tests.link.fake_mcu import LIMITS, FakeMcu

DT = 50_000_000
HOME = np.tile([0.0, 0.6, 0.2, 0.0], (4, 1))


def ready() -> tuple[FakeMcu, Link]:
    mcu = FakeMcu()
    link = Link(mcu, LIMITS, clock=mcu.now_ns)
    link.connect()
    link.configure()
    return mcu, link


def armed() -> tuple[FakeMcu, Link]:
    mcu, link = ready()
    link.arm()
    return mcu, link


def swallow_first(kind: type, count: int = 1):  # type: ignore[no-untyped-def]
    left = [count]

    def swallow(message: McuMessage) -> bool:
        if isinstance(message, kind) and left[0]:
            left[0] -= 1
            return True
        return False

    return swallow


# -- connecting -----------------------------------------------------------------------------------------------------


def test_connecting_finds_the_session_and_the_clock_exactly() -> None:
    mcu = FakeMcu()
    state = Link(mcu, LIMITS, clock=mcu.now_ns).connect()
    assert state.session == mcu.session
    assert state.clock_offset_ns == mcu.mcu_ahead_us * 1000
    assert state.clock_bound_ns < 2_000
    assert state.position.tolist() == [0.0, 0.6, 0.2, 0.0]
    assert state.at_ns <= mcu.time_ns


def test_a_lost_hello_and_lost_clock_answers_are_asked_for_again() -> None:
    mcu = FakeMcu()
    lost = [0]

    def swallow(message: McuMessage) -> bool:
        if isinstance(message, Hello | TimeResp) and lost[0] < 6:
            lost[0] += 1
            return True
        return False

    mcu.swallow = swallow
    assert Link(mcu, LIMITS, clock=mcu.now_ns).connect().connected
    assert lost[0] == 6


def test_another_protocol_is_refused_by_both_numbers() -> None:
    mcu = FakeMcu()
    mcu.schema_hash = 0xDEADBEEF
    with pytest.raises(LinkError, match="deadbeef"):
        Link(mcu, LIMITS, clock=mcu.now_ns).connect()
    assert mcu.of(Arm) == []


def test_nobody_there_is_said_within_the_timeout() -> None:
    mcu = FakeMcu()
    mcu.swallow = lambda message: True
    start = mcu.time_ns
    with pytest.raises(LinkError, match="HELLO"):
        Link(mcu, LIMITS, clock=mcu.now_ns).connect(timeout_s=1.0)
    assert mcu.time_ns - start < 1_200_000_000


def test_nothing_is_claimed_before_connecting() -> None:
    mcu = FakeMcu()
    link = Link(mcu, LIMITS, clock=mcu.now_ns)
    with pytest.raises(LinkError, match="connect"):
        _ = link.state
    with pytest.raises(LinkError):
        link.configure()
    with pytest.raises(LinkError):
        link.arm()


# -- configuring and arming -----------------------------------------------------------------------------------------


def test_the_uploaded_table_is_the_one_in_micro_units() -> None:
    mcu, link = ready()
    assert [mcu.limits[i] for i in range(4)] == list(link.limits.axes)
    assert mcu.limits_crc == link.limits.crc


def test_a_table_that_reads_back_differently_is_refused() -> None:
    mcu = FakeMcu()
    link = Link(mcu, LIMITS, clock=mcu.now_ns)
    link.connect()
    original = mcu._act

    def corrupt(message: object, frame):  # type: ignore[no-untyped-def]
        code = original(message, frame)
        if isinstance(message, LimitsSet) and message.axis == 2:
            mcu.limits[2] = LIMITS.axes[3]
        return code

    mcu._act = corrupt  # type: ignore[method-assign]
    mcu.swallow = lambda message: False
    with pytest.raises(LinkError):
        link.configure()
    with pytest.raises(LinkError, match="not configured"):
        link.arm()


@pytest.mark.parametrize("kind", [Ack, Limits])
def test_a_lost_answer_while_configuring_is_survived(kind: type) -> None:
    for index in range(10):
        mcu = FakeMcu()
        link = Link(mcu, LIMITS, clock=mcu.now_ns)
        link.connect()
        seen = [0]

        def swallow(message: McuMessage, seen: list[int] = seen, index: int = index) -> bool:
            if isinstance(message, kind):
                seen[0] += 1
                return seen[0] == index + 1
            return False

        mcu.swallow = swallow
        link.configure()
        assert mcu.limits_crc == link.limits.crc


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_arming_survives_lost_answers_and_keeps_the_heartbeat_meanwhile(lost: int) -> None:
    mcu, link = ready()
    mcu.swallow = swallow_first(Ack, lost)
    link.arm()
    assert link.state.armed
    assert len(mcu.of(Arm)) == lost + 1
    assert len(mcu.of(Heartbeat)) >= 1 + 2 * lost
    assert all(beat.flags & HEARTBEAT_FLAG_ARMED for beat in mcu.of(Heartbeat))  # type: ignore[attr-defined]


def test_arming_without_an_answer_is_a_failure_and_not_a_belief() -> None:
    mcu, link = ready()
    mcu.swallow = lambda message: isinstance(message, Ack)
    with pytest.raises(LinkError, match="no answer in 3 tries"):
        link.arm()
    assert not link.state.armed


def test_a_refused_arming_says_why() -> None:
    mcu, link = ready()
    mcu.refuse[Arm] = AckCode.NO_ENCODER
    with pytest.raises(LinkError, match="NO_ENCODER"):
        link.arm()
    assert not link.state.armed


def test_arming_is_refused_while_the_clock_is_not_known_well_enough() -> None:
    mcu, link = ready()
    mcu.swallow = lambda message: isinstance(message, TimeResp)
    mcu.time_ns += 60_000_000_000
    with pytest.raises(ClockError, match="error bound"):
        link.arm()
    assert mcu.of(Arm) == []


def test_limits_are_never_written_to_a_live_arm() -> None:
    mcu, link = armed()
    sent = len(mcu.of(LimitsSet))
    with pytest.raises(LinkError, match="ARMED"):
        link.configure()
    assert len(mcu.of(LimitsSet)) == sent


# -- motion ---------------------------------------------------------------------------------------------------------


def test_a_chunk_is_converted_to_micro_units_and_to_the_clock_of_the_mcu() -> None:
    mcu, link = armed()
    q = np.array([[0.1, 0.6, 0.2, -1.0], [0.100001, 0.6000004, 0.2, 1.0]])
    t0 = mcu.time_ns + 100_000_000
    link.send_chunk(t0, DT, q, 1)
    (chunk,) = mcu.of(Chunk)
    assert isinstance(chunk, Chunk)
    assert chunk.t0_us == (t0 // 1000 + mcu.mcu_ahead_us) & 0xFFFFFFFF
    assert (chunk.dt_10us, chunk.n, chunk.axes) == (5000, 2, 4)
    assert np.frombuffer(chunk.samples, "<i4").reshape(2, 4).tolist() == [
        [100_000, 600_000, 200_000, -1_000_000], [100_001, 600_000, 200_000, 1_000_000],
    ]


def test_the_time_of_a_chunk_wraps_with_the_clock_of_the_mcu() -> None:
    mcu = FakeMcu()
    mcu.mcu_ahead_us = 2**32 - mcu.time_ns // 1000 - 500_000
    link = Link(mcu, LIMITS, clock=mcu.now_ns)
    link.connect()
    link.configure()
    link.arm()
    t0 = mcu.time_ns + 700_000_000
    link.send_chunk(t0, DT, HOME, 1)
    (chunk,) = mcu.of(Chunk)
    assert chunk.t0_us == t0 // 1000 + mcu.mcu_ahead_us - 2**32  # type: ignore[attr-defined]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.floats(allow_nan=True, allow_infinity=True))
def test_no_number_outside_the_limits_ever_reaches_the_wire(knot: int, axis: int, value: float) -> None:
    mcu, link = armed()
    q = HOME.copy()
    q[knot, axis] = value
    limits = LIMITS.axes[axis]
    low, high = limits.position_min / 1e6, limits.position_max / 1e6
    if low <= value <= high:
        link.send_chunk(mcu.time_ns + DT, DT, q, 1)
        assert len(mcu.of(Chunk)) == 1
    elif not (low - 1e-6 < value < high + 1e-6):
        with pytest.raises(ChunkRefused):
            link.send_chunk(mcu.time_ns + DT, DT, q, 1)
        assert mcu.of(Chunk) == []


@pytest.mark.parametrize(
    ("shape", "dt", "start", "chunk_id"),
    [
        ((4, 3), DT, DT, 1),
        ((0, 4), DT, DT, 1),
        ((65, 4), DT, DT, 1),
        ((40, 4), DT, DT, 1),  # fits the timeline, not the frame
        ((4,), DT, DT, 1),
        ((4, 4), 0, DT, 1),
        ((4, 4), DT + 1, DT, 1),
        ((4, 4), 999_990, DT, 1),
        ((4, 4), 655_360_000, DT, 1),
        ((4, 4), DT, -1_000_000_000, 1),  # over before it arrives
        ((4, 4), DT, 10_000_000_000, 1),  # beyond the horizon
        ((4, 4), DT, DT, 0),
        ((4, 4), DT, DT, -1),
        ((4, 4), DT, DT, 2**32),
    ],
)
def test_what_the_wire_cannot_say_is_refused(shape: tuple[int, ...], dt: int, start: int, chunk_id: int) -> None:
    mcu, link = armed()
    q = np.resize(HOME, shape)
    with pytest.raises(ChunkRefused):
        link.send_chunk(mcu.time_ns + start, dt, q, chunk_id)
    assert mcu.of(Chunk) == []


def test_chunk_numbers_only_go_up() -> None:
    mcu, link = armed()
    link.send_chunk(mcu.time_ns + DT, DT, HOME, 7)
    for number in (7, 6, 1):
        with pytest.raises(ChunkRefused, match="more than 7"):
            link.send_chunk(mcu.time_ns + DT, DT, HOME, number)
    assert len(mcu.of(Chunk)) == 1


def test_motion_is_not_sent_by_a_host_that_did_not_arm() -> None:
    mcu, link = ready()
    with pytest.raises(LinkError, match="not armed"):
        link.send_chunk(mcu.time_ns + DT, DT, HOME, 1)
    assert mcu.of(Chunk) == []


def test_motion_is_not_sent_while_the_clock_is_not_known_well_enough() -> None:
    mcu, link = armed()
    mcu.swallow = lambda message: isinstance(message, TimeResp)
    mcu.time_ns += 60_000_000_000
    with pytest.raises(ClockError):
        link.send_chunk(mcu.time_ns + DT, DT, HOME, 1)
    assert mcu.of(Chunk) == []


def test_a_chunk_is_never_sent_twice_and_its_missing_answer_is_counted() -> None:
    mcu, link = armed()
    mcu.swallow = lambda message: isinstance(message, Ack)
    link.send_chunk(mcu.time_ns + DT, DT, HOME, 1)
    for _ in range(11):
        mcu.time_ns += 10_000_000
        link.poll()
    assert link.state.counters.chunks_unanswered == 1
    for _ in range(60):
        mcu.time_ns += 10_000_000
        link.poll()
    assert len(mcu.of(Chunk)) == 1
    assert link.state.counters.chunks_unanswered == 1
    assert link.state.last_chunk is None


def test_answers_to_chunks_are_counted_by_what_became_of_them() -> None:
    mcu, link = armed()
    for number, code in enumerate((AckCode.OK, AckCode.OK_TRIMMED, AckCode.RANGE, AckCode.LATE), start=1):
        mcu.refuse[Chunk] = code
        link.send_chunk(mcu.time_ns + DT, DT, HOME, number)
        link.poll()
    counters = link.state.counters
    assert (counters.chunks_sent, counters.chunks_accepted, counters.chunks_trimmed, counters.chunks_refused) == (
        4, 2, 1, 2
    )
    assert link.state.last_chunk is not None and link.state.last_chunk.code is AckCode.LATE


def test_an_mcu_that_does_not_keep_up_is_sent_two_chunks_and_no_queue() -> None:
    mcu, link = armed()
    mcu.swallow = lambda message: isinstance(message, Ack)
    for number in (1, 2):
        link.send_chunk(mcu.time_ns + DT, DT, HOME, number)
    for number in (3, 4):
        with pytest.raises(LinkBusy, match="2 chunks unanswered"):
            link.send_chunk(mcu.time_ns + DT, DT, HOME, number)
    assert len(mcu.of(Chunk)) == 2 and link.state.counters.chunks_skipped == 2
    mcu.swallow = lambda message: False
    mcu.time_ns += 600_000_000
    link.poll()
    mcu.backlog = 1
    with pytest.raises(LinkBusy, match="1 bytes waiting"):
        link.send_chunk(mcu.time_ns + DT, DT, HOME, 5)
    mcu.backlog = 0
    link.send_chunk(mcu.time_ns + DT, DT, HOME, 6)
    assert len(mcu.of(Chunk)) == 3


def test_a_sign_of_life_is_never_queued_behind_older_bytes() -> None:
    mcu, link = armed()
    before = len(mcu.of(Heartbeat))
    mcu.backlog = 100
    for step in range(10):
        mcu.time_ns += 20_000_000
        link.heartbeat(step, 0)
    assert len(mcu.of(Heartbeat)) == before
    assert link.state.counters.beats_skipped == 10
    mcu.backlog = 0
    mcu.time_ns += 20_000_000
    link.heartbeat(11, 0)
    assert len(mcu.of(Heartbeat)) == before + 1


# -- heartbeats -----------------------------------------------------------------------------------------------------


def test_a_100_hz_loop_beats_at_50_hz_and_a_jittery_one_never_slower_than_every_32_ms() -> None:
    mcu, link = armed()
    before = len(mcu.of(Heartbeat))
    for step in range(100):
        mcu.time_ns += 10_000_000 + (-1_000_000 if step % 2 else 1_000_000)
        link.heartbeat(step, 0)
    beats = mcu.of(Heartbeat)[before:]
    assert 45 <= len(beats) <= 55
    gaps = np.diff([beat.sent_us for beat in beats])  # type: ignore[attr-defined]
    assert gaps.max() <= 32_000


def test_a_changed_degrade_state_is_told_at_once() -> None:
    mcu, link = armed()
    mcu.time_ns += 20_000_000
    link.heartbeat(1, 0)
    mcu.time_ns += 1_000_000
    link.heartbeat(1, Degrade.SOFT_STOP)
    last = mcu.of(Heartbeat)[-1]
    assert last.degrade == Degrade.SOFT_STOP and last.sent_us == mcu.mcu_us  # type: ignore[attr-defined]


def test_the_link_never_beats_by_itself() -> None:
    mcu, link = armed()
    before = len(mcu.of(Heartbeat))
    for _ in range(50):
        mcu.time_ns += 10_000_000
        link.poll()
    link.service(mcu.time_ns + 500_000_000)
    assert len(mcu.of(Heartbeat)) == before


def test_the_armed_bit_goes_when_the_mcu_reports_itself_disarmed() -> None:
    mcu, link = armed()
    mcu.state = McuState.DISARMED
    mcu.time_ns += 20_000_000
    mcu.say(mcu.report())
    link.poll()
    link.heartbeat(2, 0)
    assert not link.state.armed
    assert mcu.of(Heartbeat)[-1].flags == 0  # type: ignore[attr-defined]


def test_a_state_from_before_the_arming_does_not_take_the_armed_bit_away() -> None:
    mcu, link = ready()
    old = mcu.report(state=McuState.CONFIGURED)
    mcu.time_ns += 5_000_000
    link.arm()
    mcu.say(old)
    link.poll()
    assert link.state.armed


# -- resets ---------------------------------------------------------------------------------------------------------


def test_a_reset_is_seen_explained_and_never_followed_by_arming() -> None:
    mcu, link = armed()
    arms = len(mcu.of(Arm))
    mcu.reboot(ResetCause.WATCHDOG, pc=0x1234)
    for step in range(50):
        mcu.time_ns += 10_000_000
        mcu.say(mcu.report())
        link.poll()
        link.heartbeat(step, 0)
    state = link.state
    assert state.reset_seen and state.reset_cause is ResetCause.WATCHDOG and state.reset_pc == 0x1234
    assert state.counters.resets == 1
    assert not state.armed and len(mcu.of(Arm)) == arms
    assert mcu.of(Heartbeat)[-1].flags == 0  # type: ignore[attr-defined]
    with pytest.raises(LinkError, match="reset"):
        link.send_chunk(mcu.time_ns + DT, DT, HOME, 99)
    with pytest.raises(LinkError, match="reset"):
        link.arm()
    mcu.state = McuState.DISARMED
    link.acknowledge_reset()
    link.configure()
    link.arm()
    assert link.state.armed and not link.state.reset_seen


def test_a_reset_whose_hello_was_lost_is_still_seen_from_the_next_frame() -> None:
    mcu, link = armed()
    mcu.swallow = swallow_first(Hello)
    mcu.reboot(ResetCause.POWER_ON, pc=0)
    for _ in range(5):
        mcu.time_ns += 10_000_000
        mcu.say(mcu.report())
        link.poll()
    assert link.state.reset_seen and link.state.session == mcu.session


def test_a_reset_that_repeats_the_session_number_is_still_seen() -> None:
    mcu, link = armed()
    mcu.reboot(ResetCause.POWER_ON, pc=0)
    mcu.session -= 1
    mcu.boots -= 1
    mcu.state = McuState.DISARMED
    for step in range(10):
        mcu.time_ns += 10_000_000
        mcu.say(mcu.report())
        link.poll()
        link.heartbeat(step, 0)
    assert link.state.reset_seen and not link.state.armed
    assert link.state.clock_offset_ns == mcu.mcu_ahead_us * 1000


def test_the_clock_of_the_dead_mcu_is_not_used_for_the_new_one() -> None:
    mcu, link = armed()
    mcu.reboot(ResetCause.WATCHDOG, 0)
    for _ in range(10):
        mcu.time_ns += 10_000_000
        link.poll()
    assert link.state.clock_offset_ns == mcu.mcu_ahead_us * 1000


def test_an_old_hello_that_comes_again_does_not_lead_the_host_astray() -> None:
    mcu, link = armed()
    session = mcu.session
    old = list(mcu.sent)
    mcu.time_ns += 10_000_000
    for data in old:
        mcu.say_raw(data)
    for _ in range(5):
        mcu.time_ns += 10_000_000
        link.poll()
    assert link.state.session == session
    assert not link.state.reset_seen
    assert link.state.armed


def test_the_hello_of_a_boot_that_is_over_is_not_believed() -> None:
    mcu, link = armed()
    stale = list(mcu.sent)
    mcu.reboot(ResetCause.WATCHDOG, 0)
    for step in range(20):
        mcu.time_ns += 10_000_000
        mcu.say(mcu.report())
        if step == 10:
            for data in stale:
                mcu.say_raw(data)
        link.poll()
        assert step < 3 or link.state.session == mcu.session
    assert link.state.counters.resets == 1


def test_frames_of_another_session_are_not_used() -> None:
    mcu, link = armed()
    before = link.state.position.tolist()
    mcu.say(mcu.report(position=(400_000, 500_000, 100_000, 0)), session=mcu.session ^ 1)  # type: ignore[arg-type]
    link.poll()
    assert link.state.position.tolist() == before
    assert link.state.counters.foreign_session == 1


def test_after_a_cable_was_out_the_same_link_goes_on_disarmed_over_a_new_one() -> None:
    mcu, link = armed()
    mcu.gone = True
    link.poll()
    link.heartbeat(1, 0)
    link.service(mcu.time_ns - 1)
    assert not link.state.connected
    with pytest.raises(TransportClosed):
        link.send_chunk(mcu.time_ns + DT, DT, HOME, 5)
    with pytest.raises(TransportClosed):
        link.disarm()
    other = FakeMcu()
    other.time_ns = mcu.time_ns
    link.attach(other)
    link._clock = link._talk.clock = other.now_ns
    link.connect()
    assert link.state.connected and not link.state.armed


# -- events, emergency stop -----------------------------------------------------------------------------------------


def test_every_event_is_acknowledged_and_told_once() -> None:
    mcu, link = armed()
    event = Event(event_id=1, at_us=mcu.mcu_us, kind=2, arg0=1, arg1=0)
    for _ in range(3):
        mcu.say(event)
    told = [message for message in link.poll() if isinstance(message, Event)]
    assert told == [event]
    assert len(mcu.of(EventAck)) == 3


def test_what_comes_while_an_operator_waits_is_told_afterwards() -> None:
    mcu, link = ready()
    event = Event(event_id=1, at_us=mcu.mcu_us, kind=2, arg0=1, arg1=0)
    mcu.say(event)
    link.arm()
    assert event in link.poll()


def test_the_emergency_stop_is_repeated_until_the_mcu_reports_its_latch() -> None:
    mcu, link = armed()
    link.estop()
    for _ in range(20):
        mcu.time_ns += 10_000_000
        link.poll()
    sent = len(mcu.of(Estop))
    assert 15 <= sent <= 25
    mcu.say(mcu.report(flags=STATE_FLAG_ESTOP_LATCHED))
    for _ in range(20):
        mcu.time_ns += 10_000_000
        link.poll()
    assert len(mcu.of(Estop)) <= sent + 1


def test_hold_is_sent_again_until_answered_and_the_caller_does_not_wait() -> None:
    mcu, link = armed()
    mcu.swallow = swallow_first(Ack, 2)
    start = mcu.time_ns
    link.hold()
    assert mcu.time_ns == start
    for _ in range(30):
        mcu.time_ns += 10_000_000
        link.poll()
    assert len(mcu.of(Hold)) == 3


def test_disarming_takes_the_armed_bit_away_only_after_the_answer() -> None:
    mcu, link = armed()
    mcu.refuse[Disarm] = AckCode.OK  # taken, but the state of the MCU does not change yet
    mcu.swallow = swallow_first(Ack)
    link.disarm()
    beats = mcu.of(Heartbeat)
    assert all(beat.flags for beat in beats)  # type: ignore[attr-defined]
    assert not link.state.armed
    assert len(mcu.of(Disarm)) == 2


def test_noise_between_the_frames_changes_nothing() -> None:
    mcu, link = armed()
    for index in range(50):
        mcu.say_raw(bytes((index * 37 + k * 91) & 255 for k in range(index)))
        mcu.say_raw(b"\x00")
        mcu.time_ns += 10_000_000
        mcu.say(mcu.report())
        link.poll()
    assert link.state.armed
    assert link.state.counters.framing.bad_crc + link.state.counters.framing.bad_cobs > 10


def test_the_lost_lock_answer_is_not_taken_for_another_hosts_table() -> None:
    mcu = FakeMcu()
    link = Link(mcu, LIMITS, clock=mcu.now_ns)
    link.connect()
    mcu.refuse[LimitsCommit] = AckCode.BAD_LIMITS_CRC
    with pytest.raises(LinkError, match="BAD_LIMITS_CRC"):
        link.configure()


@pytest.mark.parametrize(("places", "knots", "fits"), [(32, 32, True), (32, 33, False), (255, 65, False)])
def test_a_chunk_that_the_timeline_of_this_mcu_cannot_hold_is_not_sent(places: int, knots: int, fits: bool) -> None:
    mcu = FakeMcu()
    mcu.max_knots = places
    link = Link(mcu, LIMITS, clock=mcu.now_ns)
    link.connect()
    link.configure()
    link.arm()
    q = np.tile(HOME[:1], (knots, 1))
    if fits:
        link.send_chunk(mcu.now_ns() + DT, DT, q, 1)
    else:
        with pytest.raises(ChunkRefused, match=rf"1\.\.{min(places, 64)},"):
            link.send_chunk(mcu.now_ns() + DT, DT, q, 1)
    assert [chunk.n for chunk in mcu.of(Chunk)] == ([knots] if fits else [])
