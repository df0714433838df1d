"""The emulated microcontrollers start, say what they are, survive a change of hosts, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest

from firmware_bridge.errors import LinkError
from firmware_bridge.host import emulator
from firmware_bridge.host.emulator import Emulator, EmulatorOptions, choose_kind
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import McuState, ResetCause
from firmware_bridge.host.transport import open_serial
from firmware_bridge.mcu.build import build
from tests.link.bench import CLOCK_ERROR_NS, ROOT
from tests.link.fake_mcu import LIMITS

KINDS = ["host", "qemu"]
Kind = Literal["qemu", "host"]


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_which_one_runs_and_answers(kind: Kind, firmware: Path) -> None:
    with Emulator(kind, out=firmware) as mcu:
        link = Link(mcu.open_link(), LIMITS, max_clock_error_ns=CLOCK_ERROR_NS)
        state = link.connect()
        assert state.mcu_state is McuState.DISARMED and state.reset_cause is ResetCause.POWER_ON
        assert ("QEMU mps2-an386" in mcu.description) == (kind == "qemu")
        assert ("QEMU is not used" in mcu.description) == (kind == "host")
        link.close()


@pytest.mark.parametrize("kind", KINDS)
def test_hosts_may_come_and_go(kind: Kind, firmware: Path) -> None:
    sessions = set()
    with Emulator(kind, out=firmware) as mcu:
        for _ in range(10):
            link = Link(mcu.open_link(), LIMITS, max_clock_error_ns=CLOCK_ERROR_NS)
            sessions.add(link.connect().session)
            link.close()
    assert len(sessions) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_closing_leaves_neither_process_nor_files(kind: Kind, firmware: Path) -> None:
    mcu = Emulator(kind, out=firmware)
    pid, folder = mcu.pid, mcu.link_path.parent
    assert mcu.alive and folder.is_dir()
    mcu.send_signal(signal.SIGSTOP)  # even a frozen one goes
    mcu.close()
    mcu.close()
    assert not mcu.alive and not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_it_dies_with_a_parent_that_was_killed(kind: Kind, firmware: Path) -> None:
    script = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from firmware_bridge.host.emulator import Emulator\n"
        "mcu = Emulator(sys.argv[1], out=Path(sys.argv[2]))\n"
        "print(mcu.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, kind, str(firmware)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 60.0  # a machine's patience, not a claim
    while _runs(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_firmware_that_is_none_is_refused_with_what_the_emulator_said(
    firmware: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such board >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(emulator, "build", lambda *_: broken)
    with pytest.raises(LinkError, match=r"exit status 3.*no such board"):
        Emulator("host", out=firmware)


def test_the_host_port_is_chosen_where_qemu_or_its_compiler_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"qemu-system-arm": "/usr/bin/q", "arm-none-eabi-gcc": "/usr/bin/g"}
    monkeypatch.setattr(emulator.shutil, "which", here.get)
    assert choose_kind() == "qemu"
    for missing in tuple(here):
        monkeypatch.setattr(emulator.shutil, "which", {k: v for k, v in here.items() if k != missing}.get)
        assert choose_kind() == "host"


def test_the_link_works_over_a_terminal(firmware: Path, tmp_path: Path) -> None:
    port = subprocess.Popen(
        [str(build("host", firmware)), "--link", "pty", "--drive", str(tmp_path / "u1")],
        stdout=subprocess.PIPE, text=True,
    )
    try:
        assert port.stdout is not None
        link = Link(open_serial(port.stdout.readline().strip()), LIMITS, max_clock_error_ns=CLOCK_ERROR_NS)
        link.connect()
        link.configure()
        assert link.state.mcu_state is McuState.CONFIGURED
        link.close()
    finally:
        port.kill()
        port.wait()
        if port.stdout is not None:
            port.stdout.close()


def test_with_counted_instructions_no_tick_is_lost_and_the_shipped_watchdog_does_not_bite(firmware: Path) -> None:
    options = EmulatorOptions(target="mps2-an386-nowfi", icount=True)
    with Emulator("qemu", options, out=firmware) as mcu:
        # Guest time runs slower than the wall clock here, so its own reports are the clock.
        latest = [1_000_000_000]
        link = Link(mcu.open_link(), LIMITS, clock=lambda: latest[0], max_clock_error_ns=10**9)
        link._talk.ask_hello()
        deadline = time.monotonic() + 60.0
        while (link._stats is None or link._stats.ticks < 1000) and time.monotonic() < deadline:
            link.poll()
            latest[0] = max(latest[0], 1_000_000_000 + link._report_us * 1000)
            time.sleep(0.01)
        stats = link._stats
        assert stats is not None and stats.ticks >= 1000
        assert stats.late_ticks == 0
        assert mcu.qmp_events().count("WATCHDOG") == 0
        assert "instruction-counted" in mcu.description
        link.close()


def test_the_thread_that_moves_the_bytes_goes_before_the_one_that_is_the_processor(firmware: Path) -> None:
    with Emulator("qemu", EmulatorOptions(target="mps2-an386-nowfi", icount=True), out=firmware) as mcu:
        nice = {int(task.name): os.getpriority(os.PRIO_PROCESS, int(task.name))
                for task in Path(f"/proc/{mcu.pid}/task").iterdir()}  # fmt: skip
        moves = nice.pop(mcu.pid)
        before = os.getpriority(os.PRIO_PROCESS, 0)
        assert len(nice) >= 2
        # Nobody may raise a priority without permission; with it both are raised, one of them more.
        processor = min(nice.values())
        assert moves < processor or moves == -20 if processor < before else moves == processor


def test_its_priority_is_left_alone_where_none_is_asked_for(firmware: Path) -> None:
    with Emulator("qemu", EmulatorOptions(target="mps2-an386-nowfi", icount=True, nice=0), out=firmware) as mcu:
        tasks = [int(task.name) for task in Path(f"/proc/{mcu.pid}/task").iterdir()]
        assert {os.getpriority(os.PRIO_PROCESS, task) for task in tasks} == {os.getpriority(os.PRIO_PROCESS, 0)}
