"""A chunk of motion as the wire carries it: checked, then converted. What is refused here never reaches the arm."""

from __future__ import annotations

import numpy as np

from firmware_bridge.errors import ChunkRefused
from firmware_bridge.host import knots
from firmware_bridge.host.knots import F64, MICRO
from firmware_bridge.host.limits import LimitTable
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

BLEND_MS = 20
"""Shortest time over which the running plan passes into the new one: two control cycles of the host."""
_SAMPLE_BYTES_MAX = MAX_BODY_BYTES - HEADER_BYTES - CRC_BYTES - CHUNK_HEADER_BYTES


def encode_knots(q: F64, limits: LimitTable, encoding: ChunkEncoding, max_knots: int = MAX_KNOTS) -> bytes:
    """Knots [H, D] in axis units -> the samples of a chunk. ``max_knots``: places on the timeline of the MCU (HELLO).

    Raises:
        ChunkRefused: not [H, D], too long for one frame, a number that is none, or one outside the position limits.
    """
    values = np.asarray(q, dtype=np.float64)
    shape = values.shape
    if len(shape) != 2 or shape[1] != limits.dof or not 1 <= shape[0] <= max_knots:
        raise ChunkRefused(f"chunk of shape {shape}", expected=f"[1..{max_knots}, {limits.dof}]")
    compact = encoding is ChunkEncoding.I16_LSB
    width = 2 if compact else 4
    if shape[0] * shape[1] * width > _SAMPLE_BYTES_MAX:
        most = _SAMPLE_BYTES_MAX // width // limits.dof
        raise ChunkRefused(
            f"chunk of {shape[0]} knots", expected=f"at most {most} in one frame",
            remedy="send the first knots now and the rest with the next plan",
        )
    samples = knots.encode(values, limits.knots.table, compact)
    if isinstance(samples, bytes):
        return samples
    knot, axis = divmod(samples, shape[1])
    low, high = limits.axes[axis].position_min, limits.axes[axis].position_max
    raise ChunkRefused(
        f"knot {knot}, axis {limits.names[axis]} is {values[knot, axis]}",
        expected=f"a number in {low / MICRO:g} .. {high / MICRO:g}",
    )


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


def chunk_message(
    samples: bytes, count: int, axes: int, t0_us: int, dt_ns: int, chunk_id: int, encoding: ChunkEncoding
) -> Chunk:
    """The message of ``count`` knots from :func:`encode_knots`; ``t0_us`` in the MCU's clock."""
    return Chunk(
        chunk_id=chunk_id,
        t0_us=t0_us & 0xFFFFFFFF,
        dt_10us=dt_ns // 10_000,
        n=count,
        axes=axes,
        encoding=encoding,
        mode=ChunkMode.REPLACE_FROM_T0,
        blend_ms=BLEND_MS,
        interpolation=ChunkInterpolation.HERMITE,
        samples=samples,
    )
