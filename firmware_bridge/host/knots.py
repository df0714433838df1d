"""The knots of a chunk as the wire carries them. In numpy, the oracle; compiled, where the extension was built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.host.messages import LimitsSet

F64 = NDArray[np.float64]
MICRO = 1_000_000
_I16, _I32 = np.dtype("<i2"), np.dtype("<i4")


@dataclass(frozen=True, slots=True)
class KnotBounds:
    """What every chunk is converted with, made once: whole numbers in float64, read-only.

    Attributes:
        table: [5, D], contiguous, of which the others are rows.
        low, high: position limits, micro-units.
        lsb: micro-units per step of the i16 encoding.
        step_low, step_high: outermost steps that lie inside the limits.
    """

    table: F64
    low: F64
    high: F64
    lsb: F64
    step_low: F64
    step_high: F64

    @classmethod
    def of(cls, axes: Sequence[LimitsSet]) -> KnotBounds:
        low, high, lsb = np.array([(axis.position_min, axis.position_max, axis.lsb) for axis in axes], np.float64).T
        table = np.stack([low, high, lsb, np.ceil(low / lsb), np.floor(high / lsb)])
        table.setflags(write=False)
        return cls(table, *table)


def encode_numpy(q: F64, table: F64, compact: bool, /) -> bytes | int:
    """Knots [H, D] in axis units -> samples, knot by knot, axis by axis: int32 micro-units, or int16 steps of the axis'
    lsb (``compact``), rounded to the nearest that lies inside the position limits.

    The quotient is taken in float64 (numpy divides integers one by one): numerators are whole and below 2^28, steps at
    least 1/12000 apart from the next integer, so its floor is exact.

    Returns:
        The bytes; or the place of the first number (knot * D + axis) that is none or lies outside the limits.
    """
    low, high, lsb, step_low, step_high = table
    with np.errstate(invalid="ignore", over="ignore"):
        micro = np.rint(q * MICRO)
        inside = (micro >= low) & (micro <= high)  # false for a number that is none
    if not inside.all():
        return int(np.argmin(inside))
    if not compact:
        return micro.astype(_I32).tobytes()
    steps = np.floor((2.0 * micro + lsb) / (2.0 * lsb))
    compact_steps: NDArray[np.int16] = np.minimum(np.maximum(steps, step_low), step_high).astype(_I16)
    return compact_steps.tobytes()


def _best() -> Callable[[F64, F64, bool], bytes | int]:
    try:
        from firmware_bridge.host import _knots
    except ImportError:
        return encode_numpy  # a checkout that was not built: the same bits, later
    return _knots.encode


encode = _best()


def compiled() -> bool:
    """The extension is there. Without it a chunk costs some 200 us more where the caches are cold."""
    return encode is not encode_numpy
