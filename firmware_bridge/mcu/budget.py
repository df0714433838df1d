"""What a firmware needs of its part: flash, RAM, and the deepest stack that any path through it can reach.

``python -m firmware_bridge.mcu.budget [TARGET ...]`` prints the table and fails where a budget is broken.

The stack is worked out from the linked program: the frame of each function from the compiler (``-fstack-usage``; of
the compiler's own library from its first instructions), who calls whom from the disassembly. A call through a pointer
must be in the table below, or the program is refused; so is recursion. On the deepest path of the main loop every
interrupt priority may lie once, with its exception frame.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.mcu.build import DEFAULT_OUT, build, stack_report
from firmware_bridge.mcu.targets import TARGETS

EXCEPTION_FRAME = 32 + 4
"""Bytes that the processor stacks: eight words (no float unit in use) and up to one for alignment. ARMv7-M, B1.5.7."""

POINTERS: dict[str, tuple[str, ...]] = {
    "ew_drive_flaw": ("flaw",), "ew_drives_unfit": ("carries", "distinct"), "ew_drives_bind": ("plan",),
    "ew_drives_tick": ("tick",),
    "boot_jump": (),  # the bootloader's last instruction: the program has a stack of its own
}  # fmt: skip
"""Who calls through a pointer, and what it may be: the members of ew_driver_t, which are static functions of one
name in three files. Functions of one name count as one that calls what any of them calls and has the largest frame."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What a target may use, in bytes, and its interrupt handlers by priority, one tuple a level."""

    flash: int
    ram: int
    stack: int
    interrupts: tuple[tuple[str, ...], ...]


_EMULATED = (("SysTick_Handler", "Uart0_Handler", "Uart1_Handler"), ("Nmi_Handler", "HardFault_Handler"))
BUDGETS: dict[str, Budget] = {
    "mps2-an386": Budget(64 << 10, 72 << 10, 6 << 10, _EMULATED),
    "ast1030-evb": Budget(64 << 10, 72 << 10, 6 << 10, _EMULATED),
    "lm3s6965evb": Budget(
        64 << 10, 56 << 10, 6 << 10,
        (("Timer0_Handler",), ("Uart0_Handler", "Uart1_Handler"), ("Watchdog_Handler",), ("HardFault_Handler",)),
    ),
    "stm32g474": Budget(
        96 << 10, 80 << 10, 6 << 10,
        (("SysTick_Handler",),
         ("Usart1_Handler", "Usart3_Handler", "Fdcan1_Handler", "Fdcan2_Handler"), ("Usart2_Handler",),
         ("Pvd_Handler",), ("Wwdg_Handler",), ("Clock_Handler", "HardFault_Handler")),
    ),
    "stm32g474-usb": Budget(
        96 << 10, 80 << 10, 6 << 10,
        (("SysTick_Handler",),
         ("Usart1_Handler", "Usart3_Handler", "Fdcan1_Handler", "Fdcan2_Handler", "Usb_Handler"),
         ("Pvd_Handler",), ("Wwdg_Handler",), ("Clock_Handler", "HardFault_Handler")),
    ),
    "stm32g474-boot": Budget(28 << 10, 2 << 10, 4 << 10, (("boot_nmi",), ("boot_fault",))),
    "mps2-an386-boot": Budget(28 << 10, 2 << 10, 4 << 10, (("boot_nmi",), ("boot_fault",))),
}  # fmt: skip
"""Each well below its part: stack 6 of the 8 KB reserved (bootloader 4 of 6), RAM without the stack."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a target uses, in bytes. ``path`` is the deepest chain of calls from ``main``."""

    target: str
    flash: int
    ram: int
    stack: int
    path: tuple[str, ...]

    def broken(self) -> list[str]:
        """The budgets that it breaks."""
        budget = BUDGETS[self.target]
        return [
            f"{self.target}: {what} {used} of {allowed} bytes"
            for what, used, allowed in (
                ("flash", self.flash, budget.flash), ("RAM", self.ram, budget.ram), ("stack", self.stack, budget.stack),
            )
            if used > allowed
        ]  # fmt: skip


_FUNCTION = re.compile(r"^([0-9a-f]+) <([^>]+)>:$")
_VENEER = re.compile(r"^__(.+)_veneer$")  # the linker's, between memories too far apart for a call
_CALL = re.compile(r"\t(?:b|bl|b\w\w)(?:\.[nw])?\t([0-9a-f]+) <[^>+]+>")
_COMPARE = re.compile(r"\tcbn?z\t\w+, ([0-9a-f]+) <[^>+]+>")
_POINTER = re.compile(r"\t(?:blx\t\w+|bx\t(?!lr\b)\w+)")
_SAVE = re.compile(r"\t(?:push|stmdb\tsp!,|stmfd\tsp!,)\W*\{([^}]*)\}")
_SAVE_ONE = re.compile(r"\tstr(?:\.w)?\t\w+, \[sp, #-(\d+)\]!")
_MAKE_ROOM = re.compile(r"\tsub(?:w|\.w)?\tsp,(?: sp,)? ?#(\d+)")


def _registers(names: str) -> int:
    """How many registers a list like ``r4-r7, lr`` names."""
    count = 0
    for part in names.split(","):
        first, _, last = part.strip().partition("-")
        number = {"sl": 10, "fp": 11, "ip": 12, "sp": 13, "lr": 14, "pc": 15}
        ends = [number.get(name) or int(name[1:]) for name in (first, last or first)]
        count += ends[1] - ends[0] + 1
    return count


@dataclass(slots=True)
class _Function:
    """One function of the linked program."""

    frame: int
    calls: set[str]


def _disassemble(elf: Path) -> dict[str, _Function]:
    run = subprocess.run(
        ["arm-none-eabi-objdump", "-d", "--no-show-raw-insn", str(elf)], capture_output=True, text=True, check=True
    )
    functions: dict[str, _Function] = {}
    name = ""
    lines = run.stdout.splitlines()
    # By address: a number of the linker script (a size) may be that of an instruction, and then gives it its name.
    begins = {int(start[1], 16): start[2] for start in map(_FUNCTION.match, lines) if start}
    for line in lines:
        if start := _FUNCTION.match(line):
            name = start[2]
            veneer = _VENEER.match(name)
            functions.setdefault(name, _Function(0, {veneer[1]} if veneer else set()))
        elif name:
            here = functions[name]
            if call := _CALL.search(line) or _COMPARE.search(line):
                callee = begins.get(int(call[1], 16), name)
                if callee != name or "\tbl\t" in line:
                    here.calls.add(callee)
            elif _POINTER.search(line):
                here.calls.update(_pointed_at(name))
            elif save := _SAVE.search(line):
                here.frame += 4 * _registers(save[1])
            elif room := _SAVE_ONE.search(line) or _MAKE_ROOM.search(line):
                here.frame += int(room[1])
    return functions


def _pointed_at(caller: str) -> Iterable[str]:
    base = caller.partition(".")[0]
    if base not in POINTERS:
        raise FirmwareError(
            f"{caller} calls through a pointer", expected="a direct call",
            remedy="add it to POINTERS in firmware_bridge/mcu/budget.py with everything that it may call",
        )  # fmt: skip
    return POINTERS[base]


def _compiler_frames(report: str) -> dict[str, int]:
    """Bytes of stack of each function, from the lines of ``-fstack-usage``."""
    frames: dict[str, int] = {}
    for line in report.splitlines():
        where, size, kind = line.split("\t")
        if "dynamic" in kind and "bounded" not in kind:
            raise FirmwareError(f"{where}: the size of its stack frame is not known", expected="a static frame")
        name = where.rpartition(":")[2]
        frames[name] = max(frames.get(name, 0), int(size))
    return frames


def stack(elf: Path, report: str, interrupts: tuple[tuple[str, ...], ...]) -> tuple[int, tuple[str, ...]]:
    """Worst stack of a linked program in bytes, and the path from ``main`` that needs it.

    Args:
        elf: the program.
        report: what ``-fstack-usage`` wrote when it was compiled.
        interrupts: handlers by priority, one tuple a level.

    Raises:
        FirmwareError: recursion; a call through a pointer that is not listed; a frame of unknown size.
    """
    functions = _disassemble(elf)
    for name, size in _compiler_frames(report).items():
        if name in functions:
            functions[name].frame = size
    worst, path = _deepest(functions, "main")
    worst += functions["Reset_Handler"].frame
    for level in interrupts:
        worst += EXCEPTION_FRAME + max(_deepest(functions, handler)[0] for handler in level)
    return worst, path


def _deepest(functions: dict[str, _Function], root: str) -> tuple[int, tuple[str, ...]]:
    """Bytes and path of the deepest chain of calls.

    Raises:
        FirmwareError: something calls itself, directly or not.
    """
    open_calls: list[str] = []

    @cache
    def depth(name: str) -> tuple[int, tuple[str, ...]]:
        if name not in functions:
            raise FirmwareError(f"{name} may be called through a pointer, but no function has this name")
        if name in open_calls:
            loop = " -> ".join([*open_calls[open_calls.index(name) :], name])
            raise FirmwareError(f"recursion: {loop}", expected="a bounded stack", remedy="write it as a loop")
        open_calls.append(name)
        function = functions[name]
        below = max((depth(callee) for callee in function.calls), default=(0, ()))
        open_calls.pop()
        return function.frame + below[0], (name, *below[1])

    return depth(root)


def usage(target: str, out: Path = DEFAULT_OUT) -> Usage:
    """Builds a target if needed and works out what it uses.

    Raises:
        FirmwareError: as ``build``; the target has no budget; recursion; a call through a pointer that is not listed.
    """
    if target not in BUDGETS:
        raise FirmwareError(f"firmware target {target!r} has no budget", expected=" | ".join(BUDGETS))
    for tool in ("arm-none-eabi-objdump", "arm-none-eabi-size"):
        if shutil.which(tool) is None:
            raise FirmwareError(f"{tool} is not installed", remedy="apt-get install binutils-arm-none-eabi")
    elf = build(target, out)
    worst, path = stack(elf, stack_report(target, out).read_text(), BUDGETS[target].interrupts)
    sizes = subprocess.run(["arm-none-eabi-size", str(elf)], capture_output=True, text=True, check=True).stdout
    text, data, bss = (int(word) for word in sizes.splitlines()[1].split()[:3])
    return Usage(target, text + data, data + bss, worst, path)


def main(arguments: list[str]) -> int:
    """Print the table; 1 where a budget is broken, 2 where it cannot be worked out."""
    broken: list[str] = []
    print(f"{'target':14}{'flash':>16}{'RAM':>16}{'worst stack':>16}  (bytes, used / budget)")
    try:
        for name in arguments or [name for name in TARGETS if name in BUDGETS]:
            used, allowed = usage(name), BUDGETS[name]
            columns = [f"{a} / {b}" for a, b in
                       ((used.flash, allowed.flash), (used.ram, allowed.ram), (used.stack, allowed.stack))]  # fmt: skip
            print(f"{name:14}" + "".join(f"{column:>16}" for column in columns))
            print(f"{'':14}{' > '.join(used.path)}")
            broken += used.broken()
    except FirmwareError as error:
        print(error, file=sys.stderr)
        return 2
    for line in broken:
        print(line, file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
