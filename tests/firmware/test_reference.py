"""Stops and steps agree with their description in exact integers, to the last bit."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware import reference
from tests.firmware.motion import LIB, NEVER, Limits, Motion, Stop, Target, copy, log_int, states
from tests.firmware.test_stop import cases


def fields(stop: Stop) -> dict[str, int]:
    return {name: getattr(stop, name) for name, _ in Stop._fields_}


def content(axis: Motion) -> tuple[object, ...]:
    return axis.position, axis.velocity, axis.acceleration, fields(axis.stop), axis.end, axis.broken


@settings(max_examples=300)
@given(cases(400))
def test_a_stop_is_planned_as_described(case: tuple[int, int, int, int]) -> None:
    stop, _ = reference.stop_of(*case)
    assert fields(stop) == fields(reference.plan(*case))


def near(value: int, scale: int) -> st.SearchStrategy[int]:
    """Around a value, by some steps of a scale, by little, or by nothing."""
    return st.one_of(
        st.integers(value - 4 * scale, value + 4 * scale), st.integers(value - 3, value + 3), st.just(value)
    )


@st.composite
def chases(draw: st.DrawFn) -> tuple[Limits, Motion, Target]:
    """A state and a target that is not far from it: mostly a plan that could be followed, or nearly."""
    limits, axis = draw(states())
    v, a, j = limits.velocity_max, limits.acceleration_max, limits.jerk_max
    moves = draw(st.booleans())
    step = draw(near(axis.velocity, a)) if moves else 0
    then = draw(st.one_of(near(axis.acceleration, j), st.integers(-a, a))) if moves else 0
    jerk = draw(st.one_of(st.integers(-j, j), st.integers(-2 * j, 2 * j), st.just(0))) if moves else 0
    position = draw(
        st.one_of(
            near(axis.position + axis.velocity + axis.acceleration, j), near(axis.end, a), near(axis.position, v),
            st.integers(limits.position_min, limits.position_max),
        )
    )  # fmt: skip
    rest = draw(st.one_of(near(axis.end, a), near(axis.end, j), near(axis.position, j)))
    ticks = draw(st.one_of(st.just(NEVER), st.integers(max(0, axis.stop.ticks - 2), axis.stop.ticks + 2)))
    return limits, axis, Target(position, step, then, jerk, rest, ticks)


@settings(max_examples=700)
@given(chases())
def test_a_tick_towards_a_target_is_the_one_that_is_described(chase: tuple[Limits, Motion, Target]) -> None:
    limits, axis, target = chase
    expected = reference.follow(copy(axis), target, limits)
    LIB.ew_limiter_follow(axis, target, limits)
    assert content(axis) == content(expected)


def some_limits(random: Random) -> Limits:
    """A world in which a jerk is 1 to 7 and every distance is one of a few, or one of any size."""
    if random.random() < 0.5:
        half, v, a, j = random.choice([0, 3, 20, 60]), random.randint(1, 13), random.randint(1, 9), random.randint(1, 7)
    else:
        half, v, a, j = (int(10 ** random.uniform(1, digits)) for digits in (9, 8, 6, 6))
    return Limits(-half, half, v, LIB.ew_limiter_useful_acceleration(v, a, j), j)


def some_target(random: Random, axis: Motion, limits: Limits) -> Target:
    """At rest, anywhere, or where a plan that the axis hardly keeps up with might be."""
    half, v, a, j = limits.position_max, limits.velocity_max, limits.acceleration_max, limits.jerk_max

    def some(most: int) -> int:
        return random.randint(-most, most)

    ticks = NEVER if random.random() < 0.5 else random.randint(0, 30)
    kind = random.randint(0, 3)
    if kind == 0:
        return Target(random.choice([some(half + 3), axis.end]), 0, 0, 0, random.choice([some(half), axis.end]), ticks)
    if kind == 1:
        return Target(some(half + 3), some(v + 1), some(a + 1), some(j + 1), some(half), ticks)
    ahead, jerk = some(v) * random.randint(0, 4), some(j) // random.choice([1, 4])
    return Target(axis.position + ahead, axis.velocity + some(a), some(a), jerk, some(half), ticks)


@settings(max_examples=400)
@given(st.integers(0))
def test_a_walk_after_targets_of_all_kinds_is_the_one_that_is_described(seed: int) -> None:
    random = Random(seed)
    limits, axis = some_limits(random), Motion()
    LIB.ew_limiter_rest(axis, random.randint(limits.position_min, limits.position_max))
    for _ in range(30):
        target = some_target(random, axis, limits)
        expected = reference.follow(copy(axis), target, limits)
        LIB.ew_limiter_follow(axis, target, limits)
        assert content(axis) == content(expected)


def test_an_axis_at_rest_carries_a_stop_that_is_over() -> None:
    axis = Motion(1, 2, 3, Stop(-1, 4, 5, 6, 7, 8, 9), 10, True)
    LIB.ew_limiter_rest(axis, 11)
    assert content(axis) == content(Motion(11, 0, 0, Stop(1, 0, 0, 0, 0, 0, 0), 11, False))


@settings(max_examples=100)
@given(states(), log_int(1, 60))
def test_braking_goes_on_with_the_stop_that_is_carried(start: tuple[Limits, Motion], ticks: int) -> None:
    limits, axis = start
    for _ in range(ticks):
        expected = reference.brake(axis, limits)
        LIB.ew_limiter_brake(axis, limits)
        assert content(axis) == content(expected)
