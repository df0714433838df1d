"""The limiter's C structures in Python, and independent references of what is fastest."""

from __future__ import annotations

import ctypes
from ctypes import c_int32, c_int64

from hypothesis import strategies as st

from tests.firmware.mcu import load

SUB = 4096
NEVER = 2**31 - 1


class Stop(ctypes.Structure):
    _fields_ = tuple((name, c_int32) for name in ("side", "full", "hold", "down", "peak", "rest", "ticks"))


class Path(ctypes.Structure):
    _fields_ = tuple((name, c_int64) for name in ("end", "low", "high", "turn"))


class Limits(ctypes.Structure):
    _fields_ = (
        ("position_min", c_int64), ("position_max", c_int64), ("velocity_max", c_int32), ("acceleration_max", c_int32),
        ("jerk_max", c_int32),
    )  # fmt: skip


class Motion(ctypes.Structure):
    _fields_ = (
        ("position", c_int64), ("velocity", c_int32), ("acceleration", c_int32), ("stop", Stop), ("end", c_int64),
        ("broken", ctypes.c_bool),
    )  # fmt: skip


class Target(ctypes.Structure):
    _fields_ = (
        ("position", c_int64), ("step", c_int64), ("next_acceleration", c_int64), ("jerk", c_int64), ("rest", c_int64),
        ("ticks_left", c_int32),
    )  # fmt: skip


LIB = load()
LIB.ew_stop_plan.argtypes = [c_int32, c_int32, c_int32, c_int32, ctypes.POINTER(Stop), ctypes.POINTER(Path)]
LIB.ew_stop_next.argtypes, LIB.ew_stop_next.restype = [ctypes.POINTER(Stop), c_int32, c_int32], c_int32
LIB.ew_limiter_useful_acceleration.argtypes = [c_int32, c_int32, c_int32]
LIB.ew_limiter_useful_acceleration.restype = c_int32
LIB.ew_limiter_rest.argtypes = [ctypes.POINTER(Motion), c_int64]
LIB.ew_limiter_follow.argtypes = [ctypes.POINTER(Motion), ctypes.POINTER(Target), ctypes.POINTER(Limits)]
LIB.ew_limiter_brake.argtypes = [ctypes.POINTER(Motion), ctypes.POINTER(Limits)]
LIB.ew_limiter_commit.argtypes = [ctypes.POINTER(Motion), c_int64, ctypes.POINTER(Limits)]
LIB.ew_limiter_commit.restype = ctypes.c_bool
LIB.ew_limiter_holds.argtypes = [c_int64, c_int64, ctypes.POINTER(Limits)]
LIB.ew_limiter_holds.restype = ctypes.c_bool


def limits_si(low: float, high: float, velocity: float, acceleration: float, jerk: float) -> Limits:
    """A table in units, units/s, units/s^2 and units/s^3, as ew_bounds_of makes it."""
    v, a, j = (int(x * 1e6 * SUB / 1000**n) for n, x in ((1, velocity), (2, acceleration), (3, jerk)))
    return Limits(
        int(low * 1e6) * SUB, int(high * 1e6) * SUB, v, LIB.ew_limiter_useful_acceleration(v, a, j), j
    )


def log_int(low: int, high: int) -> st.SearchStrategy[int]:
    """Integers of every order of magnitude alike."""
    bits = st.integers(low.bit_length(), high.bit_length())
    return bits.flatmap(lambda b: st.integers(max(low, 1 << (b - 1)), min(high, (1 << b) - 1)))


@st.composite
def tables(draw: st.DrawFn) -> Limits:
    """Any table that the wire admits: 4e3..1e8 um/s, 4e3..2e9 um/s^2, 4..4e6 units/s^3, +-100 units."""
    low = draw(st.integers(-100_000_000, 99_999_999))
    high = draw(st.one_of(st.integers(low + 1, 100_000_000), st.integers(low + 1, min(100_000_000, low + 1000))))
    v, a, j = draw(log_int(16_384, 409_600_000)), draw(log_int(16, 8_192_000)), draw(log_int(16, 16_384_000))
    return Limits(low * SUB, high * SUB, v, LIB.ew_limiter_useful_acceleration(v, a, j), j)


@st.composite
def states(draw: st.DrawFn) -> tuple[Limits, Motion]:
    """Any table and any state with a stop inside its limits, not only those that a short run would reach."""
    limits = draw(tables())
    v, a = (draw(st.one_of(st.integers(-most, most), st.sampled_from([-most, 0, most])))
            for most in (limits.velocity_max, limits.acceleration_max))  # fmt: skip
    motion = Motion(velocity=v, acceleration=a)
    path = Path()
    LIB.ew_stop_plan(v, a, limits.acceleration_max, limits.jerk_max, motion.stop, path)
    room = limits.position_max - limits.position_min - (path.high - path.low)
    if abs(path.turn) > limits.velocity_max or room < 0:
        v = a = 0  # no such state in this table: one at rest
        motion, path = Motion(velocity=0, acceleration=0), Path()
        LIB.ew_stop_plan(0, 0, limits.acceleration_max, limits.jerk_max, motion.stop, path)
        room = limits.position_max - limits.position_min
    motion.position = limits.position_min - path.low + draw(st.one_of(st.sampled_from([0, room]), st.integers(0, room)))
    motion.end = motion.position + path.end
    return limits, motion


def copy(motion: Motion) -> Motion:
    other = Motion()
    ctypes.memmove(ctypes.byref(other), ctypes.byref(motion), ctypes.sizeof(Motion))
    return other


def assert_step(limits: Limits, before: Motion, after: Motion) -> None:
    """The four bounds, seen from outside, over one tick."""
    assert not after.broken
    assert limits.position_min <= after.position <= limits.position_max
    assert abs(after.velocity) <= limits.velocity_max
    assert abs(after.acceleration) <= limits.acceleration_max
    assert abs(after.acceleration - before.acceleration) <= limits.jerk_max
    assert after.position - before.position == after.velocity
    assert after.velocity - before.velocity == after.acceleration


def fastest_stop(velocity: int, acceleration: int, a: int, j: int) -> int:
    """Ticks of the fastest stop: the fewest in which accelerations within the limits, the last one zero, sum to -v.

    Each acceleration of such a sequence lies between two extreme ones, and what they can sum to is an interval.
    """

    def extreme(side: int, ticks: int) -> int:
        return side * sum(
            min(a, side * acceleration + k * j, (ticks - k) * j) for k in range(1, ticks + 1)
        )

    ticks = -(-abs(acceleration) // j)
    while not (ticks == 0 and velocity == 0) and not (
        ticks > 0 and extreme(-1, ticks) <= -velocity <= extreme(1, ticks)
    ):
        ticks += 1
    return ticks
