"""Percentiles are values that happened."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.spread import Spread, percentile

VALUES = st.lists(st.integers(0, 10**9), min_size=1, max_size=300)


@given(VALUES, st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_a_measured_value_that_enough_do_not_exceed(values: list[int], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered and sum(v <= found for v in ordered) >= share * len(ordered)
    assert sum(v < found for v in ordered) <= share * (len(ordered) - 1) + 1


@given(VALUES)
def test_a_spread_has_the_percentiles_that_numpy_calls_higher(values: list[int]) -> None:
    low, p50, p99, high = (float(np.percentile(values, p, method="higher")) for p in (0, 50, 99, 100))
    assert Spread.of(values) == Spread(len(values), low, p50, p99, high)


def test_nothing_measured_is_all_zero() -> None:
    assert Spread.of([]) == Spread(0, 0.0, 0.0, 0.0, 0.0)
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(4, 1.0, 3.0, 10.0, 10.0)
