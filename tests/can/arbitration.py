"""A CAN bus with what virtual ones lack: bits take time, and of the frames that wait the lowest identifier goes first.

Each node offers one frame at a time, as a controller in FIFO mode does. A frame that has begun is never interrupted.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from firmware_bridge.host.can_bounds import BusRate, frame_bits
from firmware_bridge.host.can_segments import CanFrame


@dataclass
class Sender:
    """One node's transmit queue: (earliest time [us], frame)."""

    queue: deque[tuple[float, CanFrame]] = field(default_factory=deque)

    def offer(self, at_us: float, *frames: CanFrame) -> None:
        self.queue.extend((at_us, frame) for frame in frames)


@dataclass(frozen=True)
class Delivered:
    """A frame on the bus: asked for, first bit, last bit [us]."""

    frame: CanFrame
    asked_us: float
    begin_us: float
    end_us: float

    @property
    def latency_us(self) -> float:
        return self.end_us - self.asked_us


class Arbitration:
    """The bus. ``worst``: every frame carries the most stuff bits."""

    def __init__(self, rate: BusRate, senders: list[Sender], *, worst: bool = True) -> None:
        self.rate, self.senders, self.worst = rate, senders, worst
        self.now_us = 0.0
        self.busy_us = 0.0

    def duration_us(self, frame: CanFrame) -> float:
        return frame_bits(len(frame.data), fd=frame.fd).time_us(self.rate, worst=self.worst)

    def next(self) -> Delivered | None:
        """The next frame that wins the bus; None when nobody has anything to send."""
        waiting = [sender for sender in self.senders if sender.queue]
        if not waiting:
            return None
        self.now_us = max(self.now_us, min(sender.queue[0][0] for sender in waiting))
        ready = [sender for sender in waiting if sender.queue[0][0] <= self.now_us]
        winner = min(ready, key=lambda sender: sender.queue[0][1].id)
        asked, frame = winner.queue.popleft()
        begin = self.now_us
        self.now_us += self.duration_us(frame)
        self.busy_us += self.now_us - begin
        return Delivered(frame, asked, begin, self.now_us)

    def run(self, until_us: float) -> list[Delivered]:
        """Everything that is on the bus before ``until_us``."""
        out = []
        while self.now_us < until_us and (one := self.next()) is not None:
            out.append(one)
        return out
