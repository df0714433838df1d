"""The three kinds of curve between knots: what they promise, what is refused, and that any may follow any."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.messages import AckCode, ChunkInterpolation, McuState
from tests.firmware.mcu import GRIPPER, WIDE, Mcu
from tests.firmware.test_splice import FAST

LINEAR, GIVEN = ChunkInterpolation.LINEAR, ChunkInterpolation.HERMITE_VELOCITY
HALF_M_S = 500_000


def run(mcu: Mcu, chunk: m.Chunk, ticks: int) -> list[int]:
    assert mcu.ask(chunk).code == AckCode.OK
    return [q for (q,) in mcu.tick(ticks)]


def test_a_linear_plan_is_straight_between_its_knots() -> None:
    """Limits that hardly bite: a corner of 0.4 m/s is rounded off within two ticks."""
    knots = [0, 0, 20_000, 20_000, 5_000, 5_000]
    mcu = Mcu([FAST]).ready([0])
    path = run(mcu, mcu.chunk([(q,) for q in knots], interpolation=LINEAR), 310)
    for ticks, q in enumerate(path, 1):
        k, rest = divmod(ticks - 50, 50)
        if 0 <= k < 5 and 3 <= rest <= 47:
            assert abs(q - (knots[k] + (knots[k + 1] - knots[k]) * rest / 50)) <= 1.01, f"tick {ticks}"
    assert path[-1] == 5_000


@pytest.mark.parametrize("side", [-1, 1])
def test_a_linear_plan_that_ends_at_speed_ends_at_rest_on_its_last_knot(side: int) -> None:
    mcu = Mcu().ready([0])
    path = run(mcu, mcu.chunk([(side * 20_000 * k,) for k in range(8)], interpolation=LINEAR), 700)
    assert 0 <= side * (side * 140_000 - path[-1]) <= 100 and len(set(path[-50:])) == 1
    assert max(side * q for q in path) <= 140_000


def sine(at_ms: float) -> tuple[int, int]:
    """Position and velocity of 60 mm at 1 Hz, from rest."""
    w = 2 * math.pi / 1000
    return round(30_000 * (1 - math.cos(w * at_ms))), round(30_000 * w * 1000 * math.sin(w * at_ms))


@pytest.mark.parametrize("encoding", list(m.ChunkEncoding))
def test_velocities_that_are_given_are_met_at_the_knots(encoding: int) -> None:
    """A sine at knots of 50 ms: a cubic with the true velocities is within 4 um of it, one without them within 40."""
    errors = {}
    for interpolation in (GIVEN, ChunkInterpolation.HERMITE):
        mcu = Mcu().ready([0])
        rows = [sine(50 * k) for k in range(17)]
        chunk = mcu.chunk(
            [(q,) for q, _ in rows], interpolation=interpolation, encoding=encoding,
            velocities=[(v,) for _, v in rows] if interpolation == GIVEN else (),
        )  # fmt: skip
        path = run(mcu, chunk, 800)
        errors[interpolation] = max(abs(q - sine(ticks - 50)[0]) for ticks, q in enumerate(path, 1) if ticks >= 50)
    assert errors[GIVEN] <= (4 if encoding == m.ChunkEncoding.I32_MICRO else 40)
    assert errors[GIVEN] < errors[ChunkInterpolation.HERMITE] or encoding == m.ChunkEncoding.I16_LSB


def test_both_encodings_of_velocities_give_the_same_motion() -> None:
    """Steps of 20 um and 25 um/s, and of 40 um and 611 um/s; every velocity counts, also the very first one."""
    knots = [(4_000 * k, 80_000 * k - 600_000) for k in range(13)]
    velocities = [(25 * (1_000 + 100 * k), 611 * (100 + 10 * k)) for k in range(13)]
    paths = []
    for encoding in m.ChunkEncoding:
        mcu = Mcu([WIDE, GRIPPER]).ready([0, -600_000])
        chunk = mcu.chunk(knots, interpolation=GIVEN, velocities=velocities, encoding=encoding)
        assert mcu.ask(chunk).code == AckCode.OK
        paths.append(mcu.tick(700))
    assert paths[0] == paths[1]


def test_a_last_knot_with_a_velocity_is_the_end_all_the_same() -> None:
    mcu = Mcu().ready([0])
    rows = [(15_000 * k, 300_000) for k in range(8)]
    rows[0] = (0, 0)
    path = run(mcu, mcu.chunk([(q,) for q, _ in rows], interpolation=GIVEN, velocities=[(v,) for _, v in rows]), 600)
    assert mcu.state == McuState.STARVED and max(path) <= 105_000 and 105_000 - path[-1] <= 100


@pytest.mark.parametrize(
    ("knot", "velocity", "position", "code"),
    [
        (3, 800_000, 0, AckCode.OK),
        (3, 800_025, 0, AckCode.OK),  # one step of the i16 encoding is forgiven
        (3, 800_026, 0, AckCode.RANGE),
        (3, -800_026, 0, AckCode.RANGE),
        (0, 2**31 - 1, 0, AckCode.RANGE),
        (7, -(2**31), 0, AckCode.RANGE),
        (3, 300_000, 495_000, AckCode.OK),  # a third of 50 ms at 0.3 m/s is 5 mm
        (3, 302_000, 495_000, AckCode.RANGE),
        (3, -302_000, 495_000, AckCode.RANGE),
        (3, -302_000, -495_000, AckCode.RANGE),
        (3, 0, 500_000, AckCode.OK),
        (7, 302_000, 495_000, AckCode.OK),  # after the last knot there is no curve; before it, it comes from below
        (7, -302_000, 495_000, AckCode.RANGE),
        (0, -302_000, 495_000, AckCode.OK),
        (0, 302_000, 495_000, AckCode.RANGE),
        (7, 302_000, -495_000, AckCode.RANGE),
    ],
)
def test_a_velocity_beyond_its_limit_or_a_curve_that_could_leave_the_positions_refuses_the_chunk(
    knot: int, velocity: int, position: int, code: AckCode
) -> None:
    mcu = Mcu([WIDE]).ready([position])
    velocities = [(0,)] * 8
    velocities[knot] = (velocity,)
    ack = mcu.ask(mcu.chunk([(position,)] * 8, interpolation=GIVEN, velocities=velocities))
    assert (ack.code, ack.arg) == (code, knot * 256 if code == AckCode.RANGE else 0)


@pytest.mark.parametrize("interpolation", list(ChunkInterpolation))
@pytest.mark.parametrize("position", [-500_001, 500_001])
def test_a_knot_outside_the_position_limits_refuses_the_chunk_whatever_lies_between(
    interpolation: ChunkInterpolation, position: int
) -> None:
    near = 490_000 if position > 0 else -490_000
    mcu = Mcu([WIDE, WIDE]).ready([0, near])
    rows = [(0, near)] * 3 + [(0, position)] * 3
    velocities = [(0, 0)] * 6 if interpolation == GIVEN else []
    ack = mcu.ask(mcu.chunk(rows, interpolation=interpolation, velocities=velocities))
    assert (ack.code, ack.arg) == (AckCode.RANGE, 3 * 256 + 1)
    assert mcu.state == McuState.ARMED


@pytest.mark.parametrize("encoding", list(m.ChunkEncoding))
@pytest.mark.parametrize(("interpolation", "velocities"), [(GIVEN, 0), (GIVEN, 7), (GIVEN, 9), (LINEAR, 8)])
def test_velocities_that_are_missing_or_too_many_refuse_the_chunk(
    interpolation: int, velocities: int, encoding: int
) -> None:
    mcu = Mcu().ready([0])
    chunk = mcu.chunk([(0,)] * 8, interpolation=interpolation, velocities=[(0,)] * velocities, encoding=encoding)
    assert mcu.ask(chunk).code == AckCode.BAD_LENGTH and mcu.state == McuState.ARMED


def test_one_frame_holds_seven_axes_with_velocities_at_21_knots() -> None:
    mcu = Mcu([WIDE] * 7).ready([0] * 7)
    rows = [[0] * 7] * 21
    chunk = mcu.chunk(rows, interpolation=GIVEN, velocities=rows, encoding=m.ChunkEncoding.I16_LSB, dt_us=20_000)
    assert len(chunk.samples) + m.CHUNK_HEADER_BYTES + m.HEADER_BYTES + m.CRC_BYTES <= m.MAX_BODY_BYTES
    assert mcu.ask(chunk).code == AckCode.OK


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(ChunkInterpolation)), st.integers(5, 90), st.integers(-60_000, 60_000)),
                min_size=2, max_size=7))  # fmt: skip
def test_any_kind_may_follow_any_at_any_moment_within_the_limits(
    chunks: list[tuple[ChunkInterpolation, int, int]],
) -> None:
    mcu = Mcu().ready([0])
    path = [0] * 4
    for interpolation, wait, wish in chunks:
        q = path[-1]
        way = max(-440_000, min(440_000, q + wish)) - q
        knots = [(q + way * k // 9,) for k in range(10)]
        velocities = [(way * 20 // 9,)] * 10 if interpolation == GIVEN else []
        code = mcu.ask(mcu.chunk(knots, interpolation=interpolation, velocities=velocities, lead_us=30_000)).code
        assert code == AckCode.OK
        path += [q for (q,) in mcu.tick(wait)]
    steps = [b - a for a, b in itertools.pairwise(path)]
    changes = [b - a for a, b in itertools.pairwise(steps)]
    assert max(abs(s) for s in steps) <= 801
    assert max(abs(c) for c in changes) <= 10 + 2
    assert max(abs(b - a) for a, b in itertools.pairwise(changes)) <= 4 + 4, "four roundings to 1 um"
