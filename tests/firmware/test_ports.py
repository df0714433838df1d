"""The ports: the Cortex-M4 firmware in QEMU, and the Linux process. Each hang is injected from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from firmware_bridge.hil.gdb_stub import MASKED_SPIN, OPEN_SPIN, GdbStub
from firmware_bridge.host import messages as m
from firmware_bridge.host.emulator import Kind
from firmware_bridge.host.transport import open_serial
from firmware_bridge.mcu.build import build, build_id
from tests.firmware.board import OUT, Board, unused_ram

MPS2, AST, LM3S = "mps2-an386-realtime", "ast1030-evb-realtime", "lm3s6965evb-realtime"
REALTIME: tuple[tuple[Kind, str], ...] = (
    ("qemu", MPS2), ("qemu", AST), ("qemu", LM3S), ("host", "host"),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "target"), REALTIME)
def test_it_boots_disarmed_and_says_who_it_is(kind: Kind, target: str) -> None:
    with Board(kind, target) as board:
        hello = board.hello()
        assert hello.schema_hash == m.SCHEMA_HASH
        assert hello.build_id == build_id(target)
        assert (hello.boots, hello.reset_cause, hello.fault, hello.state) == (1, 0, 0, m.McuState.DISARMED)
        assert (hello.tick_hz, hello.watchdog_ms) == (1000, 500)
        assert hello.max_knots == (32 if target == LM3S else m.MAX_KNOTS)
        first = board.wait(m.State)
        assert isinstance(first, m.State)
        began = time.monotonic()
        later = first
        while later.tick < first.tick + 1000:  # where ticks are caught up, STATE tells of the newest of them
            found = board.wait(m.State)
            assert isinstance(found, m.State)
            later = found
        # A tick is a millisecond of the MCU's clock; one that a stall of this PC made impossible is skipped.
        skipped_us = later.now_us - first.now_us - (later.tick - first.tick) * 1000
        assert 0 <= skipped_us <= 300_000 and skipped_us % 1000 == 0
        assert 0.8 < time.monotonic() - began < 3.0, "which runs in real time"


@pytest.mark.parametrize(("kind", "target"), REALTIME)
def test_it_runs_a_chunk_over_both_cables(kind: Kind, target: str) -> None:
    with Board(kind, target) as board:
        board.hello()
        board.arm()
        state = board.wait(m.State)
        assert isinstance(state, m.State)
        samples = b"".join((1_000 * k).to_bytes(4, "little") for k in range(16))
        board.accept(m.Chunk(1, (state.now_us + 200_000) & 0xFFFFFFFF, 5000, 16, 1, 0, 0, 20, 0, samples))
        board.wait(m.State, state=m.McuState.STARVED)
        path = [s.setpoint[0] for s in board.setpoints if s.flags & m.SETPOINT_FLAG_ENABLE]
        assert path == sorted(path) and path[0] == 0
        assert 14_900 <= path[-1] <= 15_000


@pytest.mark.parametrize(
    ("target", "code", "place"),
    [
        (MPS2, OPEN_SPIN, True),
        (MPS2, MASKED_SPIN, True),  # its first stage is an NMI
        (LM3S, OPEN_SPIN, True),
        (LM3S, MASKED_SPIN, False),  # its first stage is an interrupt that can be masked: by elimination
        (AST, OPEN_SPIN, False),  # one stage: by elimination
        (AST, MASKED_SPIN, False),
    ],
)
def test_a_hang_is_reset_by_the_watchdog_and_reported(target: str, code: bytes, place: bool) -> None:
    spin_at = unused_ram(target)
    with Board("qemu", target) as board:
        board.hello()
        board.arm()
        assert board.setpoints[-1].flags == m.SETPOINT_FLAG_ENABLE
        armed = board.wait(m.State)
        assert isinstance(armed, m.State)
        board.alive = False
        with GdbStub(board.emulator.gdb_path) as stub:
            stub.hang(spin_at, code)
        hello = board.wait(m.Hello, nonce=0)
        assert isinstance(hello, m.Hello)
        assert (hello.reset_cause, hello.fault, hello.state) == (
            m.ResetCause.WATCHDOG, m.Fault.WATCHDOG, m.McuState.FAULT,
        )  # fmt: skip
        assert hello.boots == 2
        assert hello.reset_tick >= armed.tick, "when it was last well"
        assert "WATCHDOG" in board.emulator.qmp_events()
        if place:
            # With interrupts open the first stage may find one of them on top of the hang, where bytes still come in.
            assert hello.reset_pc - spin_at in (0, 2) or (code == OPEN_SPIN and hello.reset_pc < 0x10000)
            last_word = [s for s in board.setpoints if s.tick == 0]
            assert last_word and last_word[0].flags == 0, "the first stage tells the drive before the reset"
        else:
            assert hello.reset_pc == 0
        board.wait(m.State)
        assert board.setpoints[-1].flags == 0


@pytest.mark.parametrize("target", [MPS2, AST, LM3S])
def test_a_hard_fault_resets_at_once_and_is_reported_with_its_place(target: str) -> None:
    place = unused_ram(target)
    with Board("qemu", target) as board:
        board.hello()
        with GdbStub(board.emulator.gdb_path) as stub:
            stub.hang(place, bytes.fromhex("00de"))  # udf
        hello = board.wait(m.Hello, nonce=0)
        assert isinstance(hello, m.Hello)
        assert (hello.reset_cause, hello.fault) == (m.ResetCause.HARD_FAULT, m.Fault.HARD_FAULT)
        assert hello.reset_pc == place
        assert "WATCHDOG" not in board.emulator.qmp_events()


def test_the_watchdog_that_cannot_be_switched_off_is_not() -> None:
    """The firmware runs wild: it opens the lock, writes 0 to the control register, hangs with interrupts masked."""
    place = unused_ram(LM3S)
    with Board("qemu", LM3S) as board:
        board.hello()
        with GdbStub(board.emulator.gdb_path) as stub:
            # cpsid i; ldr r0, =0x40000000; ldr r1, =key; str.w r1, [r0, #0xC00]; movs r2, #0; str r2, [r0, #8];
            # ldr r3, [r0, #8]; b .
            code = bytes.fromhex("72b6 0348 0449 c0f8001c 0022 8260 8368 fee7 00000040 51e5cc1a".replace(" ", ""))
            stub.hang(place, code)
        hello = board.wait(m.Hello, nonce=0)
        assert isinstance(hello, m.Hello) and hello.reset_cause == m.ResetCause.WATCHDOG


def test_a_stopped_tick_interrupt_is_a_hang_too() -> None:
    """The main loop lives, but 1 kHz is gone: only interrupts of the UART wake it. Feeding must end."""
    place = unused_ram(MPS2)
    with Board("qemu", MPS2) as board:
        board.hello()
        with GdbStub(board.emulator.gdb_path) as stub:
            # push {r0, r1}; ldr r0, =SYST_CSR; mov.w r1, #0; str r1, [r0]; pop {r0, r1}; ldr pc, =where it was
            back = int.from_bytes(bytes.fromhex(stub._ask("pf")), "little") | 1
            code = bytes.fromhex("03b40348 4ff00001 016003bc dff804f0 10e000e0") + back.to_bytes(4, "little")
            stub.hang(place, code)
        hello = board.wait(m.Hello, nonce=0)
        assert isinstance(hello, m.Hello) and hello.reset_cause == m.ResetCause.WATCHDOG


@pytest.mark.parametrize("target", ["mps2-an386-nowfi", "ast1030-evb-nowfi", "lm3s6965evb-nowfi"])
def test_the_shipped_20_ms_watchdog_does_not_bite_in_counted_time_and_does_when_the_firmware_hangs(target: str) -> None:
    spin_at = unused_ram(target)
    with Board("qemu", target, icount=True) as board:
        hello = board.hello(60.0)
        assert (hello.watchdog_ms, hello.boots) == (20, 1)
        tick = 0
        while tick < 200:
            state = board.wait(m.State, 60.0)
            assert isinstance(state, m.State) and state.now_us == state.tick * 1000, "not one tick was lost"
            tick = state.tick
        assert board.emulator.qmp_events() == []
        with GdbStub(board.emulator.gdb_path) as stub:
            stub.hang(spin_at, MASKED_SPIN)
        hello = board.wait(m.Hello, 60.0, nonce=0)
        assert isinstance(hello, m.Hello)
        assert (hello.reset_cause, hello.boots) == (m.ResetCause.WATCHDOG, 2)
        assert hello.reset_pc - spin_at in (0, 2) or not target.startswith("mps2")


def test_the_margin_of_the_watchdog_and_the_stack_are_measured() -> None:
    with Board("qemu", MPS2) as board:
        board.hello()
        board.wait(m.Stats)
        stats = board.wait(m.Stats)
        assert isinstance(stats, m.Stats)
        assert 0 < stats.watchdog_margin_min_us <= 250_000
        assert 4_000 < stats.stack_free_min < 16_384
        assert stats.rx_overrun == 0
        assert 0 < stats.tick_work_max_us < 250_000


def test_the_host_port_is_reset_by_its_watchdog_when_its_loop_hangs() -> None:
    with Board("host", "host") as board:
        board.hello()
        board.arm()
        os.kill(board.emulator.pid, signal.SIGUSR1)
        hello = board.wait(m.Hello, nonce=0)
        assert isinstance(hello, m.Hello)
        assert (hello.reset_cause, hello.state, hello.boots) == (m.ResetCause.WATCHDOG, m.McuState.FAULT, 2)
        assert hello.reset_pc > 0 and hello.reset_tick > 0
        assert next(s for s in board.setpoints if s.tick == 0).flags == 0
        os.kill(board.emulator.pid, signal.SIGHUP)
        hello = board.wait(m.Hello, nonce=0)
        assert isinstance(hello, m.Hello)
        assert (hello.reset_cause, hello.fault, hello.boots) == (m.ResetCause.UNKNOWN, m.Fault.WATCHDOG, 3)


def test_the_host_port_can_be_a_terminal(tmp_path: object) -> None:
    program = build("host", OUT)
    process = subprocess.Popen([str(program), "--link", "pty", "--drive", f"{tmp_path}/u1"], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        name = process.stdout.readline().decode().strip()
        serial = open_serial(name)
        try:
            deadline = time.monotonic() + 10.0
            while not serial.read() and time.monotonic() < deadline:
                serial.wait(0.05)
            assert time.monotonic() < deadline
        finally:
            serial.close()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize("arguments", [[], ["--link", "x"], ["--drive", "x"]])
def test_the_host_port_without_its_cables_says_how_it_is_used(arguments: list[str]) -> None:
    run = subprocess.run([str(build("host", OUT)), *arguments], capture_output=True, text=True, check=False, timeout=10)
    assert run.returncode == 2 and "usage" in run.stderr


def test_a_socket_that_cannot_be_made_is_named() -> None:
    run = subprocess.run(
        [str(build("host", OUT)), "--link", "/nowhere/u0", "--drive", "/nowhere/u1"],
        capture_output=True, text=True, check=False, timeout=10,
    )  # fmt: skip
    assert run.returncode == 2 and "/nowhere/u0" in run.stderr
