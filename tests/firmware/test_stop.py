"""The planned stop: what it says is what it does, within the limits, and no other is faster by more than a tick."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.firmware.motion import LIB, Path, Stop, fastest_stop, log_int


def plan(velocity: int, acceleration: int, a: int, j: int) -> tuple[Stop, Path]:
    stop, path = Stop(), Path()
    LIB.ew_stop_plan(velocity, acceleration, a, j, stop, path)
    return stop, path


@st.composite
def cases(draw: st.DrawFn, longest: int) -> tuple[int, int, int, int]:
    """(velocity, acceleration, acceleration_max, jerk_max) whose stop takes some thousand ticks at most."""
    j, a = draw(log_int(1, 16_384_000)), draw(log_int(1, 8_192_000))
    a = min(a, j * longest // 4)
    v_most = min(409_600_000, a * longest // 4)
    corners = [-a, 0, a, min(a, j), -min(a, j), min(a, j - 1)]
    acceleration = draw(st.one_of(st.integers(-a, a), st.sampled_from(corners)))
    q = abs(acceleration) // j
    loss = q * abs(acceleration) - j * q * (q + 1) // 2
    # Around the velocity from which the acceleration alone comes to rest, where a plan changes its shape.
    few, near = min(3, v_most), min(2 * j, v_most)
    turn = draw(st.one_of(st.integers(-v_most, v_most), st.integers(-few, few), st.integers(-near, near)))
    return turn + (-loss if acceleration > 0 else loss), acceleration, a, j


@settings(max_examples=700)
@given(cases(400))
def test_a_stop_executed_tick_by_tick_ends_where_it_was_planned_within_acceleration_and_jerk(
    case: tuple[int, int, int, int],
) -> None:
    velocity, acceleration, a, j = case
    stop, path = plan(velocity, acceleration, a, j)
    position = low = high = 0
    fastest = abs(velocity)
    for ticks_left in range(stop.ticks, 0, -1):
        assert stop.ticks == ticks_left
        following = LIB.ew_stop_next(stop, acceleration, j)
        assert abs(following) <= a and abs(following - acceleration) <= j
        acceleration = following
        velocity += acceleration
        position += velocity
        low, high, fastest = min(low, position), max(high, position), max(fastest, abs(velocity))
    assert (velocity, acceleration) == (0, 0)
    assert (position, low, high) == (path.end, path.low, path.high)
    assert fastest <= max(abs(case[0]), abs(path.turn))
    assert LIB.ew_stop_next(stop, 0, j) == 0 and stop.ticks == 0, "and it stays there"


@settings(max_examples=300)
@given(cases(120))
def test_no_stop_is_faster_by_more_than_one_tick(case: tuple[int, int, int, int]) -> None:
    velocity, acceleration, a, j = case
    stop, _ = plan(velocity, acceleration, a, j)
    fastest = fastest_stop(velocity, acceleration, a, j)
    assert fastest <= stop.ticks <= fastest + 1


@settings(max_examples=300)
@given(cases(400))
def test_a_mirrored_stop_is_the_mirror_image(case: tuple[int, int, int, int]) -> None:
    velocity, acceleration, a, j = case
    (one, path), (other, mirrored) = plan(velocity, acceleration, a, j), plan(-velocity, -acceleration, a, j)
    assert one.ticks == other.ticks
    assert (path.end, path.low, path.high) == (-mirrored.end, -mirrored.high, -mirrored.low)
