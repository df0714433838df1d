"""A processor that computes wrongly: the core with four of its functions replaced by stand-ins that may be wrong."""

from __future__ import annotations

import subprocess
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build

WRONG = (
    "nothing", "a checksum", "an encoded length", "a decoded length", "a decoded byte",
    "a setpoint that does not arrive", "a setpoint outside its limit", "a limiter that finds itself broken",
)  # fmt: skip
"""What is computed wrongly; the place is the number that the program takes."""
_PROGRAM = """
#include "ew_core.h"
#include <stdio.h>
#include <stdlib.h>
static ew_t core;
static ew_noinit_t noinit;
static int wrong;

uint32_t __real_ew_crc32c(const uint8_t *data, size_t count, uint32_t seed);
uint32_t __wrap_ew_crc32c(const uint8_t *data, size_t count, uint32_t seed)
{
    return __real_ew_crc32c(data, count, seed) ^ (wrong == 1 ? 1u : 0u);
}

size_t __real_ew_cobs_encode(const uint8_t *in, size_t count, uint8_t *out);
size_t __wrap_ew_cobs_encode(const uint8_t *in, size_t count, uint8_t *out)
{
    return __real_ew_cobs_encode(in, count, out) + (wrong == 2 ? 1u : 0u);
}

size_t __real_ew_cobs_decode(const uint8_t *in, size_t count, uint8_t *out, size_t capacity);
size_t __wrap_ew_cobs_decode(const uint8_t *in, size_t count, uint8_t *out, size_t capacity)
{
    const size_t got = __real_ew_cobs_decode(in, count, out, capacity);
    out[1] ^= wrong == 4 ? 1u : 0u;
    return got ^ (wrong == 3 ? 1u : 0u);
}

void __real_ew_limiter_follow(ew_axis_motion_t *axis, const ew_target_t *target, const ew_axis_limits_t *limits);
void __wrap_ew_limiter_follow(ew_axis_motion_t *axis, const ew_target_t *target, const ew_axis_limits_t *limits)
{
    __real_ew_limiter_follow(axis, target, limits);
    if (wrong == 5 && axis->position == limits->position_max) {
        axis->position--;
    } else if (wrong == 6) {
        axis->velocity = limits->velocity_max + 1;
    } else if (wrong == 7) {
        axis->broken = true;
    }
}

int main(int count, char **words)
{
    const ew_port_info_t port = {1u, 1u, 4000u, 50000u, 0u};
    wrong = count > 1 ? atoi(words[1]) : 0;
    ew_init(&core, &port, &noinit, 0u);
    ew_tick(&core, 1000u);
    printf("%d %d %d\\n", ew_state(&core), (int)noinit.fault, ew_drive_enabled(&core));
    return 0;
}
"""
_REPLACED = ("ew_crc32c", "ew_cobs_encode", "ew_cobs_decode", "ew_limiter_follow")


def build(folder: Path, *flags: str) -> Path:
    """The program, below ``folder``."""
    source, program = folder / "processor.c", folder / "processor"
    source.write_text(_PROGRAM)
    core = mcu_build.HERE / "core"
    subprocess.run(
        ["cc", "-std=c11", f"-I{core}", *(f"-Wl,--wrap={name}" for name in _REPLACED), *flags, str(source),
         *map(str, sorted(core.glob("*.c"))), "-o", str(program)], cwd=folder, check=True,
    )  # fmt: skip
    return program


def boot(program: Path, wrong: str) -> tuple[int, int, int]:
    """State, latched fault and drive enable of a core that booted on such a processor and ran a tick."""
    call = [str(program), str(WRONG.index(wrong))]
    state, fault, drive = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    return int(state), int(fault), int(drive)
