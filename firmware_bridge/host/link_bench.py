"""How fast the link is: round trip and throughput of a chunk against its wire, and what a chunk costs the host.

Measured: a real link sends real chunks to a running microcontroller over a wire that is paced byte by byte, and the
MCU's own acknowledgement ends the clock. Computed: the wire time of request and answer, from their bytes and bits. The
two are never mixed: a wire that was only computed has no percentiles.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from cobs import cobs

from firmware_bridge.errors import LinkError
from firmware_bridge.host.bench_rig import AXES, DT_NS, KNOTS, LEAD_NS, LIMITS, MCUS, Mcu, WithDrive, running, sway
from firmware_bridge.host.can_segments import frame_id, segment
from firmware_bridge.host.can_timing import frame_ns
from firmware_bridge.host.can_transport import CanTransport
from firmware_bridge.host.framing import LinkFrame, encode_frame
from firmware_bridge.host.link import Link
from firmware_bridge.host.link_state import ChunkAnswer, LinkCounters
from firmware_bridge.host.messages import Ack, Chunk, ChunkEncoding, McuState
from firmware_bridge.host.motion import chunk_message, encode_knots
from firmware_bridge.host.paced import BITS_PER_BYTE, PacedTransport
from firmware_bridge.host.paced_can import CanNode, PacedCanBus
from firmware_bridge.host.transport import Transport
from firmware_bridge.spread import Spread

BAUDS = (1_000_000, 3_000_000)
CLOCK_ERROR_NS = 5_000_000
APART_S = (0.004, 0.008)
"""Pause between two measured chunks: by chance, so that they meet every phase of the control tick and of STATE."""
COST_PAUSES_MS = (2, 20)
"""Between two chunks whose processor time is taken; planners send 5 to 50 a second."""
ANSWER_S = 0.5
ATTEMPTS = 10
_MOVABLE = (McuState.ARMED, McuState.RUN, McuState.STARVED)
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class WireRow:
    """One wire, one microcontroller, one encoding.

    Attributes:
        wire: ``serial 1000000``, or a name in :data:`CAN_WIRES`.
        mcu: name in :data:`bench_rig.MCUS`.
        encoding: of the chunk's samples.
        request_bytes, answer_bytes: serial: frames on the wire, delimiter included; CAN: transfers before segmentation.
        wire_us: both frames' time on the wire, computed; on CAN with the stuff bits of one such chunk.
        round_trip_us: from the call that sends to the call that returns the answer, measured.
        refused: chunks that were not accepted, of all in both measurements.
        interruptions: times that a stall of this machine stopped the arm, which was then armed again.
        sustained_bytes_s: bytes of accepted chunks a second, sent as fast as answers allow, measured.
        wire_bytes_s: what the wire could carry of such chunks.
        late_us: how late the pacing handed frames on: the error of the measurement.
    """

    wire: str
    mcu: str
    encoding: str
    request_bytes: int
    answer_bytes: int
    wire_us: float
    round_trip_us: Spread
    refused: int
    interruptions: int
    sustained_bytes_s: float
    wire_bytes_s: float
    late_us: Spread

    @property
    def share(self) -> float:
        """Sustained rate over the wire's."""
        return self.sustained_bytes_s / self.wire_bytes_s


@dataclass(frozen=True, slots=True)
class CostRow:
    """Processor time of the host for one chunk, by parts of its path, in microseconds of this thread.

    ``every_ms``: the pause before each chunk. The longer it is, the less of the code is still in the caches.
    """

    encoding: str
    every_ms: int
    send_us: Spread
    answer_us: Spread

    @property
    def p50_us(self) -> float:
        return self.send_us.p50 + self.answer_us.p50


@dataclass(frozen=True, slots=True)
class LinkReport:
    """Everything that one call of :func:`bench_link` found. ``skipped``: rows that this machine was too busy for, and
    why; a benchmark that fails on noise would say nothing about the rest."""

    load: float
    skipped: tuple[str, ...]
    wires: tuple[WireRow, ...]
    costs: tuple[CostRow, ...]

    def as_dict(self) -> dict[str, object]:
        """Plain values for JSON, with the share of each wire."""
        out = dataclasses.asdict(self)
        for row, made in zip(self.wires, out["wires"], strict=True):
            made["share"] = row.share
        return out


def chunk_frame(encoding: ChunkEncoding) -> bytes:
    """The chunk of the rig on a serial wire."""
    message = chunk_message(encode_knots(sway(0), LIMITS, encoding), KNOTS, AXES, 0, DT_NS, 1, encoding)
    return encode_frame(LinkFrame(Chunk.TYPE, 1, 1, message.pack()).pack())


def answer_frame() -> bytes:
    """Its acknowledgement."""
    return encode_frame(LinkFrame(Ack.TYPE, 1, 1, Ack(Chunk.TYPE, 0, 1, 0, 1 << 30, 60_000, 40).pack()).pack())


class _Session:
    """An armed link, and chunk after chunk over it. A PC that stalls for 100 ms stops the arm, as it must: it is then
    armed again and the pause is counted, because a benchmark that fails on noise says nothing."""

    def __init__(self, transport: Transport, encoding: ChunkEncoding) -> None:
        self.transport = transport
        self.link = Link(transport, LIMITS, max_clock_error_ns=CLOCK_ERROR_NS, encoding=encoding)
        self.link.connect()
        self.chunk_id = 0
        self._before: ChunkAnswer | None = None
        self.interruptions = -1
        self._arm()

    def pause(self, seconds: float) -> None:
        """Let the wire fall silent; heartbeats go on."""
        self.link.heartbeat(self.chunk_id, 0)
        self.link.service(time.monotonic_ns() + round(seconds * 1e9))
        if self.link.state.mcu_state not in _MOVABLE:
            self._arm()

    def send(self) -> int:
        """Processor time of this thread in the link, ns. Raises LinkBusy when two chunks are unanswered."""
        t0_ns = time.monotonic_ns() + LEAD_NS
        knots = sway(t0_ns)
        self._before = self.link.state.last_chunk
        begin = time.thread_time_ns()
        self.link.send_chunk(t0_ns, DT_NS, knots, self.chunk_id + 1)
        spent = time.thread_time_ns() - begin
        self.chunk_id += 1
        return spent

    def answered(self) -> bool:
        """The newest chunk."""
        last = self.link.state.last_chunk
        # After it was armed again the numbers begin anew: the same number may be an answer of before.
        return last is not None and last is not self._before and last.chunk_id == self.chunk_id

    def await_answer(self) -> bool:
        """False: none came."""
        deadline = time.monotonic() + ANSWER_S
        while not self.answered():
            if time.monotonic() > deadline:
                return False
            self.transport.wait(0.01)
            self.link.poll()
        return True

    @property
    def counters(self) -> LinkCounters:
        return self.link.state.counters

    def end(self) -> None:
        self.link.disarm()
        self.link.service(time.monotonic_ns() + 50_000_000)

    def _arm(self) -> None:
        for attempt in range(ATTEMPTS):
            self.interruptions += 1
            try:
                if self.link.state.mcu_state not in (McuState.DISARMED, McuState.CONFIGURED):
                    self.end()
                self.link.clear_fault()
                self.link.configure()
                self.link.arm()
            except LinkError:
                if attempt == ATTEMPTS - 1:
                    raise
                self.link.service(time.monotonic_ns() + 200_000_000)  # clocks are compared again meanwhile
            else:
                self.chunk_id = 0
                return


def _round_trips(session: _Session, count: int, random: np.random.Generator) -> list[float]:
    """Microseconds, one chunk at a time on a silent wire."""
    found: list[float] = []
    while len(found) < count:
        session.pause(float(random.uniform(*APART_S)))
        begin = time.monotonic_ns()
        with contextlib.suppress(LinkError):  # stopped or disarmed between the pause and now
            session.send()
            if session.await_answer():
                found.append((time.monotonic_ns() - begin) / 1e3)
    return found


def _sustained(session: _Session, seconds: float) -> float:
    """Accepted chunks a second, with as many on their way as the link allows."""
    session.pause(APART_S[1])
    accepted = session.counters.chunks_accepted
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        session.link.heartbeat(session.chunk_id, 0)
        with contextlib.suppress(LinkError):  # busy: that is the point
            session.send()
        session.transport.wait(0.002)
        session.link.poll()
    return (session.counters.chunks_accepted - accepted) / (time.monotonic() - begin)


def measure_cost(encoding: ChunkEncoding, *, chunks: int, every_ms: int) -> CostRow:
    """What a chunk costs the host's processor, over the socket of the host port: no pacing, nothing simulated here.

    Raises:
        FirmwareError: the host port cannot be started.
        LinkError: it stopped answering.
    """
    sends: list[float] = []
    answers: list[float] = []
    with running(MCUS["host"]) as transport:
        assert isinstance(transport, WithDrive)
        session = _Session(transport, encoding)
        while len(answers) < chunks:
            session.pause(every_ms / 1000)
            session.link.poll()  # as a control loop, which reads before it sends
            transport.quiet = True  # the drive's frames are no part of a chunk
            sends.append(session.send() / 1e3)
            deadline = time.monotonic() + ANSWER_S
            while not session.answered() and time.monotonic() < deadline:
                transport.wait(0.01)
                begin = time.thread_time_ns()
                messages = session.link.poll()
                spent = time.thread_time_ns() - begin
                if len(messages) == 1 and isinstance(messages[0], Ack):  # read together with a STATE it would cost more
                    answers.append(spent / 1e3)
            transport.quiet = False
        session.end()
    return CostRow(encoding.name, every_ms, Spread.of(sends), Spread.of(answers))


def measure_serial(
    mcu: Mcu, baud: int, encoding: ChunkEncoding, *, chunks: int, seconds: float, seed: int = 0
) -> WireRow:
    """One row of the table.

    Raises:
        FirmwareError: the microcontroller cannot be started.
        LinkError: it stopped answering.
    """
    with running(mcu) as bare:
        paced = PacedTransport(bare, baud)
        session = _Session(paced, encoding)
        times = _round_trips(session, chunks, np.random.default_rng(seed))
        rate = _sustained(session, seconds)
        refused, interruptions = session.counters.chunks_refused, session.interruptions
        session.end()
    request, answer = len(chunk_frame(encoding)), len(answer_frame())
    return WireRow(
        wire=f"serial {baud}",
        mcu=mcu.name,
        encoding=encoding.name,
        request_bytes=request,
        answer_bytes=answer,
        wire_us=(request + answer) * BITS_PER_BYTE / baud * 1e6,
        round_trip_us=Spread.of(times),
        refused=refused,
        interruptions=interruptions,
        sustained_bytes_s=rate * request,
        wire_bytes_s=baud / BITS_PER_BYTE,
        late_us=Spread.of([late / 1e3 for late in paced.late_ns]),
    )


@dataclass(frozen=True, slots=True)
class CanWire:
    """Bit rates of a bus."""

    fd: bool
    bitrate: int
    data_bitrate: int


CAN_WIRES = {"CAN FD 1M/5M": CanWire(True, 1_000_000, 5_000_000), "CAN 1M": CanWire(False, 1_000_000, 1_000_000)}


def _on_bus(frame: bytes, wire: CanWire, *, to_host: bool) -> float:
    """Microseconds of one frame of the link as frames on a silent bus."""
    transfer: bytes = cobs.decode(frame[:-1])
    frames = segment(transfer, frame_id(transfer[0], 1, to_host=to_host), 0, fd=wire.fd)
    return sum(frame_ns(one, wire.bitrate, wire.data_bitrate) for one in frames) / 1e3


def measure_can(name: str, encoding: ChunkEncoding, *, chunks: int, seconds: float, seed: int = 0) -> WireRow:
    """One row over a paced bus whose other node is the core in this process; ``name`` is one of :data:`CAN_WIRES`.

    Raises:
        FirmwareError: the core cannot be built.
        LinkError: it stopped answering.
    """
    wire = CAN_WIRES[name]
    bus = PacedCanBus(CanNode(), wire.bitrate, wire.data_bitrate)
    session = _Session(CanTransport(bus, fd=wire.fd), encoding)
    try:
        times = _round_trips(session, chunks, np.random.default_rng(seed))
        rate = _sustained(session, seconds)
        refused, interruptions = session.counters.chunks_refused, session.interruptions
        session.end()
    finally:
        session.link.close()
    request, answer = chunk_frame(encoding), answer_frame()
    chunk_us = _on_bus(request, wire, to_host=False)
    size = len(cobs.decode(request[:-1]))
    return WireRow(
        wire=name,
        mcu="library",
        encoding=encoding.name,
        request_bytes=size,
        answer_bytes=len(cobs.decode(answer[:-1])),
        wire_us=chunk_us + _on_bus(answer, wire, to_host=True),
        round_trip_us=Spread.of(times),
        refused=refused,
        interruptions=interruptions,
        sustained_bytes_s=rate * size,
        wire_bytes_s=size / chunk_us * 1e6,
        late_us=Spread.of([late / 1e3 for late in bus.late_ns]),
    )


def bench_link(
    mcus: Sequence[str],
    *,
    bauds: Sequence[int] = BAUDS,
    chunks: int = 500,
    seconds: float = 3.0,
    progress: Progress = lambda _: None,
) -> LinkReport:
    """Every wire to every microcontroller in both encodings, and the host's own cost.

    Args:
        mcus: names in :data:`bench_rig.MCUS`.
        chunks: round trips of each row.
        seconds: of sustained sending, each row.
        progress: told what is measured now.

    Raises:
        FirmwareError: a microcontroller cannot be started.
    """
    load = os.getloadavg()[0]
    encodings = (ChunkEncoding.I16_LSB, ChunkEncoding.I32_MICRO)
    rows: list[tuple[str, Callable[[], WireRow]]] = []
    for name in mcus:
        for encoding in encodings:
            rows += [
                (f"serial {baud}, {name}, {encoding.name}",
                 partial(measure_serial, MCUS[name], baud, encoding, chunks=chunks, seconds=seconds))
                for baud in bauds
            ]  # fmt: skip
    rows += [
        (f"{wire}, {encoding.name}", partial(measure_can, wire, encoding, chunks=chunks, seconds=seconds))
        for wire in CAN_WIRES
        for encoding in encodings
    ]
    wires: list[WireRow] = []
    costs: list[CostRow] = []
    skipped: list[str] = []
    for title, measure in rows:
        progress(title)
        try:
            wires.append(measure())
        except LinkError as error:
            skipped.append(f"{title}: {error}")
    for encoding, every_ms in itertools.product(encodings, COST_PAUSES_MS):
        title = f"host processor time, {encoding.name}, every {every_ms} ms"
        progress(title)
        try:
            costs.append(measure_cost(encoding, chunks=chunks, every_ms=every_ms))
        except LinkError as error:
            skipped.append(f"{title}: {error}")
    return LinkReport(load, tuple(skipped), tuple(wires), tuple(costs))
