"""The guard can slow, shorten or refuse; whatever comes out is within every limit and never ahead of what was asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge_wam.config import GuardConfig
from edge_wam.faults import Fault, Refused
from edge_wam.guard import Guard
from tests.runtime.robot import robot

DT = 0.05
ROBOT = robot()
GUARD = Guard(ROBOT, GuardConfig())
LOW, HIGH = ROBOT.vector("position_min"), ROBOT.vector("position_max")
VELOCITY, ACCELERATION = ROBOT.vector("velocity_max"), ROBOT.vector("acceleration_max")


@st.composite
def motions(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Knots that start inside, and step by up to 1.5 times the velocity limit; a start velocity within the limit."""
    n = draw(st.integers(2, 16))
    unit = st.floats(-1, 1, allow_nan=False, width=32)
    start = LOW + (HIGH - LOW) * (draw(arrays(np.float64, 4, elements=unit)) + 1) / 2
    pace = draw(st.sampled_from([0.05, 0.5, 1.5, 4.0]))
    steps = draw(arrays(np.float64, (n - 1, 4), elements=unit)) * VELOCITY * DT * pace
    smooth = draw(st.booleans())
    if smooth:
        steps = np.repeat(steps[:1], n - 1, axis=0)
    asked = np.vstack((start, start + np.cumsum(steps, axis=0)))
    velocity = steps[0] / DT if draw(st.booleans()) else draw(arrays(np.float64, 4, elements=unit)) * VELOCITY
    return asked, np.clip(velocity, -0.98 * VELOCITY, 0.98 * VELOCITY)


@settings(max_examples=400, deadline=None)
@given(motions())
def test_output_is_within_every_limit(motion: tuple[np.ndarray, np.ndarray]) -> None:
    asked, velocity = motion
    try:
        out = GUARD.shape(asked, velocity, DT).q
    except Refused:
        return
    assert (out >= LOW).all() and (out <= HIGH).all()
    speed = np.diff(out, axis=0) / DT
    assert (np.abs(speed) <= VELOCITY * (1 + 1e-9)).all()
    changes = np.diff(np.vstack((velocity, speed)), axis=0) / DT
    assert (np.abs(changes) <= ACCELERATION * (1 + 1e-9)).all()


@settings(max_examples=150, deadline=None)
@given(motions())
def test_output_is_on_the_asked_path_and_never_farther_along(motion: tuple[np.ndarray, np.ndarray]) -> None:
    asked, velocity = motion
    try:
        shaped = GUARD.shape(asked, velocity, DT)
    except Refused:
        return
    path = np.clip(asked, LOW, HIGH)
    assert np.array_equal(shaped.q[0], path[0])
    assert (np.diff(shaped.progress) >= 0).all()
    assert (shaped.progress <= np.arange(len(asked)) + 1e-9).all()
    for point, place in zip(shaped.q, shaped.progress, strict=True):
        assert np.allclose(point, _path_at(path, place), atol=1e-9)


def _path_at(path: np.ndarray, s: float) -> np.ndarray:
    whole = min(int(s), len(path) - 2)
    return (1 - (s - whole)) * path[whole] + (s - whole) * path[whole + 1]


def test_a_slow_chunk_passes_unchanged() -> None:
    asked = np.linspace([0.0, 0.6, 0.2, -1.0], [0.1, 0.6, 0.2, -1.0], 16)
    shaped = GUARD.shape(asked, np.zeros(4), DT)
    assert np.array_equal(shaped.q, asked) and not shaped.slowed


def test_a_gripper_that_snaps_shut_is_slowed_not_refused() -> None:
    asked = np.tile([0.0, 0.6, 0.2, -1.0], (16, 1))
    asked[1:, 3] = 1.0
    shaped = GUARD.shape(asked, np.zeros(4), DT)
    assert shaped.slowed and shaped.q[-1, 3] == 1.0 and shaped.q[1, 3] < 0.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_none_refuses_the_whole_chunk(value: float) -> None:
    asked = np.tile([0.0, 0.6, 0.2, 0.0], (16, 1))
    asked[15, 2] = value
    with pytest.raises(Refused) as refused:
        GUARD.shape(asked, np.zeros(4), DT)
    assert refused.value.fault is Fault.CHUNK_NOT_FINITE


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("side", [-1, 1])
def test_position_limit_clamps_within_tolerance_and_refuses_beyond(axis: int, side: int) -> None:
    edge = (LOW if side < 0 else HIGH)[axis]
    span = HIGH[axis] - LOW[axis]
    start = np.array([0.0, 0.6, 0.2, 0.0])
    start[axis] = edge
    asked = np.tile(start, (4, 1))
    asked[1:, axis] = edge + side * 0.019 * span
    assert GUARD.shape(asked, np.zeros(4), DT).q[-1, axis] == edge
    asked[1:, axis] = edge + side * 0.021 * span
    with pytest.raises(Refused) as refused:
        GUARD.shape(asked, np.zeros(4), DT)
    assert refused.value.fault is Fault.CHUNK_OUTSIDE_LIMITS
    assert ROBOT.axes[axis].name in refused.value.what


@pytest.mark.parametrize(("ratio", "taken"), [(2.99, True), (3.01, False)])
def test_speed_beyond_the_ratio_is_refused(ratio: float, taken: bool) -> None:
    asked = np.tile([0.0, 0.6, 0.2, 0.0], (16, 1))
    asked[1:, 0] = ratio * VELOCITY[0] * DT
    if taken:
        assert GUARD.shape(asked, np.zeros(4), DT).slowed
    else:
        with pytest.raises(Refused) as refused:
            GUARD.shape(asked, np.zeros(4), DT)
        assert refused.value.fault is Fault.CHUNK_TOO_FAST


def test_a_sudden_stop_from_full_speed_is_refused_not_overshot() -> None:
    asked = np.tile([0.0, 0.6, 0.2, 0.0], (16, 1))
    with pytest.raises(Refused) as refused:
        GUARD.shape(asked, np.array([0.78, 0.0, 0.0, 0.0]), DT)
    assert refused.value.fault is Fault.CHUNK_TOO_ABRUPT
