"""What the core does when its own memory or its own arithmetic is wrong."""

from __future__ import annotations

import ctypes
import itertools
import struct
from pathlib import Path

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.framing import FrameReceiver, crc32c
from firmware_bridge.host.messages import McuState
from tests.firmware import processor
from tests.firmware.mcu import Mcu
from tests.firmware.test_latches import CRC_WORD, _noinit, reset

SUB = 4096
"""The core's positions are in 1/4096 micro-unit, its velocities in that per tick of 1 ms."""


def find(mcu: Mcu, value: int, word: type[ctypes.c_int64 | ctypes.c_int32], copies: int = 1) -> ctypes.c_int64:
    """The first word of the core with this value, of which there are so many."""
    size = ctypes.sizeof(word)
    words = [at for at in range(0, 27_000, size) if word.from_address(mcu.handle + at).value == value]
    assert len(words) == copies
    return word.from_address(mcu.handle + words[0])  # type: ignore[return-value]


@pytest.mark.parametrize("q", [500_001, -500_001, 499_999, 123_457])
def test_a_commanded_position_that_changes_by_itself_is_found_in_the_same_tick(q: int) -> None:
    mcu = Mcu().ready([123_456])
    word = find(mcu, 123_456 * SUB, ctypes.c_int64, copies=2)  # position, and where its stop would end
    mcu.tick()
    assert mcu.state == McuState.ARMED
    word.value = q * SUB
    mcu.tick()
    assert mcu.state == McuState.FAULT and not mcu.drive_on
    assert mcu.report().fault == m.Fault.LIMITER_CHECK


def test_a_limit_that_changes_by_itself_is_found_before_the_axis_passes_the_one_the_host_sent() -> None:
    fast = (-500_000, 500_000, 800_000, 2_000_000_000, 1_000_000, 500_000, 20, 4_000_000_000)
    path = [(0,), (0,), (39_000,), (39_000,)]  # rest to rest in 50 ms: 1.17 m/s in between
    mcu = Mcu([fast]).ready([0])
    mcu.ask(mcu.chunk(path))
    steps = [q for (q,) in mcu.tick(150)]
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 801 and mcu.report().clipped
    mcu = Mcu([fast]).ready([0])
    find(mcu, 800 * SUB, ctypes.c_int32).value *= 2
    mcu.ask(mcu.chunk(path))
    mcu.until(McuState.FAULT, 200)
    assert not mcu.drive_on and mcu.report().fault == m.Fault.LIMITER_CHECK


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("limit", [10 * SUB, 4 * SUB], ids=["acceleration", "jerk"])
def test_an_acceleration_or_a_jerk_beyond_what_the_host_sent_is_found_in_the_tick_that_commands_it(
    limit: int, side: int
) -> None:
    """10 um/tick^2 and 4 um/tick^3, as the limiter has them."""
    mcu = Mcu().ready([0])
    find(mcu, limit, ctypes.c_int32).value *= 2
    mcu.ask(mcu.chunk([(side * 20_000 * k,) for k in range(16)], lead_us=2_000, blend_ms=0))
    assert mcu.until(McuState.FAULT, 20) > 0
    assert not mcu.drive_on and mcu.report().fault == m.Fault.LIMITER_CHECK


@pytest.mark.parametrize(("at", "change"), [(0, 1), (8, 1), (8, -1), (12, 5 * SUB), (12, -5 * SUB)])
def test_what_is_remembered_of_the_last_tick_and_changes_by_itself_is_found_in_the_next(at: int, change: int) -> None:
    """The shadow: position, velocity and acceleration, inverted."""
    mcu = Mcu().ready([123_456])
    shadow = ctypes.addressof(find(mcu, ~(123_456 * SUB), ctypes.c_int64))
    (ctypes.c_int64 if at == 0 else ctypes.c_int32).from_address(shadow + at).value += change
    mcu.tick()
    assert mcu.state == McuState.FAULT and not mcu.drive_on
    assert mcu.report().fault == m.Fault.LIMITER_CHECK


@pytest.mark.parametrize("zero", [False, True])
def test_a_session_that_would_repeat_its_predecessor_or_be_zero_is_changed(zero: bool) -> None:
    """The hash of (entropy, boots, predecessor) that gives the predecessor again, or zero, found by search."""
    seed, previous = next(
        (seed, previous) for seed in itertools.count(2) for previous in range(1, 65_536)
        if crc32c(struct.pack("<III", seed, 2, previous)) & 0xFFFF == (0 if zero else previous)
    )  # fmt: skip
    mcu = Mcu(seed=seed)
    record = _noinit(mcu)
    record[5] = previous
    record[CRC_WORD] = crc32c(struct.pack(f"<{CRC_WORD}I", *record[:CRC_WORD]))
    assert reset(mcu, m.ResetCause.SOFTWARE).boots == 2
    assert mcu.session == (1 if zero else previous + 1)


def test_the_last_words_to_the_drive_are_one_frame_that_drops_the_enable() -> None:
    mcu = Mcu()
    buffer = ctypes.create_string_buffer(16)
    mcu.lib.ew_drive_off.restype = ctypes.c_size_t
    count = mcu.lib.ew_drive_off(buffer)
    (body,) = FrameReceiver().feed(b"\x05half a frame" + buffer.raw[:count])
    assert m.Setpoint.unpack(body[1:]) == m.Setpoint(0, 0, ())


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processor.build(tmp_path_factory.mktemp("processor"))


@pytest.mark.parametrize("wrong", processor.WRONG)
def test_a_processor_that_computes_wrongly_comes_up_in_fault(program: Path, wrong: str) -> None:
    good = wrong == "nothing"
    state, fault = (McuState.DISARMED, m.Fault.NONE) if good else (McuState.FAULT, m.Fault.SELFTEST)
    assert processor.boot(program, wrong) == (state, fault, 0)


def test_what_the_port_measures_is_reported() -> None:
    mcu = Mcu()
    mcu.lib.ew_port_stats.restype = ctypes.POINTER(ctypes.c_uint32 * 3)
    mcu.lib.ew_port_stats.argtypes = [ctypes.c_void_p]
    mcu.lib.ew_port_stats(mcu.handle).contents[:] = [11, 22, 33]
    mcu.tick(1010)
    stats = [s for s in mcu.inbox if isinstance(s, m.Stats)][-1]
    assert (stats.rx_overrun, stats.watchdog_margin_min_us, stats.stack_free_min) == (11, 22, 33)
