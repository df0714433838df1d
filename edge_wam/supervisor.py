"""The supervisor: one table of processes, started in order, watched, and stopped in order. It never moves the arm.

A process that dies is told to the control process, which degrades; nothing is restarted silently. Restarting the policy
and arming are acts of the operator, and both only happen while the arm is disarmed.

Children die with the thread that started the session (PR_SET_PDEATHSIG): keep it alive, best the main thread.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import TracebackType
from typing import IO, Any

from edge_wam.config import RunConfig
from edge_wam.embodiment import load_embodiment
from edge_wam.inference_process import BUNDLE_POLICY
from edge_wam.planner_wire import ANSWER_BYTES, REQUEST_BYTES
from edge_wam.process import Child, ProcessSpec, start, stop_all
from edge_wam.session import EpisodeResult, SessionError, SessionResult, SourceContext, Sources
from edge_wam.shm import FrameRing, Mailbox
from edge_wam.status import STATUS_BYTES, FaultReport, Phase, Status
from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.emulator import Emulator, choose_kind

__all__ = ["EpisodeResult", "Session", "SessionError", "SessionResult", "SourceContext", "Sources", "run_session"]

_POLL_S = 0.02
_READY_S = 60.0
_ARM_S = 10.0
_END_S = 5.0
_SETTLE_S = 2.0
_INSTRUCTION = 200


@contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _heeding_ctrl_c() -> Iterator[None]:
    """SIGINT interrupts, also where it was inherited as ignored (a background job of a script).

    A handler of the caller's own stays: it has its own way to stop.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Session:
    """A running session; a context manager.

    Args:
        config: what to run.
        sources: makes the table rows of plant and cameras.
        on_status: called with every new Status (5 a second), from the thread that calls into the session.
        stop: set it to end whatever runs, in a controlled way.
        policy: entry point of the policy; the bundle's unless a test brings its own.

    Raises:
        SessionError, EdgeWamError: a process failed to start, or is not ready in time. Nothing is left running.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        sources: Sources,
        on_status: Callable[[Status], None] = lambda status: None,
        stop: Event | None = None,
        policy: str = BUNDLE_POLICY,
    ) -> None:
        self.config = config
        self.embodiment = load_embodiment(config.robot)
        self.stop = stop or Event()
        self.status = Status(Phase.STARTING, 0)
        self.episodes: list[EpisodeResult] = []
        self.children: dict[str, Child] = {}
        self.emulator: Emulator | None = None
        self.mcu = f"{config.link.kind} {config.link.address}"
        self.exits: dict[str, int] = {}
        self._sources = sources
        self._on_status = on_status
        self._policy = policy
        self._generation = 0
        self._events: list[dict[str, Any]] = []
        self._failed = ""
        self._closed = False
        stamp = time.strftime("%Y%m%d-%H%M%S")
        self.recording = config.recording_dir / f"{stamp}-{os.getpid()}.mcap"
        self.log = self.recording.with_suffix(".log")
        self._rings = {c.name: FrameRing.create(c.name, c.height, c.width) for c in self.embodiment.cameras}
        self._requests, self._answers = Mailbox.create("request", REQUEST_BYTES), Mailbox.create("answer", ANSWER_BYTES)
        self._status_mail = Mailbox.create("status", STATUS_BYTES)
        self._status_seen = 0
        self._bell = os.eventfd(0, os.EFD_NONBLOCK)
        os.set_inheritable(self._bell, True)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._log_file: IO[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    # -- the acts of the operator -----------------------------------------------------------------------------------

    def run_episode(
        self, instruction: str, *, duration_s: float, done: Callable[[], bool] = lambda: False
    ) -> EpisodeResult:
        """Arm, follow the policy until ``done()``, the time is up, a fault or a stop; then stop and disarm.

        Reset the plant before, not during: between episodes the arm is disarmed.

        Raises:
            SessionError: the control process is gone, or the instruction is empty or longer than 200 characters.
        """
        if not 1 <= len(instruction) <= _INSTRUCTION:
            raise SessionError(f"an instruction of {len(instruction)} characters", expected=f"1..{_INSTRUCTION}")
        number = len(self.episodes) + 1
        if self.stop.is_set():
            return self._note(EpisodeResult(number, instruction, 0.0, "stopped"))
        self._events.clear()
        self._wait(lambda: not self.status.unwell, _SETTLE_S)
        self._tell({"cmd": "arm", "instruction": instruction, "episode": number})
        answer = self._await_event(("armed", "refused"), _ARM_S)
        if answer is None or answer["event"] == "refused":
            text = answer["text"] if answer is not None else f"no answer within {_ARM_S:g} s"
            return self._note(EpisodeResult(number, instruction, 0.0, "refused", text))
        began_ns = time.monotonic_ns()
        reason = "timeout"
        while time.monotonic_ns() - began_ns < duration_s * 1e9:
            self._pump()
            if any(event["event"] == "ended" for event in self._events):
                reason = ""
                break
            if self.stop.is_set():
                reason = "stopped"
                break
            if done():
                reason = "done"
                break
            time.sleep(_POLL_S)
        if reason:
            self._tell({"cmd": "stop"})
        ended = self._await_event(("ended",), _END_S)
        seconds = ended["seconds"] if ended is not None else (time.monotonic_ns() - began_ns) / 1e9
        cause = ended["reason"] if ended is not None else "no answer"
        if cause != "OPERATOR_STOP":
            reason = cause
        self._wait(lambda: self.status.phase is Phase.READY and self.status.at_ns > began_ns, 1.0)
        return self._note(EpisodeResult(number, instruction, seconds, reason, "", self._faults_since(began_ns)))

    def restart_policy(self, timeout_s: float = _READY_S) -> None:
        """A new inference process in place of one that was closed by a fault. Only while disarmed.

        Raises:
            SessionError: it did not become ready.
        """
        old = self.children.pop("inference", None)
        if old is not None:
            old.stop(0.0)
        self._generation += 1
        self._tell({"cmd": "policy", "generation": self._generation})
        self.children["inference"] = start(self._inference_spec(), log=self._log_file)
        if not self._wait(lambda: self.status.policy_ready or self._dead("inference"), timeout_s):
            raise SessionError(f"the policy is not ready after {timeout_s:g} s", remedy=f"read {self.log}")
        self._wait(lambda: self.status.policy_ready, 1.0)
        if not self.status.policy_ready:
            raise SessionError(f"the policy cannot be used: {self._policy_error()}", remedy=f"read {self.log}")

    def acknowledge(self) -> str:
        """Clear what the microcontroller latched (reset, fault, emergency stop) after a look at it. Never arms.

        Returns:
            The fault that was cleared, in words.

        Raises:
            SessionError: it could not be cleared.
        """
        self._tell({"cmd": "acknowledge"})
        answer = self._await_event(("acknowledged",), _ARM_S)
        if answer is None or not answer["done"]:
            raise SessionError(f"not cleared: {answer['text'] if answer is not None else 'no answer'}")
        return str(answer["text"])

    def estop(self) -> None:
        """Emergency stop: latched on the microcontroller, through resets, until :meth:`acknowledge`."""
        self._tell({"cmd": "estop"})

    def close(self) -> SessionResult:
        """Stop the arm in order, close the recording, end every process. May be called twice.

        A second Ctrl-C changes nothing about it: stopping in order takes the time that it takes, 15 s at most.
        """
        if not self._closed:
            self._closed = True
            with _deaf_to_ctrl_c():
                self._shut_down()
        return SessionResult(
            self.recording, self.log, self.mcu, self.status, tuple(self.episodes), self._faults_since(0), self.exits
        )

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _shut_down(self) -> None:
        control = self.children.get("control")
        if control is not None and control.exit_code is None:
            self._tell({"cmd": "close"})
            deadline = time.monotonic() + 12.0
            while control.exit_code is None and time.monotonic() < deadline:
                self._read()
                time.sleep(_POLL_S)
            control.stop(2.0)
        self._read()
        stop_all(list(self.children.values()), 2.0)
        self.exits = {name: child.exit_code or 0 for name, child in self.children.items()}
        if self.emulator is not None:
            self.emulator.close()
        self._release()

    # -- starting ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            self.recording.parent.mkdir(parents=True, exist_ok=True)
            self._log_file = self.log.open("wb")
        except OSError as error:
            raise SessionError(
                f"{self.log}: {error.strerror}", remedy="set recording_dir to a writable folder"
            ) from error
        drive_address = ""
        if self.config.link.kind == "emulator":
            kind = choose_kind() if self.config.link.emulator == "auto" else self.config.link.emulator
            try:
                self.emulator = Emulator(kind)
            except FirmwareError as error:
                raise SessionError(error.what, expected=error.expected, remedy=error.remedy) from error
            self.mcu = self.emulator.description
            drive_address = str(self.emulator.drive_path)
        table = list(self._sources(SourceContext(self.embodiment, self._rings, drive_address)))
        table += [self._inference_spec(), self._control_spec()]
        for spec in table:
            self.children[spec.name] = start(spec, log=self._log_file)
        self._theirs.close()
        self._wait(lambda: self._ready() or bool(self._failed) or self._any_dead(), _READY_S)
        if self._failed:
            raise SessionError(f"the control process cannot start: {self._failed}")
        if not self._ready():
            raise SessionError(self._why_not_ready(), remedy=f"read {self.log}")

    def _inference_spec(self) -> ProcessSpec:
        config = self.config
        return ProcessSpec(
            "inference",
            "edge_wam.inference_process:main",
            {
                "bundle": str(config.bundle), "robot": str(config.robot), "threads": config.plan.threads,
                "allow_demo_key": config.allow_demo_key, "trusted_keys": [str(key) for key in config.trusted_keys],
                "instruction": config.instruction, "policy": self._policy, "generation": self._generation,
                "rings": {name: ring.fd for name, ring in self._rings.items()},
                "nice": config.realtime.nice // 2,
                "request_fd": self._requests.fd, "answer_fd": self._answers.fd, "bell_fd": self._bell,
            },
            (*(ring.fd for ring in self._rings.values()), self._requests.fd, self._answers.fd, self._bell),
        )

    def _control_spec(self) -> ProcessSpec:
        link = self.config.link
        emulated = self.emulator is not None
        return ProcessSpec(
            "control",
            "edge_wam.control_process:main",
            {
                "config": self.config.model_dump(mode="json"),
                "link_kind": "unix" if emulated else link.kind,
                "link_address": str(self.emulator.link_path) if self.emulator is not None else link.address,
                "rings": {name: ring.fd for name, ring in self._rings.items()},
                "request_fd": self._requests.fd, "answer_fd": self._answers.fd, "bell_fd": self._bell,
                "status_fd": self._status_mail.fd, "command_fd": self._theirs.fileno(),
                "recording": str(self.recording),
            },
            (
                *(ring.fd for ring in self._rings.values()), self._requests.fd, self._answers.fd, self._bell,
                self._status_mail.fd, self._theirs.fileno(),
            ),
            death_signal=15,
        )

    def _ready(self) -> bool:
        return self.status.phase is Phase.READY and self.status.policy_ready and not self.status.unwell

    def _why_not_ready(self) -> str:
        dead = [f"{name} ended with {child.exit_code}" for name, child in self.children.items() if self._dead(name)]
        if dead:
            return "; ".join([*dead, self._policy_error()])
        why = list(self.status.unwell)
        if not self.status.policy_ready:
            why.append("the policy is not ready")
        return f"not ready after {_READY_S:g} s: {'; '.join(why) or f'phase {self.status.phase}'}"

    def _policy_error(self) -> str:
        got = self._answers.get()
        return got[1][13:].decode(errors="replace") if got is not None and got[1][0] == 4 else "see the log"

    # -- watching ---------------------------------------------------------------------------------------------------

    def _dead(self, name: str) -> bool:
        return name in self.children and self.children[name].exit_code is not None

    def _any_dead(self) -> bool:
        return any(self._dead(name) for name in self.children)

    def _pump(self) -> None:
        """Events, statuses and deaths.

        Raises:
            SessionError: the control process is gone; the microcontroller stops the arm by itself.
        """
        self._read()
        for name, child in self.children.items():
            code = child.exit_code
            if code is None or name in self.exits:
                continue
            self.exits[name] = code
            if name == "control":
                if self._failed:
                    continue
                raise SessionError(
                    f"the control process ended with {code}", expected="a process that runs until it is told to end",
                    remedy=f"the microcontroller has stopped the arm; read {self.log}",
                )
            if child.spec.critical:
                self._tell({"cmd": "died", "name": name, "text": f"exit code {code}"})
        if self.emulator is not None and not self.emulator.alive and "emulator" not in self.exits:
            self.exits["emulator"] = -1
            self._tell({"cmd": "died", "name": "emulator", "text": "the emulated microcontroller ended"})

    def _read(self) -> None:
        while True:
            try:
                data = self._ours.recv(65536)
            except OSError:
                break
            if not data:
                break
            event = json.loads(data)
            if event["event"] == "failed":
                self._failed = event["text"]
            self._events.append(event)
        if self._status_mail.number != self._status_seen and (got := self._status_mail.get()) is not None:
            self._status_seen = got[0]
            self.status = Status.from_json(got[1])
            self._on_status(self.status)

    def _wait(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline or (self.stop.is_set() and not self._closed and self.status.at_ns == 0):
                return False
            self._pump()
            time.sleep(_POLL_S)
        return True

    def _await_event(self, names: tuple[str, ...], timeout_s: float) -> dict[str, Any] | None:
        def found() -> dict[str, Any] | None:
            return next((event for event in self._events if event["event"] in names), None)

        self._wait(lambda: found() is not None, timeout_s)
        return found()

    def _tell(self, command: dict[str, Any]) -> None:
        try:
            self._ours.send(json.dumps(command).encode())
        except OSError:
            return  # the control process is gone; _pump says so

    def _faults_since(self, at_ns: int) -> tuple[FaultReport, ...]:
        return tuple(f for f in self.status.faults if f.at_ns >= at_ns and f.name != "OPERATOR_STOP")

    def _note(self, result: EpisodeResult) -> EpisodeResult:
        self.episodes.append(result)
        return result

    def _release(self) -> None:
        self._ours.close()
        self._theirs.close()
        os.close(self._bell)
        boxes: list[FrameRing | Mailbox] = [*self._rings.values(), self._requests, self._answers, self._status_mail]
        for box in boxes:
            box.close()
            os.close(box.fd)
        if self._log_file is not None:
            self._log_file.close()


def run_session(
    config: RunConfig,
    *,
    sources: Sources,
    duration_s: float,
    on_status: Callable[[Status], None] = lambda status: None,
    stop: Event | None = None,
    done: Callable[[], bool] = lambda: False,
    policy: str = BUNDLE_POLICY,
) -> SessionResult:
    """One session with one episode of the configured instruction. Ctrl-C stops the arm in order.

    Raises:
        SessionError, EdgeWamError: it could not start, or the control process was lost. Nothing is left running.
    """
    stop = stop or Event()
    with _heeding_ctrl_c():
        session = Session(config, sources=sources, on_status=on_status, stop=stop, policy=policy)
        try:
            session.run_episode(config.instruction, duration_s=duration_s, done=done)
        except KeyboardInterrupt:
            stop.set()
        finally:
            result = session.close()
    return result
