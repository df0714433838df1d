"""A scenario in simulated time: the microcontroller's own C core, the arm and the host take turns, tick by tick.

Deterministic and faster than real time. What needs a processor that can hang, or memory that can be lost, needs an
emulator and is refused here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from edge_wam.contracts import F64
from edge_wam.embodiment import load_embodiment
from edge_wam.hil.evidence import Evidence, Mark, Orders, heartbeat_stamps, split_boots
from edge_wam.hil.faults import cable_faults, plant_fault
from edge_wam.hil.host import CYCLE_NS, SELF_MADE, ScriptedHost
from edge_wam.hil.injections import INJECTIONS
from edge_wam.hil.scenario import Injection, Scenario
from edge_wam.sim.arm import ArmPlant
from edge_wam.sim.lockstep import mcu_library
from firmware_bridge.errors import TransportClosed
from firmware_bridge.hil.cable import Mangle, intact
from firmware_bridge.host.framing import FrameReceiver, LinkFrame, encode_frame
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.messages import MCU_MESSAGES, Estop, McuMessage, ResetCause
from firmware_bridge.host.plant_port import DriveCommand


class _Killed(BaseException):
    """Unwinds the host where it stands, as kill -9 does."""


class _Over(BaseException):
    """The scenario has ended."""


class LockstepBench:
    """One run. The bench is the transport of its host: what passes is seen, and may be tampered with."""

    dropped_frames = 0
    backlog = 0

    def __init__(self, scenario: Scenario, seed: int = 1) -> None:
        self._scenario = scenario
        self._seed = seed
        self._robot = load_embodiment(scenario.robot)
        self._arm = ArmPlant(scenario.plant_spec())
        self._commands: list[list[DriveCommand]] = [[]]
        self._joints: list[F64] = []
        self._messages: list[McuMessage] = []
        self._receiver = FrameReceiver()
        self._to_mcu: Mangle = intact
        self._to_host: Mangle = intact
        self._inbox = b""
        self._sent = bytearray()
        self._pulled = False
        self._killed = False
        self._asleep_until_ms = -math.inf
        self._due = sorted((one for one in scenario.inject if one.kind not in SELF_MADE), key=lambda one: one.at_ms)
        self._repairs: list[tuple[float, Callable[[], None]]] = []
        self._said: list[str] = []
        self._marks: list[Mark] = []
        self._mcu = LibraryTransport(mcu_library(), seed=seed, on_tick=self._on_tick)
        self._host = ScriptedHost(
            self, scenario, self._robot, self._mcu.now_ns, clock_error_ns=1_000_000, say=self._said.append
        )

    # -- the host's transport -----------------------------------------------------------------------------------------

    def write(self, frame: bytes) -> None:
        if self._pulled:
            raise TransportClosed("the cable was pulled")
        self._sent += frame
        self._push(self._to_mcu(frame))

    def read(self) -> bytes:
        if self._pulled:
            raise TransportClosed("the cable was pulled")
        self._listen()
        data, self._inbox = self._inbox, b""
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        """Lets simulated time pass until the MCU has said something that arrives."""
        for _ in range(max(1, round(timeout_s * 1000))):
            self._listen()
            if self._inbox and not gather_s:
                break
            self._pass()
        self._listen()
        return bool(self._inbox)

    def close(self) -> None:
        self._mcu.close()

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Evidence:
        """The scenario from power-on to its end.

        Raises:
            LinkError: the host could not even connect and arm.
        """
        try:
            self._play()
            return self._evidence()
        finally:
            self.close()

    def _play(self) -> None:
        try:
            try:
                self._host.start()
                cycle = self._mcu.now_ns()
                while True:
                    self._host.cycle()
                    cycle += CYCLE_NS
                    self._host.serve_until(cycle)
                    while self._mcu.now_ns() < cycle:
                        self._pass()
            except (_Killed, TransportClosed) as end:
                if self._host.moving_since_ns is None:
                    raise
                self._said.append(f"ENDED {type(end).__name__}")
                while True:
                    self._mcu.tick()
        except _Over:
            return

    @property
    def _begin_us(self) -> int | None:
        """MCU clock at which the motion begins."""
        since = self._host.moving_since_ns
        return None if since is None else self._mcu.mcu_us + (since - self._mcu.now_ns()) // 1000

    def _pass(self) -> None:
        """A millisecond passes for a host that waits; for one that is stopped, as many as it takes."""
        self._mcu.tick()
        while self._at_ms < self._asleep_until_ms and not self._killed:
            self._mcu.tick()
        if self._killed:
            raise _Killed

    @property
    def _at_ms(self) -> float:
        begin = self._begin_us
        return -1.0 if begin is None else (self._mcu.mcu_us - begin) / 1e3

    def _on_tick(self) -> None:
        """After every control tick, whoever let the time pass: the drive's turn, then what is due to go wrong."""
        command = self._mcu.setpoint()
        self._commands[-1].append(command)
        self._arm.order(command.setpoint, enabled=command.enabled, brake=command.brake)
        self._arm.tick()
        self._joints.append(self._arm.position)
        reading = self._arm.encoder()
        if reading is not None:
            self._mcu.encoder(np.clip(reading, -190.0, 190.0), self._arm.effort())
        self._listen()
        if self._to_mcu is not intact or self._to_host is not intact:
            self._push(self._to_mcu(b""))
            self._inbox += self._to_host(b"")
        at_ms = self._at_ms
        for repair in [one for one in self._repairs if at_ms >= one[0]]:
            self._repairs.remove(repair)
            repair[1]()
        while self._due and at_ms >= self._due[0].at_ms:
            one = self._due.pop(0)
            # What goes wrong now is seen by the next tick at the earliest.
            self._marks.append(Mark(one.kind, len(self._commands) - 1, self._mcu.mcu_us, exact=True))
            self._inject(one)
        if at_ms >= self._scenario.duration_ms:
            raise _Over

    def _inject(self, one: Injection) -> None:
        row = INJECTIONS[one.kind]
        if row.room == "plant":
            self._arm.break_it(plant_fault(one))
        elif one.kind == "host_kill":
            self._killed = True
        elif one.kind == "host_stop":
            self._asleep_until_ms = math.inf if one.duration_ms is None else one.at_ms + one.duration_ms
        elif one.kind == "estop_frame":
            self._push(encode_frame(LinkFrame(Estop.TYPE, 0, 0, Estop().pack()).pack()))
        elif one.kind == "brown_out":
            self._commands.append([])
            self._mcu.reset(ResetCause.UNKNOWN)
        else:
            self._pulled = one.kind == "link_cut"
            self._to_mcu, self._to_host = cable_faults(one, lambda: self._mcu.mcu_us / 1e6, self._seed)
            if one.duration_ms is not None:
                self._repairs.append((one.at_ms + one.duration_ms, self._repair_cable))

    def _repair_cable(self) -> None:
        self._to_mcu = self._to_host = intact

    def _push(self, data: bytes) -> None:
        if data:
            self._mcu.write(data)

    def _listen(self) -> None:
        """Everything that the MCU says is written down; what passes the cable reaches the host."""
        data = self._mcu.read()
        for body in self._receiver.feed(data):
            frame = LinkFrame.unpack(body)
            if frame is not None and frame.type in MCU_MESSAGES:
                self._messages.append(MCU_MESSAGES[frame.type].unpack(frame.payload))
        if data:
            self._inbox += self._to_host(data)

    def _evidence(self) -> Evidence:
        dof = self._robot.dof
        begin = self._begin_us
        return Evidence(
            target="lockstep",
            bench="the MCU core as a library, simulated time",
            boots=split_boots(self._messages),
            orders=[Orders.of(part, dof) for part in self._commands],
            begin_us=0 if begin is None else begin,
            joint_tick=np.arange(1, len(self._joints) + 1),
            joint=np.array(self._joints),
            marks=self._marks,
            host=self._said,
            refused=dict(self._host.refused),
            heartbeats_us=heartbeat_stamps(bytes(self._sent)),
        )
