"""A frame's bits are counted as the standard sends them, and a paced bus is never faster than its bits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.host.can_segments import CanFrame
from firmware_bridge.host.can_timing import classic_bits, fd_bits, frame_ns, stuffed
from firmware_bridge.host.link_bench import CAN_WIRES, measure_can
from firmware_bridge.host.messages import CAN_FD_LENGTHS, ChunkEncoding

IDS = st.integers(0, 0x7FF)


@given(st.lists(st.integers(0, 1), max_size=200))
def test_stuffing_leaves_no_six_equal_bits_and_can_be_taken_out(bits: list[int]) -> None:
    wire = stuffed(bits)
    text = "".join(map(str, wire))
    assert "000000" not in text and "111111" not in text
    out: list[int] = []
    run, last, skip = 0, None, False
    for bit in wire:
        if skip:
            skip, run, last = False, 1, bit
            continue
        out.append(bit)
        run = run + 1 if bit == last else 1
        last = bit
        skip = run == 5
    assert out == bits


@given(IDS, st.binary(max_size=8))
def test_a_classic_frame_lies_between_its_bits_and_the_worst_stuffing(identifier: int, data: bytes) -> None:
    bits = classic_bits(CanFrame(identifier, data))
    unstuffed = 34 + 8 * len(data)  # SOF to CRC
    assert unstuffed + 13 <= bits <= unstuffed + 13 + (unstuffed - 1) // 4


@given(IDS, st.sampled_from(CAN_FD_LENGTHS), st.data())
def test_an_fd_frame_lies_between_its_bits_and_the_worst_stuffing(
    identifier: int, size: int, data: st.DataObject
) -> None:
    slow, fast = fd_bits(CanFrame(identifier, data.draw(st.binary(min_size=size, max_size=size)), True))
    plain = 5 + 8 * size + (27 if size <= 16 else 32) + 1
    assert 17 + 12 <= slow <= 17 + 12 + 4 and plain <= fast <= plain + (17 + 5 + 8 * size) // 4


def test_known_frames_have_their_known_lengths() -> None:
    assert 111 <= classic_bits(CanFrame(0x555, bytes([0x55] * 8))) <= 114  # stuff bits in the CRC at most
    assert 135 >= classic_bits(CanFrame(0, bytes(8))) > 125
    # reference: a 64-byte frame at 1M/5M takes 140..170 us
    assert 135_000 <= frame_ns(CanFrame(0x555, bytes([0x55] * 64), True), 1_000_000, 5_000_000) <= 150_000
    assert 155_000 <= frame_ns(CanFrame(0x000, bytes(64), True), 1_000_000, 5_000_000) <= 175_000


@pytest.mark.parametrize("wire", CAN_WIRES)
def test_round_trips_over_a_paced_bus_take_at_least_the_bits_of_both(wire: str) -> None:
    row = measure_can(wire, ChunkEncoding.I16_LSB, chunks=12, seconds=0.2)
    assert row.round_trip_us.count == 12
    assert row.round_trip_us.min >= 0.97 * row.wire_us  # the bytes of each chunk, and with them its stuff bits, differ
    assert 0 <= row.share <= 1  # none of it where the machine stands still
