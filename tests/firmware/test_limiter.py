"""The limiter: position, velocity and acceleration hold for any target, and a target at rest is not overshot."""

from __future__ import annotations

import ctypes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.mcu import load

SUB = 256


class Limits(ctypes.Structure):
    _fields_ = (
        ("position_min", ctypes.c_int64),
        ("position_max", ctypes.c_int64),
        ("velocity_max", ctypes.c_int64),
        ("acceleration_max", ctypes.c_int64),
    )


class Motion(ctypes.Structure):
    _fields_ = (("position", ctypes.c_int64), ("velocity", ctypes.c_int64))


LIB = load()
I64 = ctypes.c_int64
for _name in ("ew_stop_way", "ew_speed_for_way"):
    getattr(LIB, _name).restype, getattr(LIB, _name).argtypes = I64, [I64, I64]
LIB.ew_limiter_follow.argtypes = [ctypes.POINTER(Motion), I64, I64, ctypes.POINTER(Limits)]
LIB.ew_limiter_follow_to_rest.argtypes = [ctypes.POINTER(Motion), I64, I64, I64, ctypes.POINTER(Limits)]
LIB.ew_limiter_brake.argtypes = [ctypes.POINTER(Motion), ctypes.POINTER(Limits)]
LIB.ew_limiter_holds.argtypes = [ctypes.POINTER(Motion), ctypes.POINTER(Limits)]
LIB.ew_limiter_holds.restype = ctypes.c_bool

# The whole range that the limit table admits: 4e3..1e8 um/s, 4e3..2e9 um/s^2, +-100 units (docs/protocol.md).
ACCELERATIONS = st.integers(1, 512_000)
VELOCITIES = st.integers(1, 25_600_000)
POSITIONS = st.integers(-100_000_000 * SUB, 100_000_000 * SUB)
TABLES = (
    pytest.param(Limits(-500_000 * SUB, 500_000 * SUB, 204_800, 2560), id="metre axis"),
    pytest.param(Limits(-1_000_000 * SUB, 1_000_000 * SUB, 5_120_000, 102_400), id="gripper"),
    pytest.param(Limits(0, 3 * SUB, 1, 1), id="slowest"),
    pytest.param(Limits(-(10**8) * SUB, 10**8 * SUB, 25_600_000, 512_000), id="widest"),
    pytest.param(Limits(-(10**8) * SUB, 10**8 * SUB, 25_600_000, 1), id="fast but soft"),
)


@st.composite
def tables(draw: st.DrawFn) -> Limits:
    low = draw(POSITIONS)
    high = draw(st.integers(low, 100_000_000 * SUB))
    return Limits(low, high, draw(VELOCITIES), draw(ACCELERATIONS))


@st.composite
def reachable(draw: st.DrawFn) -> tuple[Limits, Motion]:
    """Any table and any state from which the invariant holds, not only those that a short run would reach."""
    limits = draw(tables())
    position = draw(st.integers(limits.position_min, limits.position_max))
    most, a = limits.velocity_max, limits.acceleration_max
    up = min(most, a + LIB.ew_speed_for_way(limits.position_max - position, a))
    down = min(most, a + LIB.ew_speed_for_way(position - limits.position_min, a))
    motion = Motion(position, draw(st.integers(-down, up)))
    assert LIB.ew_limiter_holds(motion, limits)
    return limits, motion


def _check(limits: Limits, before: Motion, after: Motion) -> None:
    assert limits.position_min <= after.position <= limits.position_max
    assert abs(after.velocity) <= limits.velocity_max
    assert abs(after.velocity - before.velocity) <= limits.acceleration_max
    assert after.position - before.position == after.velocity
    assert LIB.ew_limiter_holds(after, limits)


@settings(max_examples=1500)
@given(reachable(), st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40))
def test_limits_hold_after_one_step_from_any_state_towards_any_target(
    start: tuple[Limits, Motion], target: int, target_step: int
) -> None:
    limits, motion = start
    before = Motion(motion.position, motion.velocity)
    LIB.ew_limiter_follow(motion, target, target_step, limits)
    _check(limits, before, motion)


@settings(max_examples=1000)
@given(reachable(), st.integers(-(2**40), 2**40), st.integers(-(2**40), 2**40), POSITIONS)
def test_limits_hold_near_the_end_of_a_plan_too_and_its_end_is_not_passed_if_it_can_be_helped(
    start: tuple[Limits, Motion], target: int, target_step: int, rest: int
) -> None:
    limits, motion = start
    before = Motion(motion.position, motion.velocity)
    side = 1 if rest >= before.position else -1
    a = limits.acceleration_max
    can_stop = LIB.ew_stop_way(max(0, before.velocity * side - a), a) <= (rest - before.position) * side
    LIB.ew_limiter_follow_to_rest(motion, target, target_step, rest, limits)
    _check(limits, before, motion)
    if can_stop:
        assert LIB.ew_stop_way(max(0, motion.velocity * side - a), a) <= (rest - motion.position) * side


@settings(max_examples=500)
@given(reachable())
def test_limits_hold_while_braking_and_speed_only_falls(start: tuple[Limits, Motion]) -> None:
    limits, motion = start
    before = Motion(motion.position, motion.velocity)
    LIB.ew_limiter_brake(motion, limits)
    _check(limits, before, motion)
    assert abs(motion.velocity) == max(0, abs(before.velocity) - limits.acceleration_max)
    assert motion.velocity * before.velocity >= 0


@pytest.mark.parametrize("limits", TABLES)
@pytest.mark.parametrize("side", [-1, 1])
def test_a_target_at_rest_is_reached_exactly_and_never_overshot(limits: Limits, side: int) -> None:
    middle = (limits.position_min + limits.position_max) // 2
    reach = min(limits.position_max - middle, 2000 * limits.velocity_max)
    for way in {0, 1, 2, limits.acceleration_max, limits.acceleration_max + 1, reach // 3, reach}:
        if way > reach:
            continue
        motion = Motion(middle, 0)
        target = middle + side * way
        for _ in range(6000):
            LIB.ew_limiter_follow(motion, target, 0, limits)
            assert (target - motion.position) * side >= 0, f"overshot a way of {way}"
        if limits.acceleration_max > 1:
            assert (motion.position, motion.velocity) == (target, 0)


@settings(max_examples=300)
@given(reachable(), st.integers(0, 2**36))
def test_an_axis_that_can_stop_before_a_target_at_rest_does(start: tuple[Limits, Motion], ahead: int) -> None:
    limits, motion = start
    a = limits.acceleration_max
    direction = 1 if motion.velocity >= 0 else -1
    target = motion.position + direction * (LIB.ew_stop_way(max(0, abs(motion.velocity) - a), a) + ahead)
    if not limits.position_min <= target <= limits.position_max:
        return
    for _ in range(50):
        LIB.ew_limiter_follow(motion, target, 0, limits)
        assert (target - motion.position) * direction >= 0


@given(st.integers(0, 25_600_000), ACCELERATIONS)
def test_the_stop_way_is_the_sum_of_the_braking_steps(speed: int, acceleration: int) -> None:
    if speed // acceleration > 3000:
        acceleration = speed // 3000 + 1
    assert LIB.ew_stop_way(speed, acceleration) == sum(range(speed, 0, -acceleration))


@settings(max_examples=1000)
@given(st.integers(0, 2 * 100_000_000 * SUB), ACCELERATIONS)
def test_the_speed_for_a_way_is_the_largest_that_stops_in_it(way: int, acceleration: int) -> None:
    speed = LIB.ew_speed_for_way(way, acceleration)
    assert LIB.ew_stop_way(speed, acceleration) <= way < LIB.ew_stop_way(speed + 1, acceleration)


def test_an_axis_that_follows_a_moving_target_within_its_limits_stays_exactly_on_it() -> None:
    limits = Limits(-500_000 * SUB, 500_000 * SUB, 204_800, 2560)
    motion, target, speed = Motion(0, 0), 0, 0
    for tick in range(1000):
        speed += 2560 if tick < 60 else (-2560 if 300 <= tick < 400 else 0)
        target += speed
        LIB.ew_limiter_follow(motion, target, speed, limits)
        assert (motion.position, motion.velocity) == (target, speed)


@pytest.mark.parametrize(
    ("position", "velocity", "holds"),
    [
        (500_000 * SUB, 0, True),
        (500_000 * SUB + 1, 0, False),
        (-500_000 * SUB, 0, True),
        (-500_000 * SUB - 1, 0, False),
        (0, 204_800, True),
        (0, 204_801, False),
        (0, -204_800, True),
        (0, -204_801, False),
        (500_000 * SUB, 2560, True),  # one acceleration: the next step may be zero
        (500_000 * SUB, 2561, False),
        (500_000 * SUB, -204_800, True),  # away from the wall
        (-500_000 * SUB, -2561, False),
    ],
)
def test_the_invariant_is_judged_at_its_boundaries(position: int, velocity: int, holds: bool) -> None:
    limits = Limits(-500_000 * SUB, 500_000 * SUB, 204_800, 2560)
    assert LIB.ew_limiter_holds(Motion(position, velocity), limits) == holds
