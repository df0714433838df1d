"""The clock estimate is never further off than the bound that it reports, and says so when it does not know."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host.clock_sync import DISAGREE_LIMIT, WINDOW, ClockSync

SECOND = 1_000_000_000


class TrueClocks:
    """An MCU clock that is ahead by ``offset_us`` and fast by ``ppm``."""

    def __init__(self, offset_us: int, ppm: float) -> None:
        self.offset_us, self.ppm = offset_us, ppm

    def mcu_us(self, host_ns: int) -> int:
        return int(host_ns * (1 + self.ppm * 1e-6)) // 1000 + self.offset_us

    def exchange(self, sync: ClockSync, at_ns: int, there_ns: int, back_ns: int, think_ns: int = 50_000) -> int:
        t2, t3 = self.mcu_us(at_ns + there_ns), self.mcu_us(at_ns + there_ns + think_ns)
        end = at_ns + there_ns + think_ns + back_ns
        sync.add(at_ns, t2, t3, end)
        return end


def test_nothing_is_known_before_the_first_exchange() -> None:
    sync = ClockSync()
    assert sync.bound_ns(0) == math.inf
    assert sync.samples == 0


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**10),
    st.floats(-50, 50),
    st.integers(0, 2**32),
    st.floats(0.0, 1.0),
)
def test_the_error_stays_within_the_bound_for_any_delays(offset: int, ppm: float, seed: int, asymmetry: float) -> None:
    clocks, sync, rng = TrueClocks(offset, ppm), ClockSync(), random.Random(seed)
    at = 5 * SECOND
    for step in range(120):
        delay = int(rng.expovariate(1 / 400_000)) + 20_000
        there = int(delay * (asymmetry if rng.random() < 0.7 else rng.random()))
        at = clocks.exchange(sync, at, there, delay - there) + (20_000_000 if step < WINDOW else 500_000_000)
        error_us = abs(sync.to_mcu_us(at) - clocks.mcu_us(at))
        assert error_us * 1000 <= sync.bound_ns(at) + 2000
    assert sync.restarts == 0


def test_drift_is_measured_and_then_corrected() -> None:
    clocks, sync = TrueClocks(123_456, 80.0), ClockSync()
    at = SECOND
    for _ in range(60):
        at = clocks.exchange(sync, at, 30_000, 30_000) + 500_000_000
    assert sync.drift_ppm == pytest.approx(80.0, abs=5.0)
    ahead = at + 5 * SECOND
    assert abs(sync.to_mcu_us(ahead) - clocks.mcu_us(ahead)) < 100


def test_the_bound_grows_while_no_exchange_succeeds() -> None:
    clocks, sync = TrueClocks(0, 0.0), ClockSync()
    end = clocks.exchange(sync, 0, 30_000, 30_000)
    assert sync.bound_ns(end) < 100_000
    assert sync.bound_ns(end + 20 * SECOND) > 1_000_000


def test_one_late_exchange_does_not_move_a_good_estimate() -> None:
    clocks, sync = TrueClocks(77, 0.0), ClockSync()
    at = SECOND
    for _ in range(10):
        at = clocks.exchange(sync, at, 30_000, 30_000) + 50_000_000
    before = sync.to_mcu_us(at)
    clocks.exchange(sync, at, 400_000_000, 1_000)
    assert abs(sync.to_mcu_us(at) - before) <= 1


def test_a_stepped_clock_is_noticed_and_the_old_estimate_is_thrown_away() -> None:
    clocks, sync = TrueClocks(1_000_000, 0.0), ClockSync()
    at = SECOND
    for _ in range(WINDOW):
        at = clocks.exchange(sync, at, 30_000, 30_000) + 50_000_000
    clocks.offset_us += 250_000
    for _ in range(DISAGREE_LIMIT):
        at = clocks.exchange(sync, at, 30_000, 30_000) + 50_000_000
    assert sync.restarts == 1
    assert abs(sync.to_mcu_us(at) - clocks.mcu_us(at)) < 100


@given(st.integers(0, 10**12), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**12))
def test_impossible_stamps_are_refused(t1: int, t2: int, t3: int, t4: int) -> None:
    sync = ClockSync()
    sync.add(t1, t2, t3, t4)
    if t4 < t1 or t3 < t2 or (t4 - t1) - (t3 - t2) * 1000 < -1000:
        assert sync.samples == 0 and sync.rejected == 1
    else:
        assert sync.samples == 1


def test_there_and_back_is_the_identity_to_a_microsecond() -> None:
    clocks, sync = TrueClocks(987_654_321, 10.0), ClockSync()
    end = clocks.exchange(sync, SECOND, 30_000, 40_000)
    for host_ns in (end, end + 800_000_000, end - 3_000_000):
        assert abs(sync.to_host_ns(sync.to_mcu_us(host_ns), end) - host_ns) <= 1000
