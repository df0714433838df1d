"""What the MCU believes of a host: heartbeats by their own stamp, a known clock, the configuration that it knows of."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.framing import encode_frame
from firmware_bridge.host.messages import AckCode, McuState
from tests.firmware.mcu import Mcu
from tests.firmware.test_supervision import running

SILENT = m.HOST_SILENT_US


def beat(mcu: Mcu, sent_us: int, *, clock_error_us: int = 0, policy: int | None = None) -> None:
    mcu.policy_counter += 1
    counter = mcu.policy_counter if policy is None else policy
    mcu.send(m.Heartbeat(sent_us, counter, clock_error_us, m.Degrade.NOMINAL, m.HEARTBEAT_FLAG_ARMED))


def stats(mcu: Mcu) -> m.Stats:
    """The newest, within a second."""
    mcu.inbox.clear()
    for _ in range(110):
        mcu.tick(10)
        found = [s for s in mcu.inbox if isinstance(s, m.Stats)]
        if found:
            return found[-1]
    raise AssertionError("no STATS")


# -- heartbeats ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("age_us", "alive"),
    [(0, True), (SILENT - 1, True), (SILENT, False), (10 * SILENT, False), (-m.HEARTBEAT_AHEAD_MAX_US, True),
     (-m.HEARTBEAT_AHEAD_MAX_US - 1, False), (-(1 << 62), False)],
)  # fmt: skip
def test_a_heartbeat_is_a_sign_of_life_by_its_own_stamp(age_us: int, alive: bool) -> None:
    mcu = Mcu()
    beat(mcu, mcu.now_us - age_us)
    assert (mcu.report().heartbeat_age_ms != 65_535) == alive
    assert stats(mcu).heartbeats_stale == (not alive)


def test_a_heartbeat_without_a_stamp_is_no_sign_of_life() -> None:
    mcu = Mcu()
    beat(mcu, 0)
    assert mcu.report().heartbeat_age_ms == 65_535 and stats(mcu).heartbeats_stale == 1


def test_heartbeats_that_waited_in_a_buffer_do_not_keep_a_dead_hosts_arm_alive() -> None:
    """The host died; a buffer hands over what it said, one every 20 ms as before. The arm stops 100 ms after the last
    that was made, not after the last that came."""
    mcu = running()
    mcu.heartbeat_on = False
    died_us = mcu.now_us
    waiting = [died_us - 400_000 + 20_000 * k for k in range(20)]
    for sent_us in waiting:
        beat(mcu, sent_us)
        mcu.tick(20)
        if mcu.state == McuState.STOP:
            break
    assert mcu.state == McuState.STOP
    assert mcu.now_us - died_us <= SILENT + 21_000
    assert mcu.report().stop_cause == m.StopCause.HOST_SILENT


@pytest.mark.parametrize(
    ("waited_ms", "behind", "code"),
    [(0, 1, AckCode.OLD_CHUNK), (999, 0x7FFF, AckCode.OLD_CHUNK), (999, 0x8000, AckCode.OK), (1000, 1, AckCode.OK)],
)
def test_a_chunk_sent_before_a_hold_does_not_move_the_arm_for_a_second_after_it(
    waited_ms: int, behind: int, code: AckCode
) -> None:
    """Later than that it did not wait in a queue: half of the numbers may have been used by then."""
    mcu = Mcu().ready([0])
    mcu.tick()
    assert mcu.ask(mcu.chunk([(0,)] * 16)).code == AckCode.OK, "no hold yet"
    assert mcu.ask(m.Hold()).code == AckCode.OK
    held = mcu.seq
    mcu.tick(waited_ms)
    mcu.seq = held - behind - 1
    ack = mcu.ask(mcu.chunk([(0,)] * 16))
    assert ack.code == code
    assert mcu.state == (McuState.RUN if code == AckCode.OK else McuState.ARMED)


def test_an_overtaken_heartbeat_takes_nothing_back() -> None:
    mcu = running()
    mcu.heartbeat_on = False
    old = m.Heartbeat(mcu.now_us - 50_000, 9999, 0, m.Degrade.SAFE_OFF, 0)
    beat(mcu, mcu.now_us)
    mcu.send(old)
    mcu.tick()
    assert mcu.state == McuState.RUN and mcu.report().degrade == m.Degrade.NOMINAL


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-SILENT * 3, m.HEARTBEAT_AHEAD_MAX_US * 2), max_size=12))
def test_whatever_heartbeats_say_the_arm_moves_only_within_100_ms_of_a_true_one(ages: list[int]) -> None:
    mcu = running()
    mcu.heartbeat_on = False
    newest = mcu.now_us
    for offset in ages:
        sent = mcu.now_us + offset
        if offset <= m.HEARTBEAT_AHEAD_MAX_US:
            newest = max(newest, min(sent, mcu.now_us))
        beat(mcu, sent)
        mcu.tick(15)
        if mcu.now_us - newest > SILENT + 1000:
            assert mcu.state not in (McuState.ARMED, McuState.RUN, McuState.STARVED)
            return


# -- the clock -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("error_us", "code"), [(1000, AckCode.OK), (1001, AckCode.CLOCK), (0xFFFFFFFF, AckCode.CLOCK)])
def test_arming_needs_a_host_that_knows_this_clock(error_us: int, code: AckCode) -> None:
    mcu = Mcu()
    mcu.tick(21)
    mcu.configure()
    beat(mcu, mcu.now_us, clock_error_us=error_us)
    ack = mcu.arm()
    assert ack.code == code and (code == AckCode.OK or ack.arg == min(error_us, 0x7FFFFFFF))
    assert mcu.state == (McuState.ARMED if code == AckCode.OK else McuState.CONFIGURED)


def test_a_chunk_of_a_host_that_lost_the_clock_is_refused_and_the_running_one_goes_on() -> None:
    mcu = running()
    mcu.heartbeat_on = False
    refused = stats_after = mcu.chunk([(0,)] * 16)
    beat(mcu, mcu.now_us, clock_error_us=m.CLOCK_ERROR_MAX_US + 1)
    assert mcu.ask(refused).code == AckCode.CLOCK
    assert mcu.state == McuState.RUN
    beat(mcu, mcu.now_us, clock_error_us=m.CLOCK_ERROR_MAX_US)
    assert mcu.ask(stats_after).code != AckCode.CLOCK


def test_a_bound_that_is_too_old_is_no_bound() -> None:
    """Between the last heartbeat's hundredth millisecond and the tick that notices."""
    mcu = running()
    mcu.heartbeat_on = False
    beat(mcu, mcu.now_us)
    mcu.now_us += SILENT
    assert mcu.state == McuState.RUN
    assert mcu.ask(mcu.chunk([(0,)] * 16)).code == AckCode.CLOCK


# -- the configuration -----------------------------------------------------------------------------------------------


def test_an_arm_that_was_made_for_an_earlier_configuration_does_not_arm() -> None:
    mcu = Mcu().ready()
    again = mcu.frame(m.Arm.TYPE, m.Arm(mcu.limits_crc(), m.SCHEMA_HASH).pack())
    mcu.ask(m.Disarm())
    mcu.tick(3)
    assert mcu.state == McuState.DISARMED
    mcu.configure()
    mcu.raw(again)  # a repetition that was on its way all the time
    (ack,) = [a for a in mcu.pump() if isinstance(a, m.Ack)]
    assert ack.code == AckCode.EPOCH and mcu.state == McuState.CONFIGURED
    assert mcu.arm().code == AckCode.OK


def test_a_chunk_that_was_made_for_an_earlier_arming_moves_nothing() -> None:
    mcu = Mcu().ready()
    stale = mcu.frame(m.Chunk.TYPE, mcu.chunk([(0,)] * 16, lead_us=200_000, chunk_id=7).pack())
    mcu.ask(m.Disarm())
    mcu.tick(3)
    mcu.configure()
    assert mcu.arm().code == AckCode.OK
    mcu.raw(stale)
    (ack,) = [a for a in mcu.pump() if isinstance(a, m.Ack)]
    assert ack.code == AckCode.EPOCH and mcu.state == McuState.ARMED


def test_the_epoch_wraps_and_still_tells_neighbours_apart() -> None:
    mcu = Mcu()
    mcu.heartbeat_on = True
    epochs = []
    for _ in range(260):
        mcu.tick(2)
        mcu.configure()
        epochs.append(mcu.epoch)
        mcu.ask(m.Disarm())
    assert all((b - a) % 256 == 1 for a, b in itertools.pairwise(epochs))


# -- babble --------------------------------------------------------------------------------------------------------


def flood(mcu: Mcu, frames: list[bytes], ticks: int) -> None:
    for _ in range(ticks):
        for frame in frames:
            mcu.raw(frame)
        mcu.tick()


def test_more_commands_than_a_tick_can_bear_are_counted_and_dropped() -> None:
    mcu = Mcu()
    mcu.tick()
    for _ in range(100):
        mcu.raw(mcu.frame(m.TimeReq.TYPE, m.TimeReq(1).pack()))
    assert len([t for t in mcu.pump() if isinstance(t, m.TimeResp)]) == m.ANSWERS_PER_TICK
    assert stats(mcu).rx_flooded == 100 - m.ANSWERS_PER_TICK


def test_an_emergency_stop_is_heard_in_the_middle_of_any_flood() -> None:
    mcu = running()
    for _ in range(500):
        mcu.raw(mcu.frame(m.TimeReq.TYPE, m.TimeReq(1).pack()))
    mcu.raw(mcu.frame(m.Estop.TYPE, b""))
    assert mcu.state == McuState.ESTOP


def test_a_storm_of_hello_requests_does_not_drown_the_states() -> None:
    mcu = running()
    mcu.inbox.clear()
    request = [mcu.frame(m.HelloReq.TYPE, m.HelloReq(k + 1).pack()) for k in range(12)]  # as many as 3 Mbaud carry
    flood(mcu, request, 200)
    states = [s for s in mcu.inbox if isinstance(s, m.State)]
    hellos = [h for h in mcu.inbox if isinstance(h, m.Hello)]
    assert len(states) == 20 and mcu.state == McuState.RUN
    assert 15 <= len(hellos) <= 21
    found = stats(mcu)
    assert found.tx_dropped == 0 and found.late_ticks == 0


def test_a_valid_flood_of_commands_costs_states_only_where_the_ring_is_full_and_says_so() -> None:
    mcu = Mcu()
    mcu.tick()
    sent = 40
    for _ in range(50):
        for _ in range(sent):
            mcu.raw(mcu.frame(m.LimitsGet.TYPE, m.LimitsGet(0).pack()))
        mcu.now_us += 1000
        mcu.lib.ewl_tick(mcu.handle, mcu.now_us)  # nobody reads
    mcu.pump()
    found = stats(mcu)
    assert found.rx_frames >= 50 * sent
    assert found.rx_flooded == 50 * (sent - m.ANSWERS_PER_TICK)
    assert found.tx_dropped > 0


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(1, 30))
def test_noise_of_any_kind_never_arms_nor_stops_the_ticks(noise: bytes, times: int) -> None:
    mcu = running()
    before = mcu.report().tick
    for _ in range(times):
        mcu.raw(noise)
        mcu.tick()
    mcu.raw(b"\0")
    assert mcu.report().tick - before >= times
    assert mcu.state == McuState.RUN


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=40)), max_size=30))
def test_well_formed_messages_of_any_type_and_content_never_arm(messages: list[tuple[int, bytes]]) -> None:
    mcu = Mcu()
    mcu.tick(21)
    for kind, payload in messages:
        if kind == m.Arm.TYPE:
            continue
        mcu.raw(encode_frame(struct.pack("<BBHH", kind, mcu.epoch, 1, mcu.session) + payload))
        mcu.tick()
    assert not mcu.drive_on
    assert mcu.state in (McuState.DISARMED, McuState.CONFIGURED, McuState.ESTOP)
