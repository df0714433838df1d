"""Shared memory between processes: camera frame rings and newest-value mailboxes. Fixed layout, nothing pickled.

A segment is an anonymous memory file (memfd) whose descriptor is inherited by the child processes, so the kernel frees
it when the last of them ends, however it ends: there is nothing to clean up after ``kill -9``.

One writer, any number of readers, no locks. A slot is ``sequence | length | crc32 | payload``: the sequence is odd
while the writer is inside, and the CRC covers the payload, so that a torn read is found on every processor, whatever
order its memory system makes stores visible in (a sequence lock alone needs barriers that Python cannot ask for).
A reader takes a private copy first and checks the copy.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from dataclasses import dataclass

import numpy as np

from edge_wam.contracts import U8, Frame
from edge_wam.errors import ContractError

_MAGIC = 0x4D415745  # "EWAM"
_RING_HEADER = struct.Struct("<IIIIII")  # magic, slots, height, width, slot stride, name length
_RING_NEWEST = struct.Struct("<q")  # at 64: index of the newest complete frame, -1 before the first
_RING_NAME_AT = 128
_RING_DATA_AT = 256
_FRAME_SLOT = struct.Struct("<QqqI")  # sequence, frame index, captured_at_ns, crc32 of the pixels
_MAIL_HEADER = struct.Struct("<III")  # magic, capacity, slot stride
_MAIL_NEWEST = struct.Struct("<Q")  # at 64: number of the newest complete message, 0 before the first
_MAIL_DATA_AT = 128
_MAIL_SLOT = struct.Struct("<QQII")  # sequence, message number, length, crc32
_SEQUENCE = struct.Struct("<Q")
_ALIGN = 64


def _aligned(size: int) -> int:
    return (size + _ALIGN - 1) // _ALIGN * _ALIGN


def create_segment(name: str, size: int) -> int:
    """A new zeroed shared memory file of ``size`` bytes; returns its descriptor, inheritable by child processes.

    ``name`` shows in /proc only. The memory lives until the last process that holds it is gone.
    """
    fd = os.memfd_create(f"edge-wam-{name}", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    os.set_inheritable(fd, True)
    return fd


def _map(fd: int, minimum: int, what: str) -> mmap.mmap:
    size = os.fstat(fd).st_size
    if size < minimum:
        raise ContractError(f"shared memory {what} has {size} bytes", expected=f"at least {minimum}")
    return mmap.mmap(fd, size)


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """What a ring says about a frame without copying its pixels. ``crc`` is the CRC-32 of the pixels."""

    index: int
    captured_at_ns: int
    crc: int


class FrameRing:
    """The newest ``slots`` frames of one camera, uint8 RGB [height, width, 3].

    The writer calls :meth:`publish`; readers call :meth:`newest` and :meth:`read`. A frame that the writer has already
    overwritten, or is overwriting, is reported as gone, never returned half old and half new.
    """

    def __init__(self, fd: int) -> None:
        """Attach to the ring behind an inherited descriptor.

        Raises:
            ContractError: the segment is no frame ring.
        """
        self._map = _map(fd, _RING_DATA_AT, "frame ring")
        self.fd = fd
        magic, self.slots, self.height, self.width, self._stride, name_length = _RING_HEADER.unpack_from(self._map, 0)
        if magic != _MAGIC or self.slots < 2 or len(self._map) < _RING_DATA_AT + self.slots * self._stride:
            raise ContractError("the segment is no frame ring", expected=f"magic {_MAGIC:#x}")
        self.name = self._map[_RING_NAME_AT : _RING_NAME_AT + name_length].decode()
        self._pixels = self.height * self.width * 3
        self._next = self.newest_index() + 1

    @classmethod
    def create(cls, name: str, height: int, width: int, slots: int = 8) -> FrameRing:
        """A new empty ring. ``slots`` frames stay readable: at 20 Hz, 8 of them are 400 ms."""
        stride = _aligned(_FRAME_SLOT.size + height * width * 3)
        fd = create_segment(f"ring-{name}", _RING_DATA_AT + slots * stride)
        memory = mmap.mmap(fd, 0)
        label = name.encode()[: _RING_DATA_AT - _RING_NAME_AT]
        memory[_RING_NAME_AT : _RING_NAME_AT + len(label)] = label
        _RING_NEWEST.pack_into(memory, 64, -1)
        _RING_HEADER.pack_into(memory, 0, _MAGIC, slots, height, width, stride, len(label))
        memory.close()
        return cls(fd)

    def publish(self, image: U8, captured_at_ns: int) -> int:
        """Write one frame [height, width, 3] and return its index (0, 1, 2, ...).

        Raises:
            ContractError: wrong shape or type; the ring is unchanged.
        """
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise ContractError(
                f"camera {self.name}: image is {image.dtype} {image.shape}",
                expected=f"uint8 ({self.height}, {self.width}, 3)",
            )
        pixels = np.ascontiguousarray(image).reshape(-1)
        index, at = self._next, _RING_DATA_AT + (self._next % self.slots) * self._stride
        (sequence,) = _SEQUENCE.unpack_from(self._map, at)
        sequence |= 1  # a writer that died inside left it odd already
        _SEQUENCE.pack_into(self._map, at, sequence)
        self._map[at + _FRAME_SLOT.size : at + _FRAME_SLOT.size + self._pixels] = pixels.data
        _FRAME_SLOT.pack_into(self._map, at, sequence, index, captured_at_ns, zlib.crc32(pixels.data))
        _SEQUENCE.pack_into(self._map, at, sequence + 1)
        _RING_NEWEST.pack_into(self._map, 64, index)
        self._next = index + 1
        return index

    def newest_index(self) -> int:
        """Index of the newest frame, -1 when there is none yet."""
        return int(_RING_NEWEST.unpack_from(self._map, 64)[0])

    def info(self, index: int) -> FrameInfo | None:
        """Index, capture time and CRC of a frame that is still in the ring, else None. Does not look at the pixels."""
        if index < 0:
            return None
        at = _RING_DATA_AT + (index % self.slots) * self._stride
        sequence, found, captured_at_ns, crc = _FRAME_SLOT.unpack_from(self._map, at)
        if sequence & 1 or found != index:
            return None
        return FrameInfo(index, captured_at_ns, crc)

    def read(self, index: int) -> Frame | None:
        """A private copy of frame ``index``; None when it is overwritten, torn or not there yet."""
        before = self.info(index)
        if before is None:
            return None
        at = _RING_DATA_AT + (index % self.slots) * self._stride + _FRAME_SLOT.size
        pixels = self._map[at : at + self._pixels]
        if self.info(index) != before or zlib.crc32(pixels) != before.crc:
            return None
        image = np.frombuffer(pixels, np.uint8).reshape(self.height, self.width, 3)
        return Frame(image=image, captured_at_ns=before.captured_at_ns, index=index)

    def close(self) -> None:
        """Unmap here. The memory itself goes with the last process that holds the descriptor."""
        self._map.close()


class Mailbox:
    """The newest message of one writer, as bytes. Older messages are overwritten unread: late is wrong.

    Two slots alternate, so that a writer killed in the middle of one leaves the other whole.
    """

    def __init__(self, fd: int) -> None:
        """Attach to the mailbox behind an inherited descriptor.

        Raises:
            ContractError: the segment is no mailbox.
        """
        self._map = _map(fd, _MAIL_DATA_AT, "mailbox")
        self.fd = fd
        magic, self.capacity, self._stride = _MAIL_HEADER.unpack_from(self._map, 0)
        if magic != _MAGIC or len(self._map) < _MAIL_DATA_AT + 2 * self._stride:
            raise ContractError("the segment is no mailbox", expected=f"magic {_MAGIC:#x}")

    @classmethod
    def create(cls, name: str, capacity: int) -> Mailbox:
        """A new empty mailbox for messages of up to ``capacity`` bytes."""
        stride = _aligned(_MAIL_SLOT.size + capacity)
        fd = create_segment(f"mail-{name}", _MAIL_DATA_AT + 2 * stride)
        memory = mmap.mmap(fd, 0)
        _MAIL_HEADER.pack_into(memory, 0, _MAGIC, capacity, stride)
        memory.close()
        return cls(fd)

    @property
    def number(self) -> int:
        """Number of the newest message: 0 before the first, then 1, 2, ... Cheap enough for every control tick."""
        return int(_MAIL_NEWEST.unpack_from(self._map, 64)[0])

    def put(self, payload: bytes) -> int:
        """Write a message and return its number.

        Raises:
            ContractError: longer than the mailbox; the previous message stays.
        """
        if len(payload) > self.capacity:
            raise ContractError(f"message of {len(payload)} bytes", expected=f"at most {self.capacity}")
        number = self.number + 1
        at = _MAIL_DATA_AT + (number & 1) * self._stride
        (sequence,) = _SEQUENCE.unpack_from(self._map, at)
        sequence |= 1
        _SEQUENCE.pack_into(self._map, at, sequence)
        self._map[at + _MAIL_SLOT.size : at + _MAIL_SLOT.size + len(payload)] = payload
        _MAIL_SLOT.pack_into(self._map, at, sequence, number, len(payload), zlib.crc32(payload))
        _SEQUENCE.pack_into(self._map, at, sequence + 1)
        _MAIL_NEWEST.pack_into(self._map, 64, number)
        return number

    def get(self) -> tuple[int, bytes] | None:
        """(number, copy of the payload) of the newest whole message; None before the first, or while it is torn."""
        number = self.number
        if number == 0:
            return None
        at = _MAIL_DATA_AT + (number & 1) * self._stride
        before = _MAIL_SLOT.unpack_from(self._map, at)
        sequence, found, length, crc = before
        if sequence & 1 or found != number or length > self.capacity:
            return None
        payload = self._map[at + _MAIL_SLOT.size : at + _MAIL_SLOT.size + length]
        if _MAIL_SLOT.unpack_from(self._map, at) != before or zlib.crc32(payload) != crc:
            return None
        return number, payload

    def close(self) -> None:
        """Unmap here. The memory itself goes with the last process that holds the descriptor."""
        self._map.close()
