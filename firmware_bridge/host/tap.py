"""Where bytes to sniff come from: a recording, a raw file, one live line, or a socket with us in the middle."""

from __future__ import annotations

import select
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from firmware_bridge.errors import FirmwareError, TransportClosed
from firmware_bridge.host import capture
from firmware_bridge.host.capture import FROM_HOST, FROM_MCU, Piece
from firmware_bridge.host.sniff import Heard, Sniffer
from firmware_bridge.host.transport import Transport, open_serial, open_unix

_SPEAKER = {FROM_MCU: "mcu", FROM_HOST: "host"}
_PCAPNG = b"\x0a\x0d\x0d\x0a"
_WAIT_S = 0.1


def decode(pieces: Iterator[Piece]) -> Iterator[Heard]:
    """Frames of all directions, in the order in which they were complete."""
    sniffers: dict[int, Sniffer] = {}
    at_ns = 0
    for piece in pieces:
        at_ns = piece.at_ns
        sniffer = sniffers.setdefault(piece.direction, Sniffer(_SPEAKER.get(piece.direction, "")))
        yield from sniffer.feed(piece.data, at_ns)
    for sniffer in sniffers.values():
        yield from sniffer.end(at_ns)


def from_file(path: Path) -> Iterator[Piece]:
    """A recording of a link, or the bytes of one line as some other tool kept them.

    Raises:
        FirmwareError: another kind of pcapng file.
    """
    with path.open("rb") as file:
        recording = file.read(4) == _PCAPNG
    if recording:
        yield from capture.read(path)
    else:
        yield Piece(0, 0, path.read_bytes())


def from_line(transport: Transport, seconds: float = float("inf")) -> Iterator[Piece]:
    """One live line, listened to and never spoken on, until the other end is gone or the time is up."""
    until = time.monotonic() + seconds
    with suppress(TransportClosed):
        while time.monotonic() < until:
            transport.wait(_WAIT_S)
            if data := transport.read():
                yield Piece(time.time_ns(), 0, data)
    transport.close()


def in_the_middle(listen_at: Path, mcu_at: Path, seconds: float = float("inf")) -> Iterator[Piece]:
    """Both directions of one session: a host connects to ``listen_at``, what it says goes on to ``mcu_at`` and back.

    Raises:
        FirmwareError: ``listen_at`` cannot be made, or nobody listens at ``mcu_at``.
    """
    until = time.monotonic() + seconds
    mcu = open_unix(mcu_at)
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind(str(listen_at))
        except OSError as error:
            mcu.close()
            raise FirmwareError(f"{listen_at}: {error.strerror}", remedy="name a path that does not exist") from error
        server.listen(1)
        server.settimeout(min(seconds, 3600.0))
        try:
            host, _ = server.accept()
            with host:
                yield from _relay(host, mcu, until)
        except TimeoutError:
            return
        finally:
            mcu.close()
            listen_at.unlink(missing_ok=True)


def _relay(host: socket.socket, mcu: Transport, until: float) -> Iterator[Piece]:
    with suppress(TransportClosed, OSError):
        while time.monotonic() < until:
            ready, _, _ = select.select([host], [], [], 0.0)
            if ready:
                data = host.recv(65536)
                if not data:
                    return
                mcu.write(data)
                yield Piece(time.time_ns(), FROM_HOST, data)
            mcu.wait(0.001)
            if data := mcu.read():
                host.sendall(data)
                yield Piece(time.time_ns(), FROM_MCU, data)


def open_source(source: str, *, baud: int, through: Path | None, seconds: float) -> Iterator[Piece]:
    """What a person named: a file, a serial device, or a socket (``through``: stand in the middle of it).

    Raises:
        FirmwareError: it does not exist or cannot be listened to.
    """
    path = Path(source)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise FirmwareError(f"{source}: {error.strerror}", expected="a file, a serial device or a socket") from error
    if through is not None:
        if not stat.S_ISSOCK(mode):
            raise FirmwareError(f"{source} is no socket", expected="a socket, where --through is given")
        return in_the_middle(through, path, seconds)
    if stat.S_ISSOCK(mode):
        return from_line(open_unix(path), seconds)
    if stat.S_ISCHR(mode):
        return from_line(open_serial(path, baud), seconds)
    return from_file(path)
