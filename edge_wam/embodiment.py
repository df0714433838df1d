"""One robot, one TOML file: axes, limits, cameras, and the statistics by which actions are normalised.

DreamZero's conventions are kept: q01/q99 normalisation to [-1, 1], state padded to 64, action padded to 32,
relative axes decoded against the last observed state (reference: DreamZero, groot/vla/data/transform).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_wam.contracts import ACTION_WIDTH, F64, STATE_WIDTH
from edge_wam.errors import ConfigError, nearest

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Drive(_Strict):
    """The drive of one axis. See ``firmware_bridge.host.drives.drive_binding``, which checks models and ranges."""

    kind: Literal["feetech", "mit"]
    model: str
    address: Annotated[int, Field(ge=0)]
    """Servo number, or CAN identifier of commands."""
    reply: Annotated[int, Field(ge=0)] = 0
    """CAN identifier of answers (mit)."""
    zero: Finite = 0.0
    """The axis' position, in its unit, at the drive's own zero."""
    ratio: tuple[int, int] = (1, 1)
    """Axis units per radian of the drive's shaft, as a fraction; negative turns the direction round."""
    kp: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """N m/rad (mit)."""
    kd: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """N m s/rad (mit)."""


class Axis(_Strict):
    """One axis. Units: ``unit``, ``unit``/s, ``unit``/s^2; statistics are in ``unit``."""

    name: str
    unit: Literal["m", "rad", "1"]
    action: Literal["absolute", "relative"]
    position_min: Finite
    position_max: Finite
    velocity_max: Positive
    acceleration_max: Positive
    jerk_max: Positive
    following_error_max: Positive
    effort_max: Positive | None = None
    """N m (rad axes) or N, as the drive reports it; None: not watched."""
    move_max: Positive | None = None
    """Largest way within one chunk; None: as far as the position limits."""
    window_max: Positive | None = None
    """Largest way within 250 ms; None: as far as the velocity limit."""
    kind: Literal["revolute", "prismatic", "cartesian", "unitless"] | None = None
    """None: revolute for rad, cartesian for m, unitless for 1. The position limits of cartesian axes are the
    workspace box."""
    drive: Drive | None = None
    """None: the drive stream, where a simulator stands."""
    rest: Finite
    action_q01: Finite
    action_q99: Finite
    state_q01: Finite
    state_q99: Finite
    offset_q01: Finite
    """1st percentile of (setpoint - measured position)."""
    offset_q99: Finite

    @model_validator(mode="after")
    def _ordered(self) -> Axis:
        for low, high in (
            ("position_min", "position_max"),
            ("action_q01", "action_q99"),
            ("state_q01", "state_q99"),
            ("offset_q01", "offset_q99"),
        ):
            if getattr(self, low) >= getattr(self, high):
                raise ValueError(f"axis {self.name}: {low} must be below {high}")
        if not self.position_min <= self.rest <= self.position_max:
            raise ValueError(f"axis {self.name}: rest {self.rest} lies outside its position limits")
        return self


class Camera(_Strict):
    """One camera: capture size, the crop taken from it, and where the crop lands on the model's canvas (pixels)."""

    name: str
    width: Annotated[int, Field(ge=16, le=8192)]
    height: Annotated[int, Field(ge=16, le=8192)]
    rate_hz: Positive
    crop_x: Annotated[int, Field(ge=0)]
    crop_y: Annotated[int, Field(ge=0)]
    crop_width: Annotated[int, Field(ge=1)]
    crop_height: Annotated[int, Field(ge=1)]
    canvas_x: Annotated[int, Field(ge=0)]
    canvas_y: Annotated[int, Field(ge=0)]
    canvas_width: Annotated[int, Field(ge=1)]
    canvas_height: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _inside(self) -> Camera:
        if self.crop_x + self.crop_width > self.width or self.crop_y + self.crop_height > self.height:
            raise ValueError(f"camera {self.name}: the crop leaves the {self.width}x{self.height} image")
        return self


class Embodiment(_Strict):
    """A robot. ``chunk_dt_ms`` is the knot spacing of an action chunk; ``control_rate_hz`` that of the host loop."""

    schema_version: Literal[1]
    name: str
    description: str
    control_rate_hz: Positive
    chunk_dt_ms: Annotated[int, Field(ge=1, le=1000)]
    axes: Annotated[tuple[Axis, ...], Field(min_length=1, max_length=16)]
    cameras: Annotated[tuple[Camera, ...], Field(min_length=1, max_length=8)]
    canvas_width: Annotated[int, Field(ge=8)]
    canvas_height: Annotated[int, Field(ge=8)]
    brake_after_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    """Second stage of a stop: at rest for this long, the holding brakes grip; 0: never."""
    torque_off_after_ms: Annotated[int, Field(ge=0, le=3_600_000)] = 0
    """Braked for this long, the drives go off; 0: never."""

    @model_validator(mode="after")
    def _consistent(self) -> Embodiment:
        if self.torque_off_after_ms and not self.brake_after_ms:
            raise ValueError("torque_off_after_ms needs brake_after_ms: without brakes that grip the arm would fall")
        for kind, names in (("axis", [a.name for a in self.axes]), ("camera", [c.name for c in self.cameras])):
            if len(set(names)) != len(names):
                raise ValueError(f"two {kind} entries share a name: {names}")
        for c in self.cameras:
            if c.canvas_x + c.canvas_width > self.canvas_width or c.canvas_y + c.canvas_height > self.canvas_height:
                raise ValueError(f"camera {c.name}: leaves the {self.canvas_width}x{self.canvas_height} canvas")
        return self

    @property
    def dof(self) -> int:
        return len(self.axes)

    def vector(self, key: str) -> F64:
        """One field of every axis as a float64 vector [D], e.g. ``vector("velocity_max")``."""
        return np.array([getattr(axis, key) for axis in self.axes], dtype=np.float64)

    @property
    def relative(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """True where the model's action is relative to the last observed position [D]."""
        return np.array([axis.action == "relative" for axis in self.axes])

    def normalise_state(self, position: F64, setpoint: F64) -> np.ndarray[Any, np.dtype[np.float32]]:
        """[position | setpoint - position], each q01/q99-normalised and clipped to [-1.5, 1.5], zero-padded to 64.

        [..., D] -> [..., 64].
        """
        out = np.zeros((*position.shape[:-1], STATE_WIDTH), np.float32)
        low, high = self.vector("state_q01"), self.vector("state_q99")
        out[..., : self.dof] = np.clip(2.0 * (position - low) / (high - low) - 1.0, -1.5, 1.5)
        low, high = self.vector("offset_q01"), self.vector("offset_q99")
        out[..., self.dof : 2 * self.dof] = np.clip(2.0 * (setpoint - position - low) / (high - low) - 1.0, -1.5, 1.5)
        return out

    def normalise_action(self, q: F64, position: F64) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Absolute knots [H, D] -> the model's units [H, 32] (q01/q99 to [-1, 1], not clipped)."""
        low, high = self.vector("action_q01"), self.vector("action_q99")
        raw = q - np.where(self.relative, position, 0.0)
        out = np.zeros((len(q), ACTION_WIDTH), np.float32)
        out[:, : self.dof] = 2.0 * (raw - low) / (high - low) - 1.0
        return out


def _explain(error: ValidationError, source: str) -> ConfigError:
    """The first complaint of pydantic in our words: names the key and, for an unknown one, the nearest known key."""
    # A mistyped key is reported as missing under its right name, too: the unknown one says more.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        key = str(first["loc"][-1])
        known = sorted({field for kind in (Embodiment, Axis, Drive, Camera) for field in kind.model_fields})
        return ConfigError(
            f"{source}: unknown key {path!r}{nearest(key, known)}", expected="only keys that mean something",
            remedy="correct or remove the key",
        )
    return ConfigError(f"{source}: {path or 'file'}: {first['msg']}", remedy="correct the value in the file")


def parse_embodiment(text: str, source: str = "embodiment") -> Embodiment:
    """Parse a robot file.

    Raises:
        ConfigError: not TOML, an unknown key (the nearest known one is suggested), a value out of range.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}", remedy="correct the file") from error
    try:
        return Embodiment.model_validate(data)
    except ValidationError as error:
        raise _explain(error, source) from error


def load_embodiment(path: Path) -> Embodiment:
    """Read a robot file; see :func:`parse_embodiment`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy="name an existing robot file") from error
    return parse_embodiment(text, str(path))
