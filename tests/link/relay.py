"""A cable that can be watched and tampered with: between a host's socket and the emulated MCU's.

It outlives the host: what the MCU says after the host was killed is still seen, as with a logic analyser on the wire.
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from firmware_bridge.host.framing import FrameReceiver, LinkFrame
from firmware_bridge.host.messages import MCU_MESSAGES, Event, EventKind, McuMessage, State

Mangle = Callable[[bytes], bytes]


class Relay:
    """Context manager. ``to_mcu`` and ``to_host`` may be set to functions that change what passes (b"" drops it)."""

    def __init__(self, listen_at: Path, mcu_at: Path) -> None:
        self.to_mcu: Mangle = lambda data: data
        self.to_host: Mangle = lambda data: data
        self.passed: list[bytes] = []
        """What came from the host, as it came."""
        self.sessions: set[int] = set()
        self._messages: list[McuMessage] = []
        self._lock = threading.Lock()
        self._receiver = FrameReceiver()
        self._mcu = socket.socket(socket.AF_UNIX)
        self._mcu.settimeout(5.0)
        for _ in range(500):
            try:
                self._mcu.connect(str(mcu_at))
                break
            except OSError:
                time.sleep(0.01)
        else:
            raise AssertionError(f"{mcu_at} does not listen")
        self._mcu.setblocking(False)
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
        self._send(self._mcu, data)

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
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                last = self.states()[-1:] or "nothing"
                raise AssertionError(f"no {what} within {timeout_s} s; last of the MCU: {last}")
            time.sleep(0.005)

    def drop_host(self) -> None:
        """Pull the host's plug."""
        self._drop = True
        self._wake_write.send(b"x")

    def close(self) -> None:
        self._stop = True
        self._wake_write.send(b"x")
        self._thread.join()
        for sock in (self._mcu, self._server, self._host, self._wake_read, self._wake_write):
            if sock is not None:
                sock.close()

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._stop:
            host = self._host
            watched = [self._mcu, self._server, self._wake_read, *([host] if host else [])]
            ready, _, _ = select.select(watched, [], [], 1.0)
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

    def _from_mcu(self) -> bool:
        try:
            data = self._mcu.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._stop = True  # there is no microcontroller any more
            return False
        for body in self._receiver.feed(data):
            frame = LinkFrame.unpack(body)
            assert frame is not None
            with self._lock:
                self._messages.append(MCU_MESSAGES[frame.type].unpack(frame.payload))
                self.sessions.add(frame.session)
        host = self._host
        if host is not None:
            self._send(host, self.to_host(data))
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
        self._send(self._mcu, self.to_mcu(data))

    @staticmethod
    def _send(sock: socket.socket, data: bytes) -> None:
        """All of it; to a stopped process that does not read, as much as its buffer takes."""
        deadline = time.monotonic() + 0.05
        while data and time.monotonic() < deadline:
            try:
                data = data[sock.send(data) :]
            except BlockingIOError:
                select.select([], [sock], [], 0.01)
            except OSError:
                return
