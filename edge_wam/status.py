"""What the control process tells about itself, five times a second and at the end. Plain numbers; JSON on the way."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from edge_wam.histogram import Summary
from firmware_bridge.host.link_metrics import BusEnd

STATUS_BYTES = 65_536
_EMPTY = Summary(0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


class Phase(StrEnum):
    """Where a session is. Only RUNNING moves the arm."""

    STARTING = "starting"
    READY = "ready"
    """Disarmed; waits for the operator."""
    ARMING = "arming"
    RUNNING = "running"
    STOPPING = "stopping"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class FaultReport:
    """One fault as it happened; numbers below 1000 are the microcontroller's."""

    at_ns: int
    number: int
    name: str
    text: str


@dataclass(frozen=True, slots=True)
class SourceReport:
    """alive, on rate and valid of one source."""

    alive: bool
    on_rate: bool
    valid: bool


@dataclass(frozen=True, slots=True)
class Status:
    """A snapshot for people.

    Attributes:
        task: the instruction in force.
        latency: from request to answer. age: of the oldest input when the chunk takes effect on the microcontroller.
        control: lateness of the control ticks. step: the model's own time per call.
        wire: from handing a chunk to the transport to its arrival on the microcontroller, by the synchronised clocks.
        rtt_ms: smallest of the last clock exchanges. rtt_p50_ms, rtt_p99_ms: of the last 256 answers.
        wire_resent: commands sent again. wire_dropped, mcu_dropped: what the host and the microcontroller know to have
            lost or refused to look at, all causes together.
        bus_host, bus_mcu: the two ends of the CAN bus; None where the link is no bus, or before the first report.
        watchdog_margin_us: least time left to the hardware watchdog in the last second; None before the first report.
        surprise: smoothed; None before anything could be compared.
        refused: chunks that the host refused, by fault name. mcu_refused: chunks that the microcontroller refused.
    """

    phase: Phase
    at_ns: int
    task: str = ""
    episode: int = 0
    running_s: float = 0.0
    degrade: str = "SAFE_OFF"
    chunk_rate_hz: float = 0.0
    chunks: int = 0
    slowed: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    mcu_refused: int = 0
    repeated: int = 0
    trimmed: int = 0
    latency: Summary = _EMPTY
    age: Summary = _EMPTY
    step: Summary = _EMPTY
    wire: Summary = _EMPTY
    control: Summary = _EMPTY
    control_missed: int = 0
    control_lagging: bool = False
    control_work: Summary = _EMPTY
    link_connected: bool = False
    mcu_state: str = ""
    mcu_stop_cause: str = ""
    mcu_fault: str = ""
    mcu_boots: int = 0
    clock_bound_ms: float = 0.0
    rtt_ms: float = 0.0
    rtt_p50_ms: float = 0.0
    rtt_p99_ms: float = 0.0
    clock_drift_ppm: float = 0.0
    wire_out_bytes_s: float = 0.0
    wire_in_bytes_s: float = 0.0
    wire_resent: int = 0
    wire_dropped: int = 0
    mcu_dropped: int = 0
    bus_host: BusEnd | None = None
    bus_mcu: BusEnd | None = None
    watchdog_margin_us: int | None = None
    plan_remaining_ms: float = 0.0
    position: tuple[float, ...] = ()
    setpoint: tuple[float, ...] = ()
    surprise: float | None = None
    sources: dict[str, SourceReport] = field(default_factory=dict)
    faults: tuple[FaultReport, ...] = ()
    unwell: tuple[str, ...] = ()
    policy_ready: bool = False
    model_hash: str = ""
    golden_exact: bool = False
    recorder_dropped: int = 0
    os_refusals: tuple[str, ...] = ()

    def bus_words(self) -> str:
        """Both ends of the CAN bus; empty where the link is no bus."""
        ends = [("host", self.bus_host), ("microcontroller", self.bus_mcu)]
        return "; ".join(
            f"{name} {end.errors} errors, {end.bus_off} times off the bus, {end.transfers_bad} transfers incomplete"
            for name, end in ends
            if end is not None
        )

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Status:
        return cls.from_dict(json.loads(data))

    @classmethod
    def from_dict(cls, parsed: dict[str, Any]) -> Status:
        """From parsed JSON: what a recording's ``/status`` messages hold."""
        raw = dict(parsed)
        raw["phase"] = Phase(raw["phase"])
        for name in ("latency", "age", "step", "wire", "control", "control_work"):
            raw[name] = Summary(**raw[name])
        for name in ("bus_host", "bus_mcu"):
            raw[name] = BusEnd(**raw[name]) if raw.get(name) else None  # older recordings have none
        raw["sources"] = {name: SourceReport(**value) for name, value in raw["sources"].items()}
        raw["faults"] = tuple(FaultReport(**value) for value in raw["faults"])
        for name in ("position", "setpoint", "unwell", "os_refusals"):
            raw[name] = tuple(raw[name])
        return cls(**raw)
