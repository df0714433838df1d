"""A recording of what went over a link, byte for byte, in both directions: a pcapng file that Wireshark opens.

Link type 147 (USER0), one block per piece of the stream as it was written or read, its direction in ``epb_flags``.
Broken frames are in it as they came; ``edge-wam firmware sniff FILE`` shows them. Format: draft-ietf-opsawg-pcapng.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.link_metrics import BusEnd
from firmware_bridge.host.transport import Transport, bus_end

LINKTYPE_USER0 = 147
FROM_MCU, FROM_HOST = 1, 2
"""``epb_flags``: inbound and outbound, seen from the host."""
_SECTION, _INTERFACE, _PACKET = 0x0A0D0D0A, 1, 6
_MAGIC = 0x1A2B3C4D
_WAITING_BYTES = 4 << 20
"""Of a disk that stalls: a minute of a full line at 921600 baud."""
_FLUSH_S = 0.1


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of one direction. ``at_ns``: Unix time."""

    at_ns: int
    direction: int
    data: bytes


def _block(kind: int, body: bytes) -> bytes:
    length = 12 + len(body)
    return struct.pack("<II", kind, length) + body + struct.pack("<I", length)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _option(code: int, value: bytes) -> bytes:
    return struct.pack("<HH", code, len(value)) + _padded(value)


def head() -> bytes:
    """What a file begins with: the section and the one interface, with times in nanoseconds."""
    section = struct.pack("<IHHq", _MAGIC, 1, 0, -1)
    options = _option(2, b"edge-wam host link") + _option(9, b"\x09") + struct.pack("<HH", 0, 0)
    return _block(_SECTION, section) + _block(_INTERFACE, struct.pack("<HHI", LINKTYPE_USER0, 0, 0) + options)


def packet(piece: Piece) -> bytes:
    """The block of one piece."""
    fixed = struct.pack(
        "<IIIII", 0, piece.at_ns >> 32, piece.at_ns & 0xFFFFFFFF, len(piece.data), len(piece.data)
    )
    options = _option(2, struct.pack("<I", piece.direction)) + struct.pack("<HH", 0, 0)
    return _block(_PACKET, fixed + _padded(piece.data) + options)


def read(path: Path) -> Iterator[Piece]:
    """The pieces of a file, oldest first; one that was cut off in the middle of a block ends there.

    Raises:
        FirmwareError: not a recording of a link.
    """
    data = path.read_bytes()
    if len(data) < 12 or struct.unpack_from("<IxxxxI", data) != (_SECTION, _MAGIC):
        raise FirmwareError(f"{path} is no recording of a link", expected="a little-endian pcapng file")
    at = 0
    while at + 12 <= len(data):
        kind, length = struct.unpack_from("<II", data, at)
        if length < 12 or length % 4 or at + length > len(data):
            return
        if kind == _INTERFACE and struct.unpack_from("<H", data, at + 8)[0] != LINKTYPE_USER0:
            raise FirmwareError(f"{path} is no recording of a link", expected=f"link type {LINKTYPE_USER0}")
        if kind == _PACKET and length >= 32:
            _interface, high, low, count = struct.unpack_from("<IIII", data, at + 8)
            if count <= length - 32:
                options = data[at + 28 + count + (-count % 4) : at + length - 4]
                yield Piece(high << 32 | low, _direction(options), data[at + 28 : at + 28 + count])
        at += length


def _direction(options: bytes) -> int:
    if len(options) >= 8 and struct.unpack_from("<HH", options) == (2, 4):
        return int(struct.unpack_from("<I", options, 4)[0]) & 3
    return 0


def kept(pieces: Iterator[Piece], path: Path) -> Iterator[Piece]:
    """The same pieces, written to ``path`` on their way."""
    with path.open("wb") as file:
        file.write(head())
        for piece in pieces:
            file.write(packet(piece))
            file.flush()
            yield piece


class CaptureFile:
    """Written by a thread of its own: the control loop never waits for the disk. What does not fit is counted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped = 0
        """Pieces that were not written because the disk did not keep up."""
        self._to_unix_ns = time.time_ns() - time.monotonic_ns()
        self._waiting: deque[Piece] = deque()
        self._bytes = 0
        self._closed = threading.Event()
        try:
            self._file: BinaryIO = path.open("wb")
        except OSError as error:
            raise FirmwareError(f"{path}: {error.strerror}", remedy="name a file that can be written") from error
        self._file.write(head())
        self._file.flush()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def put(self, direction: int, data: bytes) -> None:
        """Note a piece that was read or written just now."""
        if self._bytes > _WAITING_BYTES:
            self.dropped += 1
            return
        self._bytes += len(data)
        self._waiting.append(Piece(time.monotonic_ns() + self._to_unix_ns, direction, data))

    def close(self) -> None:
        """Write what waits."""
        if not self._closed.is_set():
            self._closed.set()
            self._thread.join()
            self._write()
            self._file.close()

    def _run(self) -> None:
        while not self._closed.wait(_FLUSH_S):
            self._write()

    def _write(self) -> None:
        while self._waiting:
            piece = self._waiting.popleft()
            self._bytes -= len(piece.data)
            try:
                self._file.write(packet(piece))
            except OSError:
                self.dropped += 1
        try:
            self._file.flush()
        except OSError:
            self.dropped += 1


class CapturingTransport:
    """A transport that also writes down what passes. Everything else is as without it."""

    def __init__(self, transport: Transport, file: CaptureFile) -> None:
        self._transport = transport
        self._file = file

    @property
    def dropped_frames(self) -> int:
        return self._transport.dropped_frames

    @property
    def backlog(self) -> int:
        return self._transport.backlog

    @property
    def bus_end(self) -> BusEnd | None:
        return bus_end(self._transport)

    def write(self, frame: bytes) -> None:
        self._transport.write(frame)
        self._file.put(FROM_HOST, frame)

    def read(self) -> bytes:
        data = self._transport.read()
        if data:
            self._file.put(FROM_MCU, data)
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        return self._transport.wait(timeout_s, gather_s)

    def close(self) -> None:
        self._transport.close()
        self._file.close()
