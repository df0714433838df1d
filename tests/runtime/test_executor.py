"""The executor never extrapolates, never jumps and never takes a chunk that is late, old, foreign or out of order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_wam.config import GuardConfig, PlanConfig
from edge_wam.contracts import ActionChunk
from edge_wam.executor import Executor, Splice
from edge_wam.faults import Fault, Refused
from edge_wam.guard import Guard
from tests.runtime.robot import robot

MS = 1_000_000
DT = 50 * MS
ROBOT = robot()
HOME = np.array([0.0, 0.6, 0.2, 0.0])
HASH = "a" * 64


def executor(**plan: float) -> Executor:
    made = Executor(ROBOT, PlanConfig(**plan), Guard(ROBOT, GuardConfig()), HASH)  # type: ignore[arg-type]
    made.start(HOME)
    return made


def chunk(state_at: int, number: int, prefix: np.ndarray, velocity: float = 0.1, **change: object) -> ActionChunk:
    """What an obedient model answers: the prefix, then straight on along x."""
    q = np.tile(HOME, (16, 1))
    q[: len(prefix)] = prefix
    start = q[len(prefix) - 1] if len(prefix) else HOME
    count = 16 - len(prefix)
    q[len(prefix):] = start + np.outer(np.arange(1, count + 1) * velocity * 0.05, [1, 0, 0, 0])
    fields: dict[str, object] = dict(
        t0_ns=state_at + DT, dt_ns=DT, q=q, observed_at_ns=state_at, sequence=number, model_hash=HASH,
        prefix=len(prefix),
    )
    return ActionChunk(**{**fields, **change})  # type: ignore[arg-type]


def offer(ex: Executor, made: ActionChunk, now: int, latency: int = 30 * MS) -> Splice:
    return ex.offer(made, now, asked_sequence=made.sequence, answered_after_ns=latency)


def test_holds_where_it_was_armed_until_the_first_splice() -> None:
    ex = executor()
    now = 10_000 * MS
    assert np.array_equal(ex.at(now), HOME) and ex.end_ns == 0
    prefix = ex.prefix(now - 20 * MS, now)
    assert len(prefix) >= 1 and np.array_equal(prefix, np.tile(HOME, (len(prefix), 1)))
    splice = offer(ex, chunk(now - 20 * MS, 1, prefix), now + 30 * MS)
    assert splice.t0_ns >= now + 30 * MS + ex.lead_ns
    assert np.array_equal(splice.q[0], HOME)
    assert np.array_equal(ex.at(splice.t0_ns - DT // 2), HOME), "no ramp towards the plan before it begins"


def test_never_extrapolates_beyond_the_last_knot() -> None:
    ex = executor()
    splice = offer(ex, chunk(0, 1, ex.prefix(0, 10 * MS)), 40 * MS)
    assert ex.end_ns == splice.t0_ns + (len(splice.q) - 1) * DT
    assert np.array_equal(ex.at(ex.end_ns + 1), splice.q[-1])
    assert np.array_equal(ex.at(ex.end_ns + 10**12), splice.q[-1])
    assert not ex.velocity_before(ex.end_ns + 10).any()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 90), st.floats(-0.3, 0.3)), min_size=2, max_size=12))
def test_position_and_speed_never_jump_at_a_splice(cycles: list[tuple[int, int, float]]) -> None:
    """Any frame age, any latency, any new direction: the plan stays continuous and within the velocity limit."""
    ex = executor()
    now = 10_000 * MS
    for sequence, (age, latency, velocity) in enumerate(cycles, start=1):
        observed = now - age * MS
        made = chunk(observed, sequence, ex.prefix(observed, now), velocity)
        done = now + latency * MS
        before = {t: ex.at(t) for t in range(done, done + 60 * MS, 5 * MS)}
        try:
            splice = offer(ex, made, done, latency * MS)
        except Refused:
            assert all(np.array_equal(ex.at(t), q) for t, q in before.items()), "a refused chunk changed the plan"
        else:
            assert splice.t0_ns >= done + ex.lead_ns
            for t, q in before.items():
                if t < splice.t0_ns - DT:
                    assert np.allclose(ex.at(t), q, atol=1e-12), "the committed part changed"
        grid = np.array([ex.at(t) for t in range(now, now + 1200 * MS, 5 * MS)])
        assert (np.abs(np.diff(grid, axis=0)) <= ROBOT.vector("velocity_max") * 0.005 * (1 + 1e-6)).all()
        now += 100 * MS


def test_an_obedient_answer_splices_without_any_difference_to_the_running_plan() -> None:
    ex = executor()
    now = 10_000 * MS
    for sequence in range(1, 9):
        observed = now - 23 * MS
        prefix = ex.prefix(observed, now)
        done = now + 30 * MS
        old = [ex.at(t) for t in range(done, done + 20 * MS, MS)]
        made = chunk(observed, sequence, prefix)
        splice = offer(ex, made, done)
        assert made.q[made.prefix - 1] == pytest.approx(splice.q[0], abs=1e-12)
        assert np.allclose([ex.at(t) for t in range(done, done + 20 * MS, MS)], old, atol=1e-12)
        now += 107 * MS


def test_prefix_reaches_the_expected_splice_and_no_farther_than_the_plan() -> None:
    ex = executor(expected_latency_ms=40.0, lead_ms=20.0)
    now = 10_000 * MS
    assert len(ex.prefix(now, now)) == 2  # splice at 60 ms: knots at 50 and 100 ms
    assert len(ex.prefix(now + 30 * MS, now)) == 1, "the start of the chunk is committed even when all is early"
    offer(ex, chunk(now, 1, ex.prefix(now, now)), now + 30 * MS, 130 * MS)
    late = ex.end_ns - 20 * MS
    assert len(ex.prefix(late, late)) == 0, "knots beyond the end of the plan are not committed"
    assert len(ex.prefix(now + 100 * MS, now + 100 * MS)) == 3, "the slowest answer of late is expected again"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"sequence": 0}, Fault.CHUNK_SEQUENCE),
        ({"model_hash": "b" * 64}, Fault.CHUNK_OTHER_MODEL),
        ({"dt_ns": DT + 1}, Fault.CHUNK_SHAPE),
        ({"q": np.zeros((16, 3))}, Fault.CHUNK_SHAPE),
        ({"observed_at_ns": -300 * MS}, Fault.CHUNK_STALE),
        ({"observed_at_ns": 41 * MS}, Fault.CHUNK_STALE),
        ({"t0_ns": -800 * MS}, Fault.CHUNK_LATE),
        ({"q": np.tile(HOME + np.array([0.05, 0, 0, 0]), (16, 1))}, Fault.CHUNK_JUMP),
    ],
)
def test_refuses_and_leaves_the_plan_alone(change: dict[str, object], fault: Fault) -> None:
    ex = executor()
    made = chunk(0, 1, ex.prefix(0, 10 * MS), **change)
    with pytest.raises(Refused) as refused:
        ex.offer(made, 40 * MS, asked_sequence=made.sequence, answered_after_ns=30 * MS)
    assert refused.value.fault is fault and ex.end_ns == 0 and ex.running is None


def test_an_answer_to_another_question_is_refused() -> None:
    ex = executor()
    with pytest.raises(Refused) as refused:
        ex.offer(chunk(0, 5, ex.prefix(0, 10 * MS)), 40 * MS, asked_sequence=6, answered_after_ns=30 * MS)
    assert refused.value.fault is Fault.CHUNK_SEQUENCE


def test_age_limit_is_camera_budget_and_two_plan_periods() -> None:
    limit = (50 + 2 * 100) * MS
    for age, taken in ((limit, True), (limit + 1, False)):
        ex = executor(rate_hz=10.0)
        made = chunk(1000 * MS - age, 1, np.zeros((0, 4)), velocity=0.0)
        if taken:
            offer(ex, made, 1000 * MS)
        else:
            with pytest.raises(Refused):
                offer(ex, made, 1000 * MS)


def test_what_the_microcontroller_refused_is_not_the_plan() -> None:
    ex = executor()
    first = offer(ex, chunk(0, 1, ex.prefix(0, 10 * MS)), 40 * MS)
    plan = [ex.at(t) for t in range(0, 900 * MS, 7 * MS)]
    second = offer(ex, chunk(100 * MS, 2, ex.prefix(100 * MS, 110 * MS), -0.2), 140 * MS)
    assert not ex.refused_by_mcu(first.chunk_id)
    assert ex.refused_by_mcu(second.chunk_id)
    assert np.allclose([ex.at(t) for t in range(0, 900 * MS, 7 * MS)], plan)


def test_a_lost_chunk_is_repeated_under_a_new_id_without_changing_the_motion() -> None:
    ex = executor()
    first = offer(ex, chunk(0, 1, ex.prefix(0, 10 * MS)), 40 * MS)
    plan = [ex.at(t) for t in range(200 * MS, 800 * MS, 7 * MS)]
    again = ex.repeat(200 * MS)
    assert again is not None and again.chunk_id > first.chunk_id and again.t0_ns >= 200 * MS + ex.lead_ns
    for k, q in enumerate(again.q):
        assert np.allclose(ex.at(again.t0_ns + k * DT), q)
    assert np.allclose([ex.at(t) for t in range(200 * MS, 800 * MS, 7 * MS)], plan)
    assert ex.repeat(ex.end_ns) is None


def test_a_slow_wire_lengthens_the_lead_and_only_within_reason() -> None:
    ex = executor(lead_ms=20.0)
    assert ex.lead_ns == 20 * MS
    ex.arrived(40 * MS)
    assert ex.lead_ns == 43 * MS
    for _ in range(16):
        ex.arrived(5 * MS)
    assert ex.lead_ns == 20 * MS, "never shorter than configured"
    ex.arrived(10_000 * MS)
    assert ex.lead_ns == 100 * MS


def test_after_the_plan_ran_dry_the_arm_holds_until_the_next_splice_begins() -> None:
    ex = executor()
    offer(ex, chunk(0, 1, ex.prefix(0, 10 * MS)), 40 * MS)
    end, held = ex.end_ns, ex.at(ex.end_ns)
    now = end + 500 * MS
    splice = offer(ex, chunk(now - 20 * MS, 2, np.tile(held, (2, 1))), now)
    for t in range(end, splice.t0_ns, 20 * MS):
        assert np.array_equal(ex.at(t), held), "a ramp across the gap"
    assert not ex.velocity_before(splice.t0_ns).any()
