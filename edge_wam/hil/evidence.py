"""What was seen on a bench: every message of the microcontroller, every order to the drives, where the joints were.

Times are the microcontroller's own clock, boot by boot: a reset begins a new :class:`Boot`, because its clock does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_wam.contracts import F64
from firmware_bridge.host.framing import FrameReceiver, LinkFrame
from firmware_bridge.host.messages import Event, EventKind, Heartbeat, Hello, McuMessage, State, Stats
from firmware_bridge.host.plant_port import DriveCommand

_BACK_US = 100_000
"""A clock that goes back by more than this is another boot's."""


@dataclass
class Boot:
    """What one boot said, oldest first; of each event the first copy only."""

    states: list[State] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    hello: Hello | None = None
    stats: list[Stats] = field(default_factory=list)

    def tick_of(self, at_us: int) -> int:
        """MCU clock -> the control tick at or after it."""
        near = min(self.states, key=lambda state: abs(state.now_us - at_us))
        return near.tick + -(-(at_us - near.now_us) // 1000)

    def us_of(self, tick: int) -> int:
        """Control tick -> MCU clock."""
        near = min(self.states, key=lambda state: abs(state.tick - tick))
        return near.now_us + (tick - near.tick) * 1000

    def before(self, at_us: int) -> State | None:
        """The newest STATE from before ``at_us``."""
        earlier = [state for state in self.states if state.now_us <= at_us]
        return earlier[-1] if earlier else None


def split_boots(messages: Iterable[McuMessage]) -> list[Boot]:
    """Messages in order of arrival -> boots."""
    boots = [Boot()]
    latest = -1
    for message in messages:
        now = message.now_us if isinstance(message, State | Hello) else None
        if now is not None:
            told = boots[-1].hello
            another = isinstance(message, Hello) and told is not None and message.boots != told.boots
            if now + _BACK_US < latest or another:
                boots.append(Boot())
            latest = now
        boot = boots[-1]
        if isinstance(message, State):
            boot.states.append(message)
        elif isinstance(message, Event):
            if all(event.event_id != message.event_id for event in boot.events):
                boot.events.append(message)
        elif isinstance(message, Hello):
            boot.hello = message
        elif isinstance(message, Stats):
            boot.stats.append(message)
    return boots


def heartbeat_stamps(sent: bytes) -> list[int]:
    """Stamps of the heartbeats in what a host has sent, MCU clock in us."""
    out = []
    for body in FrameReceiver().feed(sent):
        frame = LinkFrame.unpack(body)
        if frame is not None and frame.type == Heartbeat.TYPE:
            out.append(Heartbeat.unpack(frame.payload).sent_us)
    return out


@dataclass(frozen=True)
class Orders:
    """Orders of one boot to the drives: tick [N], enabled [N], brake [N], setpoint [N, D] in axis units."""

    tick: np.ndarray[tuple[int], np.dtype[np.int64]]
    enabled: np.ndarray[tuple[int], np.dtype[np.bool_]]
    brake: np.ndarray[tuple[int], np.dtype[np.bool_]]
    setpoint: F64

    @classmethod
    def of(cls, commands: Sequence[DriveCommand], dof: int) -> Orders:
        rows = [command for command in commands if len(command.setpoint) == dof]
        return cls(
            np.array([row.tick for row in rows], np.int64),
            np.array([row.enabled for row in rows], np.bool_),
            np.array([row.brake for row in rows], np.bool_),
            np.array([row.setpoint for row in rows], np.float64).reshape(-1, dof),
        )

    def where(self, keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Orders:
        return Orders(self.tick[keep], self.enabled[keep], self.brake[keep], self.setpoint[keep])

    def after(self, tick: int) -> Orders:
        return self.where(self.tick >= tick)


def split_orders(commands: Sequence[DriveCommand], dof: int) -> list[Orders]:
    """All commands in order of arrival -> orders by boot (the tick begins anew)."""
    parts: list[list[DriveCommand]] = [[]]
    for command in commands:
        if parts[-1] and command.tick < parts[-1][-1].tick:
            # The last words of a watchdog carry tick 0 and belong to the boot that ends.
            if command.tick == 0 and not command.enabled and len(command.setpoint) == 0:
                continue
            parts.append([])
        parts[-1].append(command)
    return [Orders.of(part, dof) for part in parts]


@dataclass(frozen=True, slots=True)
class Mark:
    """An injection as it was made. ``exact``: ``at_us`` is known to the tick; else to some tens of milliseconds."""

    kind: str
    boot: int
    at_us: int
    exact: bool


@dataclass
class Evidence:
    """Everything of one run.

    Attributes:
        target, bench: which, and in words.
        boots, orders: of the microcontroller, by boot.
        begin_us: MCU clock of the first boot when the motion began.
        joint_tick [M], joint [M, D]: truth of the plant by control tick of the first boot, axis units.
        marks: what was injected.
        host: what the host said; ``refused``: chunks that its own checks or the link refused, by kind of error.
        heartbeats_us: stamps of the heartbeats that the host gave to the cable, MCU clock by its estimate.
        measured_ms: times that a debugger took from the MCU's own counter, by name.
        notes: about the bench, for people.
        stalls_ms: longest waits of the bench, and of the emulated processor: what was measured while the machine
            itself stood still tells nothing.
    """

    target: str
    bench: str
    boots: list[Boot]
    orders: list[Orders]
    begin_us: int
    joint_tick: np.ndarray[tuple[int], np.dtype[np.int64]]
    joint: F64
    marks: list[Mark]
    host: list[str] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    heartbeats_us: list[int] = field(default_factory=list)
    measured_ms: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    stalls_ms: tuple[float, float] = (0.0, 0.0)

    @property
    def last(self) -> State | None:
        """The newest STATE of all."""
        for boot in reversed(self.boots):
            if boot.states:
                return boot.states[-1]
        return None

    def events(self, kind: EventKind, boot: int = 0) -> list[Event]:
        return [event for event in self.boots[boot].events if event.kind == kind] if boot < len(self.boots) else []
