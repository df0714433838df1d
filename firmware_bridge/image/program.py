"""From a build to an image: the bytes of a program as they lie in flash, and a bootloader that trusts given keys."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.messages import SCHEMA_HASH
from firmware_bridge.image import image, lms
from firmware_bridge.mcu.build import DEFAULT_OUT, build, build_id
from firmware_bridge.mcu.targets import TARGETS

SIGNABLE = tuple(name for name, target in TARGETS.items() if target.board and target.core)
BOOTLOADERS = tuple(name for name, target in TARGETS.items() if target.board and not target.core)


def flash_bytes(elf: Path) -> bytes:
    """What goes into flash of a linked program.

    Raises:
        FirmwareError: objcopy is missing.
    """
    tool = "arm-none-eabi-objcopy"
    if shutil.which(tool) is None:
        raise FirmwareError(f"{tool} is not installed", remedy="apt-get install binutils-arm-none-eabi")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        subprocess.run([tool, "-O", "binary", str(elf), str(raw)], check=True)
        return raw.read_bytes()


def trust_flags(trusted: Sequence[lms.PublicKey]) -> tuple[str, ...]:
    """Compiler flags that give a bootloader the keys it trusts; none: it starts nothing."""
    if not trusted:
        return ()
    rows = ",".join("{" + ",".join(str(byte) for byte in key.pack()) + "}" for key in trusted)
    return f"-DEW_BOOT_KEYS={{{rows}}}", f"-DEW_BOOT_KEY_COUNT={len(trusted)}u"


def sign_target(
    target: str, version: tuple[int, int, int], floor: tuple[int, int, int], key: Path, out: Path = DEFAULT_OUT
) -> bytes:
    """Builds a target and signs it.

    Raises:
        FirmwareError: the target is not one that a bootloader starts; else as ``build`` and ``image.make``.
    """
    if target not in SIGNABLE:
        raise FirmwareError(f"firmware target {target!r} is not signed", expected=" | ".join(SIGNABLE))
    program = flash_bytes(build(target, out))
    board = image.Board(TARGETS[target].board)
    return image.make(
        program, board, version, floor, key, build_id=build_id(target), schema_hash=SCHEMA_HASH
    )  # fmt: skip
