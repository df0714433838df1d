"""The image that a bootloader accepts: header, program, signature. The layout is that of ``mcu/boot/verify.h``."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.image import keys, lms

MAGIC = 0x57465745
HEADER_BYTES = 512
SIGNED_BYTES = 128
SMALLEST_BYTES = 512
_HEAD = struct.Struct("<IHHIIIIIIII32s56x")
assert _HEAD.size == SIGNED_BYTES


class Board(IntEnum):
    """Numbers of the boards; never used again for another."""

    STM32G474 = 1
    MPS2_AN386 = 2


SLOTS: dict[Board, tuple[int, int]] = {
    Board.STM32G474: (0x0800_8000, 480 << 10), Board.MPS2_AN386: (0x0010_0000, 480 << 10),
}  # fmt: skip
"""Address and bytes of the slot of a board."""


class Verdict(IntEnum):
    """What the bootloader says, in the order of its checks (``verdict_t``)."""

    GOOD = 0
    EMPTY = 1
    HEADER = 2
    LENGTH = 3
    BOARD = 4
    HASH = 5
    FLOOR = 6
    SIGNATURE = 7
    NO_KEY = 8


@dataclass(frozen=True, slots=True)
class Image:
    """What a header says. Versions are (major, minor, patch)."""

    board: int
    version: tuple[int, int, int]
    floor: tuple[int, int, int]
    payload_bytes: int
    signature_bytes: int
    address: int
    build_id: int
    schema_hash: int
    sha256: bytes


def pack_version(version: tuple[int, int, int]) -> int:
    """Raises FirmwareError: a part that its byte (the major: two bytes) cannot hold."""
    major, minor, patch = version
    if not (0 <= major < 1 << 16 and 0 <= minor < 256 and 0 <= patch < 256):
        raise FirmwareError(f"version {major}.{minor}.{patch}", expected="major below 65536, minor and patch below 256")
    return major << 16 | minor << 8 | patch


def parse_version(text: str) -> tuple[int, int, int]:
    """Raises FirmwareError: not three numbers with dots."""
    try:
        major, minor, patch = (int(part) for part in text.split("."))
    except ValueError:
        raise FirmwareError(f"version {text!r}", expected="three numbers: 1.4.0") from None
    pack_version((major, minor, patch))
    return major, minor, patch


def _unpack_version(value: int) -> tuple[int, int, int]:
    return value >> 16, (value >> 8) & 255, value & 255


def make(
    program: bytes, board: Board, version: tuple[int, int, int], floor: tuple[int, int, int], key: Path, *,
    build_id: int = 0, schema_hash: int = 0,
) -> bytes:  # fmt: skip
    """A signed image of a program that was linked behind the header of the slot.

    Args:
        program: as it lies in flash.
        floor: once this image was accepted, none below this version is.
        key: secret key file; one of its signatures is used up.

    Raises:
        FirmwareError: it does not fit in the slot, the floor is above the version, or the key cannot sign.
    """
    address, room = SLOTS[board]
    payload = program + b"\xff" * (-len(program) % 8)
    public = keys.load(key).public
    signature_bytes = lms.signature_bytes(public.tree, public.one_time)
    if not SMALLEST_BYTES <= len(payload) <= room - HEADER_BYTES - signature_bytes:
        raise FirmwareError(f"a program of {len(payload)} bytes", expected=f"one for the slot of {board.name.lower()}")
    if pack_version(floor) > pack_version(version):
        raise FirmwareError(
            "the floor is above the version: no bootloader would accept it", expected="floor at most the version"
        )
    head = _HEAD.pack(
        MAGIC, 1, HEADER_BYTES, board, pack_version(version), pack_version(floor), len(payload), signature_bytes,
        address, build_id, schema_hash, hashlib.sha256(payload).digest(),
    )  # fmt: skip
    return head + bytes(HEADER_BYTES - SIGNED_BYTES) + payload + keys.sign(key, head)


def read(data: bytes) -> Image:
    """What a header says; nothing is checked but that there is one.

    Raises:
        FirmwareError: no header.
    """
    if len(data) < HEADER_BYTES or int.from_bytes(data[:4], "little") != MAGIC:
        raise FirmwareError("not a signed image: it does not begin with EWFW", remedy="edge-wam firmware sign")
    fields = _HEAD.unpack_from(data)
    return Image(
        board=fields[3], version=_unpack_version(fields[4]), floor=_unpack_version(fields[5]), payload_bytes=fields[6],
        signature_bytes=fields[7], address=fields[8], build_id=fields[9], schema_hash=fields[10], sha256=fields[11],
    )  # fmt: skip


def _flaws(
    data: bytes, board: Board, floor: tuple[int, int, int], trusted: Sequence[lms.PublicKey]
) -> Iterator[Verdict]:
    """Whoever asks for one flaw gets the first: each check relies on those before it."""
    address, room = SLOTS[board]
    if len(data) < HEADER_BYTES or int.from_bytes(data[:4], "little") != MAGIC:
        yield Verdict.EMPTY
    if struct.unpack_from("<HH", data, 4) != (1, HEADER_BYTES) or any(data[72:HEADER_BYTES]):
        yield Verdict.HEADER
    image = read(data)
    end = HEADER_BYTES + image.payload_bytes + image.signature_bytes
    short = image.payload_bytes < SMALLEST_BYTES or image.payload_bytes % 8
    if short or end > room or end > len(data):
        yield Verdict.LENGTH
    if image.board != board or image.address != address:
        yield Verdict.BOARD
    payload = data[HEADER_BYTES : HEADER_BYTES + image.payload_bytes]
    if hashlib.sha256(payload).digest() != image.sha256:
        yield Verdict.HASH
    if image.version < floor or image.floor > image.version:
        yield Verdict.FLOOR
    if not trusted:
        yield Verdict.NO_KEY
    signature = data[HEADER_BYTES + image.payload_bytes : end]
    if not any(lms.verify(key, data[:SIGNED_BYTES], signature) for key in trusted):
        yield Verdict.SIGNATURE


def judge(data: bytes, board: Board, floor: tuple[int, int, int], trusted: Sequence[lms.PublicKey]) -> Verdict:
    """The same checks as the bootloader's, in its order, so that a refusal is known before anything is flashed."""
    return next(_flaws(data, board, floor, trusted), Verdict.GOOD)


def read_floor(pages: bytes) -> tuple[int, int, int]:
    """The version floor in the two pages of flash that hold it: the highest whole record."""
    values = [first for first, second in struct.iter_unpack("<II", pages) if first ^ second == 0xFFFFFFFF]
    return _unpack_version(max(values, default=0))
