"""One segment of the curve, bit by bit: its formulas in exact integers, cut to whole ones where the firmware cuts."""

from __future__ import annotations

import ctypes
from ctypes import c_bool, c_uint8, c_uint32

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.firmware.motion import Target
from tests.firmware.test_timeline import I64, LIB, ONE, POSITIONS, SUB, Knot

FINE = 256
TICK_US = 1000
MONOTONE, FREE, STRAIGHT = range(3)
SECANT_MAX = 1 << 44


class Place(ctypes.Structure):
    _fields_ = (
        ("a", ctypes.POINTER(Knot)), ("b", ctypes.POINTER(Knot)), ("at", c_uint32), ("tick", c_uint32),
        ("whole", c_bool),
    )  # fmt: skip


LIB.ew_curve_place.argtypes, LIB.ew_curve_place.restype = [ctypes.POINTER(Knot), ctypes.POINTER(Knot), I64], Place
LIB.ew_curve_position.argtypes, LIB.ew_curve_position.restype = [ctypes.POINTER(Place), c_uint8], I64
LIB.ew_curve_slope.argtypes, LIB.ew_curve_slope.restype = [ctypes.POINTER(Place), c_uint8], I64
LIB.ew_curve_target.argtypes = [ctypes.POINTER(Place), c_uint8, ctypes.POINTER(Target)]


def cut(numerator: int, denominator: int) -> int:
    """The quotient towards zero."""
    quotient = abs(numerator) // denominator
    return quotient if numerator >= 0 else -quotient


def scaled(value: int, part: int) -> int:
    return cut(value * part, 1 << 32)


def rounded(fine: int) -> int:
    """Half a step goes away from zero."""
    return cut(fine + (FINE // 2 if fine >= 0 else -FINE // 2), FINE)


def reference(a: Knot, b: Knot, now_us: int) -> tuple[int, int, int, int]:
    """Position, slope, second and third difference per tick, of axis 0."""
    h = b.at_us - a.at_us
    over = min(max(now_us - a.at_us, 0), h)
    at = 2**32 - 1 if over == h else (over << 32) // h
    tick = (TICK_US << 32) // h if h > TICK_US else 0
    d = (b.position[0] - a.position[0]) * FINE
    c1, c2, c3 = d, 0, 0
    if a.shape != STRAIGHT:
        m0, m1 = (cut(slope * FINE * h, ONE) for slope in (a.slope[0], b.slope[0]))
        c1, c2, c3 = m0, 3 * d - 2 * m0 - m1, m0 + m1 - 2 * d
    position = a.position[0] + rounded(scaled(c1 + scaled(c2 + scaled(c3, at), at), at))
    if a.shape != FREE:
        low, high = sorted((a.position[0], b.position[0]))
        position = min(max(position, low), high)
    if over == h:
        position = b.position[0]
    slope = cut((c1 + scaled(2 * c2 + 3 * scaled(c3, at), at)) << 16, h)
    slope = min(max(slope, -3 * SECANT_MAX), 3 * SECANT_MAX)
    second = rounded(scaled(scaled(2 * c2 + 6 * scaled(c3, at), tick), tick))
    third = rounded(scaled(scaled(scaled(6 * c3, tick), tick), tick))
    return position, slope, second, third


def knots(p0: int, p1: int, h_us: int, m0: int, m1: int, shape: int) -> tuple[Knot, Knot]:
    """From 1 s on; slopes in sub per 2^24 us."""
    a, b = Knot(at_us=1_000_000, shape=shape), Knot(at_us=1_000_000 + h_us, shape=shape)
    for knot, p, m in ((a, p0, m0), (b, p1, m1)):
        knot.position[0], knot.slope[0] = p, m
    return a, b


def slopes(h_us: int) -> st.SearchStrategy[int]:
    """What fits the arithmetic: no farther in a segment than an axis goes."""
    most = min(3 * SECANT_MAX, 800_000_000 * SUB * ONE // h_us)
    return st.one_of(st.integers(-most, most), st.integers(-2000, 2000))


@st.composite
def segments(draw: st.DrawFn) -> tuple[tuple[Knot, Knot], int]:
    """A segment and a time in it or around it."""
    h_us = draw(st.one_of(st.integers(1000, 10_000_000), st.integers(1000, 1003), st.just(10_000_000)))
    p0 = draw(POSITIONS)
    p1 = draw(st.one_of(POSITIONS, st.integers(p0 - 3000, p0 + 3000), st.just(p0)))
    shape = draw(st.sampled_from((MONOTONE, FREE, STRAIGHT)))
    over = draw(st.one_of(st.integers(-2000, h_us + 2000), st.sampled_from((-1, 0, 1, h_us - 1, h_us, h_us + 1))))
    return knots(p0, p1, h_us, draw(slopes(h_us)), draw(slopes(h_us)), shape), 1_000_000 + over


@settings(max_examples=600)
@given(segments())
@example((knots(0, -1, 2000, 0, 0, FREE), 1_001_000))
@example((knots(0, 1, 2000, 1, -1, FREE), 1_001_000))
@example((knots(7, -7, 1000, 50, 50, MONOTONE), 1_000_999))
def test_a_segment_is_what_its_formulas_say_to_the_last_bit(case: tuple[tuple[Knot, Knot], int]) -> None:
    (a, b), now_us = case
    place = LIB.ew_curve_place(a, b, now_us)
    target = Target()
    LIB.ew_curve_target(place, 0, target)
    position, slope, second, third = reference(a, b, now_us)
    assert LIB.ew_curve_position(place, 0) == target.position == position
    assert LIB.ew_curve_slope(place, 0) == slope
    assert (target.next_acceleration, target.jerk) == (second, third)
