"""Segmentation: C and Python cut and join alike, and no fault of the bus makes a wrong body."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.can_segments import CanFrame, Reassembler, class_of, fd_length, frame_id, segment
from firmware_bridge.host.framing import crc32c
from firmware_bridge.host.messages import (
    CAN_CLASS,
    CAN_FD_LENGTHS,
    CAN_ID_ESTOP,
    CAN_TO_HOST,
    CanClass,
)

TYPES = sorted(m.MCU_MESSAGES) + sorted(
    kind.TYPE for kind in vars(m).values() if isinstance(kind, type) and hasattr(kind, "TYPE") and kind.TYPE < 0x40
)
TRANSFER_TYPES = [number for number in TYPES if number != m.Estop.TYPE]
BODIES = st.builds(
    lambda kind, rest: bytes([kind]) + rest, st.sampled_from(TRANSFER_TYPES), st.binary(min_size=5, max_size=635)
)
TIMEOUT_NS = m.CAN_FRAME_TIMEOUT_US * 1000
SLOW = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


class NativeReassembler:
    """``ew_can_receive``."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.lib = library
        self.handle = library.ewl_reassembler_create()
        self.body = ctypes.create_string_buffer(m.MAX_BODY_BYTES)

    def feed(self, frame: CanFrame, now_ns: int) -> bytes | None:
        count = self.lib.ewl_reassembler_feed(
            self.handle, frame.id, frame.data, len(frame.data), int(frame.fd), now_ns // 1000, self.body
        )
        return self.body.raw[:count] or None

    @property
    def counters(self) -> tuple[int, ...]:
        values = (ctypes.c_uint32 * 4)()
        self.lib.ewl_reassembler_counters(self.handle, values)
        return tuple(values)

    def __del__(self) -> None:
        self.lib.ewl_reassembler_destroy(self.handle)


class PythonReassembler(Reassembler):
    """The same, with the native one's way to answer."""

    def body(self, frame: CanFrame, now_ns: int) -> bytes | None:
        self.expire(now_ns)
        whole = self.feed(frame, now_ns)
        return whole[: -m.CRC_BYTES] if whole else None

    @property
    def numbers(self) -> tuple[int, ...]:
        c = self.counters
        return (c.transfers, c.bad, c.missed, c.duplicates)


@pytest.fixture(scope="session")
def native(library: Path) -> ctypes.CDLL:
    lib = ctypes.CDLL(str(library))
    handle, text, u8, u16, u64 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint64
    lib.ewl_reassembler_create.restype = handle
    lib.ewl_reassembler_destroy.argtypes = [handle]
    lib.ewl_reassembler_feed.argtypes = [handle, u16, text, u8, u8, u64, text]
    lib.ewl_reassembler_feed.restype = ctypes.c_uint32
    lib.ewl_reassembler_counters.argtypes = [handle, ctypes.POINTER(ctypes.c_uint32)]
    lib.ewl_can_segment.argtypes = [text, u16, u8, u8, u8, u8, u8, ctypes.POINTER(u16), text, text]
    lib.ewl_can_segment.restype = ctypes.c_uint32
    return lib


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", crc32c(body))


def frames_of(body: bytes, transfer_id: int, *, fd: bool, node: int = 1) -> list[CanFrame]:
    return list(segment(sealed(body), frame_id(body[0], node, to_host=False), transfer_id, fd=fd))


def native_frames(lib: ctypes.CDLL, body: bytes, transfer_id: int, *, fd: bool, node: int) -> Iterator[CanFrame]:
    transfer = sealed(body)
    identifier, out, counts = ctypes.c_uint16(), ctypes.create_string_buffer(6400), ctypes.create_string_buffer(100)
    made = lib.ewl_can_segment(
        transfer, len(transfer), body[0], node, int(body[0] >= 0x80), transfer_id, int(fd),
        ctypes.byref(identifier), out, counts,
    )  # fmt: skip
    for i in range(made):
        yield CanFrame(identifier.value, out.raw[64 * i : 64 * i + counts.raw[i]], fd)


@SLOW
@given(BODIES, st.integers(0, 31), st.booleans(), st.integers(1, 7))
def test_c_and_python_cut_a_body_into_the_same_frames(
    native: ctypes.CDLL, body: bytes, transfer_id: int, fd: bool, node: int
) -> None:
    ours = list(segment(sealed(body), frame_id(body[0], node, to_host=body[0] >= 0x80), transfer_id, fd=fd))
    assert list(native_frames(native, body, transfer_id, fd=fd, node=node)) == ours
    assert all(len(frame.data) in CAN_FD_LENGTHS[: None if fd else 9] for frame in ours)


@SLOW
@given(BODIES, st.integers(0, 31), st.booleans())
def test_any_body_arrives_whole_and_once(native: ctypes.CDLL, body: bytes, transfer_id: int, fd: bool) -> None:
    for reassembler, feed in _both(native):
        got = [feed(frame, 0) for frame in frames_of(body, transfer_id, fd=fd)]
        assert got[:-1] == [None] * (len(got) - 1)
        assert got[-1] == body
        assert _numbers(reassembler) == (1, 0, 0, 0)


@pytest.mark.parametrize("length", [*range(6, 80), 626, 630, 635, 636])
@pytest.mark.parametrize("fd", [False, True])
def test_every_length_at_the_seams_of_frames_arrives(native: ctypes.CDLL, length: int, fd: bool) -> None:
    body = bytes([m.Chunk.TYPE]) + bytes(length - 1)
    for _, feed in _both(native):
        assert [feed(frame, 0) for frame in frames_of(body, 3, fd=fd)][-1] == body


def test_a_chunk_of_16_knots_and_7_axes_is_four_fd_frames() -> None:
    body = bytes([m.Chunk.TYPE]) + bytes(5 + m.CHUNK_HEADER_BYTES + 16 * 7 * 2)
    assert len(frames_of(body, 0, fd=True)) == 4
    assert len(frames_of(body, 0, fd=False)) == 36


# ---- a bus that does what a bus must not do ----

_FAULTS = st.lists(
    st.tuples(
        st.sampled_from(["lose", "repeat", "swap", "flip", "cut", "late", "steal"]),
        st.integers(0, 10_000), st.integers(0, 511), st.integers(1, 255),
    ),
    max_size=4,
)  # fmt: skip


def damaged(frames: list[tuple[int, CanFrame]], faults: list[tuple[str, int, int, int]]) -> list[tuple[int, CanFrame]]:
    """What a bus with these faults delivers: (ns, frame). At most three bits are changed in one frame."""
    out = list(frames)
    for kind, where, at, value in faults:
        if not out:
            break
        i = where % len(out)
        ns, frame = out[i]
        if kind == "lose":
            del out[i]
        elif kind == "repeat":
            out.insert(i + 1 + at % 3, (ns, frame))
        elif kind == "swap":
            j = (i + 1 + at % 3) % len(out)
            out[i], out[j] = out[j], out[i]
        elif kind == "flip" and frame.data:
            data = bytearray(frame.data)
            data[at % len(data)] ^= 1 << value % 8
            out[i] = ns, replace(frame, data=bytes(data))
        elif kind == "cut":
            allowed = [n for n in CAN_FD_LENGTHS if n <= at % (len(frame.data) + 1)]
            out[i] = ns, replace(frame, data=frame.data[: allowed[-1]])
        elif kind == "late":
            out[i:] = [(later + 2 * TIMEOUT_NS, f) for later, f in out[i:]]
        elif kind == "steal":  # a frame of another class comes in between, as arbitration allows
            out.insert(i, (ns, CanFrame(frame_id(m.Heartbeat.TYPE, 1, to_host=False), bytes([at & 255, value]))))
    return out


@SLOW
@given(st.lists(BODIES, min_size=1, max_size=5), st.integers(0, 31), st.booleans(), _FAULTS)
def test_whatever_the_bus_does_a_body_is_delivered_whole_and_once_or_not_at_all(
    native: ctypes.CDLL, bodies: list[bytes], first_id: int, fd: bool, faults: list[tuple[str, int, int, int]]
) -> None:
    bodies = [bytes([m.Chunk.TYPE, i]) + body[2:] for i, body in enumerate(bodies)]
    sent = [(0, f) for i, body in enumerate(bodies) for f in frames_of(body, first_id + i & 31, fd=fd)]
    seen = damaged(sent, faults)
    results = []
    for reassembler, feed in _both(native):
        # What comes before the first transfer that was ever seen cannot be missed: one goes ahead, and one behind.
        for frame in frames_of(bytes([m.Chunk.TYPE, 254]) + bytes(5), first_id - 1 & 31, fd=fd):
            feed(frame, 0)
        got = [body for ns, frame in seen if (body := feed(frame, ns)) is not None]
        assert len(got) == len(set(got)) and set(got) <= set(bodies)
        if not faults:
            assert got == bodies
        if len(got) < len(bodies):
            assert _lost(reassembler, seen, feed, first_id + len(bodies)) > 0, "lost without a trace"
        results.append((got, _numbers(reassembler)))
    assert results[0] == results[1]


@SLOW
@given(st.lists(st.tuples(st.integers(0, 0x7FF), st.sampled_from(CAN_FD_LENGTHS), st.binary(min_size=64, max_size=64),
                          st.booleans(), st.integers(0, 300_000_000)), max_size=40))  # fmt: skip
def test_noise_never_becomes_a_body_and_c_and_python_count_it_alike(
    native: ctypes.CDLL, noise: list[tuple[int, int, bytes, bool, int]]
) -> None:
    results = []
    for reassembler, feed in _both(native):
        now = 0
        for identifier, count, data, fd, later_ns in noise:
            now += later_ns // 1000 * 1000
            assert feed(CanFrame(identifier, data[:count], fd), now) is None
        results.append(_numbers(reassembler))
    assert results[0] == results[1]


@pytest.mark.parametrize("fd", [False, True])
def test_transfers_of_different_classes_may_interleave(native: ctypes.CDLL, fd: bool) -> None:
    chunk = bytes([m.Chunk.TYPE]) + bytes(200)
    beat = bytes([m.Heartbeat.TYPE]) + bytes(80)
    for _, feed in _both(native):
        a, b = frames_of(chunk, 5, fd=fd), frames_of(beat, 5, fd=fd)
        mixed = [frame for pair in zip(a, b, strict=False) for frame in pair] + a[len(b) :]
        assert sorted(filter(None, (feed(frame, 0) for frame in mixed))) == sorted([chunk, beat])


def test_a_frame_that_comes_twice_is_not_a_command_twice(native: ctypes.CDLL) -> None:
    body = bytes([m.Hold.TYPE]) + bytes(5)
    for reassembler, feed in _both(native):
        for frame in frames_of(body, 1, fd=True):
            assert feed(frame, 0) == body
            assert feed(frame, 0) is None
        assert _numbers(reassembler) == (1, 0, 0, 1)


def test_a_transfer_that_stops_half_way_is_closed_after_its_time(native: ctypes.CDLL) -> None:
    first, *rest = frames_of(bytes([m.Chunk.TYPE]) + bytes(100), 1, fd=True)
    for reassembler, feed in _both(native):
        feed(first, 0)
        for frame in rest:
            assert feed(frame, TIMEOUT_NS + 1_000_000) is None
        assert _numbers(reassembler)[0] == 0 and _numbers(reassembler)[1] >= 1


def test_a_missing_frame_closes_the_transfer_at_the_next_one(native: ctypes.CDLL) -> None:
    frames = frames_of(bytes([m.Chunk.TYPE]) + bytes(200), 1, fd=True)
    for reassembler, feed in _both(native):
        feed(frames[0], 0)
        feed(frames[2], 0)
        assert _numbers(reassembler) == (0, 1, 0, 0)
        feed(frames[3], 0)
        assert _numbers(reassembler) == (0, 1, 0, 0), "one transfer, counted once"


START, END, TOGGLE = 0x80, 0x40, 0x20
"""Of a frame's last byte; the lower five bits are the transfer's id."""
MOTION = frame_id(m.Chunk.TYPE, 1, to_host=False)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (CanFrame(MOTION, b"", True), "no tail"),
        (CanFrame(0x600, b"\xe0", False), "no such class"),
        (CanFrame(0x700, b"\xe0", False), "no such class"),
        (CanFrame(MOTION, bytes([START | END | TOGGLE]), True), "no count of zeros"),
        (CanFrame(MOTION, bytes([1, START | END | TOGGLE]), True), "more zeros than bytes"),
        (CanFrame(MOTION, bytes(10) + bytes([16, START | END | TOGGLE]), True), "more zeros than a length needs"),
        (CanFrame(MOTION, bytes([9, 0, 1, 2, START | END | TOGGLE]), True), "zeros that are none"),
        (CanFrame(MOTION, bytes([9, 1, 0, 2, START | END | TOGGLE]), True), "zeros that are none"),
        (CanFrame(MOTION, bytes(20) + bytes([START | TOGGLE]), True), "short, and not the end"),
        (CanFrame(MOTION, bytes(6) + bytes([START | TOGGLE]), False), "short, and not the end"),
        (CanFrame(MOTION, bytes(7) + bytes([START]), False), "a start with the toggle of a second frame"),
        (CanFrame(MOTION, bytes(8) + bytes([START | TOGGLE | END]), False), "longer than classic CAN has"),
    ],
)
def test_a_malformed_frame_is_one_bad_transfer_and_opens_none(native: ctypes.CDLL, frame: CanFrame, why: str) -> None:
    body = bytes([m.Chunk.TYPE]) + bytes(20)
    for reassembler, feed in _both(native):
        assert feed(frame, 0) is None, why
        assert _numbers(reassembler) == (0, 1, 0, 0), why
        assert [feed(good, 0) for good in frames_of(body, 0, fd=frame.fd)][-1] == body


@pytest.mark.parametrize("fd", [False, True])
def test_only_the_next_frame_of_the_same_sort_goes_on(native: ctypes.CDLL, fd: bool) -> None:
    """Another type of the same class, another transfer, or the other format is not the rest of this one."""
    first, second, *_ = frames_of(bytes([m.Chunk.TYPE]) + bytes(200), 1, fd=fd)
    tail = second.data[-1]
    for other in (
        replace(second, id=frame_id(m.State.TYPE, 1, to_host=False)),
        replace(second, data=second.data[:-1] + bytes([tail ^ 2])),
        replace(second, fd=not fd, data=bytes([0] * (7 if fd else 63)) + bytes([tail])),
        replace(first, data=first.data[:-1] + bytes([first.data[-1] & ~START])),
        replace(second, data=second.data[:-1] + bytes([tail ^ TOGGLE])),
    ):
        for reassembler, feed in _both(native):
            feed(first, 0)
            assert feed(other, 0) is None
            assert _numbers(reassembler)[1] >= 1, "the transfer is closed"
            before = _numbers(reassembler)
            feed(second, 0)
            assert _numbers(reassembler)[0] == 0 and _numbers(reassembler)[3] == before[3]


def test_the_end_of_what_was_delivered_is_a_duplicate_only_until_another_transfer_is_seen(native: ctypes.CDLL) -> None:
    *_, end = frames = frames_of(bytes([m.Chunk.TYPE]) + bytes(100), 4, fd=True)
    broken = CanFrame(MOTION, bytes(20) + bytes([START | TOGGLE | 5]), True)
    for reassembler, feed in _both(native):
        for frame in frames:
            feed(frame, 0)
        feed(end, 0)
        assert _numbers(reassembler) == (1, 0, 0, 1)
        feed(broken, 0)
        assert _numbers(reassembler) == (1, 1, 0, 1)
        feed(end, 0)
        assert _numbers(reassembler) == (1, 2, 0, 1)


@pytest.mark.parametrize("fd", [False, True])
def test_a_transfer_that_is_longer_than_any_message_is_dropped_and_nothing_behind_it_is_touched(
    native: ctypes.CDLL, fd: bool
) -> None:
    for reassembler, feed in _both(native):
        for frame in frames_of(bytes([m.Chunk.TYPE]) + bytes(700), 1, fd=fd):
            assert feed(frame, 0) is None
        assert _numbers(reassembler) == (0, 1, 0, 0)
        body = bytes([m.Chunk.TYPE]) + bytes(635)
        assert [feed(frame, 0) for frame in frames_of(body, 2, fd=fd)][-1] == body


@pytest.mark.parametrize("kind", [m.Estop, m.Hold, m.Arm, m.LimitsSet])
def test_a_body_under_the_identifier_of_another_is_not_delivered(native: ctypes.CDLL, kind: type) -> None:
    body = bytes([kind.TYPE]) + bytes(40)  # type: ignore[attr-defined]
    for reassembler, feed in _both(native):
        for frame in segment(sealed(body), frame_id(m.Chunk.TYPE, 1, to_host=False), 0, fd=True):
            assert feed(frame, 0) is None
        assert _numbers(reassembler) == (0, 1, 0, 0)


def test_transfers_of_which_nothing_came_are_counted_by_their_ids(native: ctypes.CDLL) -> None:
    body = bytes([m.Event.TYPE]) + bytes(30)
    for reassembler, feed in _both(native):
        for transfer_id in (30, 2):
            for frame in frames_of(body[:-1] + bytes([transfer_id]), transfer_id, fd=False):
                feed(frame, 0)
        assert _numbers(reassembler) == (2, 0, 3, 0)


# ---- identifiers ----


def test_identifiers_are_unique_and_the_emergency_stop_is_below_all_others() -> None:
    seen: dict[int, int] = {}
    for number in TRANSFER_TYPES:
        identifier = frame_id(number, 1, to_host=number >= 0x80)
        assert identifier not in seen, f"{number:#x} and {seen.get(identifier, 0):#x} share {identifier:#x}"
        assert CAN_ID_ESTOP < identifier <= 0x7FF
        assert bool(identifier & CAN_TO_HOST) == (number >= 0x80)
        seen[identifier] = number
    assert frame_id(m.Estop.TYPE, 5, to_host=False) == CAN_ID_ESTOP


def test_what_must_not_wait_has_priority_over_what_may() -> None:
    order = [m.Estop, m.Hold, m.Heartbeat, m.Ack, m.Chunk, m.LimitsSet]
    identifiers = [frame_id(kind.TYPE, 7, to_host=kind.TYPE >= 0x80) >> 8 for kind in order]
    assert identifiers == sorted(set(identifiers))
    assert set(CAN_CLASS.values()) == set(CanClass)
    assert class_of(0x7F) is CanClass.SETUP


@pytest.mark.parametrize("to_host", [False, True])
def test_the_core_and_the_host_give_every_type_the_same_identifier(native: ctypes.CDLL, to_host: bool) -> None:
    identifier, out, counts = ctypes.c_uint16(), ctypes.create_string_buffer(64), ctypes.create_string_buffer(1)
    for number in range(256):
        assert native.ewl_can_segment(b"", 0, number, 5, to_host, 0, 0, identifier, out, counts) == 1
        assert identifier.value == frame_id(number, 5, to_host=to_host)


@pytest.mark.parametrize("count", range(65))
def test_an_fd_length_is_the_next_that_exists(count: int) -> None:
    assert fd_length(count) == min(n for n in CAN_FD_LENGTHS if n >= count)


def _both(native: ctypes.CDLL) -> list[tuple[Any, Callable[[CanFrame, int], bytes | None]]]:
    ours, theirs = PythonReassembler(), NativeReassembler(native)
    return [(ours, ours.body), (theirs, theirs.feed)]


def _numbers(reassembler: PythonReassembler | NativeReassembler) -> tuple[int, ...]:
    return reassembler.numbers if isinstance(reassembler, PythonReassembler) else reassembler.counters


def _lost(
    reassembler: Any, seen: list[tuple[int, CanFrame]], feed: Callable[[CanFrame, int], bytes | None], next_id: int
) -> int:
    """Bad and missed transfers, after the time of what is under way is over and one more transfer has come."""
    end = max((ns for ns, _ in seen), default=0) + 2 * TIMEOUT_NS
    for frame in frames_of(bytes([m.Chunk.TYPE, 255]) + b"probe", next_id & 31, fd=False):
        feed(frame, end)
    return sum(_numbers(reassembler)[1:3])
