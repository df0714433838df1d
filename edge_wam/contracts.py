"""What crosses between rooms. Frozen, checked at construction; imports numpy and nothing of ours but the error type.

Times are int64 nanoseconds of CLOCK_MONOTONIC (in lockstep simulation: simulated nanoseconds).
Positions are in the axis' own SI unit (metres for a Cartesian axis, radians for a joint, 1 for a
normalised gripper command); arrays are read-only after construction, so a contract cannot change under its reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from edge_wam.errors import ContractError

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]

# DreamZero's padded widths: every embodiment's state and action fit in these (its max_state_dim and max_action_dim).
STATE_WIDTH = 64
ACTION_WIDTH = 32


def _vector(name: str, value: object, ndim: int) -> F64:
    array = np.array(value, dtype=np.float64)
    if array.ndim != ndim:
        raise ContractError(f"{name} has shape {array.shape}", expected=f"{ndim} dimension(s)")
    if not np.isfinite(array).all():
        where = np.argwhere(~np.isfinite(array))[0].tolist()
        raise ContractError(
            f"{name}{where} is {array[tuple(where)]}",
            expected="finite numbers only",
            remedy="the source must report itself invalid instead of sending a number that is none",
        )
    array.setflags(write=False)
    return array


class DegradeState(IntEnum):
    """The ladder of DESIGN section 7. Down by itself, up again only by the operator."""

    NOMINAL = 0
    COAST = 1
    HOLD = 2
    SOFT_STOP = 3
    SAFE_OFF = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """One camera image, uint8 RGB [height, width, 3], with the time at which it was captured and a frame counter."""

    image: U8
    captured_at_ns: int
    index: int

    def __post_init__(self) -> None:
        image = self.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ContractError(
                f"camera image is {image.dtype} {image.shape}", expected="uint8 [height, width, 3] RGB"
            )


@dataclass(frozen=True, slots=True)
class Observation:
    """What the policy sees at one instant.

    Attributes:
        frames: newest frame by camera name.
        joint_position: measured axis positions [D], axis units.
        joint_setpoint: the setpoint [D] that the MCU was executing at ``state_at_ns``, axis units.
        state_at_ns: the time of the two vectors above, host clock.
        instruction: what to do, in words.
    """

    frames: Mapping[str, Frame]
    joint_position: F64
    joint_setpoint: F64
    state_at_ns: int
    instruction: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "joint_position", _vector("joint_position", self.joint_position, 1))
        object.__setattr__(self, "joint_setpoint", _vector("joint_setpoint", self.joint_setpoint, 1))
        if self.joint_position.shape != self.joint_setpoint.shape:
            raise ContractError(
                f"joint_position {self.joint_position.shape} and joint_setpoint {self.joint_setpoint.shape} differ",
                expected="one number per axis in both",
            )

    @property
    def observed_at_ns(self) -> int:
        """The oldest capture time of what is in here: the age that matters."""
        return min([self.state_at_ns, *(frame.captured_at_ns for frame in self.frames.values())])


@dataclass(frozen=True, slots=True)
class ActionChunk:
    """A piece of motion as a function of time: knot k is at ``t0_ns + k * dt_ns``.

    Attributes:
        q: absolute axis positions [H, D], axis units. The gripper is one of the D axes.
        observed_at_ns: capture time of the oldest input that the chunk was computed from.
        sequence: strictly increasing per session; never reused.
        model_hash: SHA-256 (hex) of the bundle manifest that produced it.
        prefix: the first ``prefix`` knots were given to the model as already committed.
    """

    t0_ns: int
    dt_ns: int
    q: F64
    observed_at_ns: int
    sequence: int
    model_hash: str
    prefix: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "q", _vector("ActionChunk.q", self.q, 2))
        if self.dt_ns <= 0:
            raise ContractError(f"ActionChunk.dt_ns is {self.dt_ns}", expected="> 0")
        if len(self.q) < 2:
            raise ContractError(f"ActionChunk.q has {len(self.q)} knot(s)", expected="at least 2")
        if not 0 <= self.prefix < len(self.q):
            raise ContractError(f"ActionChunk.prefix is {self.prefix}", expected=f"0..{len(self.q) - 1}")

    @property
    def end_ns(self) -> int:
        """Time of the last knot. Nothing is defined after it: nothing extrapolates."""
        return self.t0_ns + (len(self.q) - 1) * self.dt_ns

    def at(self, t_ns: int) -> F64:
        """Linear interpolation at ``t_ns``.

        Raises:
            ContractError: ``t_ns`` lies outside [t0_ns, end_ns].
        """
        if not self.t0_ns <= t_ns <= self.end_ns:
            raise ContractError(
                f"time {t_ns} ns is outside the chunk [{self.t0_ns}, {self.end_ns}]", expected="no extrapolation"
            )
        whole, rest = divmod(t_ns - self.t0_ns, self.dt_ns)
        if rest == 0:
            knot: F64 = self.q[whole].copy()
            return knot
        w = rest / self.dt_ns
        between: F64 = (1.0 - w) * self.q[whole] + w * self.q[whole + 1]
        return between


@dataclass(frozen=True, slots=True)
class Imagination:
    """Predicted latents [F, tokens, channels] with the time each is for: they are checked when that time comes."""

    latents: F32
    for_ns: tuple[int, ...]
    observed_at_ns: int
    sequence: int

    def __post_init__(self) -> None:
        if self.latents.ndim != 3 or len(self.latents) != len(self.for_ns):
            raise ContractError(
                f"Imagination.latents {self.latents.shape} for {len(self.for_ns)} time(s)",
                expected="[F, tokens, channels] and F times",
            )
        if not np.isfinite(self.latents).all():
            raise ContractError("Imagination.latents holds a non-finite number", expected="finite numbers only")
        self.latents.setflags(write=False)


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """alive: heard of lately; on_rate: as often as promised; valid: says so itself. Worked out by the reader."""

    alive: bool
    on_rate: bool
    valid: bool

    @property
    def ok(self) -> bool:
        return self.alive and self.on_rate and self.valid


@dataclass(frozen=True, slots=True)
class Health:
    """The state of the whole robot as the control process sees it."""

    state: DegradeState
    sources: Mapping[str, SourceHealth] = field(default_factory=dict)
    faults: tuple[int, ...] = ()
    reasons: tuple[str, ...] = ()
