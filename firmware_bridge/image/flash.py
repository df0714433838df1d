"""Puts a signed image, or a bootloader, into a board: with OpenOCD over its debug probe, or with dfu-util over USB.

Nothing is written that the board's bootloader would refuse: the image is judged here first, against the version floor
that is read from the board.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from firmware_bridge.errors import FirmwareError
from firmware_bridge.image import lms
from firmware_bridge.image.image import SLOTS, Board, Verdict, judge, read_floor

Tool = Literal["openocd", "dfu"]
PROGRAMS: dict[Tool, str] = {"openocd": "openocd", "dfu": "dfu-util"}
_BOOTLOADER_AT, _BOOTLOADER_BYTES = 0x0800_0000, 28 << 10
_FLOOR_AT, _FLOOR_BYTES = 0x0800_7000, 4096
_TIMEOUT_S = 120.0

REMEDIES: dict[Verdict, str] = {
    Verdict.EMPTY: "sign it first: edge-wam firmware sign",
    Verdict.HEADER: "sign it again with this release",
    Verdict.LENGTH: "the file is cut short, or too long for the slot: copy or build it again",
    Verdict.BOARD: "sign the build of this board",
    Verdict.HASH: "the file is damaged: copy or build it again",
    Verdict.FLOOR: "this board has accepted an image that forbids older ones: sign a newer version",
    Verdict.SIGNATURE: "name the public key of who signed it with --trust, and flash a bootloader that trusts it",
    Verdict.NO_KEY: "name the public key that the board's bootloader trusts with --trust",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be run, in order. ``read_floor`` is empty where no floor is needed (a bootloader)."""

    read_floor: tuple[str, ...]
    write: tuple[str, ...]

    def lines(self) -> list[str]:
        """The commands as a shell takes them."""
        return [shlex.join(command) for command in (self.read_floor, self.write) if command]


def plan(file: Path, tool: Tool, floor_file: Path, *, bootloader: bool = False) -> Plan:
    """The commands that flash a file into the STM32G474.

    Args:
        file: the signed image, or the bootloader as bytes.
        floor_file: where the board's version floor is read to.
    """
    at = _BOOTLOADER_AT if bootloader else SLOTS[Board.STM32G474][0]
    read: tuple[str, ...]
    write: tuple[str, ...]
    if tool == "openocd":
        probe = ("openocd", "-f", "interface/stlink.cfg", "-f", "target/stm32g4x.cfg")
        read = (*probe, "-c", f"init; reset halt; dump_image {{{floor_file}}} {_FLOOR_AT:#x} {_FLOOR_BYTES}; exit")
        write = (*probe, "-c", f"program {{{file}}} {at:#x} verify reset exit")
    else:
        usb = ("dfu-util", "--alt", "0", "--device", "0483:df11")
        read = (*usb, "--dfuse-address", f"{_FLOOR_AT:#x}:{_FLOOR_BYTES}", "--upload", str(floor_file))
        write = (*usb, "--dfuse-address", f"{at:#x}:leave", "--download", str(file))
    return Plan(() if bootloader else read, write)


def check(data: bytes, floor: tuple[int, int, int], trusted: Sequence[lms.PublicKey]) -> None:
    """Raises FirmwareError: the bootloader would refuse this image; says why and what to do."""
    verdict = judge(data, Board.STM32G474, floor, trusted)
    if verdict is not Verdict.GOOD:
        raise FirmwareError(
            f"the bootloader would refuse this image: {verdict.name}",
            expected=f"a signed image for stm32g474, not older than {'.'.join(map(str, floor))}",
            remedy=REMEDIES[verdict],
        )


def _run(command: tuple[str, ...]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise FirmwareError(f"{command[0]} did not end in {_TIMEOUT_S:.0f} s", remedy="reconnect the board") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise FirmwareError(
            f"{command[0]} ended with {done.returncode}: {said}",
            remedy="check the cable; for DFU hold BOOT0 while the board is reset",
        )


def flash(
    file: Path, tool: Tool, trusted: Sequence[lms.PublicKey], *, bootloader: bool = False,
    floor: tuple[int, int, int] = (0, 0, 0), really: bool = False, tell: Callable[[str], None] = lambda line: None,
) -> Plan:  # fmt: skip
    """Judge a file, tell what will be run, and run it if that is really wanted.

    Args:
        trusted: public keys that the board's bootloader trusts.
        floor: version floor that the board is known to have at least.
        really: run; else nothing is touched.
        tell: called with each command before it is run, or instead.

    Raises:
        FirmwareError: the image would be refused, a tool is missing, or it failed.
    """
    data = file.read_bytes()
    if bootloader:
        if not 512 <= len(data) <= _BOOTLOADER_BYTES or data[:4] == b"EWFW":
            raise FirmwareError(f"{file} is no bootloader ({len(data)} bytes)", expected="at most 28 KB, unsigned")
    else:
        check(data, floor, trusted)
    program = PROGRAMS[tool]
    if really and shutil.which(program) is None:
        raise FirmwareError(f"{program} is not installed", remedy=f"apt-get install --no-install-recommends {program}")
    with tempfile.TemporaryDirectory() as folder:
        floor_file = Path(folder) / "floor.bin"
        steps = plan(file.resolve(), tool, floor_file, bootloader=bootloader)
        if steps.read_floor:
            tell(shlex.join(steps.read_floor))
            if really:
                _run(steps.read_floor)
                check(data, max(floor, read_floor(floor_file.read_bytes()[:_FLOOR_BYTES])), trusted)
        tell(shlex.join(steps.write))
        if really:
            _run(steps.write)
    return steps
