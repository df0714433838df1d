"""A chunk of motion as the wire carries it: checked, then converted. What is refused here never reaches the arm."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import ChunkRefused
from firmware_bridge.host.limits import MICRO, LimitTable
from firmware_bridge.host.messages import (
    CHUNK_HEADER_BYTES,
    CRC_BYTES,
    HEADER_BYTES,
    HORIZON_MAX_US,
    MAX_BODY_BYTES,
    MAX_KNOTS,
    Chunk,
    ChunkEncoding,
    ChunkInterpolation,
    ChunkMode,
)

F64 = NDArray[np.float64]
_I16, _I32 = np.dtype("<i2"), np.dtype("<i4")
BLEND_MS = 20
"""Shortest time over which the running plan passes into the new one: two control cycles of the host."""
_SAMPLE_BYTES_MAX = MAX_BODY_BYTES - HEADER_BYTES - CRC_BYTES - CHUNK_HEADER_BYTES


def micro_knots(
    q: F64, limits: LimitTable, encoding: ChunkEncoding, max_knots: int = MAX_KNOTS
) -> NDArray[np.int64]:
    """Knots [H, D] in axis units -> whole micro-units. ``max_knots``: places on the timeline of the MCU (HELLO).

    Raises:
        ChunkRefused: not [H, D], too long for one frame, a number that is none, or one outside the position limits.
    """
    values = np.asarray(q, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != limits.dof or not 1 <= len(values) <= max_knots:
        raise ChunkRefused(f"chunk of shape {values.shape}", expected=f"[1..{max_knots}, {limits.dof}]")
    width = 2 if encoding is ChunkEncoding.I16_LSB else 4
    if values.size * width > _SAMPLE_BYTES_MAX:
        most = _SAMPLE_BYTES_MAX // width // limits.dof
        raise ChunkRefused(
            f"chunk of {len(values)} knots", expected=f"at most {most} in one frame",
            remedy="send the first knots now and the rest with the next plan",
        )
    low, high = limits.knots.low, limits.knots.high
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * MICRO)
        inside = (scaled >= low) & (scaled <= high)  # false for a number that is none
    if not inside.all():
        knot, axis = (int(i) for i in np.argwhere(~inside)[0])
        raise ChunkRefused(
            f"knot {knot}, axis {limits.names[axis]} is {values[knot, axis]}",
            expected=f"a number in {low[axis] / MICRO:g} .. {high[axis] / MICRO:g}",
        )
    return scaled.astype(np.int64)


def check_times(t0_ns: int, dt_ns: int, knots: int, now_ns: int) -> None:
    """Refuse what the wire cannot say, or what the MCU would take for another time.

    Raises:
        ChunkRefused: spacing not a multiple of 10 us in 1..655.35 ms; ends before now; or reaches beyond the horizon.
    """
    if dt_ns % 10_000 or not 1_000_000 <= dt_ns <= 655_350_000:
        raise ChunkRefused(f"knot spacing {dt_ns} ns", expected="a multiple of 10 us, 1 ms .. 655.35 ms")
    ahead_ns = t0_ns + (knots - 1) * dt_ns - now_ns
    if not 0 < ahead_ns <= HORIZON_MAX_US * 1000:
        raise ChunkRefused(
            f"the last knot is {ahead_ns / 1e9:.3f} s from now",
            expected=f"more than 0, at most {HORIZON_MAX_US / 1e6:g} s",
            remedy="late is wrong: send the newest plan",
        )


def _compact(samples: NDArray[np.int64], limits: LimitTable) -> bytes:
    """int16 in steps of each axis' lsb, rounded to the nearest step that lies inside the position limits.

    The quotient is taken in float64 (numpy divides integers one by one): numerators are whole and below 2^28, steps at
    least 1/12000 apart from the next integer, so its floor is exact.
    """
    bounds = limits.knots
    steps = np.floor((2.0 * samples + bounds.lsb) / (2.0 * bounds.lsb))
    return np.minimum(np.maximum(steps, bounds.step_low), bounds.step_high).astype(_I16).tobytes()


def chunk_message(
    samples: NDArray[np.int64], t0_us: int, dt_ns: int, chunk_id: int, limits: LimitTable, encoding: ChunkEncoding
) -> Chunk:
    """The frame for knots from :func:`micro_knots`; ``t0_us`` in the MCU's clock."""
    compact = encoding is ChunkEncoding.I16_LSB
    return Chunk(
        chunk_id=chunk_id,
        t0_us=t0_us & 0xFFFFFFFF,
        dt_10us=dt_ns // 10_000,
        n=len(samples),
        axes=samples.shape[1],
        encoding=encoding,
        mode=ChunkMode.REPLACE_FROM_T0,
        blend_ms=BLEND_MS,
        interpolation=ChunkInterpolation.HERMITE,
        samples=_compact(samples, limits) if compact else samples.astype(_I32).tobytes(),
    )
