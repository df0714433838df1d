"""Conversions between drives and axes: exact to one code, monotone, and nothing outside is clamped."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from tests.drives.arm import motor_set
from tests.drives.core import LIB, axis_of, code_of, shaft_of

PI_NANO = 3_141_592_654
RATIOS = st.integers(1, m.DRIVE_RATIO_MAX)
# (most in nano-units, highest code): positions of a Damiao, its velocities, torques
SCALES = st.sampled_from([(12_500_000_000, 65535), (30_000_000_000, 4095), (280_000_000_000, 4095), (8_000_000, 4095)])


@given(st.integers(-(2**60), 2**60), st.integers(1, 2**31))
def test_nearest_is_the_nearest_and_halves_go_down(a: int, b: int) -> None:
    got = LIB.ew_nearest(a, b)
    error = Fraction(a, b) - got
    assert -Fraction(1, 2) < error <= Fraction(1, 2)


@given(SCALES, st.data())
def test_a_code_comes_back_from_its_value(scale: tuple[int, int], data: st.DataObject) -> None:
    most, top = scale
    code = data.draw(st.integers(0, top))
    assert code_of(LIB.ew_value_of(code, most, top), most, top) == code


@given(SCALES, st.data())
def test_a_value_comes_back_within_half_a_code(scale: tuple[int, int], data: st.DataObject) -> None:
    most, top = scale
    value = data.draw(st.integers(-most, most))
    code = code_of(value, most, top)
    assert code is not None and 0 <= code <= top
    assert abs(LIB.ew_value_of(code, most, top) - value) <= most // top + 1


@given(SCALES, st.data())
def test_codes_are_monotone_and_nothing_outside_is_clamped(scale: tuple[int, int], data: st.DataObject) -> None:
    most, top = scale
    one, other = sorted(data.draw(st.lists(st.integers(-most, most), min_size=2, max_size=2)))
    low, high = code_of(one, most, top), code_of(other, most, top)
    assert low is not None and high is not None and low <= high
    beyond = data.draw(st.integers(1, 2**40))
    assert code_of(most + beyond, most, top) is None and code_of(-most - beyond, most, top) is None
    assert code_of(most, most, top) == top and code_of(-most, most, top) == 0


@given(RATIOS, RATIOS, st.booleans(), st.integers(-(10**8), 10**8), st.integers(-PI_NANO, PI_NANO))
def test_an_axis_is_zero_plus_shaft_times_ratio(num: int, den: int, turned: bool, zero: int, shaft: int) -> None:
    binding = motor_set(0, 1, ratio_num=-num if turned else num, ratio_den=den, zero=zero)
    exact = zero + Fraction(shaft, 1000) * Fraction(binding.ratio_num, den)
    got = axis_of(binding, shaft)
    if abs(exact) > 2 * m.POSITION_ABS_MAX + 1:
        assert got is None
    elif abs(exact) < 2 * m.POSITION_ABS_MAX - 1:
        assert got is not None and abs(got - exact) <= Fraction(1, 2)


@given(st.integers(1, 1000), st.integers(1, 1000), st.booleans(), st.integers(-(10**7), 10**7), st.integers(1, 65534))
def test_a_position_of_a_drive_comes_back_as_its_setpoint(
    num: int, den: int, turned: bool, zero: int, code: int
) -> None:
    """Armed, the axis holds where it is: what was read must be commanded again, to one code."""
    most, top = 12_500_000_000, 65535
    binding = motor_set(0, 1, ratio_num=-num if turned else num, ratio_den=den, zero=zero)
    axis = axis_of(binding, LIB.ew_value_of(code, most, top))
    if axis is None:
        return
    shaft = shaft_of(binding, axis)
    assert shaft is not None
    back = code_of(min(most, max(-most, shaft)), most, top)
    # half a micro-unit of the axis, seen at the shaft, and the code's own rounding
    slack = Fraction(den * 1000, 2 * num) / Fraction(2 * most, top) + Fraction(1, 2)
    assert back is not None and abs(back - code) <= slack + Fraction(1, 2)
    if num >= den:
        assert abs(back - code) <= 1


@given(RATIOS, RATIOS, st.integers(-(10**8), 10**8))
def test_what_a_ratio_takes_in_way_it_gives_in_force(num: int, den: int, torque: int) -> None:
    got = axis_of(motor_set(0, 1, ratio_num=num, ratio_den=den), torque, "effort")
    exact = Fraction(torque) * den / num
    if abs(exact) > m.EFFORT_MAX_MAX + 1:
        assert got is None
    elif abs(exact) < m.EFFORT_MAX_MAX - 1:
        assert got is not None and abs(got - exact) <= Fraction(1, 2)


@pytest.mark.parametrize(
    ("what", "value"),
    [("position", 10**12 + 1), ("position", -(10**12) - 1), ("velocity", 10**12 + 1), ("effort", 2 * 10**9 + 1)],
)
def test_numbers_that_would_overflow_are_refused(what: str, value: int) -> None:
    assert axis_of(motor_set(0, 1, ratio_num=10**6), value, what) is None


def test_a_setpoint_beyond_the_drive_is_refused_and_not_clamped() -> None:
    most = 12_500_000_000
    assert shaft_of(motor_set(0, 1), 12_500_000) == most and code_of(most, most, 65535) == 65535
    assert shaft_of(motor_set(0, 1), 12_500_001) == most + 1000 and code_of(most + 1000, most, 65535) is None
    assert shaft_of(motor_set(0, 1, ratio_den=80), 12_500_000) == 80 * most
    assert shaft_of(motor_set(0, 1, ratio_den=80), 12_500_001) is None, "1,000 rad"
    assert shaft_of(motor_set(0, 1), 2 * m.POSITION_ABS_MAX + 1) is None
    assert shaft_of(motor_set(0, 1), m.VELOCITY_MAX_MAX + 1, "velocity") is None
    assert axis_of(motor_set(0, 1, ratio_num=100), 4_000_000_000) is None, "400 rad of an axis"
    assert axis_of(motor_set(0, 1, ratio_num=100), 30_000_000_000, "velocity") is None, "3,000 rad/s of an axis"
