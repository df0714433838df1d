"""The interpolation itself, at its own resolution of 1/4096 micro-unit."""

from __future__ import annotations

import ctypes

from hypothesis import example, given, settings
from hypothesis import strategies as st

from firmware_bridge.host.messages import MAX_AXES, MAX_KNOTS
from tests.firmware.mcu import load

SUB = 4096
ONE = 1 << 24
SLOPE_MAX = (1 << 46) - 1
"""ew_curve.h; the core cuts secants far below."""
I64 = ctypes.c_int64


class Knot(ctypes.Structure):
    _fields_ = (("at_us", I64), ("position", I64 * MAX_AXES), ("slope", I64 * MAX_AXES), ("shape", ctypes.c_uint8))


class Timeline(ctypes.Structure):
    _fields_ = (
        ("knots", Knot * MAX_KNOTS), ("first", ctypes.c_uint8), ("count", ctypes.c_uint8), ("axes", ctypes.c_uint8),
    )  # fmt: skip


LIB = load()
LIB.ew_timeline_sample.argtypes = [ctypes.POINTER(Timeline), I64, ctypes.POINTER(I64)]
LIB.ew_timeline_sample.restype = ctypes.c_bool
LIB.ew_curve_secant.argtypes, LIB.ew_curve_secant.restype = [I64, I64], I64
SECANT_MAX = 1 << 44
POSITIONS = st.integers(-100_000_000 * SUB, 100_000_000 * SUB)


def segment(p0: int, p1: int, h_us: int, m0: int, m1: int) -> Timeline:
    """Two knots; slopes in sub per segment."""
    timeline = Timeline(first=0, count=2, axes=1)
    for k, (at, p, m) in enumerate(((1000, p0, m0), (1000 + h_us, p1, m1))):
        timeline.knots[k].at_us = at
        timeline.knots[k].position[0] = p
        timeline.knots[k].slope[0] = max(-SLOPE_MAX, min(SLOPE_MAX, int(m * ONE / h_us)))
    return timeline


def sample(timeline: Timeline, at_us: int) -> tuple[bool, int]:
    out = (I64 * MAX_AXES)()
    return LIB.ew_timeline_sample(timeline, at_us, out), out[0]


@settings(max_examples=800)
@given(
    POSITIONS, POSITIONS, st.integers(1_000, 10_000_000), st.integers(0, 300), st.integers(0, 300),
    st.lists(st.floats(0, 1), min_size=3, max_size=8),
)  # fmt: skip
def test_limited_slopes_never_leave_the_two_knots(
    p0: int, p1: int, h_us: int, m0: int, m1: int, times: list[float]
) -> None:
    d = p1 - p0
    timeline = segment(p0, p1, h_us, d * m0 // 100, d * m1 // 100)
    low, high = sorted((p0, p1))
    for t in [*times, 1e-6, 1 - 1e-6]:
        live, q = sample(timeline, 1000 + int(t * h_us))
        assert live and low <= q <= high


@given(POSITIONS, POSITIONS, st.integers(1_000, 10_000_000), st.integers(-300, 300))
def test_knots_are_met_exactly_and_after_the_last_one_the_plan_is_dry(p0: int, p1: int, h_us: int, m: int) -> None:
    timeline = segment(p0, p1, h_us, m * 1000, 0)
    assert sample(timeline, 1000) == (True, p0)
    assert sample(timeline, 1000 + h_us) == (True, p1)
    assert sample(timeline, 1001 + h_us) == (False, p1)
    assert sample(timeline, 0) == (True, p0), "before its first knot a plan stands there"


@given(
    st.one_of(st.integers(-(2**42) + 1, 2**42 - 1), st.integers(-(2**20), 2**20)),
    st.one_of(st.integers(1_000, 2**24 - 1), st.integers(2**24, 2**31)),
)
@example(2**38 - 1, 2**24 - 1)
@example(-(2**38), 2**24 - 1)
@example(2**38, 2**24)
@example(1 - 2**42, 1_000)
@example(2**42 - 1, 1_000)
@example(2**37, 1_000)
@example(-(2**37), 1_000)
def test_a_secant_is_the_exact_quotient_cut_where_no_axis_is_so_fast(way: int, time_us: int) -> None:
    exact = abs(way) * ONE // time_us * (1 if way >= 0 else -1)
    assert LIB.ew_curve_secant(way, time_us) == max(-SECANT_MAX, min(SECANT_MAX, exact))


def test_the_steepest_plan_that_fits_the_limits_does_not_overflow() -> None:
    widest = 100_000_000 * SUB
    for p0, p1 in ((-widest, widest), (widest, -widest)):
        for h_us in (1_000, 10_000_000):
            d = p1 - p0
            timeline = segment(p0, p1, h_us, 3 * d, 3 * d)
            path = [sample(timeline, 1000 + h_us * k // 50)[1] for k in range(51)]
            assert path[0] == p0 and path[-1] == p1
            assert min(path) >= -widest and max(path) <= widest
