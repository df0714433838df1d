"""What the host knows of the microcontroller, in host time and SI units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.host.framing import FramingCounters
from firmware_bridge.host.link_metrics import BusEnd, LinkMetrics
from firmware_bridge.host.messages import (
    STATE_FLAG_DRIVE_ON,
    STATE_FLAG_ENCODER_FRESH,
    STATE_FLAG_ESTOP_LATCHED,
    STATE_FLAG_LIMITS_LOCKED,
    STATE_FLAG_MOVING,
    Ack,
    AckCode,
    Degrade,
    Fault,
    Hello,
    McuState,
    ResetCause,
    State,
    Stats,
    StopCause,
)

F64 = NDArray[np.float64]


def si(micro: tuple[int, ...]) -> F64:
    """Micro-units -> axis units, read-only float64 [D]."""
    out = np.array(micro, dtype=np.float64) / 1e6
    out.setflags(write=False)
    return out


def mcu_dropped(stats: Stats | None) -> int:
    """What the MCU has dropped since its boot, for any reason; 0 before its first STATS."""
    if stats is None:
        return 0
    return (
        stats.rx_bad + stats.rx_oversize + stats.rx_session + stats.rx_gaps + stats.rx_overrun + stats.rx_flooded
        + stats.tx_dropped + stats.heartbeats_stale + stats.transfers_bad
    )


def mcu_bus_end(stats: Stats | None) -> BusEnd | None:
    """The MCU's end of its CAN bus; None before its first STATS."""
    return None if stats is None else BusEnd(stats.can_errors, stats.can_bus_off, stats.transfers_bad)


@dataclass(frozen=True, slots=True)
class ChunkAnswer:
    """The MCU's answer to a chunk.

    Attributes:
        chunk_id: of the chunk.
        code: what became of it.
        arg: see :class:`AckCode`; knots dropped for OK_TRIMMED.
        lead_ns: how long before its first knot the chunk arrived (negative: after it).
        round_trip_ns: from handing it to the transport to reading the answer.
    """

    chunk_id: int
    code: AckCode
    arg: int
    lead_ns: int
    round_trip_ns: int

    @property
    def accepted(self) -> bool:
        return self.code < AckCode.BAD_STATE

    @classmethod
    def from_ack(cls, chunk_id: int, ack: Ack, round_trip_ns: int) -> ChunkAnswer:
        return cls(chunk_id, AckCode(ack.code), ack.arg, ack.lead_us * 1000, round_trip_ns)


@dataclass(slots=True)
class LinkCounters:
    """Since the link was made. ``framing`` counts what arrived broken."""

    framing: FramingCounters
    foreign_session: int = 0
    """Frames of another boot of the MCU, not used."""
    malformed: int = 0
    """Frames with a right CRC that are no message of this protocol."""
    resent: int = 0
    """Commands sent again because no answer came within 50 ms."""
    chunks_sent: int = 0
    chunks_skipped: int = 0
    """Not sent because the MCU does not keep up."""
    beats_skipped: int = 0
    """Heartbeats not sent because they would have waited behind older bytes."""
    chunks_accepted: int = 0
    chunks_trimmed: int = 0
    """Of the accepted ones: those whose first knots came too late."""
    chunks_refused: int = 0
    chunks_unanswered: int = 0
    resets: int = 0
    """Boots of the MCU that this link has witnessed."""
    rx_gaps: int = 0
    """Sequence numbers of the MCU that were skipped: its ring was full, or the line lost them."""
    unasked: int = 0
    """Answers to nothing that waits for one: repeated, late, or another host's."""
    outbox_dropped: int = 0
    """Frames not sent because the other end did not read."""
    unread: int = 0
    """Messages overwritten because the caller did not poll."""
    times_lost: int = 0
    """Clock exchanges that were not answered in time."""

    @property
    def dropped(self) -> int:
        """Everything that was lost or thrown away, wherever this host can know of it."""
        framing = self.framing
        return (
            framing.bad_cobs + framing.bad_crc + framing.oversize + self.foreign_session + self.malformed
            + self.rx_gaps + self.outbox_dropped + self.unread
        )


@dataclass(frozen=True, slots=True)
class LinkState:
    """A snapshot.

    Attributes:
        connected: bytes flow and the MCU has answered.
        at_ns: host time that ``position``, ``setpoint`` and ``velocity`` are for.
        age_ns: how old they are now.
        mcu_state, stop_cause, fault, degrade: as last reported by the MCU.
        position: encoder [D], axis units; means nothing unless ``encoder_fresh``.
        setpoint, velocity: what the MCU commands [D], axis units and axis units/s.
        drive_on, encoder_fresh, moving, limits_locked, estop_latched: flags of the MCU.
        clipped: per axis, the limiter changed the plan since the last report.
        knots: left on the MCU's timeline.
        remaining_ns: until the timeline runs dry; 0 when dry.
        chunk_id: last accepted, 0 for none.
        last_chunk: answer to the newest answered chunk.
        armed: this host armed the MCU and has not seen it disarm since.
        clock_offset_ns: MCU clock minus host clock.
        clock_bound_ns: largest possible error of it; infinite when unknown.
        rtt_ns: smallest round trip of the last 32.
        drift_ppm: of the MCU's clock against the host's.
        session, boots: of the MCU.
        reset_seen: the MCU was reset under this link; stays until the operator acknowledges.
        reset_cause, reset_pc: of the last boot; ``reset_pc`` is where it hung, 0 if it did not.
        counters: of this link.
        metrics: rates, round trips and losses of this link.
        stats: newest of the MCU, None in the first second.
        bus_end: this host's end of the CAN bus, None on every other line.
    """

    connected: bool
    at_ns: int
    age_ns: int
    mcu_state: McuState
    stop_cause: StopCause
    fault: Fault
    degrade: Degrade
    position: F64
    setpoint: F64
    velocity: F64
    drive_on: bool
    encoder_fresh: bool
    moving: bool
    limits_locked: bool
    estop_latched: bool
    clipped: tuple[bool, ...]
    knots: int
    remaining_ns: int
    chunk_id: int
    last_chunk: ChunkAnswer | None
    armed: bool
    clock_offset_ns: int
    clock_bound_ns: float
    rtt_ns: int
    drift_ppm: float
    session: int
    boots: int
    reset_seen: bool
    reset_cause: ResetCause
    reset_pc: int
    counters: LinkCounters
    metrics: LinkMetrics
    stats: Stats | None
    bus_end: BusEnd | None

    @classmethod
    def build(
        cls,
        report: State,
        hello: Hello,
        *,
        connected: bool,
        at_ns: int,
        now_ns: int,
        last_chunk: ChunkAnswer | None,
        armed: bool,
        clock_offset_ns: int,
        clock_bound_ns: float,
        rtt_ns: int,
        drift_ppm: float,
        session: int,
        reset_seen: bool,
        counters: LinkCounters,
        metrics: LinkMetrics,
        stats: Stats | None,
        bus_end: BusEnd | None,
    ) -> LinkState:
        """From the newest STATE and HELLO and what the host itself keeps."""
        flags = report.flags
        return cls(
            connected=connected,
            at_ns=at_ns,
            age_ns=now_ns - at_ns,
            mcu_state=McuState(report.state),
            stop_cause=StopCause(report.stop_cause),
            fault=Fault(report.fault),
            degrade=Degrade(report.degrade),
            position=si(report.position),
            setpoint=si(report.setpoint),
            velocity=si(report.velocity),
            drive_on=bool(flags & STATE_FLAG_DRIVE_ON),
            encoder_fresh=bool(flags & STATE_FLAG_ENCODER_FRESH),
            moving=bool(flags & STATE_FLAG_MOVING),
            limits_locked=bool(flags & STATE_FLAG_LIMITS_LOCKED),
            estop_latched=bool(flags & STATE_FLAG_ESTOP_LATCHED),
            clipped=tuple(bool(report.clipped >> axis & 1) for axis in range(report.axes)),
            knots=report.knots,
            remaining_ns=report.remaining_us * 1000,
            chunk_id=report.chunk_id,
            last_chunk=last_chunk,
            armed=armed,
            clock_offset_ns=clock_offset_ns,
            clock_bound_ns=clock_bound_ns,
            rtt_ns=rtt_ns,
            drift_ppm=drift_ppm,
            session=session,
            boots=hello.boots,
            reset_seen=reset_seen,
            reset_cause=ResetCause(hello.reset_cause),
            reset_pc=hello.reset_pc,
            counters=counters,
            metrics=metrics,
            stats=stats,
            bus_end=bus_end,
        )
