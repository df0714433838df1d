"""Byte streams to a microcontroller: serial port, pseudo-terminal, unix or TCP socket.

A write never blocks the control loop: what the kernel does not take at once waits in a small outbox, and when that is
full whole frames are dropped and counted. Old motion is worth nothing; a loop that waits for a cable is worth less.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import serial

from firmware_bridge.errors import LinkError, TransportClosed
from firmware_bridge.host.link_metrics import BusEnd

OUTBOX_BYTES = 4096
"""At 921600 baud this is 44 ms of traffic: beyond it a frame would arrive too late to be of use."""
SOCKET_BYTES = 4096
"""The kernel's own buffer of a socket, or a stalled emulator would be fed heartbeats that are seconds old."""


class Transport(Protocol):
    """Both ends of one byte stream. Not thread safe: one loop owns it."""

    @property
    def dropped_frames(self) -> int:
        """Frames that :meth:`write` threw away because the other end did not read."""

    @property
    def backlog(self) -> int:
        """Bytes that wait here because the other end does not keep up. While there are any, news would arrive old."""

    def write(self, frame: bytes) -> None:
        """Hand over one whole frame without blocking.

        Raises:
            TransportClosed: the other end is gone.
        """

    def read(self) -> bytes:
        """What has arrived, possibly nothing. Does not block.

        Raises:
            TransportClosed: the other end is gone.
        """

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        """Let time pass until there is something to read, at most ``timeout_s``. True if there is.

        After the first byte ``gather_s`` more may pass, so that a frame is read in one piece and not byte by byte.
        """

    def close(self) -> None:
        """Give the stream back; may be called twice."""


@runtime_checkable
class OnBus(Protocol):
    """A transport that may be on a CAN bus."""

    @property
    def bus_end(self) -> BusEnd | None:
        """What this end has seen of the bus; None: it is no bus."""


def bus_end(transport: Transport) -> BusEnd | None:
    """What this end has seen of its CAN bus; None on every other line."""
    return transport.bus_end if isinstance(transport, OnBus) else None


class FdTransport:
    """A transport on a non-blocking file descriptor."""

    def __init__(self, fd: int, name: str) -> None:
        self.name = name
        self.dropped_frames = 0
        self._fd = fd
        self._outbox = bytearray()
        os.set_blocking(fd, False)

    @property
    def backlog(self) -> int:
        return len(self._outbox)

    def fileno(self) -> int:
        """For select()."""
        return self._fd

    def write(self, frame: bytes) -> None:
        self._flush()
        if len(self._outbox) + len(frame) > OUTBOX_BYTES:
            self.dropped_frames += 1
            return
        self._outbox += frame
        self._flush()

    def read(self) -> bytes:
        self._flush()
        parts: list[bytes] = []
        while True:
            try:
                part = os.read(self._fd, 65536)
            except BlockingIOError:
                break
            except OSError as error:
                raise self._closed(error) from error
            if not part:
                if parts:
                    break  # deliver what came first; the next read reports the end
                if self._end_of_file_means_closed():
                    raise self._closed(None)
                break
            parts.append(part)
            if len(part) < 65536:
                break
        return b"".join(parts)

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        deadline = time.monotonic() + timeout_s
        while True:
            left = max(0.0, deadline - time.monotonic())
            readable, writable, _ = select.select([self._fd], [self._fd] if self._outbox else [], [], left)
            if writable:
                self._flush()
            if readable or left == 0.0:
                if readable and gather_s:
                    time.sleep(min(gather_s, left))
                return bool(readable)

    def close(self) -> None:
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                self._close_fd()
            self._fd = -1

    def _close_fd(self) -> None:
        os.close(self._fd)

    def _end_of_file_means_closed(self) -> bool:
        return True

    def _flush(self) -> None:
        if self._fd < 0:
            raise TransportClosed(f"{self.name} is closed", remedy="open a new transport")
        while self._outbox:
            try:
                sent = os.write(self._fd, self._outbox)
            except BlockingIOError:
                return
            except OSError as error:
                raise self._closed(error) from error
            del self._outbox[:sent]

    def _closed(self, error: OSError | None) -> TransportClosed:
        why = f": {error.strerror}" if error is not None else ""
        return TransportClosed(
            f"{self.name}: the other end is gone{why}", remedy="plug the cable in (or start the emulator) and run again"
        )


class SocketTransport(FdTransport):
    """A connected stream socket."""

    def __init__(self, sock: socket.socket, name: str) -> None:
        self._socket = sock
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BYTES)
        super().__init__(sock.fileno(), name)

    def _close_fd(self) -> None:
        self._socket.close()


class SerialTransport(FdTransport):
    """A tty opened by pyserial (raw, no flow control). Its descriptor is non-blocking, so short writes are normal."""

    def __init__(self, port: Any, name: str) -> None:
        self._port = port
        super().__init__(port.fileno(), name)

    def _close_fd(self) -> None:
        self._port.close()

    def _end_of_file_means_closed(self) -> bool:
        # A raw tty with VMIN = 0 answers "nothing there" with an empty read too; only a hang-up tells them apart.
        poller = select.poll()
        poller.register(self._fd, select.POLLIN)
        return any(events & (select.POLLHUP | select.POLLERR | select.POLLNVAL) for _, events in poller.poll(0))


def open_unix(path: Path | str, timeout_s: float = 5.0) -> SocketTransport:
    """Connect to a unix socket, waiting until its owner has made it.

    Raises:
        LinkError: nobody listens there within ``timeout_s``.
    """
    return _connect(socket.AF_UNIX, str(path), str(path), timeout_s)


def open_tcp(host: str, port: int, timeout_s: float = 5.0) -> SocketTransport:
    """Connect to a TCP port with Nagle's algorithm off (it would hold a heartbeat back for 40 ms)."""
    transport = _connect(socket.AF_INET, (host, port), f"{host}:{port}", timeout_s)
    transport._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return transport


def open_serial(device: Path | str, baud: int = 921600) -> SerialTransport:
    """Open a serial device or pseudo-terminal, exclusively.

    Raises:
        LinkError: it does not exist, may not be opened, or another program has it.
    """
    try:
        port = serial.Serial(str(device), baud, timeout=0, write_timeout=0, exclusive=True)
    except (OSError, ValueError) as error:
        raise LinkError(
            f"serial port {device} cannot be opened: {error}",
            expected="a device that exists, is readable and is used by nobody else",
            remedy="check the cable; add yourself to the group 'dialout'; stop the other program",
        ) from error
    return SerialTransport(port, str(device))


def _connect(family: int, address: Any, name: str, timeout_s: float) -> SocketTransport:
    deadline = time.monotonic() + timeout_s
    while True:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(address)
            return SocketTransport(sock, name)
        except OSError as error:
            sock.close()
            transient = error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)
            if not transient or time.monotonic() >= deadline:
                raise LinkError(
                    f"{name}: cannot connect: {error.strerror or error}",
                    expected=f"a microcontroller listening within {timeout_s:g} s",
                    remedy="start the emulator, or correct the address",
                ) from error
            time.sleep(0.005)
