"""A scenario file: which arm, which motion, what goes wrong when, what must then be seen. One format for all benches.

Unknown keys, kinds and parameters are refused by name. Times are milliseconds of the microcontroller's clock since the
arm began to move.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_wam.errors import ConfigError, nearest
from edge_wam.hil.injections import INJECTIONS, PARAMETERS, Target
from edge_wam.hil.motion import Tour
from edge_wam.sim.arm import ArmSpec
from firmware_bridge.host.messages import Fault, McuState, ResetCause, StopCause

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=80)]
STATES = tuple(state.name for state in McuState)
REFERENCES = ("injection", "last_heartbeat", "last_policy", "arrival", "last_feed")
HAPPENINGS = ("fault", "slower", "stopping", "drive_off", "reset", "early_warning")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class Arm(_Strict):
    """The plant; see :class:`edge_wam.sim.arm.ArmSpec`."""

    payload_kg: Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)] = 2.0
    backlash_rad: Annotated[float, Field(ge=0, le=0.02, allow_inf_nan=False)] = 0.0
    friction: Annotated[float, Field(ge=0, le=5, allow_inf_nan=False)] = 1.0
    brakes: bool = True


class Motion(_Strict):
    """A tour of joint waypoints; see :class:`edge_wam.hil.motion.Tour`."""

    waypoints: Annotated[tuple[tuple[Finite, ...], ...], Field(min_length=1, max_length=64)]
    speed: Positive = 0.3
    acceleration: Positive = 2.0

    @model_validator(mode="after")
    def _even(self) -> Motion:
        if len({len(point) for point in self.waypoints}) != 1:
            raise ValueError("waypoints differ in their number of joints")
        return self

    def tour(self) -> Tour:
        return Tour(self.waypoints, self.speed, self.acceleration)


class Injection(_Strict):
    """What goes wrong, and when. See the table in :mod:`edge_wam.hil.injections`."""

    at_ms: Annotated[float, Field(ge=0, le=600_000, allow_inf_nan=False)]
    kind: str
    joint: Annotated[int, Field(ge=0, le=15)] | None = None
    value: Finite | None = None
    rate: Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)] | None = None
    direction: Literal["to_mcu", "to_host", "both"] | None = None
    duration_ms: Positive | None = None

    @model_validator(mode="after")
    def _known(self) -> Injection:
        if self.kind not in INJECTIONS:
            raise ValueError(f"kind {self.kind!r} is unknown{nearest(self.kind, INJECTIONS)}")
        row = INJECTIONS[self.kind]
        given = {name for name in PARAMETERS if getattr(self, name) is not None}
        if missing := row.needs - given:
            raise ValueError(f"{self.kind} needs {', '.join(sorted(missing))}")
        if extra := given - row.needs - row.may:
            raise ValueError(f"{self.kind} takes no {', '.join(sorted(extra))}")
        return self


def _enumerated(value: str, names: type[McuState] | type[Fault] | type[StopCause] | type[ResetCause]) -> None:
    if value not in names.__members__:
        raise ValueError(f"{value!r} is no {names.__name__}{nearest(value, names.__members__)}")


class Reaction(_Strict):
    """How long from one thing to another, on the microcontroller's own clock.

    ``after``: ``injection`` (plant and MCU injections are known to the tick), ``last_heartbeat``, ``last_policy`` (the
    policy counter last changed), ``arrival`` (of the emergency stop), ``last_feed`` (of the watchdog; counted time).
    ``until``: ``stop:CAUSE``, ``fault:NAME``, ``fault`` (any), ``slower`` (the first order of the braking),
    ``stopping`` (the same; of an arm that stands already the first order with the drive off), ``drive_off``,
    ``early_warning`` and ``reset`` of the watchdog.
    """

    after: str
    until: str
    within_ms: Positive
    at_least_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0

    @model_validator(mode="after")
    def _known(self) -> Reaction:
        if self.after not in REFERENCES:
            raise ValueError(f"after = {self.after!r} is none of {', '.join(REFERENCES)}")
        kind, _, name = self.until.partition(":")
        if kind == "stop":
            _enumerated(name, StopCause)
        elif kind == "fault" and name:
            _enumerated(name, Fault)
        elif self.until not in HAPPENINGS:
            raise ValueError(f"until = {self.until!r} is none of stop:CAUSE, fault:NAME, {', '.join(HAPPENINGS)}")
        return self


class Expect(_Strict):
    """What must be seen. Always checked besides: no enabled order leaves the limits of the robot file.

    Attributes:
        visits: states in this order, others between them allowed.
        ends: the last state; ``drive``: "on" or "off" then.
        fault, stop_cause: as last reported.
        reset: cause of the last boot, with ``reset_pc`` true: its program counter was kept.
        reactions: see :class:`Reaction`; every one is also measured for the tables.
        stands_still_after_ms: from so long after the first stop or fault on, no enabled order moves.
        stays_disarmed: after the first reset the drive is never enabled again.
        on_plan_rad: enabled orders stay this near to the path of the motion, whenever they are there.
        joints_move_at_most_rad: how far any link goes beyond the motion's own range, whatever the encoders say.
        falls_at_least_rad: without torque and brakes, gravity has this much of a say.
        refused_by_host, refused_by_mcu: at least this many chunks refused there.
        counted: at least so many in the last STATS, by field name.
    """

    visits: tuple[str, ...] = ()
    ends: str | None = None
    drive: Literal["on", "off"] | None = None
    fault: str | None = None
    stop_cause: str | None = None
    reset: str | None = None
    reset_pc: bool = False
    reactions: tuple[Reaction, ...] = ()
    stands_still_after_ms: Positive | None = None
    stays_disarmed: bool = False
    on_plan_rad: Positive | None = None
    joints_move_at_most_rad: Positive | None = None
    falls_at_least_rad: Positive | None = None
    refused_by_host: Annotated[int, Field(ge=1)] | None = None
    refused_by_mcu: Annotated[int, Field(ge=1)] | None = None
    counted: dict[str, int] = {}

    @model_validator(mode="after")
    def _known(self) -> Expect:
        from dataclasses import fields

        from firmware_bridge.host.messages import Stats

        for state in (*self.visits, *([self.ends] if self.ends else [])):
            _enumerated(state, McuState)
        for value, names in ((self.fault, Fault), (self.stop_cause, StopCause), (self.reset, ResetCause)):
            if value is not None:
                _enumerated(value, names)
        known = {field.name for field in fields(Stats)}
        for name in self.counted:
            if name not in known:
                raise ValueError(f"counted.{name} is no field of STATS{nearest(name, known)}")
        return self


class Scenario(_Strict):
    """One scenario. ``robot``: relative to the file."""

    schema_version: Literal[1]
    name: Name
    about: Annotated[str, Field(min_length=1, max_length=600)]
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    robot: Path
    duration_ms: Annotated[float, Field(gt=0, le=600_000, allow_inf_nan=False)]
    arm: Arm = Arm()
    motion: Motion
    inject: tuple[Injection, ...] = ()
    expect: Expect

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        late = [one.kind for one in self.inject if one.at_ms >= self.duration_ms]
        if late:
            raise ValueError(f"{', '.join(late)}: injected after the end at {self.duration_ms:g} ms")
        return self

    def plant_spec(self) -> ArmSpec:
        """The plant, beginning at the first waypoint."""
        return ArmSpec(
            payload_kg=self.arm.payload_kg, backlash_rad=self.arm.backlash_rad, friction=self.arm.friction,
            brakes=self.arm.brakes, home=self.motion.waypoints[0],
        )

    def impossible(self, target: Target) -> list[str]:
        """Injections that software cannot do on this target, each with what is to be done by hand where it can."""
        out = []
        for one in self.inject:
            row = INJECTIONS[one.kind]
            if target not in row.targets:
                out.append(f"{one.kind}: {row.by_hand}" if target == "board" and row.by_hand else one.kind)
        return out


def _models() -> tuple[type[BaseModel], ...]:
    return (Scenario, Arm, Motion, Injection, Expect, Reaction)


def _explain(error: ValidationError, source: str) -> ConfigError:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = sorted({name for model in _models() for name in model.model_fields})
        return ConfigError(
            f"{source}: unknown key {path!r}{nearest(str(first['loc'][-1]), known)}",
            expected="only keys that mean something", remedy="correct or remove the key",
        )
    return ConfigError(f"{source}: {path or 'file'}: {first['msg']}", remedy="correct the value in the file")


def parse_scenario(text: str, base: Path, source: str = "scenario") -> Scenario:
    """Parse a scenario; ``robot`` becomes absolute against ``base``.

    Raises:
        ConfigError: not TOML, an unknown key or kind (the nearest known one is named), a value out of range.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}", remedy="correct the file") from error
    try:
        scenario = Scenario.model_validate(data)
    except ValidationError as error:
        raise _explain(error, source) from error
    return scenario.model_copy(update={"robot": (base / scenario.robot).resolve()})


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file; see :func:`parse_scenario`."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy="name an existing scenario file") from error
    return parse_scenario(text, path.resolve().parent, str(path))
