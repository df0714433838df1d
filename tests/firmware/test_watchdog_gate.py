"""The watchdog is fed only when everybody has reported; what its resets leave behind; the emergency stop input."""

from __future__ import annotations

import ctypes

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.messages import AckCode, Check, Fault, McuState, ResetCause
from tests.firmware.mcu import Mcu
from tests.firmware.test_latches import _noinit, reset
from tests.firmware.test_supervision import running

GUARD = 0x45574741
"""EW_CANARY: the first and the last word of the core."""
PORT = {Check.STACK, Check.COMMS, Check.INTERRUPT}


class Ported(Mcu):
    """As on a board: the port reports three more things."""

    def __init__(self) -> None:
        super().__init__()
        self.lib.ewl_wants_checks(self.handle, sum(1 << check for check in PORT))

    def turn(self, *missing: Check) -> bool:
        """One turn of the main loop; may the watchdog be fed?"""
        self.tick()
        for check in PORT - set(missing):
            self.lib.ew_check_in(self.handle, check)
        return bool(self.lib.ewl_feed_allowed(self.handle))

    def press(self, pressed: bool) -> None:
        self.lib.ewl_estop_input(self.handle, pressed)


def test_the_watchdog_is_fed_when_all_have_reported_and_only_once() -> None:
    mcu = Ported()
    assert [mcu.turn() for _ in range(5)] == [True] * 5
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)


@pytest.mark.parametrize("missing", sorted(PORT))
def test_one_who_does_not_report_starves_the_watchdog_and_is_named_after_the_reset(missing: Check) -> None:
    mcu = Ported()
    assert mcu.turn()
    assert not any(mcu.turn(missing) for _ in range(20))
    hello = reset(mcu, ResetCause.WATCHDOG, 0x88)
    assert hello.reset_missing == 1 << missing
    assert mcu.turn() or mcu.turn(), "a new life begins with nobody missing"
    assert reset(mcu, ResetCause.SOFTWARE).reset_missing == 0


def test_a_tick_that_comes_too_late_is_no_reason_to_feed() -> None:
    mcu = Mcu()
    mcu.tick()
    assert mcu.lib.ewl_feed_allowed(mcu.handle)
    mcu.now_us += m.TICK_GAP_MAX_US + 1
    mcu.tick()
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)
    mcu.tick()
    assert mcu.lib.ewl_feed_allowed(mcu.handle)


def table_word(mcu: Mcu, value: int) -> ctypes.c_uint32:
    """The first word of the core's memory that holds ``value``."""
    for at in range(0, 1 << 14, 4):
        word = ctypes.c_uint32.from_address(mcu.handle + at)
        if word.value == value:
            return word
    raise AssertionError(f"{value} not found")


def test_a_bit_that_flips_in_the_locked_limit_table_is_found_within_two_passes_over_it() -> None:
    row = (-500_000, 500_000, 800_000, 10_000_000, 250_000, 80_000, 20, 4_000_000, 0, 1_000_000, 200_001, 25)
    mcu = Mcu([(*row[:4], 249_983, *row[5:])] * 16).ready()
    assert mcu.lib.ewl_feed_allowed(mcu.handle)
    table_word(mcu, 249_983).value ^= 1 << 20  # the following error that is tolerated
    mcu.tick(2 * (2 * 16 + 1))
    assert mcu.state == McuState.FAULT and not mcu.drive_on
    assert mcu.report().fault == Fault.MEMORY
    mcu.lib.ewl_feed_allowed(mcu.handle)
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)


@pytest.mark.parametrize("guard", [0, -1], ids=["front", "back"])
def test_a_guard_word_that_changed_is_a_memory_fault_which_the_reset_does_not_rename(guard: int) -> None:
    mcu = running()
    end = ctypes.addressof(_noinit(mcu))  # behind the core
    guards = [at for at in range(mcu.handle, end, 4) if ctypes.c_uint32.from_address(at).value == GUARD]
    assert guards[0] == mcu.handle and len(guards) == 2
    ctypes.c_uint32.from_address(guards[guard]).value ^= 1
    mcu.tick()
    assert mcu.state == McuState.FAULT and not mcu.drive_on
    mcu.tick(2)
    assert not mcu.lib.ewl_feed_allowed(mcu.handle)
    hello = reset(mcu, ResetCause.WATCHDOG)
    assert hello.fault == Fault.MEMORY and hello.reset_cause == ResetCause.WATCHDOG
    assert hello.reset_missing & (1 << Check.MEMORY)


def test_code_that_changes_is_found_at_the_end_of_a_pass() -> None:
    code = (ctypes.c_uint8 * 1000)(*range(250), *range(250), *range(250), *range(250))
    mcu = Mcu()
    mcu.lib.ewl_watches_code(mcu.handle, ctypes.addressof(code), len(code))
    passes = -(-len(code) // 64)
    mcu.tick(3 * passes)
    assert mcu.state == McuState.DISARMED and mcu.lib.ewl_feed_allowed(mcu.handle)
    code[997] ^= 4
    mcu.tick(2 * passes)
    assert mcu.state == McuState.FAULT and mcu.report().fault == Fault.MEMORY


# -- storms --------------------------------------------------------------------------------------------------------


def bite(mcu: Mcu, after_s: float) -> m.Hello:
    """Lives for a while, then the watchdog resets it."""
    mcu.encoder_on = False
    for _ in range(round(after_s * 1000)):
        mcu.now_us += 1000
        mcu.lib.ewl_tick(mcu.handle, mcu.now_us)
    return reset(mcu, ResetCause.WATCHDOG)


def test_three_watchdog_resets_within_a_minute_latch_a_fault_that_only_power_clears() -> None:
    mcu = Mcu()
    assert bite(mcu, 1.0).fault == Fault.WATCHDOG
    assert bite(mcu, 29.0).fault == Fault.WATCHDOG
    hello = bite(mcu, 30.9)
    assert (hello.fault, hello.watchdog_resets) == (Fault.WATCHDOG_STORM, 3)
    ack = mcu.ask(m.FaultAck(Fault.WATCHDOG_STORM))
    assert (ack.code, ack.arg) == (AckCode.POWER_CYCLE, Fault.WATCHDOG_STORM)
    for cause in (ResetCause.SOFTWARE, ResetCause.HARD_FAULT, ResetCause.UNKNOWN, ResetCause.WATCHDOG):
        assert reset(mcu, cause).fault == Fault.WATCHDOG_STORM
        assert mcu.ask(m.FaultAck(Fault.WATCHDOG_STORM)).code == AckCode.POWER_CYCLE
    assert mcu.ask(mcu.table()[0]).code == AckCode.BAD_STATE
    _noinit(mcu)[:] = [0] * len(_noinit(mcu))  # what a power cycle does
    assert reset(mcu, ResetCause.POWER_ON).fault == Fault.NONE
    assert mcu.state == McuState.DISARMED


def test_three_watchdog_resets_in_more_than_a_minute_are_three_single_ones() -> None:
    mcu = Mcu()
    bite(mcu, 1.0)
    bite(mcu, 30.0)
    hello = bite(mcu, 31.1)
    assert (hello.fault, hello.watchdog_resets) == (Fault.WATCHDOG, 2)
    assert mcu.ask(m.FaultAck(Fault.WATCHDOG)).code == AckCode.OK


def test_other_resets_in_between_neither_count_nor_stop_the_clock() -> None:
    mcu = Mcu()
    bite(mcu, 1.0)
    for _ in range(5):
        reset(mcu, ResetCause.SOFTWARE)
    assert bite(mcu, 1.0).fault == Fault.WATCHDOG
    assert bite(mcu, 1.0).fault == Fault.WATCHDOG_STORM


def test_a_watchdog_reset_is_told_until_a_minute_has_passed() -> None:
    mcu = Mcu()
    assert bite(mcu, 1.0).watchdog_resets == 1
    mcu.encoder_on = False
    mcu.tick(59_000)
    assert mcu.hello().watchdog_resets == 1
    mcu.tick(1_100)
    assert mcu.hello().watchdog_resets == 0


def test_a_brown_out_is_told_where_the_port_can() -> None:
    mcu = running()
    hello = reset(mcu, ResetCause.BROWN_OUT)
    assert (hello.reset_cause, hello.fault, hello.state) == (ResetCause.BROWN_OUT, Fault.NONE, McuState.DISARMED)


# -- the emergency stop input ------------------------------------------------------------------------------------------


def test_the_emergency_stop_input_stops_at_the_next_tick_and_holds_the_latch_while_pressed() -> None:
    mcu = Ported()
    mcu.ready()
    mcu.press(True)
    assert mcu.state == McuState.ESTOP
    mcu.tick(20)
    report = mcu.report()
    assert report.flags & m.STATE_FLAG_ESTOP_INPUT and report.flags & m.STATE_FLAG_ESTOP_LATCHED
    assert mcu.ask(m.EstopClear(mcu.hello().clear_nonce)).code == AckCode.ESTOP_INPUT
    mcu.press(False)
    mcu.tick()
    assert mcu.state == McuState.ESTOP, "letting go clears nothing"
    assert not mcu.report().flags & m.STATE_FLAG_ESTOP_INPUT
    assert mcu.ask(m.EstopClear(mcu.hello().clear_nonce)).code == AckCode.OK
    assert mcu.state == McuState.DISARMED


def test_a_pressed_input_at_boot_latches_before_anything_else() -> None:
    mcu = Ported()
    mcu.press(True)
    mcu.tick()
    assert mcu.state == McuState.ESTOP
    assert mcu.ask(mcu.table()[0]).code == AckCode.BAD_STATE


def test_an_input_that_is_never_pressed_changes_nothing() -> None:
    mcu = Ported()
    mcu.ready()
    mcu.press(False)
    mcu.tick(5)
    assert mcu.state == McuState.ARMED
