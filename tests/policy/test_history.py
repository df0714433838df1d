"""Each slot of the context holds the frame nearest to the age the model was trained for, once, or honest nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_wam.history import FrameHistory, context_buffers
from tests.support.tiny_bundle import MODEL

DT = 50_000_000
STRIDE = MODEL.past_stride_knots * DT
TOKENS = MODEL.tokens_per_frame + 1


def kv(value: float) -> np.ndarray:
    return np.full((MODEL.layers, 2, TOKENS, MODEL.width), value, np.float32)


def filled(history: FrameHistory, now: int) -> tuple[list[float], list[float]]:
    past, mask = context_buffers(MODEL)
    past[...] = np.nan  # whatever was there before must not survive
    mask[...] = np.nan
    history.fill(now, past, mask)
    slots = past.reshape(MODEL.layers, 2, MODEL.past_frames, TOKENS, MODEL.width)
    values = []
    for slot in range(MODEL.past_frames):
        assert (slots[:, :, slot] == slots[0, 0, slot, 0, 0]).all()
        values.append(float(slots[0, 0, slot, 0, 0]))
    return values, mask[0].tolist()


def test_oldest_first_and_nothing_at_the_start() -> None:
    history = FrameHistory(MODEL, DT)
    assert filled(history, 0) == ([0, 0, 0], [0, 0, 0])
    for k in range(1, 6):
        history.append(k * STRIDE, kv(k))
        oldest = [max(0, k - 2), max(0, k - 1), k]
        assert filled(history, (k + 1) * STRIDE) == (oldest, [float(v > 0) for v in oldest])
    history.clear()
    assert filled(history, 7 * STRIDE) == ([0, 0, 0], [0, 0, 0])


def test_planning_more_often_than_the_slots_are_apart_picks_by_age() -> None:
    history = FrameHistory(MODEL, DT)
    for k in range(1, 20):
        history.append(k * DT, kv(k))
    assert filled(history, 20 * DT) == ([14, 16, 18], [1, 1, 1])
    assert filled(history, 20 * DT + DT // 4)[0] == [14, 16, 18]


def test_the_same_frame_again_replaces_itself() -> None:
    history = FrameHistory(MODEL, DT)
    history.append(STRIDE, kv(1))
    history.append(STRIDE, kv(2))
    assert len(history) == 1 and filled(history, 2 * STRIDE)[0] == [0, 0, 2]


def test_what_was_appended_is_a_copy() -> None:
    history = FrameHistory(MODEL, DT)
    mine = kv(1)
    history.append(STRIDE, mine)
    mine[...] = 9
    assert filled(history, 2 * STRIDE)[0] == [0, 0, 1]


@given(gaps=st.lists(st.integers(1, 3 * STRIDE), max_size=40), wait=st.integers(0, 4 * STRIDE))
def test_a_slot_holds_the_nearest_frame_less_than_half_a_slot_away_once(gaps: list[int], wait: int) -> None:
    history = FrameHistory(MODEL, DT)
    times = np.cumsum(gaps).tolist() if gaps else []
    for index, at in enumerate(times):
        history.append(at, kv(index + 1))
    now = (times[-1] if times else 0) + wait
    values, mask = filled(history, now)
    used = [v for v in values if v]
    assert len(set(used)) == len(used)
    for slot, (value, valid) in enumerate(zip(values, mask, strict=True)):
        wanted = now - (MODEL.past_frames - slot) * STRIDE
        off = [abs(at - wanted) for at in times]
        near = bool(off) and 2 * min(off) < STRIDE
        assert valid == float(near) == float(value != 0)
        if near:
            assert off[int(value) - 1] == min(off)


def test_a_frame_halfway_between_two_slots_serves_neither() -> None:
    history = FrameHistory(MODEL, DT)
    history.append(0, kv(1))
    assert filled(history, STRIDE + STRIDE // 2)[1] == [0, 0, 0]
    assert filled(history, STRIDE + STRIDE // 2 - 1)[1] == [0, 0, 1]


def test_memory_is_bounded() -> None:
    history = FrameHistory(MODEL, DT)
    for k in range(10_000):
        history.append(k * DT // 4, kv(0))
    assert len(history) <= 4 * MODEL.past_stride_knots * (MODEL.past_frames + 1)
    assert filled(history, 10_000 * DT // 4)[1] == [1, 1, 1]
