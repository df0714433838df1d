"""A scenario in real time: a microcontroller (emulated, or a board), the arm at its drive stream, a host that can die.

The host is a process of its own behind a relay that outlives it. What is measured is the microcontroller's own clock;
a PC that stalls delays the bench, and the bench says so.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from edge_wam.embodiment import load_embodiment
from edge_wam.hil.evidence import Evidence, Mark, heartbeat_stamps, split_boots, split_orders
from edge_wam.hil.faults import cable_faults, plant_fault
from edge_wam.hil.host import SELF_MADE, host_process
from edge_wam.hil.injections import INJECTIONS, Target
from edge_wam.hil.plant_loop import ENCODER_TICKS, PlantLoop
from edge_wam.hil.scenario import Injection, Scenario
from firmware_bridge.errors import FirmwareError, LinkError
from firmware_bridge.hil import mcu_faults
from firmware_bridge.hil.cable import intact
from firmware_bridge.hil.gdb_stub import OPEN_SPIN, GdbStub
from firmware_bridge.hil.relay import Relay
from firmware_bridge.host.emulator import Emulator, EmulatorOptions
from firmware_bridge.host.framing import LinkFrame, encode_frame
from firmware_bridge.host.messages import Estop, EventKind, McuMessage, McuState, Stats
from firmware_bridge.host.transport import FdTransport, open_serial
from firmware_bridge.mcu.build import DEFAULT_OUT

GAVE_UP = "ended by the wall clock: the microcontroller's stood still, or hardly moved"
_START_S = 90.0
"""From starting the host to the first motion. Counted time stands still where a PC has other work: it may take long."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a board is: its link, and its second UART for the drive stream."""

    link: str
    plant: str
    baud: int = 1_000_000


@contextmanager
def _preferred() -> Iterator[None]:
    """Threads that begin in here run before a PC's other work, where that is allowed, as the emulator does: what other
    programs do to the bench is not what is tested."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(before, -10))
    try:
        yield
    finally:
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, before)


def _options(target: Target, core: int | None) -> EmulatorOptions:
    if target == "mps2-an386-icount":
        return EmulatorOptions(target="mps2-an386-nowfi", icount=True, core=core)
    return EmulatorOptions(target="host" if target == "host" else f"{target}-realtime", core=core)


class RealTimeBench:
    """One run."""

    def __init__(
        self, scenario: Scenario, target: Target, *, seed: int = 1, ports: Ports | None = None,
        core: int | None = None, firmware: Path = DEFAULT_OUT,
    ) -> None:  # fmt: skip
        self._target = target
        self._core = core
        self._scenario = scenario
        self._robot = load_embodiment(scenario.robot)
        self._seed = seed
        self._ports = ports
        self._firmware = firmware
        self._counted = target == "mps2-an386-icount"
        self._said: list[str] = []
        self._marks: list[Mark] = []
        self._measured: dict[str, float] = {}
        self._notes: list[str] = []
        self._repairs: list[tuple[float, Callable[[], None]]] = []
        self._older: list[McuMessage] = []
        self._sent_before = b""
        self._base_us = 0
        self._latest_us = 0
        self._emulator: Emulator | None = None
        self._host: BaseProcess | None = None

    def run(self) -> Evidence:
        """The scenario from power-on to its end.

        Raises:
            LinkError: the bench did not come up, or the arm never moved.
        """
        with tempfile.TemporaryDirectory(prefix="edge-wam-hil-") as folder:
            self._folder = Path(folder)
            link, drive = self._connect()
            with _preferred():
                self._relay = Relay(self._folder / "host", link)
            try:
                spec = self._scenario.plant_spec()
                ticks = 5 if self._target == "board" or self._counted else ENCODER_TICKS
                with _preferred():
                    loop = PlantLoop(drive, spec, free_running=not self._counted, encoder_ticks=ticks)
                with loop as self._plant:
                    self._start_host()
                    self._play()
                    return self._evidence()
            finally:
                self._stop_host()
                self._relay.close()
                if self._emulator is not None:
                    self._emulator.close()

    # -- coming up ----------------------------------------------------------------------------------------------------

    def _connect(self) -> tuple[FdTransport, FdTransport]:
        if self._target == "board":
            if self._ports is None:
                raise FirmwareError("a board needs --port and --plant-port", remedy="name both serial devices")
            return open_serial(self._ports.link, self._ports.baud), open_serial(self._ports.plant, self._ports.baud)
        kind = "host" if self._target == "host" else "qemu"
        self._emulator = Emulator(kind, _options(self._target, self._core), out=self._firmware)  # type: ignore[arg-type]
        return self._emulator.open_link(), self._emulator.open_drive()

    def _start_host(self) -> None:
        # From a server that has imported everything and runs no threads: a host is there at once, and can be killed.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", "edge_wam.hil.host"])
        ours, theirs = context.Pipe(duplex=False)
        # As the firmware asks: 1 ms as shipped, 5 ms for real time. The host exchanges stamps until it knows as much.
        clock_error_ms = 0.9 if self._counted or self._target == "board" else 4.5
        self._host = context.Process(
            target=host_process, name="scripted host", daemon=True,
            args=(theirs, str(self._folder / "host"), self._scenario.model_dump_json(), self._counted, clock_error_ms),
        )  # fmt: skip
        self._host.start()
        theirs.close()
        self._reader = threading.Thread(target=self._read_host, args=(ours,), name="host's words")
        self._reader.start()
        deadline = time.monotonic() + _START_S
        while self._begin_us() is None:
            if time.monotonic() > deadline or not self._host.is_alive():
                raise LinkError(
                    f"the scripted host did not move the arm: {'; '.join(self._said[-3:]) or 'it said nothing'}; "
                    f"last of the MCU: {self._relay.newest}",
                    remedy="run the scenario in lockstep; look whether the machine is overloaded",
                )
            time.sleep(0.005)

    def _read_host(self, said: Connection) -> None:
        with said, suppress(EOFError, OSError):
            while True:
                self._said.append(said.recv_bytes().decode())

    def _begin_us(self) -> int | None:
        moves = [e.at_us for e in self._relay.events(EventKind.STATE) if e.arg1 == McuState.RUN]
        return moves[0] if moves else None

    def _stop_host(self) -> None:
        if self._host is None:
            return
        if self._host.is_alive():
            self._signal(signal.SIGCONT)
            self._host.kill()
        self._host.join()
        self._reader.join()
        self._host.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._host is not None and self._host.pid is not None:
            os.kill(self._host.pid, number)

    # -- the run ------------------------------------------------------------------------------------------------------

    def _elapsed_ms(self) -> float:
        """MCU time since the motion began; a reset begins its clock anew."""
        state = self._relay.newest
        if state is not None:
            if state.now_us + 100_000 < self._latest_us:
                self._base_us += self._latest_us
            self._latest_us = state.now_us
        return (self._base_us + self._latest_us - self._began_us) / 1e3

    def _play(self) -> None:
        begin = self._begin_us()
        assert begin is not None
        self._began_us = begin
        due = sorted((one for one in self._scenario.inject if one.kind not in SELF_MADE), key=lambda one: one.at_ms)
        # A microcontroller that says nothing any more has no clock: then the wall's has to do.
        patience_s = time.monotonic() + (200.0 if self._counted else 20.0 + 3e-3 * self._scenario.duration_ms)
        while (at_ms := self._elapsed_ms()) < self._scenario.duration_ms:
            for repair in [one for one in self._repairs if at_ms >= one[0]]:
                self._repairs.remove(repair)
                repair[1]()
            if due and at_ms >= due[0].at_ms:
                self._inject(due.pop(0))
            if time.monotonic() > patience_s:
                self._notes.append(GAVE_UP)
                return
            time.sleep(0.002)

    def _inject(self, one: Injection) -> None:
        row = INJECTIONS[one.kind]
        if self._target not in row.targets:
            self._notes.append(f"not injected: {one.kind}; by hand: {row.by_hand or 'not possible here'}")
            return
        match row.room:
            case "plant":
                self._plant.break_it(one.kind, plant_fault(one))
                return
            case "host":
                self._signal_host(one)
            case "cable":
                self._damage_cable(one)
            case "mcu":
                self._break_mcu(one)
                return
        self._marks.append(Mark(one.kind, 0, self._latest_us, exact=False))

    def _signal_host(self, one: Injection) -> None:
        self._signal(signal.SIGKILL if one.kind == "host_kill" else signal.SIGSTOP)
        if one.duration_ms is not None:
            self._repairs.append((one.at_ms + one.duration_ms, lambda: self._signal(signal.SIGCONT)))

    def _damage_cable(self, one: Injection) -> None:
        if one.kind == "estop_frame":
            self._relay.inject(b"\x00" + encode_frame(LinkFrame(Estop.TYPE, 0, 0, Estop().pack()).pack()))
            return
        to_mcu, to_host = cable_faults(one, time.monotonic, self._seed)
        self._relay.to_mcu, self._relay.to_host = to_mcu, to_host
        if one.kind == "link_cut":
            self._relay.drop_host()
        if one.duration_ms is not None:
            self._repairs.append((one.at_ms + one.duration_ms, self._repair_cable))

    def _repair_cable(self) -> None:
        self._relay.to_mcu = self._relay.to_host = intact

    # -- a hand inside of the microcontroller -------------------------------------------------------------------------

    def _break_mcu(self, one: Injection) -> None:
        emulator = self._emulator
        assert emulator is not None
        if one.kind == "power_cycle":
            self._power_cycle()
        elif one.kind == "brown_out":
            emulator.reset_mcu()
        elif emulator.kind == "host":
            emulator.send_signal(signal.SIGUSR1)
        elif self._target in ("mps2-an386", "mps2-an386-icount"):
            self._break_and_time(one.kind, emulator)
            return
        else:
            with GdbStub(emulator.gdb_path) as gdb:
                gdb.hang(mcu_faults.spare_ram(emulator.firmware), OPEN_SPIN)
        self._marks.append(Mark(one.kind, 0, self._latest_us, exact=False))

    def _break_and_time(self, kind: str, emulator: Emulator) -> None:
        sessions = len(self._relay.sessions)
        with GdbStub(emulator.gdb_path) as gdb:
            match kind:
                case "interrupt_storm":
                    moment = mcu_faults.interrupt_storm(gdb)
                case "stack_overflow":
                    moment = mcu_faults.stack_overflow(gdb, emulator.firmware)
                case _:
                    moment = mcu_faults.hang(gdb, masked=kind == "mcu_hang_masked")
            self._marks.append(Mark(kind, 0, moment.now_us, exact=True))
            mcu_faults.watch_the_end(gdb, emulator.firmware)
        self._relay.until(lambda: len(self._relay.sessions) > sessions, 20.0, "reset")
        with GdbStub(emulator.gdb_path) as gdb:
            self._measured |= mcu_faults.times_ms(gdb, moment, kind)

    def _power_cycle(self) -> None:
        assert self._emulator is not None
        self._marks.append(Mark("power_cycle", 0, self._latest_us, exact=False))
        self._emulator.close()
        self._relay.close()
        self._older += self._relay.messages()
        self._sent_before = self._sent()
        link, drive = self._connect()
        self._plant.attach(drive)
        self._relay = Relay(self._folder / "host-again", link)

    def _sent(self) -> bytes:
        return b"".join(self._relay.passed)

    # -- what was seen ------------------------------------------------------------------------------------------------

    def _evidence(self) -> Evidence:
        boots = split_boots([*self._older, *self._relay.messages()])
        orders = split_orders(self._plant.commands(), self._robot.dof)
        ticks, joints = self._plant.joints()
        marks = self._marks + [Mark(kind, 0, boots[0].us_of(tick), exact=True) for kind, tick in self._plant.broken]
        refused: dict[str, int] = {}
        for words in self._said:
            kind, _, name = words.partition(" ")
            if kind == "REFUSED":
                refused[name] = refused.get(name, 0) + 1
        waits = [one.tick_gap_max_us / 1e3 for one in self._relay.messages(Stats) if isinstance(one, Stats)]
        bench = self._emulator.description if self._emulator is not None else f"board at {self._ports}"
        return Evidence(
            target=self._target, bench=bench, boots=boots, orders=orders, begin_us=self._began_us,
            joint_tick=ticks, joint=joints if len(joints) else np.zeros((0, self._robot.dof)), marks=marks,
            host=list(self._said), refused=refused,
            heartbeats_us=heartbeat_stamps(self._sent_before + self._sent()),
            measured_ms=self._measured, notes=self._notes,
            stalls_ms=(self._plant.longest_gap_s * 1e3, max(waits, default=0.0)),
        )  # fmt: skip
