"""The way to a target as the limiter is meant to find it, tick by tick and in exact integers; and the plan of a stop.

Written for reading: sums are summed and largest numbers are searched for, where the firmware has closed forms. Fixed
point gives the same bits everywhere, so the firmware must agree with this to the last one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

from tests.firmware.motion import LIB, Limits, Motion, Path, Stop, Target, copy

CHORDS = 2
HALVINGS = 5


def cut(numerator: int, denominator: int) -> int:
    """The quotient towards zero."""
    quotient = abs(numerator) // denominator
    return quotient if numerator >= 0 else -quotient


def clamp(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def largest(most: int, good: Callable[[int], bool]) -> int:
    """The largest number of 0 .. most that is good; those that are come first, and 0 is."""
    return bisect_right(range(1, most + 1), False, key=lambda n: not good(n))


# ---- stops ----


def ramp_loss(m: int, j: int) -> int:
    """Velocity that is lost from magnitude m to zero: (m - j) + (m - 2j) + .. while positive."""
    q = m // j
    return q * m - j * q * (q + 1) // 2


def plan(velocity: int, acceleration: int, a_max: int, j: int) -> Stop:
    """The stop: whole jerks, then the peak for as long as it takes, then down, with a tick for what is left over."""
    turn = velocity + (ramp_loss(acceleration, j) if acceleration > 0 else -ramp_loss(-acceleration, j))
    side = -1 if turn < 0 else 1
    turn, a = abs(turn), side * acceleration
    full, f = (-(-a // j), -a % j) if a > 0 else (0, -a)
    at_once = a > 0 and (turn < f or f > a_max)
    if at_once:  # the last whole jerk is already too much
        full, f, spare = full - 1, 0, turn
    else:
        x = turn - f if a > 0 else turn
        k = largest((a_max - f) // j if a_max > f else 0, lambda n: (j * n + 2 * f) * n <= x)
        spare = x - (j * k + 2 * f) * k
        full, f = full + k, f + k * j
    peak, hold, rest = f, 0, spare
    if spare >= f and spare > 0:  # there is a tick at the peak, perhaps at a higher one

        def extra(more: int) -> int:
            return more + ramp_loss(f + more, j) - ramp_loss(f, j)

        over = spare - f
        more = largest(min(over, max(a_max - f, 0)), lambda n: extra(n) <= over)
        left, peak = over - extra(more), f + more
        hold, rest = left // peak + 1, left % peak
    if at_once and turn == 0:
        hold = 1
    down = (peak - rest) // j if rest > 0 else 0
    return Stop(side, full, hold, down, peak, rest, full + hold + -(-peak // j) + (rest > 0))


# ---- steps ----


@dataclass(frozen=True)
class Step:
    """Where one tick leads."""

    position: int
    velocity: int
    acceleration: int


@dataclass(frozen=True)
class Aim:
    """A target, cut to the limits; what the axis has more than the target uses; fence: do not stop beyond ``rest``."""

    position: int
    velocity: int
    acceleration: int
    spare_acceleration: int
    spare_jerk: int
    rest: int
    fence: int


def stop_of(velocity: int, acceleration: int, a: int, j: int) -> tuple[Stop, Path]:
    stop, path = Stop(), Path()
    LIB.ew_stop_plan(velocity, acceleration, a, j, stop, path)
    return stop, path


def after(axis: Motion, jerk: int) -> Step:
    acceleration = axis.acceleration + jerk
    velocity = axis.velocity + acceleration
    return Step(axis.position + velocity, velocity, acceleration)


def stoppable(step: Step, limits: Limits) -> tuple[Stop, int] | None:
    """The stop from there and where it ends, if all of it is inside the limits."""
    fastest = limits.velocity_max
    inside = limits.position_min <= step.position <= limits.position_max
    if abs(step.acceleration) > limits.acceleration_max or abs(step.velocity) > fastest or not inside:
        return None
    stop, path = stop_of(step.velocity, step.acceleration, limits.acceleration_max, limits.jerk_max)
    if abs(path.turn) > fastest or step.position + path.low < limits.position_min:
        return None
    return (stop, step.position + path.end) if step.position + path.high <= limits.position_max else None


def moved(axis: Motion, step: Step, stop: Stop, end: int) -> Motion:
    return Motion(step.position, step.velocity, step.acceleration, stop, end, axis.broken)


def brake(axis: Motion, limits: Limits) -> Motion:
    """The next tick of the stop that the axis carries."""
    other = copy(axis)
    acceleration = LIB.ew_stop_next(other.stop, axis.acceleration, limits.jerk_max)
    return moved(axis, after(axis, acceleration - axis.acceleration), other.stop, axis.end)


# ---- the way to the target ----


def aim_at(axis: Motion, target: Target, limits: Limits) -> Aim:
    a, j, v = limits.acceleration_max, limits.jerk_max, limits.velocity_max
    jerk = clamp(target.jerk, -j, j)
    acceleration = clamp(clamp(target.next_acceleration, -a, a) - jerk, -(a // 2), a // 2)
    fence = 0
    if axis.stop.ticks >= target.ticks_left:
        fence = (target.rest > axis.position) - (target.rest < axis.position)
    return Aim(
        clamp(target.position, limits.position_min, limits.position_max), clamp(target.step, -v, v), acceleration,
        a - abs(acceleration), max(j - abs(jerk), (j + 3) // 4), target.rest, fence,
    )  # fmt: skip


def miss(axis: Motion, aim: Aim, limits: Limits, jerk: int) -> int:
    """How far beyond the moving target, or the end of the plan, the axis would come to rest if it took this jerk."""
    step = after(axis, jerk)
    _, path = stop_of(step.velocity - aim.velocity, step.acceleration - aim.acceleration, aim.spare_acceleration,
                      aim.spare_jerk)  # fmt: skip
    result = step.position - aim.position + path.end
    if aim.fence != 0:
        _, path = stop_of(step.velocity, step.acceleration, limits.acceleration_max, limits.jerk_max)
        beyond = step.position + path.end - aim.rest
        result = max(result, beyond) if aim.fence > 0 else min(result, beyond)
    return result


def chord(low: int, high: int, part: int, whole: int) -> int:
    while whole >= 1 << 16:
        whole, part = whole >> 4, part >> 4
    ratio = (part << 15) // (whole + 1)
    return clamp(low + cut((high - low) * ratio, 32768), low + 1, high - 1)


def best_jerk(missed_by: Callable[[int], int], least: int, most: int, strictly: int) -> int:
    """Regula falsi by the Illinois rule, cut short; with ``strictly`` the side that the axis comes from."""
    low, high = least, most
    over = missed_by(high)
    if over <= 0:
        return high
    under = missed_by(low)
    if under >= 0:
        return low
    best, missed_best = (high, over) if over < -under else (low, -under)
    for _ in range(CHORDS):
        if high - low <= 1:
            break
        middle = chord(low, high, -under, over - under)
        missed = missed_by(middle)
        if abs(missed) < missed_best:
            best, missed_best = middle, abs(missed)
        if missed > 0:
            high, over, under = middle, missed, cut(under + 1, 2)
        else:
            low, under, over = middle, missed, over // 2
        if 0 in (missed, under, over):
            break
    return best if strictly == 0 else low if strictly > 0 else high


def exactly(axis: Motion, target: Target, aim: Aim, limits: Limits) -> Motion | None:
    """The step that lands on the target, if two more can stay on it."""
    j = limits.jerk_max
    jerk = target.position - axis.position - axis.velocity - axis.acceleration
    if abs(jerk) > j:
        return None
    step = after(axis, jerk)
    ahead = step.velocity - target.step
    then = target.next_acceleration - ahead
    if abs(then) > limits.acceleration_max or abs(then - step.acceleration) > j or abs(ahead + target.jerk) > j:
        return None
    found = stoppable(step, limits)
    if found is None or aim.fence * (found[1] - aim.rest) > 0:
        return None
    return moved(axis, step, *found)


def approach(axis: Motion, jerk: int, limits: Limits) -> Motion:
    """The admissible step nearest to ``jerk``, by halving the way from the tick of the stop."""
    step = after(axis, jerk)
    found = stoppable(step, limits)
    if found is not None:
        return moved(axis, step, *found)
    good, bad = brake(axis, limits).acceleration - axis.acceleration, jerk
    best: Motion | None = None
    for _ in range(HALVINGS):
        if abs(bad - good) <= 1:
            break
        middle = good + cut(bad - good, 2)
        step = after(axis, middle)
        found = stoppable(step, limits)
        if found is None:
            bad = middle
        else:
            good, best = middle, moved(axis, step, *found)
    return best or brake(axis, limits)


def follow(axis: Motion, target: Target, limits: Limits) -> Motion:
    """The axis after one tick towards a target."""
    aim = aim_at(axis, target, limits)
    on_it = exactly(axis, target, aim, limits)
    if on_it is not None:
        return on_it
    a, j = limits.acceleration_max, limits.jerk_max
    least, most = (clamp(side * j, -a - axis.acceleration, a - axis.acceleration) for side in (-1, 1))
    at_rest = aim.velocity == 0 and aim.acceleration == 0 and target.jerk == 0
    goal = aim.rest if aim.fence != 0 else aim.position
    strictly = (axis.position < goal) - (axis.position > goal) if at_rest or aim.fence != 0 else 0
    jerk = best_jerk(lambda jerk: miss(axis, aim, limits, jerk), least, most, strictly)
    if strictly != 0 and strictly * (axis.end - goal) <= 0 and jerk == (least if strictly > 0 else most):
        return brake(axis, limits)  # a stop planned anew may end a little farther than the one that is under way
    return approach(axis, jerk, limits)
