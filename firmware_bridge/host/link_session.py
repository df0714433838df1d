"""What keeps a link alive and knows how it is: sessions, clocks, states, waiting. The acts are in ``link.py``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from firmware_bridge.errors import LinkError, TransportClosed
from firmware_bridge.host.clock_sync import WINDOW, ClockSync
from firmware_bridge.host.conversation import ANSWER_NS, TRIES, Clock, Command, Conversation
from firmware_bridge.host.limits import LimitTable
from firmware_bridge.host.link_state import ChunkAnswer, LinkState
from firmware_bridge.host.messages import (
    HEARTBEAT_FLAG_ARMED,
    HEARTBEAT_PERIOD_US,
    STATE_FLAG_ESTOP_LATCHED,
    Ack,
    AckCode,
    Chunk,
    ChunkEncoding,
    Degrade,
    Estop,
    Event,
    EventAck,
    EventKind,
    Fault,
    Heartbeat,
    Hello,
    HostMessage,
    Limits,
    LimitsGet,
    McuMessage,
    McuState,
    State,
    Stats,
    StopCause,
    TimeReq,
    TimeResp,
)
from firmware_bridge.host.transport import Transport

MILLISECOND = 1_000_000
TIME_FAST_NS, TIME_SLOW_NS = 50 * MILLISECOND, 500 * MILLISECOND
"""Clock exchanges: 20 Hz until the window is full, then 2 Hz."""
TIME_LOST_NS = 200 * MILLISECOND
"""A clock exchange that took longer would tell nothing."""
CHUNK_OVERDUE_NS = 100 * MILLISECOND
"""A chunk without an answer for this long counts as lost; should the answer still come, it is told."""
GATHER_S = 0.001
CLOCK_BACK_US = 100_000
"""An MCU clock that is this far behind its own last report is that of another boot."""
ESTOP_RESEND_NS = 10 * MILLISECOND
HEARTBEAT_NS = HEARTBEAT_PERIOD_US * 1000
ENERGISED = (McuState.ARMED, McuState.RUN, McuState.STARVED, McuState.STOP)


class LinkSession:
    """The passive half of a link. One loop owns it; nothing here is thread safe."""

    def __init__(
        self,
        transport: Transport,
        limits: LimitTable,
        *,
        clock: Clock = time.monotonic_ns,
        max_clock_error_ns: int = MILLISECOND,
        encoding: ChunkEncoding = ChunkEncoding.I32_MICRO,
    ) -> None:
        self.limits = limits
        self.max_clock_error_ns = max_clock_error_ns
        self.encoding = encoding
        self._clock = clock
        self._talk = Conversation(transport, clock)
        self._sync = ClockSync()
        self._drive_errors: dict[int, int] = {}
        self._queue: deque[McuMessage] = deque(maxlen=4096)
        self._report: State | None = None
        self._report_us = 0  # MCU clock of the newest report of this boot
        self._report_at_ns = 0
        self._stats: Stats | None = None
        self._read_back: dict[int, Limits] = {}
        self._last_chunk: ChunkAnswer | None = None
        self._chunks: deque[Command] = deque()
        self._chunk_id = 0
        self._event_id = 0
        self._armed = False
        self._armed_since_us = 0
        self._configured = False
        self._epoch = 0
        self._reset_seen = False
        self._adopted_boot: tuple[int, int] | None = None
        self._estop_due_ns: int | None = None
        self._time_due_ns = 0
        self._time_asked: deque[int] = deque(maxlen=8)
        self._beat_due_ns = 0
        self._beat_degrade = int(Degrade.NOMINAL)
        self._policy_counter = 0

    def poll(self) -> list[McuMessage]:
        """Send what is due and take what has come; never waits. A cable that is out shows in ``state.connected``.

        Returns:
            Messages since the last call, in order of arrival; a repeated EVENT appears once.
        """
        self._pump()
        messages = list(self._queue)
        self._queue.clear()
        return messages

    def service(self, until_ns: int) -> None:
        """Serve the wire until ``until_ns`` of the link's clock; what comes is returned by the next :meth:`poll`."""
        while (left := until_ns - self._clock()) > 0:
            self._pump()
            if not self._talk.open:
                time.sleep(left * 1e-9)  # nothing to wait on: keep the caller's pace
                return
            # A clock exchange on its way is stamped when it arrives; otherwise a wake-up per byte would be waste.
            gather_s = 0.0 if self._time_asked else GATHER_S
            self._talk.transport.wait(min(left, 10 * MILLISECOND) * 1e-9, gather_s)
        self._pump()

    @property
    def state(self) -> LinkState:
        """Raises LinkError before :meth:`connect` has succeeded."""
        if self._report is None:
            raise LinkError("nothing is known of the MCU yet", expected="connect() before state")
        now = self._clock()
        return LinkState.build(
            self._report,
            self._hello(),
            connected=self._talk.open,
            at_ns=self._report_at_ns,
            now_ns=now,
            last_chunk=self._last_chunk,
            armed=self._armed,
            clock_offset_ns=self._sync.offset_ns(now) if self._sync.samples else 0,
            clock_bound_ns=self._sync.bound_ns(now),
            rtt_ns=self._sync.rtt_ns,
            drift_ppm=self._sync.drift_ppm,
            session=self._talk.session,
            reset_seen=self._reset_seen,
            counters=self._talk.counters,
            metrics=self._talk.meter.metrics(now, self._talk.counters.dropped),
            stats=self._stats,
            bus_end=self._talk.bus_end,
        )

    def _pump(self) -> None:
        """One round: send what is due, take what has come. Never waits, never raises for a cable that is out."""
        if not self._talk.open:
            return
        try:
            now = self._clock()
            if self._estop_due_ns is not None and now >= self._estop_due_ns:
                # Taken in any session: it does not wait until the host knows which one it is.
                self._estop_due_ns = now + ESTOP_RESEND_NS
                self._talk.send(Estop())
            if now >= self._time_due_ns and self._talk.hello is not None and not self._talk.hello_wanted:
                self._ask_time(now)
            for message, arrived_ns in self._talk.poll():
                self._take(message, arrived_ns)
        except TransportClosed:
            self._talk.forget()
        self._settle_chunks()

    def _ask_time(self, now: int) -> None:
        self._time_due_ns = now + (TIME_FAST_NS if self._sync.samples < WINDOW else TIME_SLOW_NS)
        while self._time_asked and now - self._time_asked[0] > TIME_LOST_NS:
            self._time_asked.popleft()
            self._talk.counters.times_lost += 1
        self._time_asked.append(now)
        self._talk.send(TimeReq(now))

    def _take(self, message: McuMessage, arrived_ns: int) -> None:
        match message:
            case Hello():
                if self._adopted_boot is not None:
                    self._after_hello(message)
            case TimeResp():
                # Each request is answered once: a repeated answer would carry a wrong arrival time.
                if message.t1_ns in self._time_asked:
                    self._time_asked.remove(message.t1_ns)
                    self._talk.meter.trip(arrived_ns - message.t1_ns - (message.t3_us - message.t2_us) * 1000)
                    self._sync.add(message.t1_ns, message.t2_us, message.t3_us, arrived_ns)
            case State():
                self._take_state(message, arrived_ns)
            case Stats():
                self._stats = message
            case Limits():
                self._read_back[message.axis] = message
            case Event():
                self._talk.send(EventAck(message.event_id))
                if message.event_id <= self._event_id:
                    return
                self._event_id = message.event_id
                if message.kind == EventKind.DRIVE:
                    self._drive_errors[message.arg0] = message.arg1
            case Ack():
                pass
        self._talk.counters.unread += len(self._queue) == self._queue.maxlen
        self._queue.append(message)

    def _take_state(self, report: State, arrived_ns: int) -> None:
        try:
            McuState(report.state), StopCause(report.stop_cause), Fault(report.fault), Degrade(report.degrade)
        except ValueError:
            self._talk.counters.malformed += 1
            return
        if report.now_us + CLOCK_BACK_US < self._report_us:
            self._talk.ask_hello()  # an old frame, or another boot under the same session number: the answer tells
            return
        self._report = report
        self._report_us = report.now_us
        self._report_at_ns = (
            min(arrived_ns, self._sync.to_host_ns(report.now_us, arrived_ns)) if self._sync.samples else arrived_ns
        )
        if self._armed and report.state not in ENERGISED and report.now_us > self._armed_since_us:
            self._armed = False
        if report.flags & STATE_FLAG_ESTOP_LATCHED:
            self._estop_due_ns = None

    def _after_hello(self, hello: Hello) -> None:
        """Is it still the boot that was adopted? A board without a source of entropy may repeat its session."""
        went_back = hello.now_us + CLOCK_BACK_US < self._report_us
        if went_back or (self._talk.session, hello.boots) != self._adopted_boot:
            self._reset_seen = True
            self._talk.counters.resets += 1
            self._adopt()
        elif self._configured and self._talk.epoch != self._epoch:
            self._configured = self._armed = False  # another host has configured this MCU since

    def _adopt(self) -> None:
        """Begin a session: nothing of an earlier one is valid, neither its clock nor its limits nor its commands."""
        self._adopted_boot = (self._talk.session, self._hello().boots)
        self._report_us = 0
        self._talk.forget()
        self._sync.reset()
        self._time_asked.clear()
        self._time_due_ns = 0
        self._event_id = 0
        self._armed = False
        self._configured = False

    def _settle_chunks(self) -> None:
        counters = self._talk.counters
        now = self._clock()
        for command in self._chunks:
            if command.answer is None and not command.overdue and now - command.sent_ns >= CHUNK_OVERDUE_NS:
                command.overdue = True
                counters.chunks_unanswered += 1
        while self._chunks and self._chunks[0].done:
            command = self._chunks.popleft()
            if command.answer is None:
                continue
            assert isinstance(command.message, Chunk)
            answer = ChunkAnswer.from_ack(
                command.message.chunk_id, command.answer, command.answered_ns - command.sent_ns
            )
            self._last_chunk = answer
            counters.chunks_accepted += answer.accepted
            counters.chunks_trimmed += answer.code is AckCode.OK_TRIMMED
            counters.chunks_refused += not answer.accepted

    def _hello(self) -> Hello:
        if self._talk.hello is None:
            raise LinkError("the MCU has not introduced itself", expected="connect() first")
        return self._talk.hello

    def _refresh_hello(self) -> Hello:
        self._hello()
        self._talk.ask_hello()
        self._await(lambda: not self._talk.hello_wanted, 0.5, "HELLO")
        return self._hello()

    def _read_limits(self, axis: int) -> Limits:
        """One axis of the table in the MCU, asked for 3 x 50 ms."""
        self._read_back.pop(axis, None)
        for _ in range(TRIES):
            self._talk.send(LimitsGet(axis))
            if self._wait(lambda: axis in self._read_back, ANSWER_NS * 1e-9):
                return self._read_back[axis]
        raise LinkError(f"limits of axis {axis}: no answer in {TRIES} tries", remedy="check the cable")

    def _do(self, message: HostMessage, *, again_ok: AckCode | None = None, beat: bool = False) -> Ack:
        """Send a command and wait for its answer, 3 x 50 ms.

        Args:
            again_ok: the refusal by which a repetition recognises that the first try had been done.
            beat: keep the heartbeat going meanwhile.
        """
        command = self._talk.command(message)
        self._wait(lambda: command.done, 1.0, beat=beat)
        answer = command.answer
        if not self._talk.open:
            raise TransportClosed("the cable is out", remedy="plug it in and connect again")
        if answer is None or (answer.code >= AckCode.BAD_STATE and not (command.tries > 1 and answer.code == again_ok)):
            raise command.refusal()
        # What `state` says after an act is from after the act.
        fresh = answer.now_us
        self._await(lambda: self._report_us > fresh, 0.5, "STATE", beat=beat)
        return answer

    def _await(self, condition: Callable[[], bool], timeout_s: float, what: str, *, beat: bool = False) -> None:
        if not self._wait(condition, timeout_s, beat=beat):
            if not self._talk.open:
                raise TransportClosed("the cable is out", remedy="plug it in and connect again")
            raise LinkError(
                f"no {what} within {timeout_s:g} s", expected="an answer of the MCU",
                remedy="check the cable and that the firmware runs",
            )

    def _wait(self, condition: Callable[[], bool], timeout_s: float, *, beat: bool = False) -> bool:
        """Pump until the condition holds. False: time is up, or the cable is out."""
        deadline = self._clock() + round(timeout_s * 1e9)
        while True:
            self._pump()
            if beat and self._clock() >= self._beat_due_ns:
                self._beat_due_ns = self._clock() + HEARTBEAT_NS
                self._send_heartbeat(self._clock())
            if condition():
                return True
            left = deadline - self._clock()
            if left <= 0 or not self._talk.open:
                return False
            self._talk.transport.wait(min(left, 5 * MILLISECOND) * 1e-9)

    def _send_heartbeat(self, now: int) -> None:
        if not self._talk.open or self._talk.hello is None:
            return
        if self._talk.transport.backlog:
            # It would be told late, and an old sign of life is a lie. The next cycle tells a newer one.
            self._talk.counters.beats_skipped += 1
            return
        flags = HEARTBEAT_FLAG_ARMED if self._armed else 0
        try:
            bound_us = min(0xFFFFFFFF, self._sync.bound_ns(now) / 1000)
            sent_us = self._sync.to_mcu_us(now) if self._sync.samples else 0
            self._talk.send(
                Heartbeat(max(0, sent_us), self._policy_counter, int(bound_us), self._beat_degrade, flags)
            )
        except TransportClosed:
            self._talk.forget()  # the cable is out: `state.connected` says so
