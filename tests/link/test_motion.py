"""Knots become integers exactly: the fast way gives the bits of the slow one, and no rounding leaves a limit."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from firmware_bridge.errors import ChunkRefused
from firmware_bridge.host import knots
from firmware_bridge.host._knots import encode as encode_compiled
from firmware_bridge.host.knots import F64, encode_numpy
from firmware_bridge.host.limits import LimitTable
from firmware_bridge.host.messages import LSB_MAX, POSITION_ABS_MAX, ChunkEncoding
from firmware_bridge.host.motion import chunk_message, encode_knots

ONE = LimitTable.from_si(
    ["x"], position_min=[-1.0], position_max=[1.0], velocity_max=[1.0], acceleration_max=[1.0], jerk_max=[10.0],
    following_error_max=[0.1],
)  # fmt: skip
Encode = Callable[[F64, F64, bool], bytes | int]
both = pytest.mark.parametrize("encode", [encode_numpy, encode_compiled], ids=["numpy", "compiled"])


def _table(*bounds: tuple[int, int, int]) -> F64:
    axes = [replace(ONE.axes[0], position_min=low, position_max=high, lsb=lsb) for low, high, lsb in bounds]
    return knots.KnotBounds.of(axes).table


@st.composite
def _bounds(draw: st.DrawFn) -> tuple[int, int, int]:
    low = draw(st.integers(-POSITION_ABS_MAX, POSITION_ABS_MAX - 1))
    high = draw(st.integers(low + 1, POSITION_ABS_MAX))
    least = -(-max(abs(low), abs(high)) // 32767)
    return low, high, draw(st.integers(least, max(least, LSB_MAX)))


def test_the_compiled_encoder_is_the_one_in_use() -> None:
    assert knots.compiled() and knots.encode is encode_compiled


@both
@given(data=st.data())
def test_compact_samples_are_those_of_integer_division_one_by_one(encode: Encode, data: st.DataObject) -> None:
    low, high, lsb = data.draw(_bounds())
    micro = data.draw(st.lists(st.integers(low, high), min_size=1, max_size=16))
    samples = encode(np.array(micro, np.float64)[:, None] / 1e6, _table((low, high, lsb)), True)
    nearest = [min(max((2 * value + lsb) // (2 * lsb), -(-low // lsb)), high // lsb) for value in micro]
    assert samples == struct.pack(f"<{len(nearest)}h", *nearest)
    if low // lsb != high // lsb or low % lsb == 0:  # a step lies inside
        assert all(low <= step * lsb <= high for step in nearest)


@both
@given(micro=st.lists(st.integers(-1_000_000, 1_000_000), min_size=1, max_size=16), beside=st.floats(-0.499, 0.499))
def test_whole_samples_are_the_nearest_micro_units(encode: Encode, micro: list[int], beside: float) -> None:
    inside = [min(max((value + beside) / 1e6, -1.0), 1.0) for value in micro]
    samples = encode(np.array(inside)[:, None], ONE.knots.table, False)
    assert samples == struct.pack(f"<{len(micro)}i", *[round(value * 1e6) for value in inside])


NEAR = st.floats(-2.0, 2.0) | st.floats() | st.sampled_from([1.0000005, 1.00000051, -1.0000005, 0.0000005, 0.0000015])


@given(
    arrays.arrays(np.float64, st.tuples(st.integers(0, 9), st.integers(1, 4)), elements=NEAR),
    st.lists(_bounds() | st.just((-1_000_000, 1_000_000, 31)), min_size=4, max_size=4),
    st.booleans(),
    st.booleans(),
)
def test_the_compiled_encoder_is_the_numpy_one_to_the_last_bit(
    q: F64, bounds: list[tuple[int, int, int]], compact: bool, strided: bool
) -> None:
    table = _table(*bounds[: q.shape[1]])
    seen = np.repeat(np.repeat(q, 2, axis=0), 3, axis=1)[::2, ::3] if strided else q
    assert encode_compiled(seen, table, compact) == encode_numpy(q, table, compact)
    assert encode_compiled(np.asfortranarray(q), table, compact) == encode_numpy(q, table, compact)


@pytest.mark.parametrize(
    ("q", "table"),
    [
        (np.zeros(3), ONE.knots.table),
        (np.zeros((3, 2)), ONE.knots.table),
        (np.zeros((3, 1), np.float32), ONE.knots.table),
        (np.zeros((3, 1)), ONE.knots.table[:4]),
        (np.zeros((3, 2)), np.repeat(ONE.knots.table, 4, axis=1)[:, ::2]),
        (np.zeros((3, 1)), ONE.knots.table.astype(np.float32)),
    ],
)
def test_the_compiled_encoder_reads_nothing_that_has_another_shape(q: F64, table: F64) -> None:
    with pytest.raises(ValueError, match="KnotBounds"):
        encode_compiled(q, table, True)


@pytest.mark.parametrize("encoding", list(ChunkEncoding))
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1.000001, -1.000001, 1e300])
def test_a_number_that_is_none_or_outside_is_refused_with_its_place(bad: float, encoding: ChunkEncoding) -> None:
    q = np.zeros((5, 1))
    q[3] = bad
    with pytest.raises(ChunkRefused, match=r"knot 3, axis x is .*\n.*-1 \.\. 1"):
        encode_knots(q, ONE, encoding)


def test_a_chunk_says_what_it_carries() -> None:
    samples = encode_knots(np.zeros((3, 1)), ONE, ChunkEncoding.I16_LSB)
    message = chunk_message(samples, 3, 1, 2**32 + 7, 50_000_000, 9, ChunkEncoding.I16_LSB)
    assert (message.chunk_id, message.t0_us, message.dt_10us, message.n, message.axes) == (9, 7, 5000, 3, 1)
    assert message.samples == bytes(6)
