"""Shared memory never shows a reader anything torn, stale or foreign, and vanishes with its last process."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from edge_wam.errors import ContractError
from edge_wam.shm import FrameRing, Mailbox, create_segment

FAST_WRITER = """
import sys, time
import numpy as np
from edge_wam.shm import FrameRing, Mailbox
ring, mail = FrameRing(int(sys.argv[1])), Mailbox(int(sys.argv[2]))
k = 0
while True:
    ring.publish(np.full((64, 64, 3), k % 256, np.uint8), k)
    mail.put(bytes([k % 256]) * (1 + k % 4000))
    k += 1
"""


def image(value: int) -> np.ndarray:
    return np.full((8, 6, 3), value, np.uint8)


def test_a_frame_comes_back_exactly_with_its_time_and_index() -> None:
    ring = FrameRing.create("eye", 8, 6)
    assert ring.newest_index() == -1 and ring.info(-1) is None and ring.read(0) is None
    for k in range(3):
        assert ring.publish(image(k), 1000 + k) == k
    other = FrameRing(ring.fd)
    assert other.name == "eye" and other.newest_index() == 2
    frame = other.read(1)
    assert frame is not None and frame.captured_at_ns == 1001 and frame.index == 1
    assert np.array_equal(frame.image, image(1))


def test_an_overwritten_frame_is_gone_not_replaced() -> None:
    ring = FrameRing.create("eye", 8, 6, slots=4)
    for k in range(6):
        ring.publish(image(k), k)
    assert ring.read(1) is None and ring.info(1) is None
    assert ring.read(2) is not None


def test_a_frame_whose_pixels_do_not_match_their_crc_is_torn() -> None:
    ring = FrameRing.create("eye", 8, 6)
    ring.publish(image(7), 1)
    os.pwrite(ring.fd, b"\x00", 256 + 28 + 40)
    assert ring.read(0) is None


def test_identical_pixels_show_in_the_crc() -> None:
    ring = FrameRing.create("eye", 8, 6)
    for k, value in enumerate((5, 5, 6)):
        ring.publish(image(value), k)
    first, second, third = (ring.info(k) for k in range(3))
    assert first is not None and second is not None and third is not None
    assert first.crc == second.crc != third.crc


def test_the_wrong_shape_is_refused_and_the_ring_unchanged() -> None:
    ring = FrameRing.create("eye", 8, 6)
    with pytest.raises(ContractError, match="eye"):
        ring.publish(np.zeros((6, 8, 3), np.uint8), 0)
    assert ring.newest_index() == -1


def test_a_mailbox_keeps_the_newest_message_only() -> None:
    mail = Mailbox.create("m", 100)
    assert mail.get() is None and mail.number == 0
    mail.put(b"old")
    mail.put(b"new")
    assert Mailbox(mail.fd).get() == (2, b"new")
    with pytest.raises(ContractError):
        mail.put(bytes(101))
    assert mail.get() == (2, b"new")


def test_a_writer_that_died_inside_leaves_nothing_torn_and_the_next_one_goes_on() -> None:
    mail = Mailbox.create("m", 100)
    mail.put(b"one")
    slot_of_message_2 = 128
    os.pwrite(mail.fd, struct.pack("<Q", 1), slot_of_message_2)  # died while writing message 2
    os.pwrite(mail.fd, struct.pack("<Q", 2), 64)
    assert mail.get() is None
    assert mail.put(b"three") == 3 and mail.get() == (3, b"three")
    assert mail.put(b"four") == 4 and mail.get() == (4, b"four")


def test_what_is_no_ring_and_no_mailbox_is_refused() -> None:
    fd = create_segment("zero", 4096)
    with pytest.raises(ContractError):
        FrameRing(fd)
    with pytest.raises(ContractError):
        Mailbox(fd)


def test_a_reader_beside_a_writer_at_full_speed_sees_only_whole_values_even_when_it_is_killed() -> None:
    ring, mail = FrameRing.create("eye", 64, 64, slots=2), Mailbox.create("m", 4000)
    writer = subprocess.Popen(
        [sys.executable, "-c", FAST_WRITER, str(ring.fd), str(mail.fd)], pass_fds=(ring.fd, mail.fd)
    )
    try:
        frames = messages = 0
        end = time.monotonic() + 30.0
        while (frames <= 300 or messages <= 300) and time.monotonic() < end:
            frame, got = ring.read(ring.newest_index()), mail.get()
            if frame is not None:
                assert (frame.image == frame.captured_at_ns % 256).all()
                frames += 1
            if got is not None:
                number, payload = got
                assert payload == bytes([(number - 1) % 256]) * (1 + (number - 1) % 4000)
                messages += 1
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    assert frames > 300 and messages > 300
    assert ring.publish(np.zeros((64, 64, 3), np.uint8), 0) >= 0
