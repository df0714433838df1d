"""The limiter: position, velocity, acceleration and jerk hold for any target; a plan inside is followed exactly."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.motion import LIB, NEVER, SUB, Limits, Motion, Target, assert_step, copy, limits_si, log_int, states

ARM = limits_si(-0.5, 0.5, 0.8, 10, 1000)
TABLES = (
    pytest.param(ARM, id="metre axis"),
    pytest.param(limits_si(-1, 1, 20, 400, 100_000), id="gripper"),
    pytest.param(limits_si(-3.14, 3.14, 2, 10, 50), id="soft joint"),
    pytest.param(limits_si(-3, 3, 0.1, 1, 4), id="softest jerk"),
    pytest.param(limits_si(-100, 100, 100, 2000, 4_000_000), id="widest"),
    pytest.param(limits_si(0, 0.000003, 0.004, 0.004, 4), id="slowest, 3 um of room"),
)
FAR = st.one_of(st.integers(-(2**42), 2**42), st.integers(-(2**20), 2**20), st.just(0))


def at_rest(position: int) -> Motion:
    motion = Motion()
    LIB.ew_limiter_rest(motion, position)
    return motion


def resting(position: int) -> Target:
    return Target(position, 0, 0, 0, position, NEVER)


def step(motion: Motion, target: Target, limits: Limits) -> None:
    before = copy(motion)
    LIB.ew_limiter_follow(motion, target, limits)
    assert_step(limits, before, motion)


def stop_inside(motion: Motion, limits: Limits, most: int = 3000) -> None:
    """The stop that the axis carries, to its end, tick by tick."""
    assert limits.position_min <= motion.end <= limits.position_max
    end, ticks = motion.end, motion.stop.ticks
    if ticks > most:
        return
    for _ in range(ticks):
        before = copy(motion)
        LIB.ew_limiter_brake(motion, limits)
        assert_step(limits, before, motion)
    assert (motion.position, motion.velocity, motion.acceleration) == (end, 0, 0)


@settings(max_examples=250)
@given(states(), st.lists(st.tuples(FAR, FAR, FAR, FAR, FAR, st.integers(0, NEVER)), min_size=1, max_size=12))
def test_all_four_bounds_hold_from_any_state_towards_any_targets_and_the_stop_stays_inside(
    start: tuple[Limits, Motion], targets: list[tuple[int, int, int, int, int, int]]
) -> None:
    limits, motion = start
    for offset, *others, rest, left in targets:
        step(motion, Target(motion.position + offset, *others, motion.position + rest, left), limits)
    stop_inside(motion, limits)


@settings(max_examples=150)
@given(states(), st.lists(st.tuples(FAR, st.integers(1, 60)), min_size=1, max_size=6), st.booleans())
def test_all_four_bounds_hold_for_long_runs_towards_targets_that_jump_or_flee(
    start: tuple[Limits, Motion], moves: list[tuple[int, int]], flee: bool
) -> None:
    limits, motion = start
    for offset, ticks in moves:
        target = motion.position + offset
        for _ in range(ticks):
            target += limits.velocity_max if flee else 0
            step(motion, Target(target, limits.velocity_max if flee else 0, 0, 0, target, NEVER), limits)
    stop_inside(motion, limits)


@settings(max_examples=200)
@given(states())
def test_all_four_bounds_hold_while_braking_from_any_state(start: tuple[Limits, Motion]) -> None:
    limits, motion = start
    stop_inside(motion, limits)


@pytest.mark.parametrize("side", [-1, 1])
def test_a_step_that_no_limit_allows_is_not_taken_and_the_axis_is_broken_from_then_on(side: int) -> None:
    motion = at_rest(0)
    assert LIB.ew_limiter_commit(motion, side * ARM.acceleration_max, ARM) and not motion.broken
    assert not LIB.ew_limiter_commit(motion, side * (2 * ARM.acceleration_max + 1), ARM)
    assert motion.broken and motion.velocity == 0, "braked instead"
    assert LIB.ew_limiter_commit(motion, 0, ARM) and motion.broken


@pytest.mark.parametrize("limits", TABLES)
@pytest.mark.parametrize("side", [-1, 1])
def test_a_target_at_rest_is_reached_exactly_and_never_overshot(limits: Limits, side: int) -> None:
    middle = (limits.position_min + limits.position_max) // 2
    reach = min(limits.position_max - middle, 500 * limits.velocity_max)
    for way in sorted({0, 1, 2, 3, 10, 1000, limits.jerk_max, reach // 1000, reach // 3, reach}):
        if way > reach:
            continue
        motion, target = at_rest(middle), middle + side * way
        for _ in range(7000):
            step(motion, resting(target), limits)
            assert (target - motion.position) * side >= 0, f"overshot a way of {way}"
            if (motion.position, motion.velocity, motion.acceleration) == (target, 0, 0):
                break
        else:
            raise AssertionError(f"a way of {way} is not over after 7 s")


def fastest_way(way: float, limits: Limits) -> float:
    """Ticks of the fastest motion from rest to rest in continuous time: seven phases (Biagiotti, Melchiorri)."""

    def ramps(v: float) -> float:
        a, j = limits.acceleration_max, limits.jerk_max
        return a / j + v / a if v * j >= a * a else 2 * math.sqrt(v / j)

    v = float(limits.velocity_max)
    if way >= v * ramps(v):
        return way / v + ramps(v)
    low, high = 0.0, v
    for _ in range(100):
        v = (low + high) / 2
        low, high = (low, v) if v * ramps(v) > way else (v, high)
    return 2 * ramps(v)


@pytest.mark.parametrize("limits", TABLES[:5])
@pytest.mark.parametrize("share", [1e-5, 1e-4, 1e-3, 0.01, 0.1, 0.5, 1.0])
def test_catching_up_with_a_target_at_rest_takes_hardly_longer_than_the_fastest_motion(
    limits: Limits, share: float
) -> None:
    way = int(share * min(limits.position_max - limits.position_min, 1500 * limits.velocity_max))
    motion, ticks = at_rest(limits.position_min), 0
    while (motion.position, motion.velocity) != (limits.position_min + way, 0):
        step(motion, resting(limits.position_min + way), limits)
        ticks += 1
    assert ticks <= 1.08 * fastest_way(way, limits) + 6


@settings(max_examples=100)
@given(states(), st.integers(0, 2**30))
def test_an_axis_that_can_stop_before_a_target_at_rest_does(start: tuple[Limits, Motion], ahead: int) -> None:
    limits, motion = start
    side = 1 if motion.end >= motion.position else -1
    if (motion.stop.side != side and motion.stop.ticks) or motion.velocity * side < 0:
        return  # it turns round on its way: past its end and back
    target = motion.end + side * ahead
    for _ in range(60):
        target_now = max(limits.position_min, min(limits.position_max, target))
        step(motion, resting(target_now), limits)
        assert (target_now - motion.position) * side >= 0


@st.composite
def smooth(draw: st.DrawFn) -> tuple[Limits, list[int]]:
    """A path within all four limits, from rest to rest, of random jerks: sub, one position a tick.

    It keeps four accelerations (40 um on the metre axis) away from the position limits: the verified stop takes up to a
    tick longer than the shortest one, and nearer to a wall the axis may be braked for it.
    """
    limits = draw(st.sampled_from([p.values[0] for p in TABLES[:5]]))
    margin = 4 * limits.acceleration_max
    inner = Limits(
        limits.position_min + margin, limits.position_max - margin, limits.velocity_max, limits.acceleration_max,
        limits.jerk_max,
    )  # fmt: skip
    jerks = draw(st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 40)), min_size=1, max_size=12))
    motion = at_rest((limits.position_min + limits.position_max) // 2)
    path = [motion.position]
    for share, ticks in jerks:
        for _ in range(ticks):
            wish = copy(motion)
            v = motion.velocity + motion.acceleration + int(share * limits.jerk_max)
            step(wish, Target(motion.position + v, v, 0, 0, 0, NEVER), inner)
            motion = wish
            path.append(motion.position)
    while motion.stop.ticks:
        LIB.ew_limiter_brake(motion, inner)
        path.append(motion.position)
    return limits, path + 4 * [path[-1]]


def targets_along(path: list[int]) -> list[Target]:
    """What the plan says of itself at each tick after the first."""
    out = []
    for k in range(1, len(path) - 2):
        acceleration = path[k + 1] - 2 * path[k] + path[k - 1]
        jerk = path[k + 2] - 3 * path[k + 1] + 3 * path[k] - path[k - 1]
        out.append(Target(path[k], path[k] - path[k - 1], acceleration, jerk, path[-1], len(path) - 1 - k))
    return out


@settings(max_examples=150)
@given(smooth())
def test_a_plan_within_the_limits_is_followed_exactly(case: tuple[Limits, list[int]]) -> None:
    limits, path = case
    motion = at_rest(path[0])
    for k, target in enumerate(targets_along(path), 1):
        step(motion, target, limits)
        assert motion.position == path[k], f"tick {k}"


@settings(max_examples=100)
@given(smooth(), st.floats(-1, 1))
def test_an_axis_that_lags_behind_a_smooth_plan_joins_it_and_stays_on_it(
    case: tuple[Limits, list[int]], lag: float
) -> None:
    """A plan that moves at a fifth of the limits: there is something left to catch up with."""
    limits, fast = case
    path = [fast[0] + (q - fast[0]) // 5 for q in fast]
    path += [path[-1]] * 3000
    start = path[0] + int(lag * limits.velocity_max * 5)
    motion = at_rest(max(limits.position_min, min(limits.position_max, start)))
    joined = 0
    for k, target in enumerate(targets_along(path), 1):
        target.ticks_left = NEVER
        step(motion, target, limits)
        joined = joined + 1 if motion.position == path[k] else 0
        if joined and k > len(fast):
            break
    assert joined, "never met the plan"


@pytest.mark.parametrize(("acceleration", "knots_mm"), [(0.5, 0.001), (2.0, 0.04), (4.0, 0.3)])
def test_a_step_of_the_plans_acceleration_costs_a_short_lag_without_oscillation(
    acceleration: float, knots_mm: float
) -> None:
    """Pieces of constant acceleration, which changes its sign every 50 ms: what cubic knots do at worst."""
    path, v = [0.0] * 5, 0.0
    for piece in range(12):
        a = acceleration * SUB * (0.5 if piece in (0, 11) else 1) * (1 if piece % 2 == 0 else -1)
        for _ in range(50):
            v += a
            path.append(path[-1] + v)
    sub = [round(q) for q in path]
    motion, lags = at_rest(0), []
    for k, target in enumerate(targets_along(sub), 1):
        target.ticks_left = NEVER
        step(motion, target, ARM)
        lags.append((motion.position - sub[k]) / SUB)
    assert max(abs(lag) for lag in lags) <= knots_mm * 1000
    for piece in range(1, 11):
        after = lags[4 + 50 * piece : 2 + 50 * (piece + 1)]
        assert after[-1] == 0, "it is made up for within the piece"
        signs = [lag > 0 for lag in after if abs(lag) > 1]
        assert sum(a != b for a, b in itertools.pairwise(signs)) <= 2, "and not by swinging about the plan"


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("speed", [0.05, 0.2, 0.4, 0.79])
def test_a_plan_that_ends_at_full_speed_is_left_in_time_to_stop_at_its_end(side: int, speed: float) -> None:
    """Linear interpolation to the last knot: the axis brakes before it and stops there, not beyond."""
    v = int(side * speed * 1000 * SUB)
    end = 400 * v
    motion = at_rest(0)
    for k in range(1, 401):
        step(motion, Target(k * v, v, 0, 0, end, 400 - k), ARM)
        assert (end - motion.end) * side >= 0 or k < 60
    stop_inside(motion, ARM)
    assert 0 <= (end - motion.position) * side <= 100 * SUB


@pytest.mark.parametrize(
    ("position", "velocity", "holds"),
    [
        (500_000 * SUB, 0, True),
        (500_000 * SUB + 1, 0, False),
        (-500_000 * SUB, 0, True),
        (-500_000 * SUB - 1, 0, False),
        (0, 800 * SUB, True),
        (0, 800 * SUB + 1, False),
        (0, -800 * SUB, True),
        (0, -800 * SUB - 1, False),
        (500_000 * SUB, 10 * SUB, True),  # one acceleration: the next step may be zero
        (500_000 * SUB, 10 * SUB + 1, False),
        (500_000 * SUB, -800 * SUB, True),  # away from the wall
        (-500_000 * SUB, -10 * SUB - 1, False),
    ],
)
def test_the_braking_envelope_is_judged_at_its_boundaries(position: int, velocity: int, holds: bool) -> None:
    assert LIB.ew_limiter_holds(position, velocity, ARM) == holds


@settings(max_examples=250)
@given(states(), st.one_of(FAR, st.integers(-(2**63) // 4, 2**63 // 4)))
def test_whatever_is_wished_for_the_last_gate_keeps_position_velocity_and_acceleration(
    start: tuple[Limits, Motion], wish: int
) -> None:
    limits, motion = start
    before = copy(motion)
    made = LIB.ew_limiter_commit(motion, wish, limits)
    assert made != motion.broken
    assert limits.position_min <= motion.position <= limits.position_max
    assert abs(motion.velocity) <= limits.velocity_max
    assert abs(motion.velocity - before.velocity) <= limits.acceleration_max
    assert motion.position - before.position == motion.velocity
    assert LIB.ew_limiter_holds(motion.position, motion.velocity, limits)
    assert not made or motion.velocity == wish


@given(log_int(16_384, 409_600_000), log_int(16, 8_192_000), log_int(16, 16_384_000))
def test_the_useful_acceleration_is_the_largest_that_fits_between_the_velocity_limits(v: int, a: int, j: int) -> None:
    def loss(x: int) -> int:
        return (x // j) * x - j * (x // j) * (x // j + 1) // 2

    useful = LIB.ew_limiter_useful_acceleration(v, a, j)
    assert 1 <= useful <= a and loss(useful) <= 2 * v
    assert useful == a or loss(useful + 1) > 2 * v
