"""Counts instructions between two places of a firmware image, with a plugin that is compiled for the installed QEMU."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.emulator import QEMU
from firmware_bridge.mcu.profile.cycles import U32, Instruction, listing

SOURCE = Path(__file__).parent / "windows.c"
OBJDUMP = "arm-none-eabi-objdump"
INTERRUPTS = "interrupts"
"""What is counted outside of every window: each interrupt, from its handler's first instruction to its return."""
_HANDLER, _NOT_AN_INTERRUPT = "_Handler", "Reset_Handler"


@dataclass(frozen=True, slots=True)
class Window:
    """From the first instruction of ``start`` until it has returned; with ``again``, until it begins again."""

    name: str
    start: str
    again: bool = False


@dataclass(frozen=True, slots=True)
class Counted:
    """Lengths of all stretches of a window, in instructions, and the program counters of the longest."""

    lengths: U32
    longest: U32


def _fast_section(image: Path) -> range:
    """Addresses of the code that is copied to memory without wait states; empty where there is none."""
    run = subprocess.run([OBJDUMP, "-h", str(image)], capture_output=True, text=True, check=True)
    found = re.search(r"^ *\d+ \.fast +(\w+) +(\w+) ", run.stdout, re.MULTILINE)
    return range(int(found[2], 16), int(found[2], 16) + int(found[1], 16)) if found else range(0)


def disassemble(image: Path) -> dict[int, Instruction]:
    """The image's instructions by address.

    Raises:
        FirmwareError: binutils for ARM are not installed.
    """
    if shutil.which(OBJDUMP) is None:
        raise FirmwareError(f"{OBJDUMP} is not installed", remedy="apt-get install binutils-arm-none-eabi")
    run = subprocess.run([OBJDUMP, "-d", str(image)], capture_output=True, text=True, check=True)
    return listing(run.stdout, _fast_section(image))


def build_plugin(folder: Path) -> Path:
    """The plugin, compiled into ``folder``.

    Raises:
        FirmwareError: no compiler or no QEMU.
    """
    for tool in (QEMU, "cc"):
        if shutil.which(tool) is None:
            raise FirmwareError(f"{tool} is not installed", remedy="apt-get install qemu-system-arm gcc libc6-dev")
    said = subprocess.run([QEMU, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)", said)
    # The interface that is used here has not changed; QEMU 9 only refuses plugins that name the first version.
    api = 1 if found is None or int(found[1]) < 9 else 2
    path = folder / "windows.so"
    subprocess.run(
        ["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC",
         f"-DAPI_VERSION={api}", str(SOURCE), "-o", str(path)],
        check=True,
    )  # fmt: skip
    return path


def plugin_argument(plugin: Path, out: Path, windows: tuple[Window, ...], code: dict[int, Instruction]) -> str:
    """What ``-plugin`` wants.

    Raises:
        FirmwareError: the image has no such function, or nothing calls it.
    """
    parts = [str(plugin), f"out={out}"]
    for window in windows:
        start = next((i.address for i in code.values() if i.function == window.start), None)
        ends = [start] if window.again else _returns(window.start, code)
        if start is None or not ends:
            raise FirmwareError(f"the image has no call of {window.start}", remedy="report it with the build id")
        addresses = [f"{address:x}" for address in (start, *ends) if address is not None]
        parts.append(":".join([f"window={window.name}", *addresses]))
    return ",".join([*parts, *(f"handler={address:x}" for address in _handlers(code))])


def _handlers(code: dict[int, Instruction]) -> list[int]:
    """Where the interrupt handlers of the image begin."""
    begins: dict[str, int] = {}
    for row in code.values():
        begins.setdefault(row.function, row.address)
    return [at for name, at in begins.items() if name.endswith(_HANDLER) and name != _NOT_AN_INTERRUPT]


def _returns(function: str, code: dict[int, Instruction]) -> list[int]:
    """The instructions behind every call of a function."""
    names = (f"<{function}>", f"<__{function}_veneer>")
    return [i.address + i.size for i in code.values() if i.mnemonic == "bl" and i.operands.endswith(names)]


def read_counts(out: Path, windows: tuple[Window, ...]) -> dict[str, Counted]:
    """What the plugin wrote when QEMU ended: every window, and ``INTERRUPTS``.

    Raises:
        FirmwareError: it wrote nothing: QEMU was killed.
    """
    if not out.exists():
        raise FirmwareError(f"{out} was not written", expected="an emulator that ended by itself")
    words = np.fromfile(out, np.uint32)
    found: dict[str, Counted] = {}
    at = 0
    for name in (*(window.name for window in windows), INTERRUPTS):
        parts = []
        for _ in range(2):
            count = int(words[at])
            parts.append(words[at + 1 : at + 1 + count])
            at += 1 + count
        found[name] = Counted(*parts)
    return found
