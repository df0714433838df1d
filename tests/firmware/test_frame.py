"""COBS and CRC-32C of the C core against independent implementations, and its receiver against noise."""

from __future__ import annotations

import ctypes
import importlib
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.framing import crc32c
from tests.firmware.mcu import Mcu, load

COBS: Any = importlib.import_module("cobs.cobs")
LIB = load()
SIZE = ctypes.c_size_t
LIB.ew_crc32c.restype, LIB.ew_crc32c.argtypes = ctypes.c_uint32, [ctypes.c_char_p, SIZE, ctypes.c_uint32]
LIB.ew_cobs_encode.restype, LIB.ew_cobs_encode.argtypes = SIZE, [ctypes.c_char_p, SIZE, ctypes.c_char_p]
LIB.ew_cobs_decode.restype, LIB.ew_cobs_decode.argtypes = SIZE, [ctypes.c_char_p, SIZE, ctypes.c_char_p, SIZE]


def encode(data: bytes) -> bytes:
    out = ctypes.create_string_buffer(len(data) + len(data) // 254 + 2)
    count = LIB.ew_cobs_encode(data, len(data), out)
    return out.raw[:count]


def decode(data: bytes, capacity: int) -> bytes | None:
    """None: refused. Guard bytes behind the capacity must survive."""
    out = ctypes.create_string_buffer(b"\xa5" * (capacity + 8), capacity + 8)
    count = LIB.ew_cobs_decode(data, len(data), out, capacity)
    assert count <= capacity and out.raw[capacity:] == b"\xa5" * 8
    return out.raw[:count] if count else None


def test_the_crc_is_castagnoli() -> None:
    assert LIB.ew_crc32c(b"123456789", 9, 0) == 0xE3069283
    assert LIB.ew_crc32c(b"", 0, 0) == 0


@settings(deadline=None)
@given(st.binary(max_size=640), st.integers(0, 640))
def test_the_crc_agrees_with_the_host_and_continues(data: bytes, cut: int) -> None:
    head, tail = data[:cut], data[cut:]
    assert LIB.ew_crc32c(tail, len(tail), LIB.ew_crc32c(head, len(head), 0)) == crc32c(data)


# Few zeros or none make the blocks of 254 that are easy to get wrong.
BODIES = st.one_of(
    st.binary(min_size=1, max_size=640),
    st.integers(1, 640).map(lambda n: b"\x11" * n),
    st.lists(st.sampled_from([b"\0", b"\x11" * 253, b"\x11" * 254]), min_size=1, max_size=3).map(b"".join),
)


@settings(max_examples=400, deadline=None)
@given(BODIES)
def test_encoding_is_that_of_the_reference_and_decoding_undoes_it(body: bytes) -> None:
    encoded = encode(body)
    assert encoded == COBS.encode(body) and 0 not in encoded
    assert decode(encoded, len(body)) == body
    assert decode(encoded, len(body) - 1) is None


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=80), st.integers(0, 80))
def test_decoding_any_bytes_stays_in_its_buffer_and_agrees_with_the_reference(data: bytes, capacity: int) -> None:
    try:
        expected: bytes | None = COBS.decode(data)
    except COBS.DecodeError:
        expected = None
    got = decode(data, capacity)
    if got is not None:
        assert got == expected
    elif expected is not None:
        assert len(expected) > capacity or not expected


def _stats(mcu: Mcu) -> m.Stats:
    mcu.inbox.clear()
    mcu.tick(1001)
    return [s for s in mcu.inbox if isinstance(s, m.Stats)][-1]


def test_a_receiver_that_joins_in_the_middle_takes_the_next_frame() -> None:
    mcu = Mcu()
    good = mcu.frame(m.HelloReq.TYPE, m.HelloReq(9).pack())
    mcu.raw(good[7:])
    assert not [h for h in mcu.pump() if isinstance(h, m.Hello)]
    mcu.raw(good)
    mcu.tick(m.HELLO_PERIOD_US // 1000)
    assert [h.nonce for h in mcu.inbox if isinstance(h, m.Hello)] == [0, 9]


@pytest.mark.parametrize("longer", [0, 1, 2])
def test_a_frame_whose_bytes_fit_the_line_but_not_the_longest_message_is_bad(longer: int) -> None:
    """Zeros in it keep it short on the line: its checksum is right, and still nothing of that length exists."""
    mcu = Mcu()
    body = b"\x7f" + bytes(m.MAX_BODY_BYTES - m.CRC_BYTES - 1 + longer)
    mcu.pump()
    mcu.raw(bytes(COBS.encode(body + struct.pack("<I", crc32c(body)))) + b"\0")
    assert [type(answer) for answer in mcu.pump()] == ([m.Ack] if longer == 0 else [])
    stats = _stats(mcu)
    assert (stats.rx_bad, stats.rx_oversize) == (0 if longer == 0 else 1, 0)


def test_an_overlong_run_is_dropped_whole_and_counted_and_the_next_frame_is_taken() -> None:
    mcu = Mcu()
    mcu.raw(b"\x55" * 5000 + b"\0")
    assert mcu.hello().nonce == 7
    stats = _stats(mcu)
    assert (stats.rx_oversize, stats.rx_bad) == (1, 0), "one frame, counted once"


@pytest.mark.parametrize("length", [0, 1, 4, 5, 9])
def test_a_valid_crc_over_too_little_is_counted_as_bad(length: int) -> None:
    """Shorter than a header, or a HELLO_REQ (type 1) without all of its nonce."""
    mcu = Mcu()
    body = bytes(range(1, length + 1))
    mcu.raw(COBS.encode(body + struct.pack("<I", crc32c(body))) + b"\0")
    assert not [a for a in mcu.pump() if isinstance(a, m.Ack)]
    assert _stats(mcu).rx_bad == 1


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_changed_frame_is_ever_taken(data: st.DataObject) -> None:
    mcu = Mcu()
    good = mcu.frame(m.Estop.TYPE, b"")
    frame = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 2))] ^= data.draw(st.integers(1, 255))
    if bytes(frame) == good:
        return
    mcu.raw(bytes(frame))
    mcu.tick()
    assert mcu.state == m.McuState.DISARMED


def test_skipped_sequence_numbers_are_counted_and_repeated_ones_are_not() -> None:
    mcu = Mcu()
    mcu.hello()
    mcu.seq += 3
    mcu.hello()
    mcu.seq -= 1
    mcu.hello()
    assert _stats(mcu).rx_gaps == 3
