"""The byte stream survives anything: what was sent whole arrives whole, what was not is dropped and counted."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.host.framing import FrameReceiver, LinkFrame, crc32c, encode_frame
from firmware_bridge.host.messages import CRC_BYTES, MAX_BODY_BYTES

BODIES = st.lists(st.binary(min_size=1, max_size=MAX_BODY_BYTES - CRC_BYTES), max_size=8)


def test_crc_is_castagnoli_and_not_the_one_of_zlib() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@given(st.binary(max_size=MAX_BODY_BYTES))
def test_crc_is_the_one_computed_bit_by_bit(data: bytes) -> None:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc ^ 0xFFFFFFFF


@given(BODIES, st.lists(st.integers(1, 50), min_size=1, max_size=20))
def test_frames_arrive_in_order_however_the_stream_is_cut(bodies: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(encode_frame(body) for body in bodies)
    receiver, got, at = FrameReceiver(), [], 0
    while at < len(stream):
        step = cuts[at % len(cuts)]
        got += receiver.feed(stream[at : at + step])
        at += step
    assert got == bodies
    assert receiver.counters.frames == len(bodies)
    assert (receiver.counters.bad_crc, receiver.counters.bad_cobs, receiver.counters.oversize) == (0, 0, 0)


@given(st.binary(max_size=3000), st.binary(min_size=1, max_size=100))
def test_after_any_garbage_and_one_delimiter_the_next_frame_is_received(garbage: bytes, body: bytes) -> None:
    receiver = FrameReceiver()
    receiver.feed(garbage)
    got = receiver.feed(b"\x00" + encode_frame(body))
    assert got[-1] == body


@given(st.binary(min_size=1, max_size=200), st.data())
def test_a_frame_with_flipped_bits_never_comes_out_changed(body: bytes, data: st.DataObject) -> None:
    frame = bytearray(encode_frame(body))
    bits = data.draw(st.sets(st.integers(0, len(frame) * 8 - 1), min_size=1, max_size=5))
    for bit in bits:
        frame[bit // 8] ^= 1 << (bit % 8)
    got = FrameReceiver().feed(bytes(frame) + b"\x00")
    assert all(other == body for other in got) or got == []


def test_a_frame_longer_than_the_buffer_is_dropped_once_and_the_next_one_is_received() -> None:
    receiver = FrameReceiver()
    assert receiver.feed(b"\x05" * 5000) == []
    assert receiver.feed(b"\x05" * 5000) == []
    assert receiver.feed(b"\x00" + encode_frame(b"after")) == [b"after"]
    assert receiver.counters.oversize == 1


def test_noise_without_a_delimiter_costs_no_memory() -> None:
    receiver = FrameReceiver()
    for _ in range(1000):
        receiver.feed(b"\xff" * 1000)
    assert len(receiver._buffer) <= MAX_BODY_BYTES + 4


@given(st.integers(0, 255), st.integers(0, 65535), st.integers(0, 65535), st.binary(max_size=100))
def test_the_header_survives_the_round_trip(kind: int, seq: int, session: int, payload: bytes) -> None:
    frame = LinkFrame(kind, seq, session, payload)
    assert LinkFrame.unpack(frame.pack()) == frame
    assert LinkFrame.unpack(frame.pack()[:5]) is None
