"""Starts a microcontroller that is not there: stock QEMU running the Cortex-M firmware, or the same core as a process.

Both listen on two unix sockets, ``u0`` (the host link) and ``u1`` (the drive stream to a plant), and both come back
after a disconnect, so a host may die and another take over. QEMU is pinned to one core: its receive path hands every
byte from one thread to another, and across two cores that costs a factor of six. It is never given a real-time
priority: its spinning processor thread would starve its own input loop, and then the machine.

QEMU's PL011 (lm3s6965evb) waits for whoever reads its output: when nobody does, all of the guest stands still after
some 280 bytes, its clock and watchdog included. The UARTs of the other boards drop or hold back instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from firmware_bridge.errors import FirmwareError, LinkError
from firmware_bridge.host.transport import SocketTransport, open_unix
from firmware_bridge.mcu.build import DEFAULT_OUT, build
from firmware_bridge.mcu.targets import TARGETS

Kind = Literal["qemu", "host"]
QEMU = "qemu-system-arm"
_START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class EmulatorOptions:
    """How to run it.

    Attributes:
        target: firmware build; ``mps2-an386-realtime`` has the 500 ms watchdog that real time on a shared PC needs
            (a 20 ms one bites although nothing is wrong whenever the PC stalls for 20 ms).
        icount: deterministic guest time, for builds that do not sleep (``mps2-an386-nowfi``); guest time then runs
            slower than the wall clock, so the host's clock must be derived from the MCU's.
        icount_shift: guest time of an instruction is 2^shift ns. 8 ns are 125 million a second: what a Cortex-M4 at
            170 MHz does at 1.36 cycles each, and about what this emulator does in real time.
        extra: further arguments of QEMU.
        flags: further arguments of the compiler.
        core: processor core to pin QEMU to; the last one that this process may use if None.
        nice: change of priority. A microcontroller does not wait for a PC's other work, so it is raised by 10 where
            that is allowed (root); where it is not, the emulator runs at the priority of its parent. In counted time
            the thread that moves its bytes then goes before the one that is its processor.
        can: give the UARTs that stand for CAN controllers a pseudo-terminal each, see :attr:`Emulator.can_tty`.
    """

    target: str = "mps2-an386-realtime"
    icount: bool = False
    icount_shift: int = 3
    extra: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    core: int | None = None
    nice: int = -10
    can: bool = False

    @property
    def machine(self) -> str:
        """QEMU's name of the board that the target is for."""
        return TARGETS[self.target].machine


def choose_kind() -> Kind:
    """``qemu`` where the emulator and the compiler for it are installed, else ``host``."""
    return "qemu" if shutil.which(QEMU) and shutil.which("arm-none-eabi-gcc") else "host"


class Emulator:
    """A running emulated microcontroller; a context manager.

    It dies with the thread that started it, so a killed supervisor leaves nothing behind.

    Args:
        kind: what to run.
        options: how.
        out: where firmware builds are kept.

    Raises:
        FirmwareError: a tool is missing, the build fails, or the process does not come up.
    """

    def __init__(
        self, kind: Kind, options: EmulatorOptions | None = None, *, out: Path = DEFAULT_OUT
    ) -> None:
        self.kind = kind
        self.options = options or EmulatorOptions(target="mps2-an386-realtime" if kind == "qemu" else "host")
        self.firmware = build(self.options.target, out, self.options.flags)
        self._directory = Path(tempfile.mkdtemp(prefix="edge-wam-mcu-"))
        self.link_path = self._directory / "u0"
        self.drive_path = self._directory / "u1"
        self.gdb_path = self._directory / "gdb"
        self._qmp_path = self._directory / "qmp"
        self._log = self._directory / "log"
        self.can_tty = ""
        """Pseudo-terminal of the host's CAN bus, which speaks slcan (classic and FD); empty without ``can``."""
        self.motor_tty = ""
        """That of the motor drives' CAN bus."""
        self._qmp: socket.socket | None = None
        self._qmp_buffer = b""
        self._events: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def description(self) -> str:
        """One line for people: which emulator, which firmware."""
        if self.kind == "qemu":
            timing = ", instruction-counted time" if self.options.icount else ""
            return f"QEMU {self.options.machine} running {self.firmware.name}{timing}"
        return f"host port of the MCU core ({self.firmware.name}); QEMU is not used"

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def open_link(self, timeout_s: float = 5.0) -> SocketTransport:
        """Connect to the host link. One connection at a time."""
        return open_unix(self.link_path, timeout_s)

    def open_drive(self, timeout_s: float = 5.0) -> SocketTransport:
        """Connect to the drive stream (the plant's end)."""
        return open_unix(self.drive_path, timeout_s)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the emulator itself: SIGSTOP freezes it; the host port hangs on SIGUSR1 and resets on SIGHUP."""
        os.kill(self.pid, number)

    def qmp_events(self) -> list[str]:
        """Names of QEMU's events so far, e.g. ``WATCHDOG`` and ``RESET`` at each bite. Empty for the host port."""
        if self._qmp is not None:
            with contextlib.suppress(BlockingIOError):
                while part := self._qmp.recv(65536):
                    self._qmp_buffer += part
            *lines, self._qmp_buffer = self._qmp_buffer.split(b"\n")
            for line in lines:
                if line.strip() and "event" in (message := json.loads(line)):
                    self._events.append(str(message["event"]))
        return list(self._events)

    def reset_mcu(self) -> None:
        """The reset pin: what is not in the no-init memory is lost."""
        if self._qmp is not None:
            self._qmp.sendall(b'{"execute": "system_reset"}\n')
        else:
            self.send_signal(signal.SIGHUP)

    def close(self) -> None:
        """Kill it and remove its sockets; may be called twice."""
        if self._qmp is not None:
            self._qmp.close()
            self._qmp = None
        if self.process is not None:
            if self.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    self.process.send_signal(signal.SIGCONT)
                    self.process.kill()
            self.process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Emulator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        command = self._qemu_command() if self.kind == "qemu" else self._host_command()
        prefix = ["setpriv", "--pdeathsig", "KILL", "--", "nice", "-n", str(self.options.nice)]
        if self.kind == "qemu":
            core = self.options.core if self.options.core is not None else max(os.sched_getaffinity(0))
            prefix += ["taskset", "--cpu-list", str(core)]
        for tool in ("setpriv", "nice", "taskset"):
            if shutil.which(tool) is None:
                raise FirmwareError(f"{tool} is not installed", remedy="apt-get install util-linux coreutils")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*prefix, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C in the terminal must not kill it before the arm has stopped
            )
        self._prefer(self.process.pid)
        self._await_sockets()
        if self.kind == "qemu":
            self._open_qmp()
            self._prefer_input()

    def _prefer(self, pid: int) -> None:
        """Where the kernel weighs sessions against each other (autogroup), a nice level counts only inside its own: the
        session of the emulator needs it too, or any build in another terminal takes half of its core."""
        with contextlib.suppress(OSError):  # no autogroups, or not allowed: then it runs at the priority of its parent
            Path(f"/proc/{pid}/autogroup").write_text(str(self.options.nice), encoding="ascii")

    def _prefer_input(self) -> None:
        """In counted time the thread that moves bytes (the first of the process) goes before the one that is the
        processor, which has started by now: that one never waits there, and with half of a core for each a full wire
        does not keep up. In real time the processor sleeps and gets its turn; put behind, a full slcan line starved it.
        """
        if self.options.icount and self.options.nice < 0:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, self.pid, max(-20, self.options.nice - 10))

    def _qemu_command(self) -> list[str]:
        if shutil.which(QEMU) is None:
            raise FirmwareError(
                f"{QEMU} is not installed", expected="QEMU 7.2 or newer for ARM",
                remedy="apt-get install --no-install-recommends qemu-system-arm, or use the host port",
            )
        command = [
            QEMU, "-M", self.options.machine, "-display", "none", "-nodefaults", "-monitor", "none",
            "-kernel", str(self.firmware),
            "-chardev", f"socket,id=u0,path={self.link_path},server=on,wait=off", "-serial", "chardev:u0",
            "-chardev", f"socket,id=u1,path={self.drive_path},server=on,wait=off", "-serial", "chardev:u1",
            "-qmp", f"unix:{self._qmp_path},server=on,wait=off",
            "-gdb", f"unix:path={self.gdb_path},server=on,wait=off",
        ]
        if self.options.can:
            for name in ("can", "motors"):
                command += ["-chardev", f"pty,id={name}", "-serial", f"chardev:{name}"]
        if self.options.icount:
            command += ["-icount", f"shift={self.options.icount_shift},sleep=off"]
        return [*command, *self.options.extra]

    def _host_command(self) -> list[str]:
        return [str(self.firmware), "--link", str(self.link_path), "--drive", str(self.drive_path)]

    def _await_sockets(self) -> None:
        assert self.process is not None
        wanted = [self.link_path, self.drive_path]
        if self.kind == "qemu":
            wanted += [self._qmp_path, self.gdb_path]
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not all(path.exists() for path in wanted):
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self._log.read_text(errors="replace").strip()[-500:]
                raise LinkError(
                    f"{self.description}: did not come up (exit status {self.process.poll()}): {said or 'no message'}",
                    remedy="run the same command by hand; check that the firmware was built for this machine",
                )
            time.sleep(0.002)

    def _open_qmp(self) -> None:
        transport = socket.socket(socket.AF_UNIX)
        transport.settimeout(_START_TIMEOUT_S)
        transport.connect(str(self._qmp_path))
        while not self._qmp_buffer.endswith(b"\n"):  # greets once the machine has been made
            self._qmp_buffer += self._hear(transport)
        transport.sendall(b'{"execute": "qmp_capabilities"}\n')
        if self.options.can:
            self.can_tty, self.motor_tty = self._terminals(transport)
        transport.setblocking(False)
        self._qmp = transport

    def _hear(self, qmp: socket.socket) -> bytes:
        part = qmp.recv(65536)
        if not part:
            raise LinkError(f"{self.description}: its monitor closed", remedy="see whether QEMU still runs")
        return part

    def _terminals(self, qmp: socket.socket) -> tuple[str, str]:
        """Which pseudo-terminals QEMU has made."""
        qmp.sendall(b'{"execute": "query-chardev", "id": "terminals"}\n')
        received = b""
        while True:
            received += self._hear(qmp)
            *lines, _ = received.split(b"\n")
            for line in lines:
                answer = json.loads(line)
                if answer.get("id") == "terminals":
                    names = {row["label"]: row["filename"].removeprefix("pty:") for row in answer["return"]}
                    return names["can"], names["motors"]
