"""The table of limits that is uploaded to the microcontroller and locked there, in whole micro-units.

Micro-units (um, urad, 1e-6 of a unitless axis) as int32: a number that is none cannot exist on the wire. A limit is
rounded towards the inside, so the table on the MCU is never wider than the one that a person wrote.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.framing import crc32c
from firmware_bridge.host.knots import MICRO, KnotBounds
from firmware_bridge.host.messages import (
    ACCELERATION_MAX_MAX,
    ACCELERATION_MIN,
    EFFORT_MAX_MAX,
    JERK_MAX_MAX,
    JERK_MIN,
    LSB_MAX,
    MAX_AXES,
    NAME_BYTES,
    POSITION_ABS_MAX,
    VELOCITY_MAX_MAX,
    WINDOW_US,
    AxisKind,
    DriveKind,
    DriveSet,
    LimitsSet,
    StopsSet,
)

MILLI = 1_000
NO_SECOND_STAGE = StopsSet(brake_after_ms=0, torque_off_after_ms=0)
JUMP_S = 0.1
"""A new chunk may begin as far from the running plan as the axis covers in this time at full speed; an honest splice
differs by less than one replan period's motion, a chunk for another arm or another zero by more."""
_ROUNDING = 1e-6
"""In micro-units: forgives the last bit of ``0.07 * 1e6 == 70000.00000000001``, nothing that could be measured."""
_I16_MAX = 32767


def _micro(name: str, value: float, low: int, high: int, *, upper: bool, scale: int = MICRO) -> int:
    """``value`` in 1/scale units, rounded down (``upper``) or up, and checked to lie within low..high of these."""
    scaled = value * scale
    micro = None
    if math.isfinite(scaled):
        micro = math.floor(scaled + _ROUNDING) if upper else math.ceil(scaled - _ROUNDING)
    if micro is None or not low <= micro <= high:
        raise FirmwareError(
            f"{name} is {value}", expected=f"a number in {low / scale:g} .. {high / scale:g}",
            remedy="correct the robot file",
        )
    return micro


def sim_drive(axis: int) -> DriveSet:
    """The binding of an axis to the drive stream, where a simulator stands."""
    return DriveSet(axis, DriveKind.SIM, model=0, address=0, reply=0, zero=0, ratio_num=1, ratio_den=1, kp=0, kd=0)


def axis_name(name: str) -> bytes:
    """As the wire carries it.

    Raises:
        FirmwareError: empty, longer than 16 bytes, or not printable ASCII.
    """
    if not (name.isascii() and name.isprintable() and 1 <= len(name) <= NAME_BYTES):
        raise FirmwareError(
            f"axis name {name!r}", expected=f"1..{NAME_BYTES} printable ASCII characters",
            remedy="correct the robot file",
        )
    return name.encode().ljust(NAME_BYTES, b"\0")


@dataclass(frozen=True, slots=True)
class LimitTable:
    """The limits of every axis, in the order of the wire, as the messages that upload them."""

    names: tuple[str, ...]
    axes: tuple[LimitsSet, ...]
    drives: tuple[DriveSet, ...]
    stops: StopsSet = NO_SECOND_STAGE
    knots: KnotBounds = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "knots", KnotBounds.of(self.axes))

    @classmethod
    def from_si(
        cls,
        names: Sequence[str],
        *,
        position_min: Sequence[float],
        position_max: Sequence[float],
        velocity_max: Sequence[float],
        acceleration_max: Sequence[float],
        jerk_max: Sequence[float],
        following_error_max: Sequence[float],
        effort_max: Sequence[float | None] | None = None,
        move_max: Sequence[float | None] | None = None,
        window_max: Sequence[float | None] | None = None,
        kinds: Sequence[AxisKind] | None = None,
        drives: Sequence[DriveSet] | None = None,
    ) -> LimitTable:
        """From one vector [D] per limit, in the axes' own units (m, rad, 1) and seconds.

        Efforts are N m or N and not watched where None. ``move_max`` (way of one chunk) and ``window_max`` (way in
        250 ms) are as far as the other limits let an axis go where None. Without ``kinds`` the axes are REVOLUTE,
        without ``drives`` they are on the drive stream.

        Raises:
            FirmwareError: the vectors differ in length; a number is not finite or outside what the firmware takes;
                an empty position range.
        """
        nothing = [None] * len(names)
        efforts, moves, windows = (column or nothing for column in (effort_max, move_max, window_max))
        kinds = kinds or [AxisKind.REVOLUTE] * len(names)
        drives = drives or [sim_drive(index) for index in range(len(names))]
        columns = (position_min, position_max, velocity_max, acceleration_max, jerk_max, following_error_max,
                   efforts, moves, windows, kinds, drives)  # fmt: skip
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
            effort, move, window = efforts[index], moves[index], windows[index]
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
                    jerk_max=_micro(at + "jerk_max", jerk_max[index], JERK_MIN, JERK_MAX_MAX, upper=True, scale=MILLI),
                    effort_max=(
                        0 if effort is None else _micro(at + "effort_max", effort, 1, EFFORT_MAX_MAX, upper=True)
                    ),
                    move_max=(
                        high - low if move is None
                        else _micro(at + "move_max", move, 1, 2 * POSITION_ABS_MAX, upper=True)
                    ),
                    window_max=(
                        velocity * WINDOW_US // MICRO + 1 if window is None
                        else _micro(at + "window_max", window, 1, 2 * POSITION_ABS_MAX, upper=True)
                    ),
                    velocity_lsb=min(LSB_MAX, -(-velocity // _I16_MAX)),
                    kind=kinds[index],
                    name=axis_name(name),
                )
            )
        return cls(tuple(names), tuple(axes), tuple(drives))

    @property
    def dof(self) -> int:
        return len(self.axes)

    def uploads(self) -> Iterator[LimitsSet | DriveSet | StopsSet]:
        """What is sent to the MCU, in the order in which the CRC covers it."""
        yield from self.axes
        yield from self.drives
        yield self.stops

    @property
    def crc(self) -> int:
        """CRC-32C over the uploads: what LIMITS_COMMIT, ARM and HELLO speak of."""
        return crc32c(b"".join(message.pack() for message in self.uploads()))
