"""The run configuration: one TOML file that names robot, bundle, link and every number that may be turned.

Every key has a default but ``robot`` and ``bundle``. Paths are relative to the file. An unknown key or a value out of
range is refused by name, with the nearest known key.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_wam.errors import ConfigError, nearest

Milliseconds = Annotated[float, Field(gt=0, le=10_000, allow_inf_nan=False)]
# The microcontroller stops the arm when the policy counter stands still for 250 ms; the host must have noticed before.
_POLICY_FROZEN_MS = 250.0


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class PlanConfig(_Strict):
    """How often is planned, and what a plan may cost."""

    rate_hz: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 10.0
    deadline_ms: Annotated[float, Field(gt=0, le=200, allow_inf_nan=False)] = 150.0
    """From request to answer. One miss closes the policy channel until the operator restarts it."""
    lead_ms: Milliseconds = 20.0
    """A splice takes effect this long after the decision: transfer, and two ticks of the microcontroller.
    Where measured transfers take longer, that is used instead."""
    camera_budget_ms: Milliseconds = 50.0
    expected_latency_ms: Milliseconds = 40.0
    """Before the first measured one. Afterwards the slowest of the last 16 answers is expected."""
    max_prefix_knots: Annotated[int, Field(ge=0, le=15)] = 4
    threads: Annotated[int, Field(ge=1, le=64)] = 1

    @property
    def max_age_ms(self) -> float:
        """Oldest input of a chunk that is still used: the camera budget and two plan periods."""
        return self.camera_budget_ms + 2000.0 / self.rate_hz


class CanConfig(_Strict):
    """The bus, where the microcontroller is on one. SocketCAN takes its bit rates from the system."""

    interface: Annotated[str, Field(min_length=1, max_length=32)] = "socketcan"
    """python-can's name of the driver: socketcan, slcan, or a vendor's."""
    node: Annotated[int, Field(ge=1, le=7)] = 1
    fd: bool = True
    """CAN FD frames; false on a classic bus."""
    bitrate: Annotated[int, Field(ge=125_000, le=1_000_000)] = 1_000_000
    data_bitrate: Annotated[int, Field(ge=1_000_000, le=8_000_000)] = 5_000_000


class LinkConfig(_Strict):
    """Where the microcontroller is."""

    kind: Literal["emulator", "serial", "unix", "can"] = "emulator"
    emulator: Literal["auto", "qemu", "host"] = "auto"
    """``auto``: QEMU where it is installed, else the firmware's host port."""
    address: str = ""
    """Serial device, socket path, or CAN channel (default: can0); empty with ``kind = "emulator"``."""
    baud: Annotated[int, Field(ge=9600, le=12_000_000)] = 1_000_000
    can: CanConfig = CanConfig()
    clock_bound_ms: Annotated[float, Field(gt=0, le=5, allow_inf_nan=False)] = 1.0
    """Largest clock uncertainty that may arm: 1 ms on hardware, 5 ms through a real-time emulator."""
    capture: bool = False
    """Keep every byte of the link beside the recording (pcapng); ``edge-wam firmware sniff`` tells what they say."""

    @model_validator(mode="before")
    @classmethod
    def _first_channel(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("kind") == "can" and not data.get("address"):
            return {**data, "address": "can0"}
        return data

    @model_validator(mode="after")
    def _addressed(self) -> LinkConfig:
        if (self.kind == "emulator") != (self.address == ""):
            raise ValueError("link.address is needed for every kind but 'emulator', and not there")
        return self


class GuardConfig(_Strict):
    """What the guard still repairs by slowing, and what it refuses."""

    position_tolerance: Annotated[float, Field(ge=0, le=0.1, allow_inf_nan=False)] = 0.02
    """Part of an axis' range by which a knot may lie outside and is clamped; beyond, the chunk is refused."""
    refuse_speed_ratio: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)] = 3.0
    """Up to this many times the velocity limit a chunk is slowed; beyond, refused."""
    margin: Annotated[float, Field(gt=0.5, le=1, allow_inf_nan=False)] = 0.98
    """The host keeps this part of each limit: the microcontroller's check is always the looser one."""


class MonitorConfig(_Strict):
    """When a source counts as gone."""

    camera_gone_ms: Milliseconds = 250.0
    frozen_frames: Annotated[int, Field(ge=3, le=10_000)] = 10
    frozen_motion: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.02
    """Part of an axis' range that the arm must have moved while the pixels stayed identical."""
    surprise_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Smoothed surprise above which the arm coasts and holds; not given: surprise is only reported."""
    hold_timeout_s: Annotated[float, Field(gt=0, le=60, allow_inf_nan=False)] = 2.0
    """HOLD for this long becomes SOFT_STOP."""


class RealtimeConfig(_Strict):
    """What the processes ask of the operating system. A refusal is reported, not fatal."""

    nice: Annotated[int, Field(ge=-20, le=19)] = -10
    fifo_priority: Annotated[int, Field(ge=0, le=99)] = 0
    """SCHED_FIFO for the control process; 0: off. Refused beside an emulator, which it would starve."""
    cpus: tuple[Annotated[int, Field(ge=0, le=1023)], ...] = ()
    lock_memory: bool = False


class RunConfig(_Strict):
    """Everything a session needs. ``instruction`` is the default; each episode may bring its own."""

    schema_version: Literal[1] = 1
    robot: Path
    bundle: Path
    allow_demo_key: bool = False
    """Trust the demo signing key that ships with the project. Its private half is public: never on a real robot."""
    trusted_keys: tuple[Path, ...] = ()
    recording_dir: Path = Path("runs")
    instruction: Annotated[str, Field(min_length=1, max_length=200)] = "reach the goal"
    plan: PlanConfig = PlanConfig()
    link: LinkConfig = LinkConfig()
    guard: GuardConfig = GuardConfig()
    monitor: MonitorConfig = MonitorConfig()
    realtime: RealtimeConfig = RealtimeConfig()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.plan.deadline_ms + 30.0 > _POLICY_FROZEN_MS or 1000.0 / self.plan.rate_hz + 30.0 > _POLICY_FROZEN_MS:
            raise ValueError(
                "plan.deadline_ms and the plan period must stay 30 ms below the 250 ms after which the microcontroller "
                "takes the planner for hung"
            )
        if self.link.kind == "emulator" and self.realtime.fifo_priority:
            raise ValueError("realtime.fifo_priority must be 0 with an emulated microcontroller")
        return self


_SECTIONS: tuple[type[BaseModel], ...] = (
    RunConfig, PlanConfig, LinkConfig, CanConfig, GuardConfig, MonitorConfig, RealtimeConfig
)


def _explain(error: ValidationError, source: str) -> ConfigError:
    """The first complaint in our words: names the key and, for an unknown one, the nearest known one."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = sorted({name for section in _SECTIONS for name in section.model_fields})
        return ConfigError(
            f"{source}: unknown key {path!r}{nearest(str(first['loc'][-1]), known)}",
            expected="only keys that mean something", remedy="correct or remove the key",
        )
    if first["type"] == "missing":
        return ConfigError(f"{source}: key {path!r} is missing", remedy="add it")
    return ConfigError(
        f"{source}: {path or 'file'} = {first['input']!r}: {first['msg']}"
        if path else f"{source}: {first['msg']}",
        remedy="correct the value in the file",
    )


def make_config(data: dict[str, Any], base: Path, source: str = "configuration") -> RunConfig:
    """Check parsed TOML (or an equal dictionary); paths become absolute against ``base``.

    Raises:
        ConfigError: unknown key, missing key, value out of range.
    """
    try:
        config = RunConfig.model_validate(data)
    except ValidationError as error:
        raise _explain(error, source) from error
    return config.model_copy(
        update={
            "robot": base / config.robot,
            "bundle": base / config.bundle,
            "trusted_keys": tuple(base / key for key in config.trusted_keys),
            "recording_dir": base / config.recording_dir,
        }
    )


def load_config(path: Path) -> RunConfig:
    """Read a run configuration.

    Raises:
        ConfigError: no such file, not TOML, unknown key (the nearest known one is named), value out of range.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", remedy="name an existing configuration") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}", remedy="correct the file") from error
    return make_config(data, path.resolve().parent, str(path))
