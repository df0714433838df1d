"""A cable that can be watched and tampered with: between a host's socket and a microcontroller's link.

It outlives the host: what the MCU says after the host was killed is still seen, as with a logic analyser on the wire.
The far end is any transport, so the same relay stands in front of an emulator and of a board.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from firmware_bridge.errors import LinkError, TransportClosed
from firmware_bridge.hil.cable import Mangle, intact
from firmware_bridge.host.framing import FrameReceiver, LinkFrame
from firmware_bridge.host.messages import MCU_MESSAGES, Event, EventKind, McuMessage, State
from firmware_bridge.host.transport import FdTransport

_TURN_S = 0.002
"""While a cable fault is in place it is asked this often for what it kept back."""

_PIECE = 2048


class _Readable(Protocol):
    def fileno(self) -> int: ...


class Relay:
    """Context manager. ``to_mcu`` and ``to_host`` may be set to functions that change what passes (b"" drops it).

    Args:
        listen_at: unix socket for the host.
        mcu: byte stream of the microcontroller; the relay closes it.
    """

    def __init__(self, listen_at: Path, mcu: FdTransport) -> None:
        self.to_mcu: Mangle = intact
        self.to_host: Mangle = intact
        self.passed: list[bytes] = []
        """What came from the host, as it came."""
        self.sessions: set[int] = set()
        self.newest: State | None = None
        """The last STATE that was heard."""
        self._messages: list[McuMessage] = []
        self._lock = threading.Lock()
        self._receiver = FrameReceiver()
        self._mcu = mcu
        self._inject: list[bytes] = []
        self._pending = bytearray()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(listen_at))
        self._server.listen()
        self._host: socket.socket | None = None
        self._wake_read, self._wake_write = socket.socketpair()
        self._stop = False
        self._drop = False
        self._thread = threading.Thread(target=self._run, name="relay")
        self._thread.start()

    def inject(self, data: bytes) -> None:
        """Bytes towards the MCU that no host has sent."""
        with self._lock:
            self._inject.append(data)
        self._wake_write.send(b"x")

    def messages(self, kind: type | None = None) -> list[McuMessage]:
        """What the MCU has said so far, whoever listened."""
        with self._lock:
            return [message for message in self._messages if kind is None or isinstance(message, kind)]

    def states(self) -> list[State]:
        return [message for message in self.messages(State) if isinstance(message, State)]

    def events(self, kind: EventKind) -> list[Event]:
        """Each event once, oldest first."""
        found = {
            (m.event_id, m.at_us): m for m in self.messages(Event) if isinstance(m, Event) and m.kind == kind
        }
        return list(found.values())

    def until(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for a condition.

        Raises:
            LinkError: it did not come.
        """
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                last = self.states()[-1:] or "nothing"
                raise LinkError(f"no {what} within {timeout_s} s; last of the MCU: {last}")
            time.sleep(0.005)

    def drop_host(self) -> None:
        """Pull the host's plug."""
        self._drop = True
        self._wake_write.send(b"x")

    def close(self) -> None:
        self._stop = True
        self._wake_write.send(b"x")
        self._thread.join()
        self._mcu.close()
        for sock in (self._server, self._host, self._wake_read, self._wake_write):
            if sock is not None:
                sock.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop:
            host = self._host
            watched: list[_Readable] = [self._mcu, self._server, self._wake_read]
            if host is not None and not self._pending:
                watched.append(host)  # while the MCU does not keep up the host shall feel it, as on its own socket
            tampered = self.to_mcu is not intact or self.to_host is not intact
            busy = tampered or self._pending or self._mcu.backlog
            ready, _, _ = select.select(watched, [], [], _TURN_S if busy else 1.0)
            if self._wake_read in ready:
                self._wake_read.recv(16)
            if self._server in ready:
                if host is not None:
                    host.close()
                self._host, _ = self._server.accept()
                self._host.setblocking(False)
            if self._drop or (self._mcu in ready and not self._from_mcu()):
                self._drop = False
                if self._host is not None:
                    self._host.close()
                    self._host = host = None
            if host is not None and host in ready and host is self._host:
                self._from_host(host)
            self._push(b"")
            if tampered and self._host is not None:
                self._to_host(self._host, self.to_host(b""))
        if self._host is not None:
            self._host.close()  # the cable goes with the microcontroller
            self._host = None

    def _from_mcu(self) -> bool:
        try:
            data = self._mcu.read()
        except TransportClosed:
            self._stop = True  # there is no microcontroller any more
            return False
        for body in self._receiver.feed(data):
            frame = LinkFrame.unpack(body)
            if frame is None or frame.type not in MCU_MESSAGES:
                continue
            message = MCU_MESSAGES[frame.type].unpack(frame.payload)
            with self._lock:
                self._messages.append(message)
                if isinstance(message, State):
                    self.newest = message
                self.sessions.add(frame.session)
        if self._host is not None:
            self._to_host(self._host, self.to_host(data))
        return True

    def _from_host(self, host: socket.socket) -> None:
        try:
            data = host.recv(65536)
        except OSError:
            data = b""
        if not data:
            host.close()
            self._host = None
            return
        self.passed.append(data)
        self._push(data)

    def _push(self, data: bytes) -> None:
        """Towards the MCU: what passed the cable, and what somebody injects behind it."""
        self._pending += self.to_mcu(data)
        with self._lock:
            self._pending += b"".join(self._inject)
            self._inject.clear()
        try:
            while self._pending and self._mcu.backlog == 0:
                self._mcu.write(bytes(self._pending[:_PIECE]))
                del self._pending[:_PIECE]
            if self._mcu.backlog:
                self._mcu.write(b"")
        except TransportClosed:
            self._stop = True

    @staticmethod
    def _to_host(host: socket.socket, data: bytes) -> None:
        """All of it; to a stopped process that does not read, as much as its buffer takes."""
        deadline = time.monotonic() + 0.05
        while data and time.monotonic() < deadline:
            try:
                data = data[host.send(data) :]
            except BlockingIOError:
                select.select([], [host], [], 0.01)
            except OSError:
                return
