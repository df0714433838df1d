"""A test bench in real time: emulated MCU, perfect drive, a cable that can be cut, and hosts that can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

import numpy as np

from firmware_bridge.hil.echo_plant import EchoPlant
from firmware_bridge.hil.relay import Relay
from firmware_bridge.hil.trace import Trace
from firmware_bridge.host.emulator import Emulator, EmulatorOptions
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import ChunkEncoding, Event, EventKind, McuState, State, Stats, StopCause
from firmware_bridge.host.transport import open_unix
from tests.link.fake_mcu import LIMITS
from tests.support.stalls import Queue

ROOT = Path(__file__).resolve().parents[2]
ACCELERATION = 10.0
"""Of axis x in the table, m/s^2."""
JERK = 1000.0
"""Likewise, m/s^3: the stop takes a/j longer, and v * a/(2 j) farther."""
SPEED = 0.2
"""At which the scripted host moves axis x, m/s."""
STALL_S = 0.03
CLOCK_ERROR_NS = 5_000_000
"""Real-time emulation on a PC that others use too."""


class Bench:
    """Context manager."""

    def __init__(self, kind: Literal["qemu", "host"], firmware: Path, options: EmulatorOptions | None = None) -> None:
        self.kind = kind
        self._firmware = firmware
        self._options = options
        self._open()

    def _open(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="edge-wam-bench-")
        self.socket = Path(self._folder.name) / "host"
        self.emulator = Emulator(self.kind, self._options, out=self._firmware)
        self.plant = EchoPlant(self.emulator.open_drive())
        self.relay = Relay(self.socket, self.emulator.open_link())
        self.hosts: list[subprocess.Popen[str]] = []
        self.queues: list[Queue] = []
        self._links: list[Link] = []

    def start_host(self, *arguments: str) -> subprocess.Popen[str]:
        """A scripted host in its own process, armed and moving when this returns.

        """
        host = subprocess.Popen(
            [sys.executable, "-m", "tests.link.scripted_host", str(self.socket), *arguments],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        self.hosts.append(host)
        self.queues.append(Queue(host.pid))
        assert host.stdout is not None
        said = ""
        while "MOVING" not in said:
            line = host.stdout.readline()
            said += line
            assert line, f"the host ended: {said}"
        self.relay.until(lambda: self.last.state == McuState.RUN, 3.0, "RUN")
        return host

    @property
    def starved(self) -> bool:
        """The machine stalled the bench itself for longer than any real-time claim about it could stand.

        By three witnesses that are not what is tested: a thread that only asks for a turn every few milliseconds, the
        emulated MCU's own longest wait for its processor, and that of a host that had something to do.
        """
        waits = [message.tick_gap_max_us for message in self.relay.messages(Stats) if isinstance(message, Stats)]
        hosts = max((queue.longest_s for queue in self.queues), default=0.0)
        return max(self.plant.longest_gap_s, hosts) > STALL_S or max(waits, default=0) > STALL_S * 1e6

    def renew(self) -> None:
        """Everything anew, from power-on."""
        self.close()
        self._open()

    def open_link(self) -> Link:
        """A host in this process, connected."""
        link = Link(
            open_unix(self.socket), LIMITS, max_clock_error_ns=CLOCK_ERROR_NS, encoding=ChunkEncoding.I16_LSB
        )
        self._links.append(link)
        link.connect()
        return link

    @property
    def last(self) -> State:
        """Newest STATE on the wire."""
        return self.relay.states()[-1]

    def wait_state(self, state: McuState, timeout_s: float) -> State:
        self.relay.until(lambda: self.last.state == state, timeout_s, state.name)
        return self.last

    def travel(self, seconds: float) -> None:
        """Let the arm move."""
        begin = self.last.now_us
        self.relay.until(lambda: self.last.now_us - begin >= seconds * 1e6, seconds * 5 + 2, "passing of MCU time")

    def tick_of(self, at_us: int) -> int:
        """MCU clock -> control tick."""
        near = min(self.relay.states(), key=lambda report: abs(report.now_us - at_us))
        return near.tick + round((at_us - near.now_us) / 1000)

    def stop_event(self, cause: StopCause) -> Event:
        """The newest STOP with this cause."""
        found: list[Event] = []

        def seen() -> bool:
            found[:] = [event for event in self.relay.events(EventKind.STOP) if event.arg0 == cause]
            return bool(found)

        self.relay.until(seen, 3.0, f"STOP event {cause.name}")
        return found[-1]

    def last_heartbeat_us(self, before_us: int) -> int:
        """MCU time at which the last heartbeat before ``before_us`` arrived, to a millisecond."""
        report = [r for r in self.relay.states() if r.now_us <= before_us][-1]
        return report.now_us - report.heartbeat_age_ms * 1000

    def kill(self, host: subprocess.Popen[str], number: signal.Signals) -> None:
        os.kill(host.pid, number)

    def close(self) -> None:
        for queue in self.queues:
            queue.close()
        for host in self.hosts:
            if host.poll() is None:
                host.kill()
            host.wait()
            if host.stdout is not None:
                host.stdout.close()
        for link in self._links:
            link.close()
        self.relay.close()
        self.plant.close()
        self.emulator.close()
        self._folder.cleanup()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def assert_braked_then_held(trace: Trace, stop_tick: int, speed: float = SPEED) -> None:
    """From ``stop_tick`` on, axis x slows down within its acceleration limit to standstill, and stays there."""
    after = trace.after(stop_tick).while_enabled()
    assert len(after.tick) > 100, f"only {len(after.tick)} orders after the stop"
    x, ticks = after.setpoint[:, 0], after.tick
    braking_ticks = int((speed / ACCELERATION + ACCELERATION / JERK) * 1000) + 5
    held = x[ticks >= stop_tick + braking_ticks]
    assert np.ptp(held) == 0.0, f"moves on by {np.ptp(held):.6f} m after it should stand"
    assert abs(held[0] - x[0]) <= speed**2 / (2 * ACCELERATION) + speed * (0.003 + ACCELERATION / JERK) + 1e-4
    consecutive = np.diff(ticks) == 1
    step = np.diff(x)[consecutive] * 1000
    assert np.abs(np.diff(step)).max(initial=0.0) <= ACCELERATION * 1e-3 * 1.1 + 2e-3 or not consecutive.all()


def assert_lawful(trace: Trace) -> None:
    """Every order that was ever given to the enabled drive is inside the position and velocity limits of the table."""
    enabled = trace.while_enabled()
    for axis, limits in enumerate(LIMITS.axes):
        x = enabled.setpoint[:, axis]
        assert x.min() >= limits.position_min / 1e6 - 1e-9
        assert x.max() <= limits.position_max / 1e6 + 1e-9
        assert enabled.speed[:, axis].max(initial=0.0) <= limits.velocity_max / 1e6 * 1.001 + 0.001
