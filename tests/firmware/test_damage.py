"""What the core does when its own memory or its own arithmetic is wrong."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.framing import FrameReceiver, crc32c
from firmware_bridge.host.messages import McuState
from firmware_bridge.mcu import build as mcu_build
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


def test_a_session_that_would_repeat_its_predecessor_or_be_zero_is_changed() -> None:
    """The hash of (entropy, boots, predecessor) that gives the predecessor again, found by search."""
    seed, found = 1, None
    while found is None:
        seed += 1
        for previous in range(1, 65_536):
            if crc32c(struct.pack("<III", seed, 2, previous)) & 0xFFFF in (previous, 0):
                found = previous
                break
    mcu = Mcu(seed=seed)
    record = _noinit(mcu)
    record[5] = found
    record[CRC_WORD] = crc32c(struct.pack(f"<{CRC_WORD}I", *record[:CRC_WORD]))
    assert reset(mcu, m.ResetCause.SOFTWARE).boots == 2
    would_be = crc32c(struct.pack("<III", seed, 2, found)) & 0xFFFF
    assert mcu.session == would_be + 1 and mcu.session not in (0, found)


def test_the_last_words_to_the_drive_are_one_frame_that_drops_the_enable() -> None:
    mcu = Mcu()
    buffer = ctypes.create_string_buffer(16)
    mcu.lib.ew_drive_off.restype = ctypes.c_size_t
    count = mcu.lib.ew_drive_off(buffer)
    (body,) = FrameReceiver().feed(b"\x05half a frame" + buffer.raw[:count])
    assert m.Setpoint.unpack(body[1:]) == m.Setpoint(0, 0, ())


_WRAPPED = """
#include "ew_core.h"
#include <stdio.h>
static ew_t core;
static ew_noinit_t noinit;
uint32_t __real_ew_crc32c(const uint8_t *data, size_t count, uint32_t seed);
uint32_t __wrap_ew_crc32c(const uint8_t *data, size_t count, uint32_t seed);
uint32_t __wrap_ew_crc32c(const uint8_t *data, size_t count, uint32_t seed)
{
    return __real_ew_crc32c(data, count, seed) ^ 1u;
}
int main(void)
{
    const ew_port_info_t port = {1u, 1u, 4000u, 50000u, 0u};
    ew_init(&core, &port, &noinit, 0u);
    ew_tick(&core, 1000u);
    printf("%d %d %d\\n", ew_state(&core), (int)noinit.fault, ew_drive_enabled(&core));
    return 0;
}
"""


def test_a_processor_that_computes_wrongly_comes_up_in_fault(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    assert compiler is not None
    source, program = tmp_path / "wrong.c", tmp_path / "wrong"
    source.write_text(_WRAPPED)
    core = mcu_build.HERE / "core"
    subprocess.run(
        [compiler, "-std=c11", f"-I{core}", "-Wl,--wrap=ew_crc32c", str(source), *map(str, core.glob("*.c")),
         "-o", str(program)],
        check=True,
    )  # fmt: skip
    said = subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.split()
    assert [int(word) for word in said] == [McuState.FAULT, m.Fault.SELFTEST, 0]


def test_what_the_port_measures_is_reported() -> None:
    mcu = Mcu()
    mcu.lib.ew_port_stats.restype = ctypes.POINTER(ctypes.c_uint32 * 3)
    mcu.lib.ew_port_stats.argtypes = [ctypes.c_void_p]
    mcu.lib.ew_port_stats(mcu.handle).contents[:] = [11, 22, 33]
    mcu.tick(1010)
    stats = [s for s in mcu.inbox if isinstance(s, m.Stats)][-1]
    assert (stats.rx_overrun, stats.watchdog_margin_min_us, stats.stack_free_min) == (11, 22, 33)
