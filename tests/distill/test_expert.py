"""The follower keeps its limits whatever it chases; labels stop where the expert was not in charge."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distill.data.expert import EFFORT, Follower
from distill.data.generate import KNOTS, hindsight_chunks
from edge_wam.sim.world import PHYSICS_STEP_NS
from tests.distill.tiny import ROBOT

DT_S = PHYSICS_STEP_NS * 1e-9
LOW, HIGH = ROBOT.vector("position_min"), ROBOT.vector("position_max")
anywhere = hnp.arrays(np.float64, 4, elements=st.floats(-3.0, 3.0))


@settings(max_examples=40, deadline=None)
@given(start=anywhere, targets=st.lists(st.tuples(anywhere, st.integers(1, 60)), min_size=1, max_size=6))
def test_limits_hold_for_any_target(start: np.ndarray, targets: list[tuple[np.ndarray, int]]) -> None:
    follower = Follower(ROBOT, start)
    way = [follower.position.copy()]
    for target, steps in targets:
        way += [follower.step(target, DT_S).copy() for _ in range(steps)]
    positions = np.array(way)
    assert (positions >= LOW).all() and (positions <= HIGH).all()
    velocity = np.diff(np.vstack([positions[:1], positions]), axis=0) / DT_S  # from rest
    assert (np.abs(velocity) <= EFFORT * ROBOT.vector("velocity_max") * (1 + 1e-9)).all()
    acceleration = np.diff(velocity, axis=0) / DT_S
    assert (np.abs(acceleration) <= EFFORT * ROBOT.vector("acceleration_max") * (1 + 1e-6) + 1e-6).all()


@settings(max_examples=40, deadline=None)
@given(start=anywhere, target=anywhere)
def test_a_target_at_rest_is_reached_and_never_overshot(start: np.ndarray, target: np.ndarray) -> None:
    follower = Follower(ROBOT, start)
    goal = np.clip(target, LOW, HIGH)
    before = follower.position.copy()
    side = np.sign(goal - before)
    # Trapezoid: way / v + v / a, with one step to spare for every phase.
    v, a = follower.v_max, follower.a_max
    steps = int(np.ceil((np.abs(goal - before) / v + v / a).max() / DT_S)) + 5
    for _ in range(steps):
        now = follower.step(target, DT_S).copy()
        assert ((goal - now) * side >= -1e-12).all(), "overshot"
        assert ((now - before) * side >= -1e-12).all(), "went back"
        before = now
    np.testing.assert_allclose(before, goal, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(expert=st.lists(st.booleans(), min_size=1, max_size=40))
def test_labels_end_at_the_first_knot_that_was_not_the_experts(expert: list[bool]) -> None:
    action = np.arange(len(expert) * 4, dtype=np.float64).reshape(-1, 4)
    chunk, mask = hindsight_chunks(action, np.array(expert, float))
    assert chunk.shape == (len(expert), KNOTS, 4) and mask.shape == (len(expert), KNOTS)
    for t in range(len(expert)):
        window = expert[t : t + KNOTS]
        good = window.index(False) if False in window else len(window)
        assert mask[t].tolist() == [1.0] * good + [0.0] * (KNOTS - good)
        np.testing.assert_array_equal(chunk[t, :good], action[t : t + good])
        assert not chunk[t, good:].any(), "nothing is made up where there is no label"
