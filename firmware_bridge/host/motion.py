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
BLEND_MS = 20
"""Shortest time over which the running plan passes into the new one: two control cycles of the host."""
_SAMPLE_BYTES_MAX = MAX_BODY_BYTES - HEADER_BYTES - CRC_BYTES - CHUNK_HEADER_BYTES


def micro_knots(q: F64, limits: LimitTable, encoding: ChunkEncoding) -> NDArray[np.int64]:
    """Knots [H, D] in axis units -> whole micro-units.

    Raises:
        ChunkRefused: not [H, D], too long for one frame, a number that is none, or one outside the position limits.
    """
    values = np.asarray(q, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != limits.dof or not 1 <= len(values) <= MAX_KNOTS:
        raise ChunkRefused(f"chunk of shape {values.shape}", expected=f"[1..{MAX_KNOTS}, {limits.dof}]")
    width = 2 if encoding is ChunkEncoding.I16_LSB else 4
    if values.size * width > _SAMPLE_BYTES_MAX:
        most = _SAMPLE_BYTES_MAX // width // limits.dof
        raise ChunkRefused(
            f"chunk of {len(values)} knots", expected=f"at most {most} in one frame",
            remedy="send the first knots now and the rest with the next plan",
        )
    low = np.array([axis.position_min for axis in limits.axes], dtype=np.int64)
    high = np.array([axis.position_max for axis in limits.axes], dtype=np.int64)
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
    """int16 in steps of each axis' lsb, rounded to the nearest step that lies inside the position limits."""
    lsb = np.array([axis.lsb for axis in limits.axes], dtype=np.int64)
    low = -(-np.array([axis.position_min for axis in limits.axes], dtype=np.int64) // lsb)
    high = np.array([axis.position_max for axis in limits.axes], dtype=np.int64) // lsb
    steps = (2 * samples + lsb) // (2 * lsb)
    return bytes(np.clip(steps, low, high).astype("<i2").tobytes())


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
        samples=_compact(samples, limits) if compact else samples.astype("<i4").tobytes(),
    )
