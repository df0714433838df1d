"""A CAN bus that takes as long as its bits, with the microcontroller's core on it, for measuring.

Two nodes share it: the lower identifier of those that wait goes first, one frame at a time, each for its own number of
bits. A frame arrives when its last bit has passed, never before; how late this process noticed is kept.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque

import can

from firmware_bridge.host.bench_rig import LibraryByTheWall
from firmware_bridge.host.can_segments import CanFrame
from firmware_bridge.host.can_timing import frame_ns

TX_FRAMES = 128
"""What the kernel's queue of a CAN interface holds."""
_FD = 1


class CanNode(LibraryByTheWall):
    """The core with its CAN link, ticks by the wall clock."""

    def __init__(self, *, node: int = 1) -> None:
        super().__init__()
        lib, u8, u16, u64 = self._library, ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint64
        lib.ewl_can_start.argtypes = [ctypes.c_void_p, u8, u64]
        lib.ewl_can_rx.argtypes = [ctypes.c_void_p, u16, ctypes.c_char_p, u8, u8, u64]
        lib.ewl_can_tx.argtypes = [ctypes.c_void_p, ctypes.POINTER(u16), ctypes.c_char_p, ctypes.POINTER(u8)]
        lib.ewl_can_tx.restype = ctypes.c_int32
        self._id, self._flags = ctypes.c_uint16(), ctypes.c_uint8()
        self._data = ctypes.create_string_buffer(64)
        lib.ewl_can_start(self._handle(), node, self.mcu_us)

    def put(self, frame: CanFrame) -> None:
        """A frame has arrived at the MCU."""
        flags = _FD if frame.fd else 0
        self._library.ewl_can_rx(self._handle(), frame.id, frame.data, len(frame.data), flags, self.mcu_us)

    def take(self) -> CanFrame | None:
        """The next frame that the MCU wants to send."""
        count = self._library.ewl_can_tx(self._handle(), ctypes.byref(self._id), self._data, ctypes.byref(self._flags))
        if count < 0:
            return None
        return CanFrame(self._id.value, self._data.raw[:count], bool(self._flags.value & _FD))


class PacedCanBus(can.BusABC):
    """What python-can opens, with one MCU on it. Frames only move while somebody calls it."""

    def __init__(self, node: CanNode, bitrate: int, data_bitrate: int) -> None:
        super().__init__(channel="paced")
        self._node, self._bitrate, self._data_bitrate = node, bitrate, data_bitrate
        self._from_host: deque[tuple[CanFrame, int]] = deque()
        self._from_mcu: deque[tuple[CanFrame, int]] = deque()
        self._on_wire: tuple[CanFrame, int, bool] | None = None  # frame, end, to the MCU
        self._free_ns = 0
        self._arrived: deque[CanFrame] = deque()
        self.late_ns: list[int] = []
        self.busy_ns = 0
        """Of host to MCU: time on the wire."""

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Queue a frame; raises CanOperationError while the queue is full."""
        if len(self._from_host) >= TX_FRAMES:
            raise can.CanOperationError("transmit queue full")
        frame = CanFrame(msg.arbitration_id, bytes(msg.data), bool(msg.is_fd))
        self._from_host.append((frame, time.monotonic_ns()))
        self._move()

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        deadline = time.monotonic_ns() + round((timeout or 0.0) * 1e9)
        while True:
            self._move()
            if self._arrived or time.monotonic_ns() >= deadline:
                break
        if not self._arrived:
            return None, False
        frame = self._arrived.popleft()
        return can.Message(
            arbitration_id=frame.id, is_extended_id=False, is_fd=frame.fd, bitrate_switch=frame.fd, data=frame.data
        ), False

    def shutdown(self) -> None:
        """Give the MCU back too."""
        super().shutdown()
        self._node.close()

    def _move(self) -> None:
        self._node.read()  # its ticks; over CAN it says nothing else
        now = time.monotonic_ns()
        while (frame := self._node.take()) is not None:
            self._from_mcu.append((frame, now))
        while True:
            if self._on_wire is None and not self._begin(now):
                return
            assert self._on_wire is not None
            frame, end_ns, to_mcu = self._on_wire
            if end_ns > now:
                return
            self._on_wire = None
            self.late_ns.append(now - end_ns)
            if to_mcu:
                self._node.put(frame)
                while (answer := self._node.take()) is not None:
                    self._from_mcu.append((answer, now))
            else:
                self._arrived.append(frame)

    def _begin(self, now: int) -> bool:
        """The next frame's first bit: the lowest identifier of those that waited when the bus fell silent."""
        heads = [(queue[0][1], queue[0][0].id, queue) for queue in (self._from_host, self._from_mcu) if queue]
        if not heads:
            return False
        start = max(self._free_ns, min(queued for queued, _, _ in heads))
        _, _, queue = min((head for head in heads if head[0] <= start), key=lambda head: head[1])
        frame, _ = queue.popleft()
        took = frame_ns(frame, self._bitrate, self._data_bitrate)
        self._free_ns = start + took
        to_mcu = queue is self._from_host
        self.busy_ns += took if to_mcu else 0
        self._on_wire = (frame, self._free_ns, to_mcu)
        return True
