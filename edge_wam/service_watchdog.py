"""systemd watches the control loop: READY=1 once, then WATCHDOG=1 from the loop itself while its cycles are good.

A thread that pings on a timer would go on pinging beside a loop that hangs, so there is none. Without systemd there is
nobody to tell, and every call does nothing. The protocol is sd_notify(3): datagrams to a unix socket.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

PING_PARTS = 4
"""Pings in the time that systemd allows between two: it recommends two, and a good cycle may have to wait for one."""


class ServiceWatchdog:
    """See the module.

    ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` are how systemd hands its socket and its period to a
    service (sd_notify(3), sd_watchdog_enabled(3)): its protocol, not a configuration of ours.

    Args:
        environment: of the process.
        pids: whose watchdog may be ours: systemd names the service's main process, which is the supervisor that
            started the control process. A period meant for anybody else is not ours.
    """

    def __init__(self, environment: Mapping[str, str], pids: tuple[int, ...]) -> None:
        self.period_ns = 0
        """Longest time between two pings that systemd accepts; 0: it does not watch."""
        self.pings = 0
        self.failures = 0
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._socket: socket.socket | None = None
        self._due_ns = 0
        if self._address is None:
            return
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        usec = environment.get("WATCHDOG_USEC", "")
        meant_for = environment.get("WATCHDOG_PID", "")
        if usec.isdigit() and (not meant_for or meant_for in map(str, pids)):
            self.period_ns = int(usec) * 1000

    @property
    def watched(self) -> bool:
        return self.period_ns > 0

    def ready(self, status: str) -> None:
        """The service is up: what depends on it may start."""
        self._tell(f"READY=1\nSTATUS={status}")

    def cycle(self, now_ns: int, *, good: bool) -> None:
        """Once in every control cycle. ``good``: it came in time and did all of its work."""
        if self.period_ns and good and now_ns >= self._due_ns:
            self._due_ns = now_ns + self.period_ns // PING_PARTS
            self._tell("WATCHDOG=1")
            self.pings += 1

    def stopping(self) -> None:
        """The service ends by its own will; from here on nobody needs to ping."""
        self._tell("STOPPING=1")

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _tell(self, text: str) -> None:
        """One datagram; a loop never waits for it. One that does not go out is counted, and systemd will notice."""
        if self._socket is None or self._address is None:
            return
        try:
            self._socket.sendto(text.encode(), self._address)
        except OSError:
            self.failures += 1


def _address(name: str) -> str | None:
    """A path, or with ``@`` in front a name in the abstract namespace; None: nobody listens."""
    if name.startswith("@"):
        return "\0" + name[1:]
    return name if name.startswith("/") else None


def for_control_process() -> ServiceWatchdog:
    """The watchdog that systemd gave to the service that this process is the control process of."""
    return ServiceWatchdog(os.environ, (os.getpid(), os.getppid()))
