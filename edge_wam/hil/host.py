"""The scripted host: arms, moves along the scenario's tour, and misbehaves when the scenario says so.

Called cycle by cycle in lockstep; in real time it is a process of its own, so that it can be killed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection

import numpy as np

from edge_wam.contracts import F64
from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.hil.counted import CountedTransport
from edge_wam.hil.injections import INJECTIONS
from edge_wam.hil.scenario import Injection, Scenario
from edge_wam.limit_table import limit_table
from firmware_bridge.errors import FirmwareError, LinkError, TransportClosed
from firmware_bridge.hil.rude_link import RudeLink
from firmware_bridge.host.conversation import Clock
from firmware_bridge.host.messages import ChunkEncoding, Degrade
from firmware_bridge.host.transport import Transport, open_unix

KNOTS = 16
DT_NS = 50_000_000
LEAD_NS = 60_000_000
"""From the decision to the first knot: the emulated wire takes 10 ms for a chunk of 6 axes."""
REPLAN_NS = 100_000_000
"""As the runtime plans. With the 100 ms to HOST_SILENT it stays below the 250 ms to POLICY_FROZEN: a host that dies at
any moment of its cycle is found out by its silence."""
CYCLE_NS = 10_000_000
_NICE = -10
"""As the emulator: what a PC's other work does to a host is not what is tested. Only where that is allowed."""
SELF_MADE = frozenset(kind for kind, row in INJECTIONS.items() if row.room == "host") - {"host_kill", "host_stop"}
"""What the host does to itself."""


class JumpingClock:
    """A host's clock that somebody sets while it runs."""

    def __init__(self, base: Clock) -> None:
        self.base = base
        self.jump_ns = 0

    def __call__(self) -> int:
        return self.base() + self.jump_ns


class ScriptedHost:
    """See the module. ``say`` is told what happens."""

    def __init__(
        self, transport: Transport, scenario: Scenario, robot: Embodiment, clock: Clock, *,
        clock_error_ns: int, say: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.clock = JumpingClock(clock)
        self.link = RudeLink(
            transport, limit_table(robot), clock=self.clock, max_clock_error_ns=clock_error_ns,
            encoding=ChunkEncoding.I16_LSB,  # half the bytes of an emulated wire, at 0.2 mrad
        )
        self.refused: dict[str, int] = {}
        self._say = say
        self._tour = scenario.motion.tour()
        self._beyond = robot.vector("position_max") + 0.5
        self._due = sorted((one for one in scenario.inject if one.kind in SELF_MADE), key=lambda one: one.at_ms)
        self._until_ns: dict[str, float] = {}
        self._storm_rate = 0.0
        self._storm_owed = 0.0
        self._frozen = False
        self._degrade = Degrade.NOMINAL
        self._chunk_id = 0
        self._counter = 0
        self._begin_ns: int | None = None
        self._next_plan_ns = 0

    def start(self) -> None:
        """Connect, configure, arm."""
        self.link.connect()
        self._say("CONNECTED")
        self.link.configure()
        self.link.arm()
        self._say("ARMED")

    @property
    def moving_since_ns(self) -> int | None:
        """Base clock at which the arm began to move."""
        return self._begin_ns

    def cycle(self) -> None:
        """One control cycle, every 10 ms.

        Raises:
            TransportClosed: the cable is out.
        """
        now = self.clock()
        self.link.poll()
        if self._begin_ns is not None:
            self._misbehave((self.clock.base() - self._begin_ns) / 1e6)
        if now >= self._next_plan_ns and not self._frozen:
            self._next_plan_ns = now + REPLAN_NS
            self._plan(now)
            self._counter += 1
        self._storm(now)
        self.link.heartbeat(self._counter, self._degrade)
        if not self.link.state.connected:
            raise TransportClosed("the cable is out")

    def serve_until(self, base_ns: int) -> None:
        """Serve the wire until ``base_ns`` of the base clock."""
        self.link.service(base_ns + self.clock.jump_ns)

    def _knots(self, t0_ns: int) -> F64:
        # The tour is a function of the host's own clock, wrong or not.
        begin = self._begin_ns if self._begin_ns is not None else t0_ns
        return self._tour.at((t0_ns - begin + np.arange(KNOTS) * DT_NS) / 1e9)

    def _plan(self, now: int) -> None:
        t0 = now + LEAD_NS
        first = self._begin_ns is None
        if first:
            self._begin_ns = t0 - self.clock.jump_ns
        q = self._knots(t0)
        if "nan_plan" in self._until_ns:
            q[KNOTS // 2, 0] = np.nan
        self._chunk_id += 1
        try:
            if "outside_plan" in self._until_ns:
                q[KNOTS // 2 :] = self._beyond
                self.link.send_unchecked(t0, DT_NS, q, self._chunk_id)
            else:
                self.link.send_chunk(t0, DT_NS, q, self._chunk_id)
        except TransportClosed:
            raise
        except LinkError as refusal:
            name = type(refusal).__name__
            self.refused[name] = self.refused.get(name, 0) + 1
            self._say(f"REFUSED {name}")
        if first:
            self._say("MOVING")

    def _storm(self, now: int) -> None:
        if "chunk_storm" not in self._until_ns:
            return
        self._storm_owed += self._storm_rate * CYCLE_NS / 1e9
        while self._storm_owed >= 1.0:
            self._storm_owed -= 1.0
            self._chunk_id += 1
            self.link.send_unchecked(now + LEAD_NS, DT_NS, self._knots(now + LEAD_NS), self._chunk_id)

    def _misbehave(self, at_ms: float) -> None:
        for kind in [kind for kind, until in self._until_ns.items() if at_ms >= until]:
            del self._until_ns[kind]
        while self._due and at_ms >= self._due[0].at_ms:
            one = self._due.pop(0)
            self._do(one)
            self._say(f"INJECTED {one.kind}")

    def _do(self, one: Injection) -> None:
        match one.kind:
            case "policy_freeze":
                self._frozen = True
            case "clock_jump":
                assert one.value is not None
                self.clock.jump_ns += round(one.value * 1e9)
            case "estop":
                self.link.estop()
            case "soft_stop":
                self._degrade = Degrade.SOFT_STOP
            case "disarm":
                self.link.disarm()
            case _:
                self._storm_rate = one.rate or 0.0
                self._until_ns[one.kind] = one.at_ms + (one.duration_ms or float("inf"))


def host_process(say: Connection, socket: str, scenario: str, counted: bool, clock_error_ms: float) -> None:
    """Entry of the process: ``scenario`` as JSON; ``counted``: the MCU's time runs slower than the wall's. Says
    CONNECTED, ARMED, MOVING, ``REFUSED kind``, ``INJECTED kind`` and, should it come to that, ``ENDED why``."""
    with suppress(OSError):
        os.nice(_NICE)
    parsed = Scenario.model_validate_json(scenario)
    transport: Transport = open_unix(socket)
    clock: Clock = time.monotonic_ns
    if counted:
        transport = counted_transport = CountedTransport(transport)
        clock = counted_transport.clock
    host = ScriptedHost(
        transport, parsed, load_embodiment(parsed.robot), clock, clock_error_ns=round(clock_error_ms * 1e6),
        say=lambda words: say.send_bytes(words.encode()),
    )  # fmt: skip
    try:
        host.start()
        cycle = clock()
        while True:
            host.cycle()
            cycle = max(cycle + CYCLE_NS, clock() - 5 * CYCLE_NS)
            host.serve_until(cycle)
    except FirmwareError as error:
        say.send_bytes(f"ENDED {type(error).__name__}: {error.what}".encode())
