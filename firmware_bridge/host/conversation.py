"""Who says what to whom: sequence numbers, the boot session, answers matched to commands, and resending.

A frame of another boot of the MCU is never used. A HELLO is believed only when it repeats a number that was just asked
for, so an old one that comes out of a buffer late cannot make the host follow a microcontroller that is no more.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from firmware_bridge.errors import LinkError, TransportClosed
from firmware_bridge.host.framing import FrameReceiver, LinkFrame, encode_frame
from firmware_bridge.host.link_metrics import BusEnd, WireMeter
from firmware_bridge.host.link_state import LinkCounters
from firmware_bridge.host.messages import (
    ACKCODE_TEXT,
    MCU_MESSAGES,
    Ack,
    AckCode,
    Chunk,
    Hello,
    HelloReq,
    HostMessage,
    McuMessage,
)
from firmware_bridge.host.transport import Transport, bus_end

Clock = Callable[[], int]
ANSWER_NS = 50_000_000
"""A command is sent again after this long."""
TRIES = 3
CHUNK_ANSWER_NS = 500_000_000
"""A chunk counts as on its way until it is answered, at most this long."""
HELLO_RETRY_NS = 20_000_000


@dataclass(slots=True)
class Command:
    """A frame that waits for its ACK. ``answer`` is None until it came; ``failed`` once it will not come any more."""

    message: HostMessage
    frame: bytes
    sent_ns: int
    due_ns: int
    tries_left: int
    tries: int = 1
    answer: Ack | None = None
    answered_ns: int = 0
    failed: bool = False
    overdue: bool = False

    @property
    def done(self) -> bool:
        return self.answer is not None or self.failed

    def refusal(self) -> LinkError:
        """Why it did not work, in words."""
        name = type(self.message).__name__
        if self.answer is None:
            return LinkError(
                f"{name}: no answer in {self.tries} tries of {ANSWER_NS // 1_000_000} ms",
                expected="an acknowledgement", remedy="check the cable and that the firmware runs",
            )
        text = ACKCODE_TEXT[self.answer.code]
        return LinkError(
            f"{name} refused by the MCU: {text.name} ({text.cause}), arg {self.answer.arg}", remedy=text.remedy
        )


class Conversation:
    """One link's frames in and out. Decodes and matches; what the messages mean is the link's affair."""

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self.transport = transport
        self.clock = clock
        self.receiver = FrameReceiver()
        self.counters = LinkCounters(self.receiver.counters)
        self.meter = WireMeter()
        self.open = True
        self.session = 0
        self.epoch = 0
        """Of the configuration that the last HELLO told of."""
        self.hello: Hello | None = None
        self._on_bus = bus_end(transport) is not None
        self._seq = 0
        self._mcu_seq: int | None = None
        self._commands: dict[int, Command] = {}
        self._nonce = 0
        self._hello_due_ns = 0
        self._hello_wanted = False

    @property
    def bus_end(self) -> BusEnd | None:
        """What this end has seen of the CAN bus; None on every other line."""
        return bus_end(self.transport) if self._on_bus else None

    def send(self, message: HostMessage) -> bytes:
        """Send without expecting an answer; returns the frame.

        Raises:
            TransportClosed: the other end is gone.
        """
        self._seq = (self._seq + 1) & 0xFFFF
        frame = encode_frame(LinkFrame(message.TYPE, self._seq, self.session, message.pack(), self.epoch).pack())
        self._write(frame)
        return frame

    def command(self, message: HostMessage) -> Command:
        """Send and remember until it is answered. A chunk is sent once: motion repeated late is worth nothing."""
        once = isinstance(message, Chunk)
        frame = self.send(message)
        now = self.clock()
        new = Command(message, frame, now, now + (CHUNK_ANSWER_NS if once else ANSWER_NS), 0 if once else TRIES - 1)
        self._commands[self._seq] = new
        return new

    def ask_hello(self) -> None:
        """Ask who is there, and keep asking every 20 ms until the answer comes."""
        if not self._hello_wanted:
            self._nonce = secrets.randbits(31) + 1
            self._hello_wanted = True
            self._hello_due_ns = 0
        self._ask_hello_if_due()

    @property
    def hello_wanted(self) -> bool:
        return self._hello_wanted

    def poll(self) -> list[tuple[McuMessage, int]]:
        """Resend what is due, read what has come: messages of this session with the host time of arrival [ns].

        A HELLO in the list is one that was asked for; :attr:`session` and :attr:`hello` already follow it.

        Raises:
            TransportClosed: the other end is gone.
        """
        self._resend()
        self._ask_hello_if_due()
        try:
            data = self.transport.read()
        except TransportClosed:
            self.open = False
            raise
        arrived_ns = self.clock()
        self.meter.received.add(len(data), arrived_ns)
        messages: list[tuple[McuMessage, int]] = []
        for body in self.receiver.feed(data):
            message = self._decode(body)
            if isinstance(message, Ack):
                self._match(message, arrived_ns)
            if message is not None:
                messages.append((message, arrived_ns))
        return messages

    def forget(self) -> None:
        """Give up on every command: the MCU that was to answer them is no more."""
        for command in self._commands.values():
            command.failed = True
        self._commands.clear()

    def continue_from(self, other: Conversation) -> None:
        """Go on counting where another conversation of the same link ended."""
        self.receiver.counters = other.receiver.counters
        self.counters, self.meter = other.counters, other.meter

    def _write(self, frame: bytes) -> None:
        before = self.transport.dropped_frames
        try:
            self.transport.write(frame)
        except TransportClosed:
            self.open = False
            raise
        dropped = self.transport.dropped_frames - before
        self.counters.outbox_dropped += dropped
        if not dropped:
            self.meter.sent.add(len(frame), self.clock())

    def _count_gap(self, seq: int) -> None:
        skipped = 0 if self._mcu_seq is None else (seq - self._mcu_seq - 1) & 0xFFFF
        if skipped < 0x8000:  # more than half the circle is an older frame: on CAN an urgent one overtakes others
            self.counters.rx_gaps += skipped
            self._mcu_seq = seq

    def _resend(self) -> None:
        now = self.clock()
        for seq, command in list(self._commands.items()):
            if now < command.due_ns:
                continue
            if command.tries_left == 0:
                command.failed = True
                del self._commands[seq]
                continue
            command.tries_left -= 1
            command.tries += 1
            command.due_ns = now + ANSWER_NS
            self.counters.resent += 1
            self._write(command.frame)

    def _ask_hello_if_due(self) -> None:
        now = self.clock()
        if self._hello_wanted and now >= self._hello_due_ns:
            self._hello_due_ns = now + HELLO_RETRY_NS
            self.send(HelloReq(self._nonce))

    def _decode(self, body: bytes) -> McuMessage | None:
        frame = LinkFrame.unpack(body)
        kind = MCU_MESSAGES.get(frame.type) if frame is not None else None
        if frame is None or kind is None:
            self.counters.malformed += 1
            return None
        try:
            message = kind.unpack(frame.payload)
        except LinkError:
            self.counters.malformed += 1
            return None
        if isinstance(message, Hello):
            if self._hello_wanted and message.nonce == self._nonce:
                self._hello_wanted = False
                if frame.session != self.session:
                    self._mcu_seq = None
                self.session, self.epoch = frame.session, frame.epoch
                self.hello = message
                self._count_gap(frame.seq)
                return message
            if frame.session != self.session and self.hello is not None:
                self.ask_hello()
            elif frame.session == self.session:
                self._count_gap(frame.seq)
            self.counters.unasked += 1
            return None
        if frame.session != self.session or self.hello is None:
            self.counters.foreign_session += 1
            if self.hello is not None:
                self.ask_hello()
            return None
        self._count_gap(frame.seq)
        return message

    def _match(self, ack: Ack, arrived_ns: int) -> None:
        command = self._commands.get(ack.of_seq)
        if command is None or ack.of_type != command.message.TYPE or ack.code not in ACKCODE_TEXT:
            self.counters.unasked += 1
            return
        if command.tries == 1:
            self.meter.trip(arrived_ns - command.sent_ns)
        command.answer = ack
        command.answered_ns = arrived_ns
        del self._commands[ack.of_seq]
        if ack.code == AckCode.BAD_SESSION:
            self.ask_hello()
