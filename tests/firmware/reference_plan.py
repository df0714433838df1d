"""The plan as a list of knots: what a splice makes of it, in exact integers; the oracle of ew_timeline.c."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from firmware_bridge.host.messages import GUARD_US, LATE_MAX_US, MAX_KNOTS, AckCode, ChunkInterpolation
from tests.firmware.reference import clamp, cut
from tests.firmware.test_curve import FREE, MONOTONE, SECANT_MAX, STRAIGHT, TICK_US, reference
from tests.firmware.test_timeline import ONE, SUB, Knot

SHAPES = {
    ChunkInterpolation.HERMITE: MONOTONE, ChunkInterpolation.LINEAR: STRAIGHT,
    ChunkInterpolation.HERMITE_VELOCITY: FREE,
}  # fmt: skip


@dataclass(frozen=True)
class At:
    """A knot: sub, and sub per 2^24 us, per axis."""

    at_us: int
    position: tuple[int, ...]
    slope: tuple[int, ...]
    shape: int


@dataclass(frozen=True)
class Asked:
    """A chunk: micro-units and micro-units/s per knot and axis."""

    t0_us: int
    dt_us: int
    blend_us: int
    interpolation: int
    position: tuple[tuple[int, ...], ...]
    velocity: tuple[tuple[int, ...], ...]

    def time(self, k: int) -> int:
        return self.t0_us + k * self.dt_us


def secant(way: int, time_us: int) -> int:
    return clamp(cut(way * ONE, time_us), -SECANT_MAX, SECANT_MAX)


def monotone(before: int, after: int, part: int) -> int:
    """``part`` of 2^16 of the way from one slope to the other, and no steeper than three times the flatter one."""
    if before * after <= 0:
        return 0
    most = 3 * min(abs(before), abs(after))
    return clamp(before + cut(after - before, 65536) * part, -most, most)


def on(plan: Sequence[At], axis: int, now_us: int) -> tuple[int, int, int, int]:
    """Position, slope, second and third difference of a running plan."""
    i = 1
    while i + 1 < len(plan) and plan[i].at_us <= now_us:
        i += 1
    a, b = (Knot(at_us=knot.at_us, shape=knot.shape) for knot in plan[i - 1 : i + 1])
    for knot, at in ((a, plan[i - 1]), (b, plan[i])):
        knot.position[0], knot.slope[0] = at.position[axis], at.slope[axis]
    return reference(a, b, now_us)


def sampled(plan: Sequence[At], axis: int, now_us: int) -> int:
    """Position; after the last knot that of the last knot."""
    return plan[-1].position[axis] if now_us > plan[-1].at_us else on(plan, axis, now_us)[0]


def advanced(plan: list[At], now_us: int) -> list[At]:
    while len(plan) > 1 and plan[1].at_us <= now_us:
        plan = plan[1:]
    return plan


def targets(plan: Sequence[At], now_us: int) -> list[tuple[int, ...]] | None:
    """Position, step, the differences to come, the end, and ticks until then; None: the plan is over."""
    left_us = plan[-1].at_us - now_us
    if left_us < 0:
        return None
    out = []
    for axis, end in enumerate(plan[-1].position):
        position, _, second, third = on(plan, axis, now_us)
        step = position - on(plan, axis, now_us - TICK_US)[0]
        out.append((position, step, second, third, end, left_us // TICK_US))
    return out


def slopes(asked: Asked, axis: int) -> list[int]:
    """At each knot of a chunk."""
    if asked.interpolation == ChunkInterpolation.HERMITE_VELOCITY:
        return [cut(row[axis] * SUB * ONE, 1_000_000) for row in asked.velocity]
    q = [row[axis] for row in asked.position]
    ways = [secant((b - a) * SUB, asked.dt_us) for a, b in itertools.pairwise(q)]
    if asked.interpolation == ChunkInterpolation.LINEAR:
        inner = ways[1:]
    else:
        inner = [monotone(before, after, 1 << 15) for before, after in itertools.pairwise(ways)]
    return [0, *inner, 0][: len(q)] if len(q) > 1 else [0]


def splice(
    plan: list[At], asked: Asked, at_us: int, axes: Sequence[tuple[int, int]], now_us: int, jump_max: Sequence[int]
) -> tuple[int, int, list[At]]:
    """The answer, its argument, and the plan after it. axes: commanded position and velocity at the tick ``at_us``."""
    n = len(asked.position)
    leave_us = asked.t0_us - asked.blend_us
    if len(plan) < 2 or leave_us >= plan[-1].at_us or leave_us <= at_us:
        leave_us = at_us
    first = sum(asked.time(k) < now_us + GUARD_US for k in range(n))
    if first > 0 and (now_us + GUARD_US - asked.t0_us > LATE_MAX_US or first + 2 > n):
        return AckCode.LATE, now_us + GUARD_US - asked.t0_us, plan
    while first + 2 < n and asked.time(first) < leave_us + asked.blend_us:
        first += 1
    for axis, (commanded, _) in enumerate(axes):
        running = sampled(plan, axis, asked.time(first)) if plan else commanded
        if abs(asked.position[first][axis] * SUB - running) > jump_max[axis] * SUB:
            return AckCode.JUMP, axis, plan
    kept = sum(knot.at_us < leave_us for knot in plan) if leave_us > at_us else 0
    if n - first > MAX_KNOTS - 1 - kept:
        return AckCode.FULL, MAX_KNOTS - 1 - kept, plan
    if leave_us > at_us:
        old = [on(plan, axis, leave_us) for axis in range(len(axes))]
        leave = At(leave_us, tuple(o[0] for o in old), tuple(o[1] for o in old), FREE)
    else:
        speeds = tuple(cut(velocity * ONE, TICK_US) for _, velocity in axes)
        leave = At(at_us, tuple(position for position, _ in axes), speeds, FREE)
    columns = [slopes(asked, axis) for axis in range(len(axes))]
    if asked.interpolation != ChunkInterpolation.HERMITE_VELOCITY and first + 1 < n:
        h = asked.time(first) - leave_us
        part = 1 << 15 if h == asked.dt_us else h * 65536 // (h + asked.dt_us)
        for axis, column in enumerate(columns):
            q, following = (asked.position[k][axis] * SUB for k in (first, first + 1))
            before, after = secant(q - leave.position[axis], h), secant(following - q, asked.dt_us)
            linear = asked.interpolation == ChunkInterpolation.LINEAR
            column[first] = after if linear else monotone(before, after, part)
    shape = SHAPES[ChunkInterpolation(asked.interpolation)]
    added = [
        At(asked.time(k), tuple(q * SUB for q in asked.position[k]), tuple(column[k] for column in columns), shape)
        for k in range(first, n)
    ]
    return (AckCode.OK_TRIMMED if first else AckCode.OK), first, [*plan[:kept], leave, *added]
