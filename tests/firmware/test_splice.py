"""The splice rules at their boundaries, and what the interpolation between knots promises."""

from __future__ import annotations

import itertools
import math
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.messages import AckCode, McuState
from tests.firmware.mcu import GRIPPER, WIDE, Mcu

FAST = (-500_000, 500_000, 50_000_000, 2_000_000_000, 1_000_000, 1_000_000, 20, 4_000_000_000, 0, 1_000_000, 20_000_000)
"""Limits that never bite: what comes out is the plan itself."""


def at_rest(count: int = 16) -> list[tuple[int]]:
    return [(0,)] * count


@pytest.mark.parametrize(
    ("lead_us", "n", "code", "arg"),
    [
        (2_000, 16, AckCode.OK, 0),  # the guard of two ticks
        (1_999, 16, AckCode.OK_TRIMMED, 1),
        (0, 16, AckCode.OK_TRIMMED, 1),
        (-8_000, 16, AckCode.OK_TRIMMED, 1),
        (-8_001, 16, AckCode.OK_TRIMMED, 2),
        (-48_000, 16, AckCode.OK_TRIMMED, 5),  # 50 ms before now + guard
        (-48_001, 16, AckCode.LATE, 50_001),
        (-60_000, 16, AckCode.LATE, 62_000),
        (-2_000_000_000, 16, AckCode.LATE, 2_000_002_000),
        (-8_000, 3, AckCode.OK_TRIMMED, 1),  # two knots are left
        (-8_001, 3, AckCode.LATE, 10_001),  # one would be
        (0, 2, AckCode.LATE, 2_000),
        (2_000, 1, AckCode.OK, 0),
        (1_999, 1, AckCode.LATE, 1),
    ],
)
def test_a_chunk_that_began_in_the_past_is_trimmed_or_late(lead_us: int, n: int, code: AckCode, arg: int) -> None:
    mcu = Mcu().ready()
    before = mcu.setpoint()
    ack = mcu.ask(mcu.chunk(at_rest(n), lead_us=lead_us, dt_us=10_000, blend_ms=0))
    assert (ack.code, ack.arg, ack.lead_us) == (code, arg, lead_us)
    assert mcu.state == (McuState.ARMED if code == AckCode.LATE else McuState.RUN)
    assert mcu.setpoint() == before


@pytest.mark.parametrize(
    ("blend_ms", "lead_us", "dropped"), [(20, 20_000, 0), (20, 19_000, 1), (20, 5_000, 2), (50, 2_000, 5)]
)
def test_knots_closer_than_the_blend_are_dropped_but_two_are_kept(blend_ms: int, lead_us: int, dropped: int) -> None:
    mcu = Mcu().ready()
    assert mcu.ask(mcu.chunk(at_rest(16), lead_us=lead_us, dt_us=10_000, blend_ms=blend_ms)).arg == dropped
    mcu = Mcu().ready()
    assert mcu.ask(mcu.chunk(at_rest(3), lead_us=2_000, dt_us=1_000, blend_ms=255)).arg == 1


@pytest.mark.parametrize(
    ("last_us", "code"), [(10_000_000, AckCode.OK), (10_000_010, AckCode.FAR), (2**31 - 1, AckCode.FAR)]
)
def test_knots_farther_ahead_than_10_s_are_refused(last_us: int, code: AckCode) -> None:
    mcu = Mcu().ready()
    assert mcu.ask(mcu.chunk(at_rest(1), lead_us=last_us)).code == code


FAR = (-m.POSITION_ABS_MAX, m.POSITION_ABS_MAX, m.VELOCITY_MAX_MAX, m.ACCELERATION_MAX_MAX, 2 * m.POSITION_ABS_MAX,
       2 * m.POSITION_ABS_MAX, 20, m.JERK_MAX_MAX, 0, 2 * m.POSITION_ABS_MAX, 2 * m.POSITION_ABS_MAX)  # fmt: skip
"""The widest table that the wire admits."""


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("jump", [m.POSITION_ABS_MAX // 2, 2 * m.POSITION_ABS_MAX])
def test_the_farthest_jump_that_a_table_can_allow_is_followed_late_and_within_its_limits(jump: int, side: int) -> None:
    """200 units in 2 ms are 1000 times the largest velocity: the slopes are cut, the axis comes when it can."""
    start = -side * jump // 2
    mcu = Mcu([FAR]).ready([start])
    goal = start + side * jump
    assert mcu.ask(mcu.chunk([(goal,)] * 60, lead_us=2_000, blend_ms=0)).code == AckCode.OK
    path = [start, *(q for (q,) in mcu.tick(2_900))]
    steps = [b - a for a, b in itertools.pairwise(path)]
    assert max(map(abs, steps)) <= m.VELOCITY_MAX_MAX // 1000 + 1
    assert all(side * step >= -1 for step in steps), "never away from it"
    assert path[-1] == goal


@pytest.mark.parametrize("stall_us", [7_000_000, 2**24])
def test_a_chunk_taken_after_a_stall_but_before_the_tick_that_finds_it_moves_nothing(stall_us: int) -> None:
    mcu = Mcu().ready([0])
    mcu.now_us += stall_us
    mcu.heartbeat()
    ack = mcu.ask(mcu.chunk([(1_000,)], lead_us=9_999_000))
    assert ack.code in (AckCode.OK, AckCode.FAR)
    assert set(mcu.tick(200)) == {(0,)}
    assert mcu.state == McuState.FAULT and mcu.report().fault == m.Fault.TICK_OVERRUN


@pytest.mark.parametrize("gap_us", [-1_000, 0, 1_000, 400_000])
def test_a_chunk_that_begins_where_the_old_plan_ends_or_later_is_joined_without_a_jump(gap_us: int) -> None:
    mcu = Mcu([FAST]).ready([0])
    mcu.ask(mcu.chunk([(2_000 * k,) for k in range(6)], lead_us=50_000, dt_us=20_000))
    path = [q for (q,) in mcu.tick(100)]
    end_us = mcu.now_us - 100_000 + 50_000 + 5 * 20_000
    lead_us = end_us + 20_000 + gap_us - mcu.now_us
    assert mcu.ask(mcu.chunk([(12_000 - 100 * k,) for k in range(8)], lead_us=lead_us, dt_us=20_000)).code == AckCode.OK
    path += [q for (q,) in mcu.tick(lead_us // 1000 + 160)]
    steps = [b - a for a, b in itertools.pairwise(path)]
    assert max(abs(b - a) for a, b in itertools.pairwise(steps)) <= 40
    assert path[-1] == 12_000 - 700


@pytest.mark.parametrize("now_us", [1_000_000, 2**32 - 200_000, 2**32 - 30_000, 2**33 - 1_000])
def test_the_32_bit_time_of_a_chunk_is_understood_across_its_wrap(now_us: int) -> None:
    mcu = Mcu(now_us=now_us // 1000 * 1000).ready()
    for lead_us in (50_000, 5_000, -5_000):
        ack = mcu.ask(mcu.chunk(at_rest(), lead_us=lead_us))
        assert ack.code in (AckCode.OK, AckCode.OK_TRIMMED) and ack.lead_us == lead_us
        mcu.tick(100)


@pytest.mark.parametrize(
    ("q", "code"),
    [(500_000, AckCode.OK), (500_001, AckCode.RANGE), (-500_000, AckCode.OK), (-500_001, AckCode.RANGE),
     (2**31 - 1, AckCode.RANGE), (-(2**31), AckCode.RANGE)],
)  # fmt: skip
@pytest.mark.parametrize("knot", [0, 7, 15])
def test_a_knot_outside_the_position_limits_refuses_the_whole_chunk(q: int, code: AckCode, knot: int) -> None:
    wide = (*FAST[:5], 2_000_000, 20, 4_000_000_000)
    mcu = Mcu([wide, wide]).ready([0, 0])
    rows = [[0, 0] for _ in range(16)]
    rows[knot][1] = q
    ack = mcu.ask(mcu.chunk(rows))
    assert ack.code == code
    assert ack.arg == (knot * 256 + 1 if code == AckCode.RANGE else 0)


@pytest.mark.parametrize(("step", "code"), [(40_000, AckCode.OK), (40_021, AckCode.OK), (40_022, AckCode.RANGE)])
@pytest.mark.parametrize("side", [-1, 1])
def test_a_step_faster_than_the_velocity_limit_refuses_the_chunk(step: int, code: AckCode, side: int) -> None:
    """0.8 m/s over 50 ms is 40 mm; 1 um and one LSB (20 um) are forgiven to rounding."""
    mcu = Mcu().ready()
    ack = mcu.ask(mcu.chunk([(0,), (0,), (side * step,), (side * step,)]))
    assert (ack.code, ack.arg) == (code, 2 * 256 if code == AckCode.RANGE else 0)


@pytest.mark.parametrize(("jump", "code"), [(80_000, AckCode.OK), (80_001, AckCode.JUMP), (-80_001, AckCode.JUMP)])
def test_a_chunk_that_does_not_begin_near_the_running_plan_is_refused(jump: int, code: AckCode) -> None:
    mcu = Mcu([WIDE, WIDE]).ready([0, 0])
    ack = mcu.ask(mcu.chunk([(0, jump)] * 8))
    assert (ack.code, ack.arg) == (code, 1 if code == AckCode.JUMP else 0)
    mcu = Mcu([WIDE, WIDE]).ready([0, 0])
    assert mcu.ask(mcu.chunk([(0, 0)] * 8)).code == AckCode.OK
    mcu.tick(10)
    assert mcu.ask(mcu.chunk([(0, jump)] * 8)).code == code, "against the running plan too"


def test_a_repeated_id_is_acknowledged_and_ignored_a_lower_one_refused_and_arming_starts_anew() -> None:
    mcu = Mcu().ready()
    first = mcu.chunk(at_rest(), chunk_id=5)
    assert mcu.ask(first).code == AckCode.OK
    assert mcu.ask(m.Chunk(**{**_fields(first), "samples": b"\x7f" * len(first.samples)})).code == AckCode.DUPLICATE
    assert mcu.ask(mcu.chunk(at_rest(), chunk_id=4)).code == AckCode.OLD_CHUNK
    assert mcu.ask(mcu.chunk(at_rest(), chunk_id=2**32 - 1)).code == AckCode.OK
    mcu.ask(m.Disarm())
    mcu.tick(2)
    mcu.configure()
    mcu.arm()
    assert mcu.ask(mcu.chunk(at_rest(), chunk_id=1)).code == AckCode.OK


def _fields(chunk: m.Chunk) -> dict[str, object]:
    return {name: getattr(chunk, name) for name in chunk.__slots__ if name != "TYPE"}


@pytest.mark.parametrize(
    ("change", "code", "arg"),
    [
        ({"chunk_id": 0}, AckCode.BAD_VALUE, 0),
        ({"dt_10us": 99}, AckCode.BAD_VALUE, 2),
        ({"dt_10us": 0}, AckCode.BAD_VALUE, 2),
        ({"n": 0}, AckCode.BAD_VALUE, 3),
        ({"n": 65}, AckCode.BAD_VALUE, 3),
        ({"axes": 2}, AckCode.BAD_VALUE, 4),
        ({"axes": 0}, AckCode.BAD_VALUE, 4),
        ({"encoding": 2}, AckCode.BAD_VALUE, 5),
        ({"mode": 1}, AckCode.BAD_VALUE, 6),
        ({"interpolation": 3}, AckCode.BAD_VALUE, 8),
        ({"samples": b"\0" * 63}, AckCode.BAD_LENGTH, 79),
        ({"samples": b"\0" * 68}, AckCode.BAD_LENGTH, 84),
        ({"samples": b""}, AckCode.BAD_LENGTH, 16),
        ({"encoding": 1}, AckCode.BAD_LENGTH, 80),
        ({"dt_10us": 100}, AckCode.OK, 0),
    ],
)
def test_a_malformed_chunk_is_refused_by_field_and_the_plan_goes_on(
    change: dict[str, object], code: AckCode, arg: int
) -> None:
    mcu = Mcu().ready()
    mcu.ask(mcu.chunk(at_rest()))
    knots = mcu.report().knots
    ack = mcu.ask(m.Chunk(**{**_fields(mcu.chunk(at_rest(), blend_ms=0)), **change}))
    assert (ack.code, ack.arg) == (code, arg)
    if code != AckCode.OK:
        assert mcu.report().knots >= knots - 1
        stats_before = mcu.chunk_id
        assert mcu.ask(mcu.chunk(at_rest())).code == AckCode.OK and mcu.chunk_id > stats_before


def test_the_timeline_takes_64_knots_with_that_of_the_splice_and_says_what_is_free() -> None:
    mcu = Mcu().ready()
    ack = mcu.ask(mcu.chunk(at_rest(64), dt_us=10_000))
    assert (ack.code, ack.arg, ack.free_knots) == (AckCode.FULL, 63, 64)
    ack = mcu.ask(mcu.chunk(at_rest(63), dt_us=10_000))
    assert (ack.code, ack.free_knots) == (AckCode.OK, 0)
    mcu.tick(25)
    # 50 ms from now with 20 ms of blend: four old knots (and the one that the current segment starts at) stay.
    ack = mcu.ask(mcu.chunk(at_rest(63), dt_us=10_000))
    assert ack.code == AckCode.FULL
    assert mcu.ask(mcu.chunk(at_rest(ack.arg), dt_us=10_000)).code == AckCode.OK


def test_both_encodings_give_the_same_motion() -> None:
    knots = [(4_000 * k, 80_000 * k - 600_000) for k in range(16)]
    paths = []
    for encoding in m.ChunkEncoding:
        mcu = Mcu([WIDE, GRIPPER]).ready([0, -600_000])
        assert mcu.ask(mcu.chunk(knots, encoding=encoding)).code == AckCode.OK
        paths.append(mcu.tick(1000))
    assert paths[0] == paths[1]
    assert paths[0][-1] == knots[-1]


def test_sixteen_axes_run() -> None:
    mcu = Mcu([WIDE] * 16).ready([0] * 16)
    chunk = mcu.chunk([[1000 * k + axis for axis in range(16)] for k in range(9)])
    assert mcu.ask(chunk).code == AckCode.OK
    assert mcu.tick(600)[-1] == tuple(8000 + axis for axis in range(16))
    report = mcu.report()
    assert report.axes == 16 and report.setpoint == tuple(8000 + axis for axis in range(16))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1000, 1000), min_size=3, max_size=20), st.sampled_from([5_000, 7_000, 50_000, 333_330]))
def test_between_knots_the_plan_never_leaves_their_hull_and_meets_each_knot(steps: list[int], dt_us: int) -> None:
    # A monotone cubic accelerates by 18 step / dt^2 at most: keep below the 2000 um/tick^2 of the limiter.
    most = min(400_000 / len(steps), 100 * (dt_us / 1000) ** 2)
    knots = [0, *(int(total * most / 1000) for total in itertools.accumulate(steps))]
    limits = (-500_000, 500_000, 100_000_000, 2_000_000_000, 200_000_000, *FAST[5:])
    mcu = Mcu([limits]).ready([knots[0]])
    ack = mcu.ask(mcu.chunk([(q,) for q in knots], lead_us=10_000, dt_us=dt_us, blend_ms=0))
    assert ack.code == AckCode.OK
    start = mcu.now_us + 10_000
    end = start + (len(knots) - 1) * dt_us
    while mcu.now_us + 1000 <= end:
        (q,) = mcu.tick()[0]
        if mcu.now_us < start:
            continue
        k, rest = divmod(mcu.now_us - start, dt_us)
        low, high = sorted(knots[k : k + 2] if rest else [knots[k], knots[k]])
        slack = 0 if rest else 1
        assert low - slack <= q <= high + slack


def _acceleration(path: list[int]) -> int:
    steps = [b - a for a, b in itertools.pairwise(path)]
    return max(abs(b - a) for a, b in itertools.pairwise(steps))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-60, 200), st.integers(10_000, 70_000)), min_size=2, max_size=8), st.integers(0, 60)
)
def test_position_and_velocity_continue_over_any_splice(splices: list[tuple[int, int]], blend_ms: int) -> None:
    """Chunks that disagree with each other, spliced at any phase: the commanded velocity never steps by more than the
    acceleration limit, and the position never by more than the velocity limit."""
    mcu = Mcu().ready([0])
    path = [0]
    for wait, amplitude in splices:
        q0 = mcu.setpoint()[0]
        knots = [(max(-450_000, min(450_000, q0 + int(amplitude * math.sin(k / 4)))),) for k in range(16)]
        code = mcu.ask(mcu.chunk(knots, lead_us=wait * 250, blend_ms=blend_ms)).code
        assert code in (AckCode.OK, AckCode.OK_TRIMMED)
        path += [q for (q,) in mcu.tick(30 + abs(wait))]
    assert _acceleration(path) <= 10 + 2, "10 m/s^2 is 10 um/tick^2; each position is rounded to 1 um"
    assert max(abs(b - a) for a, b in itertools.pairwise(path)) <= 801


def test_a_reversal_is_one_smooth_curve_from_the_old_velocity_to_the_new() -> None:
    """Limits that never bite, so this is the plan: from +0.5 to -0.5 m/s. A hard switch would step by 1000 um/tick."""
    mcu = Mcu([FAST]).ready([0])
    mcu.ask(mcu.chunk([(25_000 * k,) for k in range(16)]))
    path = [q for (q,) in mcu.tick(200)]
    q0 = path[-1]
    mcu.ask(mcu.chunk([(q0 - 25_000 * k,) for k in range(1, 16)], lead_us=60_000, blend_ms=60))
    path += [q for (q,) in mcu.tick(300)]
    steps = [b - a for a, b in itertools.pairwise(path[150:])]
    assert max(steps) >= 495 and min(steps) <= -495
    assert _acceleration(path[150:]) <= 80


def test_replanning_the_same_motion_does_not_disturb_it() -> None:
    """A sine sampled anew every 100 ms, at phases that never meet a knot: the output stays within 20 um of it."""
    mcu = Mcu().ready([0])
    begin = mcu.now_us

    def plan(t_us: int) -> int:
        return int(100_000 * (1 - math.cos(math.pi * max(0, t_us - begin - 50_000) / 1e6)))

    errors, path = [], []
    for turn in range(60):
        lead = 50_000 + turn * 137 % 1000
        knots = [(plan(mcu.now_us + lead + 50_000 * k),) for k in range(16)]
        assert mcu.ask(mcu.chunk(knots, lead_us=lead)).code == AckCode.OK
        mcu.tick(100)
        for (q,) in mcu.tick(1):
            errors.append(abs(q - plan(mcu.now_us)))
            path.append(q)
    assert max(errors) <= 20
    assert mcu.report().clipped == 0


def test_a_new_chunk_leaves_the_old_plan_alone_until_the_blend_begins() -> None:
    """The old plan goes on to 150 ms; the new one starts there, 30 mm aside, with 20 ms of blend."""
    knots = [(1_000 * k,) for k in range(16)]
    alone, spliced = Mcu().ready([0]), Mcu().ready([0])
    for mcu in (alone, spliced):
        mcu.ask(mcu.chunk(knots))
        mcu.tick(100)
    assert spliced.ask(spliced.chunk([(30_000,)] * 8, lead_us=150_000)).code == AckCode.OK
    assert alone.tick(129) == spliced.tick(129)
    assert alone.tick(20)[-1] != spliced.tick(20)[-1]


def test_the_last_knot_is_reached_at_rest() -> None:
    mcu = Mcu().ready([0])
    mcu.ask(mcu.chunk([(4_000 * k,) for k in range(6)] + [(21_000,), (21_500,)]))
    path = [q for (q,) in mcu.tick(450)]
    assert path[-1] == 21_500 and mcu.state == McuState.STARVED
    assert path[-5:] == [21_500] * 5


def test_no_extreme_chunk_moves_the_arm_beyond_its_limits() -> None:
    """The extremes of every field at once, through every encoding: nothing but an ACK comes of them."""
    mcu = Mcu([WIDE, GRIPPER]).ready([0, 0])
    for value in (0, 1, 255, 2**31 - 1, 2**31, 2**32 - 1):
        for n in (0, 1, 16, 64, 255):
            for encoding in (0, 1, 255):
                samples = struct.pack("<I", value) * min(2 * n, 140)
                chunk = m.Chunk(max(1, value), value, 5000, n, 2, encoding, 0, value & 255, 0, samples[:560])
                mcu.ask(chunk)
                for x, g in mcu.tick(3):
                    assert -500_000 <= x <= 500_000 and -1_000_000 <= g <= 1_000_000
