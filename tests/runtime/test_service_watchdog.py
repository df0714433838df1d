"""systemd hears from the control loop itself: ready once, alive while cycles are good, silent when one hangs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_wam.service_watchdog import PING_PARTS, ServiceWatchdog

ME = (os.getpid(),)
SECOND = 1_000_000_000


class Systemd:
    """The other end of the notify socket."""

    def __init__(self, path: str) -> None:
        self.name = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def environment(self, usec: int = 1_000_000, pid: str = "") -> dict[str, str]:
        return {"NOTIFY_SOCKET": self.name, "WATCHDOG_USEC": str(usec), **({"WATCHDOG_PID": pid} if pid else {})}


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Systemd]:
    name = str(tmp_path / "notify") if request.param == "path" else f"@edge-wam-test-{os.getpid()}"
    systemd = Systemd(name)
    yield systemd
    systemd.socket.close()


def test_ready_is_told_once_and_pings_four_times_in_the_period(systemd: Systemd) -> None:
    watchdog = ServiceWatchdog(systemd.environment(), ME)
    watchdog.ready("disarmed")
    assert systemd.heard() == ["READY=1\nSTATUS=disarmed"]
    heard = []
    for cycle in range(300):  # three seconds of a loop at 100 Hz
        watchdog.cycle(cycle * SECOND // 100, good=True)
        heard += systemd.heard()
    assert heard == ["WATCHDOG=1"] * (3 * PING_PARTS)
    watchdog.stopping()
    assert systemd.heard() == ["STOPPING=1"]
    watchdog.close()


def test_a_cycle_that_was_not_good_pings_nothing(systemd: Systemd) -> None:
    watchdog = ServiceWatchdog(systemd.environment(), ME)
    for cycle in range(300):
        watchdog.cycle(cycle * SECOND // 100, good=False)
    assert systemd.heard() == []
    watchdog.cycle(3 * SECOND, good=True)
    assert systemd.heard() == ["WATCHDOG=1"]
    watchdog.close()


def test_the_period_of_another_process_is_not_ours(systemd: Systemd) -> None:
    other = ServiceWatchdog(systemd.environment(pid="1"), ME)
    assert not other.watched
    other.cycle(0, good=True)
    other.ready("")
    assert systemd.heard() == ["READY=1\nSTATUS="]
    other.close()
    mine = ServiceWatchdog(systemd.environment(pid=str(os.getpid())), ME)
    assert mine.watched and mine.period_ns == SECOND
    mine.close()


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "relative"}, {"WATCHDOG_USEC": "1000000"}])
def test_without_systemd_nothing_is_told(environment: dict[str, str]) -> None:
    watchdog = ServiceWatchdog(environment, ME)
    watchdog.ready("")
    watchdog.cycle(0, good=True)
    assert (watchdog.pings, watchdog.failures) == (0, 0)
    watchdog.close()


def test_a_socket_that_is_gone_or_full_is_counted_and_never_waited_for(tmp_path: Path) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    watchdog = ServiceWatchdog(systemd.environment(), ME)
    before = time.monotonic()
    for cycle in range(2000):
        watchdog.cycle(cycle * SECOND, good=True)  # nobody reads
    systemd.socket.close()
    watchdog.cycle(5000 * SECOND, good=True)
    assert watchdog.failures > 0 and time.monotonic() - before < 30.0
    watchdog.close()


_LOOP = """
import os, sys, time
from edge_wam.service_watchdog import for_control_process
watchdog = for_control_process()
watchdog.ready("looping")
while True:
    watchdog.cycle(time.monotonic_ns(), good=True)
    time.sleep(0.01)
    if os.path.exists(sys.argv[1]):
        while True:  # the loop hangs; the process lives, and so would a thread
            time.sleep(0.01)
"""


@pytest.mark.parametrize("how", ["hangs", "is stopped"])
def test_a_control_loop_that_hangs_stops_pinging_although_its_process_lives(tmp_path: Path, how: str) -> None:
    systemd = Systemd(str(tmp_path / "notify"))
    hang = tmp_path / "hang"
    environment = {**os.environ, **systemd.environment(200_000)}
    loop = subprocess.Popen([sys.executable, "-c", _LOOP, str(hang)], env=environment)
    try:
        heard: list[str] = []
        deadline = time.monotonic() + 60.0
        while heard.count("WATCHDOG=1") < 3 and time.monotonic() < deadline:
            heard += systemd.heard()
            time.sleep(0.01)
        assert heard[0].startswith("READY=1") and heard.count("WATCHDOG=1") >= 3
        if how == "hangs":
            hang.touch()
        else:
            loop.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        systemd.heard()  # what was on its way
        time.sleep(0.5)
        assert systemd.heard() == [] and loop.poll() is None
    finally:
        loop.kill()
        loop.wait()
        systemd.socket.close()


def test_the_control_process_tells_ready_and_pings_in_its_cycle() -> None:
    """In the source: after the work of the cycle, in the loop and not in a thread; a late cycle is no good one."""
    source = (Path(__file__).resolve().parents[2] / "edge_wam" / "control_process.py").read_text()
    loop = source[source.index("while self.phase is not Phase.CLOSED:") : source.index("self._finish()", source.index(
        "while self.phase is not Phase.CLOSED:"))]
    assert loop.index("self._tick(now_ns)") < loop.index("self.service.cycle(now_ns, good=late_ns <= _STALL_NS)")
    assert "threading" not in source
