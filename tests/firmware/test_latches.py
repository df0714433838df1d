"""Emergency stop, faults and resets: what is latched stays latched, and clearing never arms."""

from __future__ import annotations

import ctypes
import itertools
import struct

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.framing import crc32c
from firmware_bridge.host.messages import AckCode, Fault, McuState, ResetCause
from tests.firmware.mcu import Mcu
from tests.firmware.test_supervision import decelerates_to_rest, running

FAULT_WORD, LIFE_WORD, UPTIME_WORD, CRC_WORD, COPY_CRC_WORD, MISSING_WORD, MARK_WORD = 3, 6, 7, 11, 23, 24, 26
"""Of the no-init record, counted from its magic: the record, its CRC, a copy, the copy's CRC; who was missing and its
complement; the mark (magic, cause, place, tick, check)."""


def reset(mcu: Mcu, cause: int, pc: int = 0) -> m.Hello:
    """Resets the MCU; the host notices by the HELLO."""
    mcu.pump()
    mcu.inbox.clear()
    mcu.lib.ewl_reset(mcu.handle, cause, pc, mcu.now_us)
    (hello,) = [h for h in mcu.pump() if isinstance(h, m.Hello)]
    mcu.session = mcu._last_session
    return hello


def test_an_emergency_stop_brakes_at_the_next_tick_switches_off_at_rest_and_stays_latched() -> None:
    mcu = running()
    assert mcu.ask(m.Estop()).code == AckCode.OK
    assert mcu.state == McuState.ESTOP and mcu.drive_on
    path = [mcu.setpoint()[0]]
    while mcu.drive_on:
        path.append(mcu.tick()[0][0])
    assert len(path) <= 1 + 80 + 2, "0.8 m/s at 10 m/s^2 is 80 ms"
    steps = [b - a for a, b in itertools.pairwise(path)]
    assert steps == sorted(steps, reverse=True)
    for message in (mcu.chunk([(0,)] * 16), m.Hold(), m.FaultAck(0), m.EstopClear(mcu.hello().clear_nonce ^ 1)):
        assert mcu.ask(message).code >= 16
    mcu.tick(3000)
    assert mcu.state == McuState.ESTOP


@pytest.mark.parametrize("session", [0, 1, 0xFFFF])
def test_an_emergency_stop_is_taken_in_any_session_and_with_any_payload(session: int) -> None:
    mcu = running()
    mcu.raw(mcu.frame(m.Estop.TYPE, b"\x01\x02\x03", session=session))
    assert mcu.state == McuState.ESTOP


def test_clearing_needs_standstill_and_the_nonce_and_leads_to_disarmed() -> None:
    mcu = running()
    mcu.ask(m.Estop())
    nonce = mcu.hello().clear_nonce
    assert mcu.ask(m.EstopClear(nonce)).code == AckCode.MOVING
    mcu.tick(100)
    assert mcu.ask(m.EstopClear(nonce ^ 1)).code == AckCode.BAD_NONCE
    assert mcu.ask(m.EstopClear(nonce)).code == AckCode.OK
    assert mcu.state == McuState.DISARMED and not mcu.drive_on
    mcu.ask(m.Estop())
    assert mcu.ask(m.EstopClear(nonce)).code == AckCode.BAD_NONCE, "a new latch has a new nonce"


def test_an_emergency_stop_survives_every_reset_and_loss_of_the_link() -> None:
    mcu = Mcu().ready()
    mcu.ask(m.Estop())
    for cause in (ResetCause.SOFTWARE, ResetCause.UNKNOWN, ResetCause.WATCHDOG, ResetCause.HARD_FAULT):
        hello = reset(mcu, cause)
        assert (hello.estop, hello.state) == (1, McuState.ESTOP)
        mcu.heartbeat_on = False
        mcu.tick(2500)
        assert mcu.state == McuState.ESTOP and not mcu.drive_on
    assert mcu.ask(m.EstopClear(mcu.hello().clear_nonce)).code == AckCode.OK
    assert mcu.state == McuState.FAULT, "the fault of the resets was hidden and is still there"
    assert mcu.ask(m.FaultAck(mcu.hello().fault)).code == AckCode.OK
    assert mcu.state == McuState.DISARMED
    assert reset(mcu, ResetCause.SOFTWARE).estop == 0, "cleared for good"


def test_after_a_watchdog_reset_the_arm_is_off_and_the_cause_and_place_are_told() -> None:
    mcu = running()
    ticks = mcu.report().tick
    old_session = mcu.session
    stale = mcu.frame(m.Chunk.TYPE, mcu.chunk([(0,)] * 16).pack())
    hello = reset(mcu, ResetCause.WATCHDOG, 0x1234_5678)
    assert (hello.reset_cause, hello.reset_pc, hello.reset_tick) == (ResetCause.WATCHDOG, 0x1234_5678, ticks)
    assert (hello.state, hello.fault, hello.locked, hello.boots) == (McuState.FAULT, m.Fault.WATCHDOG, 0, 2)
    assert mcu.session != old_session
    mcu.inbox.clear()
    mcu.raw(stale)
    (ack,) = [a for a in mcu.pump() if isinstance(a, m.Ack)]
    assert ack.code == AckCode.BAD_SESSION
    mcu.tick(100)
    assert mcu.state == McuState.FAULT and not mcu.drive_on
    assert mcu.ask(m.FaultAck(m.Fault.ENCODER_LOST)).code == AckCode.BAD_NONCE
    assert mcu.ask(m.FaultAck(m.Fault.WATCHDOG)).code == AckCode.OK
    assert mcu.state == McuState.DISARMED


@pytest.mark.parametrize(
    ("cause", "fault"),
    [
        (ResetCause.POWER_ON, m.Fault.NONE),
        (ResetCause.WATCHDOG, m.Fault.WATCHDOG),
        (ResetCause.HARD_FAULT, m.Fault.HARD_FAULT),
        (ResetCause.SOFTWARE, m.Fault.NONE),
        (ResetCause.UNKNOWN, m.Fault.NONE),
    ],
)
def test_each_reset_cause_is_reported_and_never_leaves_the_drive_on(cause: ResetCause, fault: m.Fault) -> None:
    mcu = running()
    hello = reset(mcu, cause, 7)
    assert (hello.reset_cause, hello.fault) == (cause, fault)
    mcu.tick()
    assert not mcu.drive_on
    assert mcu.state == (McuState.FAULT if fault else McuState.DISARMED)


def test_sessions_differ_from_boot_to_boot_and_are_never_zero() -> None:
    mcu = Mcu()
    sessions = [mcu.session]
    for _ in range(300):
        reset(mcu, ResetCause.SOFTWARE)
        sessions.append(mcu.session)
    assert 0 not in sessions
    assert all(a != b for a, b in itertools.pairwise(sessions))
    assert len(set(sessions)) > 250


def _noinit(mcu: Mcu, words: int = COPY_CRC_WORD + 1) -> ctypes.Array[ctypes.c_uint32]:
    """The no-init record inside the handle: it begins with its magic, behind the core."""
    at = 0
    while ctypes.c_uint32.from_address(mcu.handle + at).value != 0x45574E49:
        at += 4
    return (ctypes.c_uint32 * words).from_address(mcu.handle + at)


def seal(mcu: Mcu) -> None:
    """Makes the changed record and its copy whole."""
    record = _noinit(mcu)
    record[CRC_WORD] = crc32c(struct.pack(f"<{CRC_WORD}I", *record[:CRC_WORD]))
    record[CRC_WORD + 1 : COPY_CRC_WORD] = record[:CRC_WORD]
    record[COPY_CRC_WORD] = record[CRC_WORD]


@pytest.mark.parametrize("word", range(COPY_CRC_WORD + 1))
def test_one_flipped_bit_in_the_record_or_its_copy_loses_nothing(word: int) -> None:
    """So a reset in the middle of noting an emergency stop does not lose an earlier one."""
    mcu = Mcu()
    mcu.ask(m.Estop())
    _noinit(mcu)[word] ^= 0x100
    hello = reset(mcu, ResetCause.SOFTWARE)
    assert (hello.boots, hello.estop, hello.reset_cause) == (2, 1, ResetCause.SOFTWARE)


@pytest.mark.parametrize("word", range(CRC_WORD + 1))
def test_a_record_that_is_damaged_twice_is_not_believed(word: int) -> None:
    mcu = Mcu()
    mcu.ask(m.Estop())
    record = _noinit(mcu)
    record[word] ^= 0x100
    record[word + CRC_WORD + 1] ^= 0x100
    hello = reset(mcu, ResetCause.WATCHDOG)
    assert (hello.boots, hello.estop, hello.fault) == (1, 0, m.Fault.WATCHDOG)


@pytest.mark.parametrize(("fault", "believed"), [(max(Fault), True), (max(Fault) + 1, False), (2**32 - 1, False)])
def test_a_record_with_a_fault_that_nobody_knows_is_not_believed(fault: int, believed: bool) -> None:
    """Whole by its sums, and yet not written by this firmware."""
    mcu = Mcu()
    _noinit(mcu)[FAULT_WORD] = fault
    seal(mcu)
    hello = reset(mcu, ResetCause.SOFTWARE)
    assert (hello.boots, hello.fault) == ((2, fault) if believed else (1, Fault.NONE))


@pytest.mark.parametrize("word", range(MARK_WORD, MARK_WORD + 5))
def test_a_mark_with_one_bit_flipped_is_none(word: int) -> None:
    mcu = Mcu()
    lib, record = mcu.lib, _noinit(mcu, MARK_WORD + 5)
    lib.ew_noinit_mark.argtypes = [ctypes.c_void_p, *[ctypes.c_uint32] * 3]
    lib.ew_noinit_marked.argtypes, lib.ew_noinit_marked.restype = [ctypes.c_void_p], ctypes.c_bool
    lib.ew_noinit_mark(record, ResetCause.HARD_FAULT, 0x0800_1234, 77)
    for bit in range(32):
        record[word] ^= 1 << bit
        assert not lib.ew_noinit_marked(record)
        record[word] ^= 1 << bit
        assert lib.ew_noinit_marked(record)


@pytest.mark.parametrize("cause", [max(ResetCause) + 1, 255])
def test_a_mark_with_a_cause_that_nobody_knows_is_none(cause: int) -> None:
    hello = reset(Mcu(), cause, 0x1234)
    assert (hello.reset_cause, hello.reset_pc) == (ResetCause.UNKNOWN, 0)


def test_who_was_missing_is_told_only_if_the_note_is_whole() -> None:
    mcu = Mcu()
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)
    assert reset(mcu, ResetCause.WATCHDOG).reset_missing != 0
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)
    _noinit(mcu, MARK_WORD)[MISSING_WORD] ^= 1
    assert reset(mcu, ResetCause.WATCHDOG).reset_missing == 0


@pytest.mark.parametrize("noted_ms", [0, 499, 500, 501, 60_000])
def test_a_life_counts_to_its_mark_or_to_its_last_noted_second_whichever_is_later(noted_ms: int) -> None:
    mcu = Mcu()
    mcu.tick(500)
    _noinit(mcu)[UPTIME_WORD] = noted_ms
    seal(mcu)
    reset(mcu, ResetCause.SOFTWARE)
    assert _noinit(mcu)[LIFE_WORD] == max(500, noted_ms)


def test_a_fault_while_braking_for_an_emergency_stop_is_kept_behind_it() -> None:
    mcu = running()
    mcu.ask(m.Estop())
    mcu.now_us += 10_000
    mcu.tick(200)
    assert mcu.state == McuState.ESTOP and not mcu.drive_on
    assert mcu.report().fault == m.Fault.TICK_OVERRUN
    assert mcu.ask(m.EstopClear(mcu.hello().clear_nonce)).code == AckCode.OK
    assert mcu.state == McuState.FAULT


def test_an_emergency_stop_during_a_fault_takes_over_and_the_first_fault_is_the_one_reported() -> None:
    mcu = running()
    mcu.encoder_on = False
    mcu.until(McuState.FAULT)
    mcu.now_us += 10_000
    mcu.tick()
    assert mcu.report().fault == m.Fault.ENCODER_LOST, "what follows is its consequence"
    mcu.ask(m.Estop())
    assert mcu.state == McuState.ESTOP


def test_a_fault_cannot_be_acknowledged_while_the_axes_still_move() -> None:
    mcu = running()
    mcu.encoder_on = False
    mcu.until(McuState.FAULT)
    assert mcu.ask(m.FaultAck(m.Fault.ENCODER_LOST)).code == AckCode.MOVING


CORE_FAULTS = {Fault.SELFTEST, Fault.LIMITER_CHECK, Fault.STACK_OVERFLOW, Fault.MEMORY}


def port_fault(mcu: Mcu, fault: int) -> None:
    """A fault that the port found."""
    mcu.lib.ew_port_fault.argtypes = [ctypes.c_void_p, ctypes.c_uint16]
    mcu.lib.ew_port_fault(mcu.handle, fault)
    mcu.setpoint()


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault != Fault.NONE])
def test_faults_of_the_core_itself_switch_off_at_once_and_all_others_brake_first(fault: Fault) -> None:
    mcu = running()
    port_fault(mcu, fault)
    assert mcu.state == McuState.FAULT
    assert mcu.drive_on == (fault not in CORE_FAULTS)
    mcu.tick(100)
    assert not mcu.drive_on and mcu.report().fault == fault


def test_a_fault_of_the_core_while_braking_for_another_switches_off_and_the_first_is_reported() -> None:
    mcu = running()
    port_fault(mcu, Fault.EFFORT)
    assert mcu.drive_on
    port_fault(mcu, Fault.STACK_OVERFLOW)
    assert not mcu.drive_on and mcu.report().fault == Fault.EFFORT


@pytest.mark.parametrize("stops", [m.StopsSet(0, 0), m.StopsSet(60_000, 60_000)])
def test_an_arm_that_has_brakes_never_loses_its_torque_with_the_brakes_open(stops: m.StopsSet) -> None:
    mcu = Mcu()
    mcu.stops = stops
    running(mcu)
    assert not mcu.report().flags & m.STATE_FLAG_BRAKE_ON
    port_fault(mcu, Fault.STACK_OVERFLOW)
    assert not mcu.drive_on
    assert bool(mcu.report().flags & m.STATE_FLAG_BRAKE_ON) == (stops.brake_after_ms > 0)


@pytest.mark.parametrize("latched", [m.Estop(), None])
def test_disarming_while_braking_for_a_latch_neither_clears_nor_cuts_the_torque(latched: m.Estop | None) -> None:
    mcu = running()
    if latched is not None:
        mcu.ask(latched)
    else:
        port_fault(mcu, Fault.EFFORT)
    state = mcu.state
    assert mcu.ask(m.Disarm()).code == AckCode.OK
    mcu.setpoint()
    assert mcu.state == state and mcu.drive_on
    mcu.tick(100)
    assert mcu.state == state and not mcu.drive_on


def test_disarming_twice_is_disarming_once() -> None:
    mcu = running()
    for _ in range(3):
        assert mcu.ask(m.Disarm()).code == AckCode.OK
        mcu.tick()
        assert mcu.state == McuState.STOP and mcu.drive_on
    decelerates_to_rest(mcu)
    assert mcu.state == McuState.DISARMED


@pytest.mark.parametrize("latched", [Fault.MEMORY, Fault.STACK_OVERFLOW, Fault.WATCHDOG_STORM])
def test_a_watchdog_reset_does_not_rename_what_kept_the_watchdog_from_being_fed(latched: Fault) -> None:
    mcu = Mcu()
    port_fault(mcu, latched)
    hello = reset(mcu, ResetCause.WATCHDOG)
    assert (hello.fault, hello.watchdog_resets) == (latched, 1)
    port_fault(mcu, Fault.EFFORT)
    assert reset(mcu, ResetCause.WATCHDOG).fault == latched


def test_a_watchdog_reset_takes_the_place_of_any_other_fault() -> None:
    mcu = Mcu()
    port_fault(mcu, Fault.EFFORT)
    assert reset(mcu, ResetCause.WATCHDOG).fault == Fault.WATCHDOG


def test_disarming_while_moving_brakes_first() -> None:
    mcu = running()
    assert mcu.ask(m.Disarm()).code == AckCode.OK
    assert mcu.state == McuState.STOP and mcu.drive_on
    decelerates_to_rest(mcu)
    assert mcu.state == McuState.DISARMED and not mcu.drive_on


def test_the_watchdog_may_be_fed_once_per_good_tick_only() -> None:
    mcu = Mcu()
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)
    mcu.tick()
    assert mcu.lib.ewl_feed_allowed(mcu.handle)
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)
    mcu.lib.ewl_tick(mcu.handle, mcu.now_us)  # nothing was due
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)


def test_a_core_whose_memory_was_overwritten_is_not_fed() -> None:
    mcu = Mcu()
    mcu.tick()
    assert mcu.lib.ewl_feed_allowed(mcu.handle)
    front = ctypes.c_uint32.from_address(mcu.handle)
    front.value ^= 1
    mcu.tick()
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)


def test_the_first_message_after_a_reset_survives_a_frame_that_the_reset_cut_in_two() -> None:
    mcu = Mcu()
    mcu.raw(mcu.frame(m.TimeReq.TYPE, m.TimeReq(3).pack()))
    buffer = ctypes.create_string_buffer(7)
    assert mcu.lib.ewl_tx(mcu.handle, buffer, 7) == 7
    mcu.receiver.feed(buffer.raw)
    mcu.lib.ewl_reset(mcu.handle, ResetCause.HARD_FAULT, 1, mcu.now_us)
    assert [h.nonce for h in mcu.pump() if isinstance(h, m.Hello)] == [0]
