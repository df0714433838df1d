"""The pacer keeps absolute deadlines, never runs a burst, and its account of lateness is right."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_wam.errors import ConfigError
from edge_wam.histogram import Histogram
from edge_wam.realtime import Pacer

MS = 1_000_000


@given(st.lists(st.integers(0, 70), min_size=1, max_size=200))
def test_deadlines_stay_on_the_grid_and_lie_ahead(work_ms: list[int]) -> None:
    pacer, now = Pacer(100.0), 5 * MS
    pacer.start(now)
    for work in work_ms:
        now = max(now, pacer.deadline_ns)
        deadline = pacer.deadline_ns
        assert pacer.arrive(now) == now - deadline
        assert pacer.deadline_ns > now
        assert (pacer.deadline_ns - 5 * MS) % (10 * MS) == 0
        now += work * MS
    elapsed = (pacer.deadline_ns - 5 * MS) // (10 * MS) - 1
    assert pacer.ticks + pacer.missed == elapsed


def test_a_stall_is_counted_once_and_not_made_up_for() -> None:
    pacer = Pacer(100.0)
    pacer.start(0)
    assert pacer.arrive(10 * MS) == 0
    assert pacer.arrive(57 * MS) == 37 * MS
    assert pacer.missed == 3 and pacer.deadline_ns == 60 * MS


def test_lagging_is_a_tenth_over_a_hundred_periods() -> None:
    for period, lagging in ((10.9, False), (11.3, True)):
        pacer = Pacer(100.0)
        pacer.start(0)
        for k in range(1, 300):
            pacer.arrive(int(k * period * MS))
        assert pacer.lagging is lagging


def test_a_rate_of_nothing_is_refused() -> None:
    for rate in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError):
            Pacer(rate)


@given(st.lists(st.integers(0, 10**10), min_size=1, max_size=300), st.floats(0.1, 100))
def test_percentiles_are_right_to_one_bucket(values: list[int], percent: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact = sorted(values)[math.ceil(percent / 100 * len(values)) - 1]
    found = histogram.percentile_ns(percent)
    assert exact <= found <= max(exact * 1.13, 1_000)
    summary = histogram.summary()
    assert summary.max_ms == max(values) / 1e6 and summary.min_ms == min(values) / 1e6
    assert summary.count == len(values)


def test_an_empty_histogram_claims_nothing() -> None:
    assert Histogram().summary().count == 0 and Histogram().percentile_ns(99) == 0
