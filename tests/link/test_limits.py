"""The table on the wire is never wider than the one that a person wrote; an impossible one is refused by name."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.limits import LimitTable

GOOD = {
    "position_min": -0.5, "position_max": 0.5, "velocity_max": 0.8, "acceleration_max": 10.0, "jerk_max": 1000.0,
    "following_error_max": 0.25,
}


def table(**changes: float) -> LimitTable:
    return LimitTable.from_si(["x"], **{key: [value] for key, value in (GOOD | changes).items()})


@given(st.floats(-99, 0), st.floats(0.001, 99), st.floats(0.01, 99), st.floats(0.01, 1999))
def test_rounding_goes_inwards(low: float, high: float, velocity: float, acceleration: float) -> None:
    (axis,) = table(
        position_min=low, position_max=high, velocity_max=velocity, acceleration_max=acceleration
    ).axes
    slack = Fraction(1, 10**12)  # a millionth of a micro-unit
    assert Fraction(axis.position_min, 10**6) >= Fraction(low) - slack
    uppers = ((axis.position_max, high), (axis.velocity_max, velocity), (axis.acceleration_max, acceleration))
    for micro, value in uppers:
        assert Fraction(micro, 10**6) <= Fraction(value) + slack
        assert Fraction(micro, 10**6) >= Fraction(value) - Fraction(2, 10**6)


def test_a_decimal_number_that_binary_cannot_hold_loses_nothing() -> None:
    (axis,) = table(position_min=0.07, position_max=0.29, velocity_max=0.3).axes
    assert (axis.position_min, axis.position_max, axis.velocity_max) == (70_000, 290_000, 300_000)


@pytest.mark.parametrize("key", sorted(GOOD))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e10])
def test_a_number_that_is_none_or_too_large_is_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(FirmwareError, match=f"axis x: {key}"):
        table(**{key: value})


@pytest.mark.parametrize("key", ["velocity_max", "acceleration_max", "jerk_max", "following_error_max"])
@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9])
def test_a_rate_that_is_not_positive_is_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(FirmwareError, match=f"axis x: {key}"):
        table(**{key: value})


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.5), (0.5, -0.5), (0.1000001, 0.1000009)])
def test_an_empty_range_is_refused(low: float, high: float) -> None:
    with pytest.raises(FirmwareError, match="position_min"):
        table(position_min=low, position_max=high)


def test_vectors_of_different_lengths_and_too_many_axes_are_refused() -> None:
    with pytest.raises(FirmwareError, match="2 axes"):
        LimitTable.from_si(["x", "y"], **{key: [value] for key, value in GOOD.items()})
    with pytest.raises(FirmwareError, match="17 axes"):
        LimitTable.from_si([str(i) for i in range(17)], **{key: [value] * 17 for key, value in GOOD.items()})
    with pytest.raises(FirmwareError, match="0 axes"):
        LimitTable.from_si([], **{key: [] for key in GOOD})


def test_the_crc_tells_two_tables_apart() -> None:
    assert table().crc != table(velocity_max=0.800001).crc


@given(st.floats(-99, -0.001), st.floats(0.001, 99))
def test_the_short_encoding_reaches_both_ends_of_the_range(low: float, high: float) -> None:
    (axis,) = table(position_min=low, position_max=high).axes
    assert axis.lsb * 32767 >= max(-axis.position_min, axis.position_max)
