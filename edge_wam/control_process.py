"""The control process: 100 Hz, absolute deadlines, sole owner of the link to the microcontroller.

Each tick: serve the wire, look at cameras and planner, splice what is new, descend the ladder where something is wrong,
send the heartbeat. Nothing in the loop waits for another process or for the disk. The operator's acts (arm, disarm)
wait for the microcontroller's answer; they happen while the arm does not move.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from edge_wam import service_watchdog
from edge_wam.cameras.watch import CameraWatch
from edge_wam.config import LinkConfig, RunConfig
from edge_wam.contracts import DegradeState
from edge_wam.control_report import Tally
from edge_wam.embodiment import load_embodiment
from edge_wam.errors import EdgeWamError
from edge_wam.executor import Executor
from edge_wam.faults import FAULTS, Fault
from edge_wam.guard import Guard
from edge_wam.limit_table import limit_table
from edge_wam.monitor import Monitor
from edge_wam.planner_channel import PlannerChannel
from edge_wam.planning import Planning
from edge_wam.realtime import Pacer, collect_garbage, prefer_process, quiet_garbage_collector
from edge_wam.recorder import Recorder
from edge_wam.shm import FrameRing, Mailbox
from edge_wam.status import Phase
from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.can_transport import CanOptions, open_can
from firmware_bridge.host.capture import CaptureFile, CapturingTransport
from firmware_bridge.host.drives import drive_error_text
from firmware_bridge.host.link import Link
from firmware_bridge.host.link_state import LinkState
from firmware_bridge.host.messages import Event, EventKind, McuState
from firmware_bridge.host.messages import Fault as McuFault
from firmware_bridge.host.transport import Transport, open_serial, open_unix

MS = 1_000_000
_SLICE_NS = 2_500_000  # between ticks the loop looks for an answer this often: its age grows by less than this
_STALL_NS = 100 * MS  # the microcontroller has stopped the arm after this silence
_STANDSTILL_NS = 1_500 * MS
_STATUS_NS = 200 * MS
_LIVE = (McuState.ARMED, McuState.RUN)
_ENERGISED = (*_LIVE, McuState.STARVED, McuState.STOP)


def open_transport(kind: str, address: str, link: LinkConfig) -> Transport:
    """``serial``: a device. ``can``: a channel of the configured interface. ``unix``: a socket path (emulators)."""
    if kind == "serial":
        return open_serial(address, link.baud)
    if kind == "can":
        bus = link.can
        return open_can(CanOptions(bus.interface, address, bus.bitrate, bus.data_bitrate, bus.fd, bus.node))
    return open_unix(address)


class Control:
    """One session of control. Made and run in its own process by :func:`main`."""

    def __init__(self, arguments: dict[str, Any], stop: Callable[[], bool]) -> None:
        self.config = RunConfig.model_validate(arguments["config"])
        self.robot = load_embodiment(self.config.robot)
        self.refusals = prefer_process(
            nice=self.config.realtime.nice, fifo_priority=self.config.realtime.fifo_priority,
            cpus=self.config.realtime.cpus, lock_memory=self.config.realtime.lock_memory,
        )
        plan = self.config.plan
        transport = open_transport(arguments["link_kind"], arguments["link_address"], self.config.link)
        if self.config.link.capture:
            transport = CapturingTransport(transport, CaptureFile(Path(arguments["recording"]).with_suffix(".pcapng")))
        self.link = Link(
            transport,
            limit_table(self.robot),
            max_clock_error_ns=int(self.config.link.clock_bound_ms * MS),
        )
        self.monitor = Monitor(self.robot, self.config.monitor, plan.rate_hz)
        rings = {c.name: FrameRing(arguments["rings"][c.name]) for c in self.robot.cameras}
        self.recorder = Recorder(
            Path(arguments["recording"]), tuple((n, r.height, r.width) for n, r in rings.items())
        )
        self.cameras = CameraWatch(rings, self.monitor, self.recorder)
        self._drive_words = ""  # what the drive that was last in error said
        self.tally = Tally(Mailbox(arguments["status_fd"]), arguments["recording"])
        self.planning = Planning(
            PlannerChannel(
                Mailbox(arguments["request_fd"]), Mailbox(arguments["answer_fd"]), arguments["bell_fd"],
                int(plan.deadline_ms * MS),
            ),
            Executor(self.robot, plan, Guard(self.robot, self.config.guard), ""),
            self.link, self.cameras, self.monitor, self.recorder, self.tally, plan.rate_hz, self.config.instruction,
        )
        self.commands = socket.socket(fileno=arguments["command_fd"])
        self.commands.setblocking(False)
        self.pacer = Pacer(self.robot.control_rate_hz)
        self.service = service_watchdog.for_control_process()
        self.phase = Phase.STARTING
        self.episode = 0
        self.running_since_ns = 0
        self._stop = stop
        self._state: LinkState
        self._closing = False
        self._stop_since_ns = 0
        self._held = False
        self._dropped = 0
        self._faults_said = 0
        self._status_due_ns = 0

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Until told to close, or the supervisor is gone."""
        try:
            self._state = self.link.connect()
        except FirmwareError as error:
            self._say({"event": "failed", "text": str(error)})
            self._finish()
            return
        quiet_garbage_collector()
        self.recorder.put("/session", time.monotonic_ns(), {
            "config": self.config.model_dump(mode="json"), "robot": self.robot.model_dump(mode="json"),
            "os_refusals": list(self.refusals), "mcu_boots": self._state.boots,
        }, size=8192)
        self.phase = Phase.READY
        self.service.ready("linked to the microcontroller, disarmed")
        self.pacer.start(time.monotonic_ns())
        while self.phase is not Phase.CLOSED:
            self._serve_until_deadline()
            now_ns = time.monotonic_ns()
            late_ns = self.pacer.arrive(now_ns)
            self._account(now_ns, late_ns)
            self._tick(now_ns)
            # The last thing in a cycle, so that one that hangs, or comes too late to be of use, is not told as good.
            self.service.cycle(now_ns, good=late_ns <= _STALL_NS)
            self.tally.work.add(time.monotonic_ns() - now_ns)
        self._finish()

    def _serve_until_deadline(self) -> None:
        while (now_ns := time.monotonic_ns()) < self.pacer.deadline_ns:
            if self.planning.channel.news:
                self._planner(now_ns)
            self.link.service(min(self.pacer.deadline_ns, now_ns + _SLICE_NS))

    def _account(self, now_ns: int, late_ns: int) -> None:
        if self.phase is not Phase.RUNNING:
            return
        self.tally.control.add(late_ns)
        if late_ns > _STALL_NS:
            self._fault(now_ns, Fault.CONTROL_STALLED, f"{late_ns / MS:.0f} ms late")
        elif late_ns > 2 * self.pacer.period_ns:
            self.tally.late_ticks += 1
            if self.tally.late_ticks == 1:
                self._fault(now_ns, Fault.CONTROL_LATE, f"{late_ns / MS:.0f} ms, counted from here on")

    def _tick(self, now_ns: int) -> None:
        for message in self.link.poll():
            if isinstance(message, Event):
                self._mcu_event(now_ns, message)
        self._take_state(now_ns)
        self.cameras.tick(now_ns, self.phase in (Phase.ARMING, Phase.RUNNING, Phase.STOPPING))
        self._obey(now_ns)
        self._planner(now_ns)
        if self.phase is Phase.RUNNING:
            self.planning.settle(now_ns, self._state)
            self._watch_mcu(now_ns)
            if self.monitor.state == DegradeState.NOMINAL:
                self.planning.plan(now_ns)
            self.monitor.step(now_ns, self.planning.executor.end_ns, planning=True)
            self._descend(now_ns)
        elif self.phase is Phase.STOPPING:
            self._stopping(now_ns)
        self.link.heartbeat(self.planning.counter, int(self.monitor.state))
        self._report(now_ns)

    def _take_state(self, now_ns: int) -> None:
        state = self._state = self.link.state
        if not state.connected or not self.planning.remember(state.at_ns, state.position, state.setpoint):
            return
        self.monitor.mcu(state.at_ns, state.position, state.encoder_fresh and not state.reset_seen)
        if self.phase in (Phase.ARMING, Phase.RUNNING, Phase.STOPPING):
            self.recorder.put("/mcu", now_ns, {
                "at_ns": state.at_ns, "state": state.mcu_state.name, "stop_cause": state.stop_cause.name,
                "fault": state.fault.name, "position": state.position, "setpoint": state.setpoint,
                "velocity": state.velocity, "chunk_id": state.chunk_id, "remaining_ns": state.remaining_ns,
                "degrade": int(self.monitor.state),
            })

    def _planner(self, now_ns: int) -> None:
        got = self.planning.receive(now_ns, follow=self.phase is Phase.RUNNING)
        if self.phase is Phase.ARMING and isinstance(got, tuple):
            self._refuse_arming(now_ns, f"the policy failed its rehearsal: {got[0].name} {got[1]}")
        elif self.phase is Phase.ARMING and got is not None:
            self._arm(now_ns)
        elif isinstance(got, tuple):
            self._fault(now_ns, *got)

    # -- watching and stopping --------------------------------------------------------------------------------------

    def _watch_mcu(self, now_ns: int) -> None:
        state = self._state
        if state.reset_seen:
            cause = f"{state.reset_cause.name}, program counter {state.reset_pc:#010x}, boot {state.boots}"
            self._once(now_ns, Fault.MCU_RESET, cause)
        elif not state.connected:
            self._once(now_ns, Fault.LINK_FAILED, "the byte stream ended")
        elif self.monitor.state < DegradeState.HOLD:
            if state.mcu_state is McuState.STARVED:
                if self.monitor.state == DegradeState.NOMINAL:
                    self._once(now_ns, Fault.PLAN_RAN_OUT, "on the microcontroller")
            elif state.mcu_state not in _LIVE:
                self._once(now_ns, Fault.MCU_STOPPED, f"{state.mcu_state.name}, {state.stop_cause.name}")
        elif self.monitor.state == DegradeState.HOLD and state.mcu_state not in _ENERGISED:
            self._once(now_ns, Fault.MCU_STOPPED, f"{state.mcu_state.name}, {state.stop_cause.name}")

    def _descend(self, now_ns: int) -> None:
        state = self.monitor.state
        if state >= DegradeState.HOLD and not self._held:
            self._held = True
            self.planning.executor.clear()
            if state == DegradeState.HOLD and self._state.mcu_state in _ENERGISED and self._state.connected:
                self.link.hold()
        if state >= DegradeState.SOFT_STOP:
            self._stop_since_ns = now_ns
            self.phase = Phase.STOPPING

    def _stopping(self, now_ns: int) -> None:
        """SOFT_STOP is in the heartbeat: the microcontroller brakes. Disarm at standstill, or when that takes long."""
        state = self._state
        waited = now_ns - self._stop_since_ns
        if state.connected and not state.reset_seen and state.mcu_state in _ENERGISED:
            if waited < 30 * MS or (state.moving and waited < _STANDSTILL_NS):
                return
            try:
                self.link.disarm()
            except FirmwareError as error:
                self._fault(now_ns, Fault.LINK_FAILED, f"disarm: {error.what}")
                if waited < _STANDSTILL_NS:
                    return  # it stops by itself when the heartbeats end; try again until then
        self.monitor.safe_off(now_ns)
        self.planning.executor.clear()
        self.phase = Phase.READY
        self._say({
            "event": "ended", "episode": self.episode, "reason": self._first_cause(),
            "seconds": (self._stop_since_ns - self.running_since_ns) / 1e9,
        })
        collect_garbage()
        self.pacer.start(time.monotonic_ns())

    def _fault(self, now_ns: int, fault: Fault, text: str = "") -> None:
        self.monitor.raise_fault(now_ns, fault, text)

    def _first_cause(self) -> str:
        """Name of the fault that first took this episode down the ladder."""
        for at_ns, fault, _ in self.monitor.faults:
            if at_ns >= self.running_since_ns and FAULTS[fault].descends_to > DegradeState.NOMINAL:
                return fault.name
        return ""

    def _once(self, now_ns: int, fault: Fault, text: str) -> None:
        if not any(known is fault for at_ns, known, _ in self.monitor.faults if at_ns >= self.running_since_ns):
            self._fault(now_ns, fault, text)

    def _mcu_event(self, now_ns: int, event: Event) -> None:
        self.recorder.put("/event", now_ns, {
            "from": "mcu", "kind": event.kind, "arg0": event.arg0, "arg1": event.arg1, "at_us": event.at_us,
        })
        if event.kind == EventKind.DRIVE and 0 <= event.arg0 < self.link.limits.dof:
            words = drive_error_text(self.link.limits.drives[event.arg0], event.arg1)
            self._drive_words = f"axis {self.link.limits.names[event.arg0]} {words}"
        if event.kind == EventKind.FAULT and event.arg0 in list(McuFault):
            said = event.arg0 == McuFault.DRIVE_ERROR and self._drive_words
            self.tally.mcu_fault(now_ns, event.arg0, McuFault(event.arg0).name, said or f"axis {event.arg1}")

    # -- the operator -----------------------------------------------------------------------------------------------

    def _obey(self, now_ns: int) -> None:
        if self._stop() and not self._closing:
            self._close(now_ns, Fault.OPERATOR_STOP, "signal")
        while True:
            try:
                data = self.commands.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                if not self._closing:
                    self._close(now_ns, Fault.SUPERVISOR_GONE, "")
                break
            self._command(now_ns, json.loads(data))
        if self._closing and self.phase in (Phase.READY, Phase.ARMING):
            self.phase = Phase.CLOSED

    def _command(self, now_ns: int, command: dict[str, Any]) -> None:
        name = command["cmd"]
        if name == "arm":
            self._prepare(now_ns, command)
        elif name == "stop" and self.phase is Phase.RUNNING:
            self._fault(now_ns, Fault.OPERATOR_STOP)
        elif name == "close":
            self._close(now_ns, Fault.OPERATOR_STOP, "")
        elif name == "estop":
            self.link.estop()
            self._fault(now_ns, Fault.OPERATOR_STOP, "emergency stop")
        elif name == "policy":
            self.planning.channel.restart(command["generation"])
        elif name == "died":
            self._died(now_ns, command["name"], command["text"])
        elif name == "acknowledge" and self.phase is Phase.READY:
            self._acknowledge(now_ns)

    def _close(self, now_ns: int, fault: Fault, text: str) -> None:
        self._closing = True
        if self.phase is Phase.RUNNING:
            self._fault(now_ns, fault, text)

    def _died(self, now_ns: int, name: str, text: str) -> None:
        self.recorder.put("/event", now_ns, {"from": "supervisor", "died": name, "text": text})
        running = self.phase is Phase.RUNNING
        if name == "inference":
            self.planning.channel.close()
            if self.phase is Phase.ARMING:
                self._refuse_arming(now_ns, f"the inference process ended: {text}")
            elif running:
                self._once(now_ns, Fault.POLICY_DIED, text)
        elif running:
            self._fault(now_ns, Fault.PROCESS_DIED, f"{name}: {text}")

    def _acknowledge(self, now_ns: int) -> None:
        """The operator has looked: clear what the microcontroller latched. Nothing here arms."""
        try:
            self.link.acknowledge_reset()
            if self._state.estop_latched:
                self.link.clear_estop()
            fault = self.link.clear_fault()
        except FirmwareError as error:
            self._say({"event": "acknowledged", "text": str(error), "done": False})
            return
        self.recorder.put("/event", now_ns, {"from": "operator", "acknowledged": fault.name})
        self._say({"event": "acknowledged", "text": fault.name, "done": True})
        self.pacer.start(time.monotonic_ns())

    def _prepare(self, now_ns: int, command: dict[str, Any]) -> None:
        """Check everything, then let the policy rehearse once while nothing moves: its answer is thrown away."""
        if self.phase is not Phase.READY:
            self._say({"event": "refused", "text": f"not possible while {self.phase}"})
            return
        self.planning.instruction, self.episode = command["instruction"], command["episode"]
        why = self.monitor.unwell(now_ns)
        if not self.planning.channel.usable:
            reason = self.planning.channel.startup_error
            why.append(reason or "the policy is not ready, or was closed by a fault: restart it")
        if self._state.reset_seen:
            why.append("the microcontroller was reset; acknowledge it first")
        if not self.cameras.fresh():
            why.append("a camera has no new frame")
        if why:
            self._refuse_arming(now_ns, "; ".join(why))
            return
        assert self.planning.channel.ready is not None
        self.planning.executor.model_hash = self.planning.channel.ready.model_hash
        self.monitor.latent_scale = self.planning.channel.ready.latent_scale
        self.phase = Phase.ARMING
        self.running_since_ns = now_ns
        self.planning.rehearse(now_ns)

    def _arm(self, now_ns: int) -> None:
        self.monitor.operator_reset(now_ns)
        try:
            self.link.configure()
            self.link.heartbeat(self.planning.counter, int(self.monitor.state))
            self.link.arm()
            waited_until = time.monotonic_ns() + 300 * MS
            while self.link.state.mcu_state is not McuState.ARMED and time.monotonic_ns() < waited_until:
                self.link.service(time.monotonic_ns() + 5 * MS)
                self.link.heartbeat(self.planning.counter, int(self.monitor.state))
        except FirmwareError as error:
            self._refuse_arming(now_ns, error.what + (f" ({error.remedy})" if error.remedy else ""))
            return
        now_ns = time.monotonic_ns()
        self._state = self.link.state
        self.planning.begin(now_ns, self._state)
        self.monitor.operator_reset(now_ns)
        self._held = False
        self.tally.late_ticks = 0
        self.running_since_ns = now_ns
        self.phase = Phase.RUNNING
        self.recorder.put("/event", now_ns, {
            "from": "operator", "armed": self.episode, "instruction": self.planning.instruction,
        })
        self._say({"event": "armed", "episode": self.episode})
        self.pacer.start(now_ns)

    def _refuse_arming(self, now_ns: int, why: str) -> None:
        self.monitor.raise_fault(now_ns, Fault.ARM_REFUSED, why)
        self.phase = Phase.READY
        self._say({"event": "refused", "text": why})

    # -- telling ----------------------------------------------------------------------------------------------------

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self.commands.send(json.dumps(message).encode())
        except OSError:
            self.tally.unsaid += 1  # the supervisor is slow or gone: its end of the socket says so by itself

    def _report(self, now_ns: int) -> None:
        news = self.monitor.raised - self._faults_said
        self._faults_said = self.monitor.raised
        for at_ns, fault, text in list(islice(reversed(self.monitor.faults), news))[::-1]:
            self.tally.host_fault(at_ns, fault, text)
            self.recorder.put("/event", now_ns, {
                "from": "host", "fault": int(fault), "name": fault.name, "text": text, "at_ns": at_ns,
                "degrade": int(self.monitor.state),
            })
        if self.recorder.error and self.recorder.error != self.tally.recorder_error:
            self.tally.recorder_error = self.recorder.error
            self._fault(now_ns, Fault.RECORDER_FAILED, self.recorder.error)
        elif self.recorder.dropped > self._dropped:
            if self._dropped == 0:
                self._fault(now_ns, Fault.RECORDER_OVERFLOW, f"{self.recorder.dropped} and counting")
            self._dropped = self.recorder.dropped
        if now_ns >= self._status_due_ns:
            self._status_due_ns = now_ns + _STATUS_NS
            self.tally.publish(self, now_ns, self._state)

    def _finish(self) -> None:
        self.phase = Phase.CLOSED
        self.service.stopping()
        self.recorder.close()
        if self.recorder.error:
            self.tally.recorder_error = self.recorder.error
        if hasattr(self, "_state"):
            self.tally.publish(self, time.monotonic_ns(), self._state)
        self.link.close()
        self.service.close()


def main(arguments: dict[str, Any], stop: Callable[[], bool]) -> None:
    """Entry point; see :class:`edge_wam.supervisor.Session` for the arguments."""
    try:
        control = Control(arguments, stop)
    except (FirmwareError, EdgeWamError) as error:
        with socket.socket(fileno=arguments["command_fd"]) as supervisor:
            supervisor.send(json.dumps({"event": "failed", "text": str(error)}).encode())
        return
    control.run()

