"""Faults inside of an emulated Cortex-M, made through its debugger: hang, interrupt storm, stack overflow, reset times.

The firmware needs no hook. Times are stamped by the guest itself from its free-running counter, so they are the
microcontroller's, to 40 ns, whatever the PC does. For the emulated board MPS2 AN386.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.hil.gdb_stub import PC, SPIN, GdbStub

FREE_RAM = 0x2030_0000
"""In the board's 4 MB of RAM, far from the firmware's data and stack; a reset leaves it alone."""
_STORM, _PUSHER, _STAMPER = FREE_RAM + 0x40, FREE_RAM + 0x80, FREE_RAM + 0xC0
_HUNG_AT, _DYING_AT, _BEGAN_AT = FREE_RAM + 0x100, FREE_RAM + 0x104, FREE_RAM + 0x108
"""Where the counter is stamped by what hangs, and between the watchdog's first stage and the reset."""
_CYCLES_PER_MS = 25_000
_TIMER = 0x4000_2004
"""Dual timer 1 at the processor's 25 MHz, counting down, free running."""
_WATCHDOG_LOAD, _WATCHDOG_VALUE = 0x4000_8000, 0x4000_8004
_RECEIVE_VECTOR = 4 * 16
"""Of UART 0's receive interrupt, the first of the board."""
_STORM_TURNS = 20_000
"""Of the storm's handler: 640 us of counted time, some ms under an emulator in real time."""
_SPIN_STAMPING = bytes.fromhex("01681160fce7")
"""``1: ldr r1, [r0]; str r1, [r2]; b 1b``"""
_MASK = bytes.fromhex("72b6")
"""``cpsid i``"""
_OPEN = bytes.fromhex("62b6")
"""``cpsie i``: the loop may have been halted asleep, which it does with interrupts masked."""
_PUSH_UNTIL_R8 = bytes.fromhex("ffb4c545fcd8") + SPIN
"""``1: push {r0-r7}; cmp sp, r8; bhi 1b; b .``"""
_STORM_CODE = bytes.fromhex("054a0648064b916809b90168916001681160013bfbd17047")
"""A handler that stamps the counter for a while and leaves the cause of its interrupt as it is. Its literals follow it:
``ldr r2, =stamp; ldr r0, =timer; ldr r3, =turns; ldr r1, [r2, #8]; cbnz r1, 1f; ldr r1, [r0]; str r1, [r2, #8];
1: ldr r1, [r0]; str r1, [r2]; subs r3, #1; bne 1b; bx lr``: the first stamp of all is kept apart."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The counter when the guest was interfered with, and what the watchdog had left to its first stage."""

    timer: int
    since_feed_cycles: int

    @property
    def now_us(self) -> int:
        """The MCU's own clock then; right for the first 171 s after a boot."""
        return (~self.timer & 0xFFFFFFFF) * 1000 // _CYCLES_PER_MS

    def ms_until(self, timer: int) -> float:
        """From this moment to a later reading of the counter."""
        return ((self.timer - timer) & 0xFFFFFFFF) / _CYCLES_PER_MS

    def ms_since_feed(self, timer: int) -> float:
        """Time from the last feed of the watchdog to a later reading of the counter."""
        return (self.since_feed_cycles + ((self.timer - timer) & 0xFFFFFFFF)) / _CYCLES_PER_MS


def symbols(elf: Path) -> dict[str, tuple[int, int]]:
    """Name -> (address, size) of a firmware image.

    Raises:
        FirmwareError: the tool is missing.
    """
    try:
        listing = subprocess.run(
            ["arm-none-eabi-nm", "--print-size", str(elf)], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise FirmwareError(
            f"arm-none-eabi-nm {elf}: {error}", remedy="apt-get install binutils-arm-none-eabi"
        ) from error
    out = {}
    for line in listing.splitlines():
        words = line.split()
        if len(words) in (3, 4):
            out[words[-1]] = (int(words[0], 16), int(words[1], 16) if len(words) == 4 else 0)
    return out


def _moment(gdb: GdbStub) -> Moment:
    timer = gdb.read_word(_TIMER)
    return Moment(timer, gdb.read_word(_WATCHDOG_LOAD) - gdb.read_word(_WATCHDOG_VALUE))


def spare_ram(elf: Path) -> int:
    """An address between the firmware's data and its stack, on any board: nothing overwrites what is put there."""
    return (symbols(elf)["_bss_end"][0] + 255) & ~255


def hang(gdb: GdbStub, *, masked: bool = False) -> Moment:
    """The processor spins from now on, with its interrupts masked or not, and stamps the counter as it does."""
    moment = _moment(gdb)
    gdb.set_register(0, _TIMER)
    gdb.set_register(2, _HUNG_AT)
    gdb.hang(FREE_RAM, (_MASK if masked else _OPEN) + _SPIN_STAMPING)
    return moment


def interrupt_storm(gdb: GdbStub) -> Moment:
    """From the next byte of the host on the receive interrupt is never acknowledged: it is taken again and again, and
    the main loop hardly runs any more."""
    moment = _moment(gdb)
    literals = (_HUNG_AT, _TIMER, _STORM_TURNS)
    gdb.write_memory(_STORM, _STORM_CODE + b"".join(value.to_bytes(4, "little") for value in literals))
    gdb.write_word(_BEGAN_AT, 0)
    gdb.write_word(_RECEIVE_VECTOR, _STORM | 1)
    return moment


def stack_overflow(gdb: GdbStub, elf: Path) -> Moment:
    """Really pushes frames until the stack pointer is 64 bytes beyond the stack's limit, then pops them again."""
    limit = symbols(elf)["_stack_limit"][0]
    moment = _moment(gdb)
    registers = gdb.registers()
    gdb.write_memory(_PUSHER, _PUSH_UNTIL_R8)
    gdb.set_register(8, limit - 64)
    gdb.set_pc(_PUSHER)
    gdb.run_to(_PUSHER + len(_PUSH_UNTIL_R8) - len(SPIN))
    gdb.set_registers(registers)
    return moment


def watch_the_end(gdb: GdbStub, elf: Path) -> None:
    """Runs until the firmware has said its last words in the watchdog's first stage, and has the endless loop that
    follows them stamp the counter until the reset."""
    names = symbols(elf)
    address, size = names["last_words_watchdog"]
    body = gdb.read_memory(address & ~1, size)
    spins = [at for at in range(0, len(body) - 1, 2) if body[at : at + 2] == SPIN]
    if not spins:
        raise FirmwareError("last_words_watchdog does not end in a spin", remedy="read its disassembly")
    gdb.run_to((address & ~1) + spins[-1])
    gdb.write_memory(_STAMPER, _SPIN_STAMPING)
    gdb.set_register(0, _TIMER)
    gdb.set_register(2, _DYING_AT)
    gdb.set_register(PC, _STAMPER)


def times_ms(gdb: GdbStub, moment: Moment, kind: str) -> dict[str, float]:
    """After the reset: what the stamps say, to the last instruction before it. From the last feed of the watchdog where
    the fault ended all feeding at once; from the injection (of a storm: its first interrupt)."""
    dying = gdb.read_word(_DYING_AT)
    if kind == "interrupt_storm":
        began = Moment(gdb.read_word(_BEGAN_AT), 0)
        return {
            "injection -> early_warning": began.ms_until(gdb.read_word(_HUNG_AT)),
            "injection -> reset": began.ms_until(dying),
        }
    out = {"injection -> reset": moment.ms_until(dying)}
    if kind != "stack_overflow":  # after which the firmware may still feed once
        out["last_feed -> reset"] = moment.ms_since_feed(dying)
        out["last_feed -> early_warning"] = moment.ms_since_feed(gdb.read_word(_HUNG_AT))
    return out
