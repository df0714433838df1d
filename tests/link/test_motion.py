"""Knots become integers exactly: the fast way gives the bits of the slow one, and no rounding leaves a limit."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.host.limits import LimitTable
from firmware_bridge.host.messages import LSB_MAX, POSITION_ABS_MAX, ChunkEncoding
from firmware_bridge.host.motion import chunk_message, micro_knots

ONE = LimitTable.from_si(
    ["x"], position_min=[-1.0], position_max=[1.0], velocity_max=[1.0], acceleration_max=[1.0], jerk_max=[10.0],
    following_error_max=[0.1],
)  # fmt: skip


def _table(low: int, high: int, lsb: int) -> LimitTable:
    axis = replace(ONE.axes[0], position_min=low, position_max=high, lsb=lsb)
    return replace(ONE, axes=(axis,))


@given(st.data())
def test_compact_samples_are_those_of_integer_division_one_by_one(data: st.DataObject) -> None:
    low = data.draw(st.integers(-POSITION_ABS_MAX, POSITION_ABS_MAX - 1))
    high = data.draw(st.integers(low + 1, POSITION_ABS_MAX))
    least = -(-max(abs(low), abs(high)) // 32767)
    lsb = data.draw(st.integers(least, max(least, LSB_MAX)))
    table = _table(low, high, lsb)
    micro = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=16))
    samples = micro_knots(np.array(micro, np.float64)[:, None] / 1e6, table, ChunkEncoding.I16_LSB)
    assert samples[:, 0].tolist() == micro
    message = chunk_message(samples, 0, 1_000_000, 1, table, ChunkEncoding.I16_LSB)
    nearest = [min(max((2 * value + lsb) // (2 * lsb), -(-low // lsb)), high // lsb) for value in micro]
    assert message.samples == struct.pack(f"<{len(nearest)}h", *nearest)
    if low // lsb != high // lsb or low % lsb == 0:  # a step lies inside
        assert all(low <= step * lsb <= high for step in nearest)


@given(st.lists(st.integers(-1_000_000, 1_000_000), min_size=1, max_size=16), st.floats(-0.499, 0.499))
def test_whole_samples_are_the_nearest_micro_units(micro: list[int], beside: float) -> None:
    inside = [min(max((value + beside) / 1e6, -1.0), 1.0) for value in micro]
    samples = micro_knots(np.array(inside)[:, None], ONE, ChunkEncoding.I32_MICRO)
    assert samples[:, 0].tolist() == [round(value * 1e6) for value in inside]
    message = chunk_message(samples, 0, 1_000_000, 1, ONE, ChunkEncoding.I32_MICRO)
    assert message.samples == struct.pack(f"<{len(micro)}i", *samples[:, 0].tolist())
