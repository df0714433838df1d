"""The bootloader's own C, compiled for this machine."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from firmware_bridge.image import lms
from firmware_bridge.image.image import SLOTS, Board, Verdict, pack_version
from firmware_bridge.mcu.build import HERE
from firmware_bridge.mcu.targets import COMMON_FLAGS


class _Policy(ctypes.Structure):
    """policy_t"""

    _fields_ = [
        ("board", ctypes.c_uint32), ("address", ctypes.c_uint32), ("slot_bytes", ctypes.c_uint32),
        ("floor", ctypes.c_uint32), ("keys", ctypes.c_void_p), ("key_count", ctypes.c_uint32),
    ]  # fmt: skip


class Native:
    """SHA-256, LMS, the judge and the version floor, as the bootloader has them."""

    def __init__(self, folder: Path) -> None:
        path = folder / "libboot.so"
        sources = [str(HERE / "boot" / f"{name}.c") for name in ("sha256", "lms", "verify")]
        subprocess.run(["cc", *COMMON_FLAGS, "-shared", "-fPIC", f"-I{HERE / 'boot'}", *sources, "-o", str(path)],
                       check=True)  # fmt: skip
        self.lib = ctypes.CDLL(str(path))
        self.lib.lms_verify.restype = ctypes.c_bool
        self.lib.lms_verify.argtypes = [
            ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t,
        ]  # fmt: skip
        self.lib.lms_signature_bytes.restype = ctypes.c_size_t
        self.lib.floor_read.restype = self.lib.floor_place.restype = ctypes.c_uint32

    def sha256(self, data: bytes) -> bytes:
        state, digest = ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
        self.lib.sha256_start(state)
        self.lib.sha256_add(state, data, ctypes.c_size_t(len(data)))
        self.lib.sha256_end(state, digest)
        return digest.raw

    def verify(self, key: lms.PublicKey, message: bytes, signature: bytes) -> bool:
        return bool(self.lib.lms_verify(key.pack(), message, len(message), signature, len(signature)))

    def judge(
        self, data: bytes, keys: list[lms.PublicKey], *, board: Board = Board.STM32G474,
        floor: tuple[int, int, int] = (0, 0, 0),
    ) -> Verdict:  # fmt: skip
        """The verdict over a slot that holds ``data`` and is erased behind it."""
        address, room = SLOTS[board]
        slot = data.ljust(room, b"\xff")
        trusted = b"".join(key.pack() for key in keys)
        pointer = ctypes.cast(ctypes.c_char_p(trusted), ctypes.c_void_p)
        policy = _Policy(board, address, room, pack_version(floor), pointer, len(keys))
        return Verdict(self.lib.image_judge(slot, ctypes.byref(policy), ctypes.create_string_buffer(8)))

    def floor(self, pages: bytes, page_bytes: int) -> int:
        return int(self.lib.floor_read(bytes(pages), page_bytes))

    def place(self, pages: bytes, page_bytes: int) -> tuple[int, int]:
        erase = ctypes.c_uint32()
        return int(self.lib.floor_place(bytes(pages), page_bytes, ctypes.byref(erase))), erase.value
