"""Which drive moves an axis: from the words of a robot file to the binding that the microcontroller locks."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.messages import (
    DRIVE_ERR_DROPPED,
    DRIVE_ERR_MODEL,
    DRIVE_ERR_RANGE,
    DRIVE_ERR_SETPOINT,
    DRIVE_ERR_SETUP,
    DRIVE_ERR_TIMEOUT,
    DRIVE_ERR_VALUE,
    DRIVE_RATIO_MAX,
    POSITION_ABS_MAX,
    DriveKind,
    DriveSet,
    FeetechModel,
    MitModel,
)

MODELS: Mapping[DriveKind, type[FeetechModel] | type[MitModel]] = {
    DriveKind.FEETECH: FeetechModel,
    DriveKind.MIT: MitModel,
}
KP_MAX, KD_MAX = 500.0, 5.0
"""Of a MIT drive: N m/rad, N m s/rad."""
_MICRO = 1_000_000
_MILLI = 1_000

FOUND_BY_MCU: Mapping[int, str] = {
    DRIVE_ERR_MODEL: "is not the model, the number or the scale that the robot file says",
    DRIVE_ERR_SETUP: "is in another mode, has its protections off or does not acknowledge",
    DRIVE_ERR_RANGE: "has position limits of its own that are narrower than those of the axis",
    DRIVE_ERR_TIMEOUT: "has its own watchdog off or longer than a second",
    DRIVE_ERR_VALUE: "reports a number that its model cannot have",
    DRIVE_ERR_DROPPED: "has its torque off although it was told to be on",
    DRIVE_ERR_SETPOINT: "was given a setpoint that its numbers cannot carry",
}
_STATUS_BITS = {0x01: "voltage", 0x02: "sensor or angle", 0x04: "too hot", 0x08: "over-current", 0x20: "overload"}
_DAMIAO = {8: "over-voltage", 9: "under-voltage", 10: "over-current", 11: "power stage too hot", 12: "motor too hot",
           13: "communication lost", 14: "overload"}  # fmt: skip
_CUBEMARS = {1: "motor too hot", 2: "over-current", 3: "over-voltage", 4: "under-voltage", 5: "encoder",
             6: "power stage too hot", 7: "stall"}  # fmt: skip


def _refuse(axis: str, what: str, expected: str) -> FirmwareError:
    return FirmwareError(f"axis {axis}: drive {what}", expected=expected, remedy="correct the robot file")


def _whole(axis: str, name: str, value: float, scale: int, low: int, high: int) -> int:
    scaled = round(value * scale) if math.isfinite(value) else None
    if scaled is None or not low <= scaled <= high:
        raise _refuse(axis, f"{name} is {value}", f"a number in {low / scale:g} .. {high / scale:g}")
    return scaled


def drive_binding(
    axis: int,
    name: str,
    *,
    kind: str,
    model: str,
    address: int,
    reply: int = 0,
    zero: float = 0.0,
    ratio: tuple[int, int] = (1, 1),
    kp: float = 0.0,
    kd: float = 0.0,
) -> DriveSet:
    """One axis of the binding table.

    Args:
        axis: from 0. ``name`` is for the error.
        kind: "feetech" or "mit". ``model`` as in FeetechModel or MitModel, in any case.
        address: servo number, or CAN identifier of commands. ``reply``: CAN identifier of answers.
        zero: the axis' position, in its unit, where the drive is at its own zero: the middle step of a servo.
        ratio: axis units per radian of the drive's shaft, as a fraction; negative turns the direction round.
        kp: N m/rad, ``kd``: N m s/rad, of a MIT drive's shaft.

    Raises:
        FirmwareError: an unknown kind or model (the nearest one is suggested), a number that the firmware refuses.
    """
    kinds = {member.name.lower(): member for member in MODELS}
    if kind not in kinds:
        raise _refuse(name, f"kind {kind!r} is unknown", " | ".join(kinds))
    models = {member.name: member for member in MODELS[kinds[kind]] if member.value}
    if model.upper() not in models:
        near = difflib.get_close_matches(model.upper(), models, 1) or list(models)
        raise _refuse(name, f"model {model!r} is unknown", " | ".join(near))
    mit = kinds[kind] is DriveKind.MIT
    low, high = (1, 0x7FE) if mit else (0, 253)
    for what, value in (("address", address), *((("reply", reply),) if mit else ())):
        if not (low if what == "address" else 0) <= value <= high:
            raise _refuse(name, f"{what} is {value}", f"a number in {low} .. {high}")
    if not 1 <= abs(ratio[0]) <= DRIVE_RATIO_MAX or not 1 <= ratio[1] <= DRIVE_RATIO_MAX:
        raise _refuse(name, f"ratio is {ratio[0]}/{ratio[1]}", f"two whole numbers up to {DRIVE_RATIO_MAX}, not 0")
    return DriveSet(
        axis=axis,
        kind=kinds[kind],
        model=models[model.upper()],
        address=address,
        reply=reply if mit else 0,
        zero=_whole(name, "zero", zero, _MICRO, -POSITION_ABS_MAX, POSITION_ABS_MAX),
        ratio_num=ratio[0],
        ratio_den=ratio[1],
        kp=_whole(name, "kp", kp, _MILLI, 1, round(KP_MAX * _MILLI)) if mit else 0,
        kd=_whole(name, "kd", kd, _MILLI, 1, round(KD_MAX * _MILLI)) if mit else 0,
    )


def drive_error_text(drive: DriveSet, errors: int) -> str:
    """The bits of a DRIVE event in words."""
    words = [text for bit, text in FOUND_BY_MCU.items() if errors & bit]
    own = errors & 0xFFFF
    if own and drive.kind == DriveKind.FEETECH:
        bits = [text for bit, text in _STATUS_BITS.items() if own & bit]
        words.append("reports " + " and ".join(bits))
    elif own:
        table = _CUBEMARS if MitModel(drive.model).name.startswith("AK") else _DAMIAO
        words.append("reports " + table.get(own, f"its error {own:#x}"))
    return "; ".join(words) or "is well"
