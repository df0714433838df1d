"""Images, keys on disk, and the bootloader's judgement: what must be refused is, by name, in C and in Python."""

from __future__ import annotations

import json
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_bridge.errors import FirmwareError
from firmware_bridge.image import image, keys, lms
from firmware_bridge.image.image import Board, Verdict
from tests.image.native import Native

PROGRAM = bytes((17 * k + 3) & 255 for k in range(1501))
PAGE = 128


class World:
    """The C, a key, another key, a good image."""

    def __init__(self, folder: Path) -> None:
        self.native = Native(folder)
        self.key = keys.generate(folder / "maker", tree=5)
        self.other = keys.generate(folder / "stranger", tree=5)
        self.good = image.make(PROGRAM, Board.STM32G474, (1, 4, 0), (1, 2, 0), self.key.path, build_id=7, schema_hash=9)

    def judge(self, data: bytes, floor: tuple[int, int, int] = (0, 0, 0), board: Board = Board.STM32G474) -> Verdict:
        """Both judges must agree."""
        verdict = self.native.judge(data, [self.key.public], board=board, floor=floor)
        mine = image.judge(data.ljust(image.SLOTS[board][1], b"\xff"), board, floor, [self.key.public])
        assert verdict == mine
        return verdict


WORLD: list[World] = []


@pytest.fixture(scope="module", autouse=True)
def _world(tmp_path_factory: pytest.TempPathFactory) -> None:
    WORLD[:] = [World(tmp_path_factory.mktemp("image"))]


@pytest.fixture
def world() -> World:
    return WORLD[0]


def test_a_good_image_is_accepted_and_says_what_it_is(world: World) -> None:
    assert world.judge(world.good) is Verdict.GOOD
    found = image.read(world.good)
    assert (found.version, found.floor, found.board) == ((1, 4, 0), (1, 2, 0), Board.STM32G474)
    assert (found.build_id, found.schema_hash, found.address) == (7, 9, 0x0800_8000)
    assert world.good[512 : 512 + len(PROGRAM)] == PROGRAM
    assert len(world.good) == 512 + found.payload_bytes + found.signature_bytes


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject) -> None:
    world = WORLD[0]
    bit = data.draw(st.integers(0, 8 * len(world.good) - 1))
    bad = bytearray(world.good)
    bad[bit // 8] ^= 1 << bit % 8
    assert world.native.judge(bytes(bad), [world.key.public]) is not Verdict.GOOD


def test_every_byte_of_the_header_counts(world: World) -> None:
    for at in range(512):
        bad = bytearray(world.good)
        bad[at] ^= 0x81
        assert world.judge(bytes(bad)) is not Verdict.GOOD, at


@pytest.mark.parametrize("keep", [0, 3, 100, 511, 512, 513, 1800, 2016, -1])
def test_a_truncated_image_is_refused(world: World, keep: int) -> None:
    assert world.judge(world.good[:keep]) is not Verdict.GOOD


def test_a_length_that_leaves_the_slot_is_refused_before_anything_is_read_there(world: World) -> None:
    for at in (20, 24):
        for value in (0xFFFFFFF8, 480 << 10, (480 << 10) - 511, 0x80000000, 8, 0):
            bad = bytearray(world.good)
            struct.pack_into("<I", bad, at, value)
            verdict = world.judge(bytes(bad))
            assert verdict in (Verdict.LENGTH, Verdict.SIGNATURE) and (at == 24 or verdict is Verdict.LENGTH)


def test_an_image_of_another_board_another_place_or_another_key_is_refused(world: World) -> None:
    assert world.judge(world.good, board=Board.MPS2_AN386) is Verdict.BOARD
    elsewhere = bytearray(world.good)
    struct.pack_into("<I", elsewhere, 28, 0x0804_8000)
    assert world.judge(bytes(elsewhere)) is Verdict.BOARD
    strange = image.make(PROGRAM, Board.STM32G474, (9, 0, 0), (0, 0, 0), world.other.path)
    assert world.judge(strange) is Verdict.SIGNATURE
    both = [world.key.public, world.other.public]
    assert world.native.judge(strange, both) is Verdict.GOOD, "two keys may be trusted, for a change of keys"
    assert world.native.judge(world.good, []) is Verdict.NO_KEY
    assert image.judge(world.good, Board.STM32G474, (0, 0, 0), []) is Verdict.NO_KEY


def test_a_program_swapped_under_a_good_header_and_a_header_under_a_good_signature_are_refused(world: World) -> None:
    swapped = bytearray(world.good)
    swapped[512:1024] = bytes(512)
    assert world.judge(bytes(swapped)) is Verdict.HASH
    newer = bytearray(world.good)
    struct.pack_into("<I", newer, 12, image.pack_version((2, 0, 0)))
    assert world.judge(bytes(newer)) is Verdict.SIGNATURE


def test_an_old_version_is_refused_and_the_floor_itself_is_not(world: World) -> None:
    assert world.judge(world.good, floor=(1, 4, 0)) is Verdict.GOOD
    assert world.judge(world.good, floor=(1, 4, 1)) is Verdict.FLOOR
    assert world.judge(world.good, floor=(2, 0, 0)) is Verdict.FLOOR


def test_an_empty_slot_is_empty(world: World) -> None:
    assert world.judge(b"") is Verdict.EMPTY


@settings(max_examples=60)
@given(st.lists(st.integers(0, 0xFFFFFFFE), max_size=80), st.integers(0, 7))
def test_the_floor_in_flash_never_falls_whatever_order_and_however_full(values: list[int], torn: int) -> None:
    """Two pages of 16 records, written as flash allows, erased by pages; every fifth write loses power half way."""
    native = WORLD[0].native
    pages = bytearray(b"\xff" * (2 * PAGE))
    highest = 0
    for index, value in enumerate(values):
        if value <= highest:
            continue
        at, erase = native.place(pages, PAGE)
        if erase < 2:
            pages[erase * PAGE : (erase + 1) * PAGE] = b"\xff" * PAGE
            assert native.floor(pages, PAGE) == highest, "power lost between erase and write"
        record = struct.pack("<II", value, value ^ 0xFFFFFFFF)
        assert pages[at : at + 8] == b"\xff" * 8
        if index % 5 == 4:
            pages[at : at + torn] = record[:torn]  # and the rest stayed erased
            assert native.floor(pages, PAGE) >= highest or torn == 0
            continue
        pages[at : at + 8] = record
        highest = value
        assert native.floor(pages, PAGE) == highest


# ---- keys on disk ----


def test_a_key_counts_before_it_signs_and_never_signs_twice_with_one_leaf(tmp_path: Path) -> None:
    key = keys.generate(tmp_path / "k", tree=5)
    assert stat.S_IMODE(key.path.stat().st_mode) == 0o600
    leaves = [int.from_bytes(keys.sign(key.path, b"m")[:4], "big") for _ in range(3)]
    assert leaves == [0, 1, 2] and keys.load(key.path).used == 3 and keys.load(key.path).left == 29
    assert keys.load_public(tmp_path / "k.pub") == key.public


def test_a_signature_that_fails_after_counting_has_used_its_leaf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys.generate(tmp_path / "k", tree=5)

    def broken(*_: object) -> bytes:
        raise RuntimeError("power lost")

    with monkeypatch.context() as context:
        context.setattr(lms, "sign", broken)
        with pytest.raises(RuntimeError):
            keys.sign(key.path, b"m")
    assert int.from_bytes(keys.sign(key.path, b"m")[:4], "big") == 1


def test_a_used_up_key_a_foreign_seed_and_a_file_that_is_none_are_refused_by_name(tmp_path: Path) -> None:
    key = keys.generate(tmp_path / "k", tree=5)
    data = json.loads(key.path.read_text())
    key.path.write_text(json.dumps({**data, "used": 32}))
    with pytest.raises(FirmwareError, match="has signed 32 times and can no more"):
        keys.sign(key.path, b"m")
    key.path.write_text(json.dumps({**data, "seed": "00" * 32}))
    with pytest.raises(FirmwareError, match="do not belong together"):
        keys.sign(key.path, b"m")
    for bad in ("", "{}", json.dumps({**data, "used": -1}), json.dumps({**data, "seed": "00"}), "[]"):
        key.path.write_text(bad)
        with pytest.raises(FirmwareError):
            keys.load(key.path)
    with pytest.raises(FirmwareError, match="exists"):
        keys.generate(tmp_path / "k")
    with pytest.raises(FirmwareError, match=r"ending in \.pub"):
        keys.load_public(tmp_path / "nothing")


def test_what_no_bootloader_would_take_is_not_signed(world: World) -> None:
    used = keys.load(world.key.path).used
    with pytest.raises(FirmwareError, match="the floor is above the version"):
        image.make(PROGRAM, Board.STM32G474, (1, 0, 0), (1, 0, 1), world.key.path)
    with pytest.raises(FirmwareError, match="a program of"):
        image.make(bytes(480 << 10), Board.STM32G474, (1, 0, 0), (0, 0, 0), world.key.path)
    with pytest.raises(FirmwareError, match="a program of"):
        image.make(bytes(8), Board.STM32G474, (1, 0, 0), (0, 0, 0), world.key.path)
    assert keys.load(world.key.path).used == used, "and no signature was used up"


@pytest.mark.parametrize("text", ["", "1", "1.2", "1.2.3.4", "a.b.c", "1.256.0", "1.0.-1", "70000.0.0"])
def test_a_version_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FirmwareError, match="version"):
        image.parse_version(text)


def test_what_is_no_image_cannot_be_read() -> None:
    with pytest.raises(FirmwareError, match="EWFW"):
        image.read(bytes(1000))
