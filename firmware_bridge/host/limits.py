"""The table of limits that is uploaded to the microcontroller and locked there, in whole micro-units.

Micro-units (um, urad, 1e-6 of a unitless axis) as int32: a number that is none cannot exist on the wire. A limit is
rounded towards the inside, so the table on the MCU is never wider than the one that a person wrote.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.framing import crc32c
from firmware_bridge.host.messages import (
    ACCELERATION_MAX_MAX,
    ACCELERATION_MIN,
    LSB_MAX,
    MAX_AXES,
    POSITION_ABS_MAX,
    VELOCITY_MAX_MAX,
    LimitsSet,
)

MICRO = 1_000_000
JUMP_S = 0.1
"""A new chunk may begin as far from the running plan as the axis covers in this time at full speed; an honest splice
differs by less than one replan period's motion, a chunk for another arm or another zero by more."""
_ROUNDING = 1e-6
"""In micro-units: forgives the last bit of ``0.07 * 1e6 == 70000.00000000001``, nothing that could be measured."""
_I16_MAX = 32767


def _micro(name: str, value: float, low: int, high: int, *, upper: bool) -> int:
    """``value`` in micro-units, rounded down (``upper``) or up, and checked to lie within low..high micro-units."""
    scaled = value * MICRO
    micro = None
    if math.isfinite(scaled):
        micro = math.floor(scaled + _ROUNDING) if upper else math.ceil(scaled - _ROUNDING)
    if micro is None or not low <= micro <= high:
        raise FirmwareError(
            f"{name} is {value}", expected=f"a number in {low / MICRO:g} .. {high / MICRO:g}",
            remedy="correct the robot file",
        )
    return micro


@dataclass(frozen=True, slots=True)
class LimitTable:
    """The limits of every axis, in the order of the wire, as the messages that upload them."""

    names: tuple[str, ...]
    axes: tuple[LimitsSet, ...]

    @classmethod
    def from_si(
        cls,
        names: Sequence[str],
        *,
        position_min: Sequence[float],
        position_max: Sequence[float],
        velocity_max: Sequence[float],
        acceleration_max: Sequence[float],
        following_error_max: Sequence[float],
    ) -> LimitTable:
        """From one vector [D] per limit, in the axes' own units (m, rad, 1) and seconds.

        Raises:
            FirmwareError: the vectors differ in length; a number is not finite or outside what the firmware takes;
                an empty position range.
        """
        columns = (position_min, position_max, velocity_max, acceleration_max, following_error_max)
        if not 1 <= len(names) <= MAX_AXES or any(len(column) != len(names) for column in columns):
            raise FirmwareError(
                f"{len(names)} axes with limit vectors of lengths {[len(column) for column in columns]}",
                expected=f"1..{MAX_AXES} axes and one number per axis in each vector", remedy="correct the robot file",
            )
        axes = []
        for index, name in enumerate(names):
            at = f"axis {name}: "
            low = _micro(at + "position_min", position_min[index], -POSITION_ABS_MAX, POSITION_ABS_MAX, upper=False)
            high = _micro(at + "position_max", position_max[index], -POSITION_ABS_MAX, POSITION_ABS_MAX, upper=True)
            if low >= high:
                raise FirmwareError(
                    f"{at}position_min {position_min[index]} is not below position_max {position_max[index]}",
                    expected="at least one micro-unit between them", remedy="correct the robot file",
                )
            velocity = _micro(at + "velocity_max", velocity_max[index], ACCELERATION_MIN, VELOCITY_MAX_MAX, upper=True)
            axes.append(
                LimitsSet(
                    axis=index,
                    position_min=low,
                    position_max=high,
                    velocity_max=velocity,
                    acceleration_max=_micro(
                        at + "acceleration_max", acceleration_max[index], ACCELERATION_MIN, ACCELERATION_MAX_MAX,
                        upper=True,
                    ),
                    following_error_max=_micro(
                        at + "following_error_max", following_error_max[index], 1, 2 * POSITION_ABS_MAX, upper=True
                    ),
                    jump_max=max(1, min(high - low, round(velocity * JUMP_S))),
                    lsb=min(LSB_MAX, -(-max(abs(low), abs(high)) // _I16_MAX)),
                )
            )
        return cls(tuple(names), tuple(axes))

    @property
    def dof(self) -> int:
        return len(self.axes)

    @property
    def crc(self) -> int:
        """CRC-32C over the uploads: what LIMITS_COMMIT, ARM and HELLO speak of."""
        return crc32c(b"".join(axis.pack() for axis in self.axes))
