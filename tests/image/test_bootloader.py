"""The bootloader on a Cortex-M4 in QEMU: it starts what is signed, and says why it does not start anything else."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import pytest

from firmware_bridge.hil.gdb_stub import GdbStub
from firmware_bridge.host import messages as m
from firmware_bridge.host.emulator import Emulator, EmulatorOptions
from firmware_bridge.host.framing import FrameReceiver, encode_frame
from firmware_bridge.image import image, keys
from firmware_bridge.image.program import sign_target, trust_flags

SLOT, FLOOR, PAGE = 0x0010_0000, 0x0020_0000, 2048


def _load(path: Path, address: int) -> tuple[str, str]:
    """The emulator's argument that puts a file into memory."""
    return "-device", f"loader,file={path},addr={address:#x},force-raw=on"


def _memory(mcu: Emulator, address: int, count: int) -> bytes:
    with GdbStub(mcu.gdb_path) as stub:
        return stub.read_memory(address, count)


class Bench:
    """A signed firmware and the bootloader that trusts its maker."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key = keys.generate(folder / "maker", tree=5)
        self.good = sign_target("mps2-an386-slot", (1, 4, 0), (1, 2, 0), self.key.path)

    def start(self, data: bytes, floor: bytes = b"", *, trusted: bool = True) -> Emulator:
        slot, pages = self.folder / "slot", self.folder / "floor"
        slot.write_bytes(data)
        pages.write_bytes(floor.ljust(2 * PAGE, b"\xff"))
        return Emulator("qemu", EmulatorOptions(
            target="mps2-an386-boot", extra=(*_load(slot, SLOT), *_load(pages, FLOOR)),
            flags=trust_flags([self.key.public] if trusted else []),
        ), out=self.folder)  # fmt: skip


BENCH: list[Bench] = []


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    if not BENCH:
        BENCH.append(Bench(tmp_path_factory.mktemp("bench")))
    return BENCH[0]


def _record(version: tuple[int, int, int]) -> bytes:
    value = image.pack_version(version)
    return struct.pack("<II", value, value ^ 0xFFFFFFFF)


def _said(mcu: Emulator, text: bytes, timeout_s: float = 30.0) -> bytes:
    link = mcu.open_link()
    heard = b""
    deadline = time.monotonic() + timeout_s
    try:
        while text not in heard and time.monotonic() < deadline:
            heard += link.read()
            link.wait(0.02)
    finally:
        link.close()
    assert text in heard, heard
    return heard


def _hello(mcu: Emulator, timeout_s: float = 30.0) -> m.Hello:
    link, receiver = mcu.open_link(), FrameReceiver()
    deadline = time.monotonic() + timeout_s
    try:
        while time.monotonic() < deadline:
            link.write(encode_frame(struct.pack("<BBHH", m.HelloReq.TYPE, 0, 1, 0) + m.HelloReq(77).pack()))
            link.wait(0.1)
            for body in receiver.feed(link.read()):
                if body[0] == m.Hello.TYPE:
                    return m.Hello.unpack(body[6:])
    finally:
        link.close()
    raise AssertionError("no HELLO")


def test_a_signed_image_is_started_and_its_floor_is_kept(bench: Bench) -> None:
    with bench.start(bench.good) as mcu:
        hello = _hello(mcu)
        assert (hello.schema_hash, hello.state) == (m.SCHEMA_HASH, m.McuState.DISARMED)
        assert hello.boots == 1 and hello.reset_cause == m.ResetCause.POWER_ON
        assert _memory(mcu, FLOOR, 16) == _record((1, 2, 0)) + b"\xff" * 8
        assert _memory(mcu, 0xE000_ED08, 4) == struct.pack("<I", SLOT + 512), "its own vectors are in use"


def _flip(data: bytes, at: int) -> bytes:
    bad = bytearray(data)
    bad[at] ^= 0x10
    return bytes(bad)


@pytest.mark.parametrize(
    ("name", "change", "floor"),
    [
        (b"EMPTY", lambda good: b"\xff" * 64, b""),
        (b"HASH", lambda good: _flip(good, 5000), b""),
        (b"SIGNATURE", lambda good: _flip(good, len(good) - 1), b""),
        (b"LENGTH", lambda good: _flip(good, 23), b""),
        (b"FLOOR", lambda good: good, _record((1, 2, 0)) + _record((1, 4, 1))),
    ],
    ids=["empty slot", "flipped in the program", "flipped in the signature", "length", "older than the floor"],
)
def test_what_is_not_good_is_not_started_and_the_reason_is_told(
    bench: Bench, name: bytes, change: object, floor: bytes
) -> None:
    with bench.start(change(bench.good), floor) as mcu:  # type: ignore[operator]
        heard = _said(mcu, b"no program started: " + name)
        assert b"\0" not in heard and len(FrameReceiver().feed(heard)) == 0
        assert _memory(mcu, 0xE000_ED08, 4) == bytes(4)
        assert _memory(mcu, FLOOR, 16) == floor.ljust(16, b"\xff"), "and the floor stays"


def test_a_bootloader_built_without_a_key_starts_nothing(bench: Bench) -> None:
    with bench.start(bench.good, trusted=False) as mcu:
        _said(mcu, b"no program started: NO_KEY")
