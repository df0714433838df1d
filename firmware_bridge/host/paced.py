"""A byte stream that takes as long as its wire: pseudo-terminals, sockets and emulated UARTs are all instant.

Each byte leaves when the one before it has gone and takes 10 bits (8N1) of the baud rate; it is handed on when its stop
bit would have ended, never before. Whoever waits on this transport spins (a sleep on a PC is 50 us late at best), so it
is for measuring, on a core of its own. How late frames were handed on is kept: it is the error of the measurement.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass

from firmware_bridge.host.transport import Transport

BITS_PER_BYTE = 10
KERNEL_BYTES = 4096
"""What the kernel's buffer of a tty takes before a writer sees a backlog."""
FIFO_BYTES = 16
"""Handed on together, like the receive FIFO of a 16550; the end of a frame at once. Nothing acts on half a frame."""


@dataclass(slots=True)
class _Piece:
    data: bytes
    start_ns: int
    given: int = 0


class _Direction:
    """One wire: what is on it and when each byte has passed."""

    def __init__(self, byte_ns: float) -> None:
        self._byte_ns = byte_ns
        self._pieces: deque[_Piece] = deque()
        self._free_ns = 0
        self.queued = 0
        self.late_ns: list[int] = []

    def put(self, data: bytes, now_ns: int) -> None:
        start = max(now_ns, self._free_ns)
        self._free_ns = start + round(len(data) * self._byte_ns)
        self._pieces.append(_Piece(data, start))
        self.queued += len(data)

    def take(self, now_ns: int) -> bytes:
        """What has passed since the last call; notes how late the end of each piece is taken."""
        out = b""
        while self._pieces:
            piece = self._pieces[0]
            passed = min(len(piece.data), int((now_ns - piece.start_ns) / self._byte_ns))
            whole = passed == len(piece.data)
            if not whole and passed - piece.given < FIFO_BYTES:
                break
            out += piece.data[piece.given : passed]
            piece.given = passed
            if not whole:
                break
            self.late_ns.append(now_ns - piece.start_ns - round(passed * self._byte_ns))
            self._pieces.popleft()
        self.queued -= len(out)
        return out


class PacedTransport:
    """``inner``, as if behind a UART of ``baud``. Not thread safe; bytes only move while somebody calls it."""

    def __init__(self, inner: Transport, baud: int) -> None:
        self.baud = baud
        self.dropped_frames = 0
        self._inner = inner
        byte_ns = BITS_PER_BYTE * 1e9 / baud
        self._to_mcu, self._to_host = _Direction(byte_ns), _Direction(byte_ns)
        self._arrived = b""

    @property
    def backlog(self) -> int:
        return max(0, self._to_mcu.queued - KERNEL_BYTES) + self._inner.backlog

    @property
    def late_ns(self) -> list[int]:
        """How much later than its last stop bit each frame was handed on, both directions, since the start."""
        return self._to_mcu.late_ns + self._to_host.late_ns

    def write(self, frame: bytes) -> None:
        if self._to_mcu.queued + len(frame) > 2 * KERNEL_BYTES:
            self.dropped_frames += 1
            return
        self._to_mcu.put(frame, time.monotonic_ns())
        self._move()

    def read(self) -> bytes:
        self._move()
        data, self._arrived = self._arrived, b""
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        deadline = time.monotonic_ns() + round(timeout_s * 1e9)
        while not self._arrived and time.monotonic_ns() < deadline:
            self._move()
        gathered = min(deadline, time.monotonic_ns() + round(gather_s * 1e9))
        while time.monotonic_ns() < gathered:
            self._move()
        return bool(self._arrived)

    def close(self) -> None:
        self._inner.close()

    def _move(self) -> None:
        if self._to_mcu.queued and (data := self._to_mcu.take(time.monotonic_ns())):
            self._inner.write(data)
        if data := self._inner.read():
            self._to_host.put(data, time.monotonic_ns())
        if self._to_host.queued:
            self._arrived += self._to_host.take(time.monotonic_ns())
