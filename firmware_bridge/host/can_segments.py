"""Frame bodies <-> CAN frames. The same rules as ``mcu/core/ew_can.c``.

11-bit identifier: priority(3) direction(1) node(3) type(4); the lowest wins. A transfer is ``body | crc32c``, cut
into frames that end in a tail byte (start, end, toggle, 5 bits of transfer id). Classic frames carry 7 bytes of it, FD
frames 63; the last FD frame is ``rest | zeros | number of zeros | tail``, because FD has only some lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from firmware_bridge.host.framing import crc32c
from firmware_bridge.host.messages import (
    CAN_CLASS,
    CAN_CLASSIC_BYTES,
    CAN_FD_LENGTHS,
    CAN_FRAME_BYTES,
    CAN_FRAME_TIMEOUT_US,
    CAN_ID_ESTOP,
    CAN_NODE_MAX,
    CAN_PADDING_MAX,
    CAN_TO_HOST,
    CRC_BYTES,
    MAX_BODY_BYTES,
    CanClass,
)

_START, _END, _TOGGLE, _TRANSFER = 0x80, 0x40, 0x20, 0x1F
_CLASS_AND_TYPE = 0x70F


@dataclass(frozen=True, slots=True)
class CanFrame:
    """One frame with an 11-bit identifier. ``fd``: FD format with bit rate switch."""

    id: int
    data: bytes
    fd: bool = False


def class_of(message_type: int) -> CanClass:
    """Priority class of a message type."""
    return CAN_CLASS.get(message_type, CanClass.SETUP)


def frame_id(message_type: int, node: int, *, to_host: bool) -> int:
    """Identifier of a message's frames."""
    kind = class_of(message_type)
    if kind is CanClass.ESTOP:
        return CAN_ID_ESTOP
    return kind << 8 | (CAN_TO_HOST if to_host else 0) | (node & CAN_NODE_MAX) << 4 | (message_type & 0xF)


def fd_length(count: int) -> int:
    """The smallest length of an FD frame that holds ``count`` bytes."""
    return next(length for length in CAN_FD_LENGTHS if length >= count)


def segment(transfer: bytes, identifier: int, transfer_id: int, *, fd: bool) -> Iterator[CanFrame]:
    """The frames of a transfer (body and CRC), in order."""
    room = (CAN_FRAME_BYTES if fd else CAN_CLASSIC_BYTES) - 1
    at, tail = 0, _START | _TOGGLE | (transfer_id & _TRANSFER)
    end = False
    while not end:
        part = transfer[at : at + room]
        at += len(part)
        end = at == len(transfer) and len(part) + fd <= room
        if end and fd:
            zeros = fd_length(len(part) + 2) - len(part) - 2
            part += bytes(zeros) + bytes([zeros])
        yield CanFrame(identifier, part + bytes([tail | (_END if end else 0)]), fd)
        tail = (tail & ~_START) ^ _TOGGLE


@dataclass(slots=True)
class SegmentCounters:
    """What the reassembly saw. Every frame belongs to a delivered transfer, a bad one, or came twice."""

    transfers: int = 0
    bad: int = 0
    """Something of it came, but not the whole: lost, reordered, damaged, too long, too late."""
    missed: int = 0
    """Nothing of it came, by their ids (modulo 32)."""
    duplicates: int = 0


@dataclass(slots=True)
class _Slot:
    body: bytearray = field(default_factory=bytearray)
    open: bool = False
    fd: bool = False
    identifier: int = 0
    transfer: int = 0
    toggle: int = 0
    frames: int = 0
    last: bytes = b""
    frame_ns: int = 0
    seen: int | None = None
    done: int | None = None
    done_crc: dict[int, bytes] = field(default_factory=dict)

    def of(self, frame: CanFrame) -> bool:
        """The frame is of the transfer that is under way."""
        return (
            self.open and self.transfer == frame.data[-1] & _TRANSFER
            and self.identifier == frame.id and self.fd == frame.fd
        )  # fmt: skip


class Reassembler:
    """Frames of one sender -> transfers. Never raises, whatever the bus brings; memory is one body a class."""

    def __init__(self) -> None:
        self.counters = SegmentCounters()
        self._slots = {kind: _Slot() for kind in CanClass}

    def feed(self, frame: CanFrame, now_ns: int) -> bytes | None:
        """Take one frame. Returns ``body | crc32c`` when it completed a transfer, whose CRC was then right."""
        data = frame.data
        kind = frame.id >> 8 & 7
        if kind == CanClass.ESTOP or kind > CanClass.SETUP or not 0 < len(data) <= (CAN_FRAME_BYTES if frame.fd else 8):
            self.counters.bad += 1
            return None
        slot = self._slots[CanClass(kind)]
        self._expire(slot, now_ns)
        part = _share(frame)
        if part is not None and self._repeated(slot, frame, part):
            self.counters.duplicates += 1
            return None
        fits = part is not None and self._continues(slot, frame) and len(slot.body) + len(part) <= MAX_BODY_BYTES
        if part is None or not fits:
            self._drop(slot, data[-1] & _TRANSFER)
            return None
        slot.body += part
        slot.last, slot.toggle, slot.frame_ns = part, slot.toggle ^ _TOGGLE, now_ns
        slot.frames += 1
        return self._finish(slot) if data[-1] & _END else None

    def expire(self, now_ns: int) -> None:
        """Close what was begun and did not go on."""
        for slot in self._slots.values():
            self._expire(slot, now_ns)

    def reset(self) -> None:
        """Forget what is under way (bus-off)."""
        for slot in self._slots.values():
            self.counters.bad += slot.open
            slot.open = False

    def _repeated(self, slot: _Slot, frame: CanFrame, part: bytes) -> bool:
        """The frame before once more, or the end of what has just been delivered."""
        tail = frame.data[-1]
        start, transfer = bool(tail & _START), tail & _TRANSFER
        if slot.of(frame):
            return tail & _TOGGLE != slot.toggle and part == slot.last and start == (slot.frames == 1)
        return not start and not slot.open and slot.done == transfer == slot.seen

    def _continues(self, slot: _Slot, frame: CanFrame) -> bool:
        """The frame is a beginning, or the next one of the open transfer."""
        tail = frame.data[-1]
        if tail & _START and tail & _TOGGLE:
            self._begin(slot, frame, tail & _TRANSFER)
            return True
        return not tail & _START and slot.of(frame) and tail & _TOGGLE == slot.toggle

    def _expire(self, slot: _Slot, now_ns: int) -> None:
        if slot.open and now_ns - slot.frame_ns > CAN_FRAME_TIMEOUT_US * 1000:
            slot.open = False
            self.counters.bad += 1

    def _drop(self, slot: _Slot, transfer: int) -> None:
        if slot.open:
            slot.open = False
            self.counters.bad += 1
            if slot.transfer == transfer:
                return
        if slot.seen != transfer:
            slot.seen = transfer
            self.counters.bad += 1

    def _begin(self, slot: _Slot, frame: CanFrame, transfer: int) -> None:
        self.counters.bad += slot.open
        if slot.seen is not None and slot.seen != transfer:
            self.counters.missed += (transfer - slot.seen - 1) & _TRANSFER
        slot.seen = slot.transfer = transfer
        slot.open, slot.fd, slot.identifier = True, frame.fd, frame.id
        slot.toggle, slot.frames, slot.last = _TOGGLE, 0, b""
        slot.body.clear()

    def _finish(self, slot: _Slot) -> bytes | None:
        slot.open = False
        whole = bytes(slot.body)
        body, crc = whole[:-CRC_BYTES], whole[-CRC_BYTES:]
        if (
            not body
            or crc32c(body) != int.from_bytes(crc, "little")
            or (frame_id(body[0], 0, to_host=False) ^ slot.identifier) & _CLASS_AND_TYPE
        ):
            self.counters.bad += 1
            return None
        if slot.done_crc.get(slot.transfer) == crc:
            self.counters.duplicates += 1  # the sequence number is under the CRC: no two messages are alike
            return None
        slot.done = slot.transfer
        slot.done_crc[slot.transfer] = crc
        self.counters.transfers += 1
        return whole


def _share(frame: CanFrame) -> bytes | None:
    """The transfer's part of a frame, None if the frame is malformed."""
    data = frame.data
    if not data[-1] & _END:
        return data[:-1] if len(data) == (CAN_FRAME_BYTES if frame.fd else CAN_CLASSIC_BYTES) else None
    if not frame.fd:
        return data[:-1]
    zeros = data[-2] if len(data) > 1 else 255
    cut = len(data) - 2 - zeros
    if zeros > CAN_PADDING_MAX or cut < 0 or any(data[cut:-2]):
        return None
    return data[:cut]
