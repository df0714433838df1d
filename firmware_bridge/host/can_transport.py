"""The host link over CAN, on any bus that python-can opens: SocketCAN, slcan, virtual, UDP multicast.

A transport moves whole frames of the link; on CAN such a frame is a transfer of several bus frames. Nothing waits here
for longer than it is worth: the queue is bounded, a transfer that did not get onto the bus within 100 ms is dropped
whole and counted, and an emergency stop goes ahead of everything.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cobs import cobs

from firmware_bridge.errors import LinkError, TransportClosed
from firmware_bridge.host.can_segments import CanFrame, Reassembler, SegmentCounters, class_of, frame_id, segment
from firmware_bridge.host.link_metrics import BusEnd
from firmware_bridge.host.messages import CAN_ID_ESTOP, CAN_NODE_MAX, CAN_TO_HOST, HEADER_BYTES, CanClass

if TYPE_CHECKING:
    import can

TX_FRAMES = 128
"""At 1 Mbit/s this is 15-20 ms of classic frames: beyond it a frame would arrive too late to be of use."""
TX_AGE_NS = 100_000_000
"""What has not reached the bus by then is dropped: the microcontroller has taken the host for dead in the meantime."""
_SINGLE_FRAME_TAIL = 0xE0
_ERROR_BUS_OFF = 0x40
"""CAN_ERR_BUSOFF, in the identifier of an error frame."""
_GONE = (errno.ENETDOWN, errno.ENODEV, errno.ENXIO, errno.EBADF)
_READ_BURST = 1024


@dataclass(frozen=True, slots=True)
class CanOptions:
    """Which bus, and which microcontroller on it.

    Attributes:
        interface: python-can's name: ``socketcan``, ``slcan``, ``virtual``, ``udp_multicast``, or a vendor's.
        channel: ``can0``, ``/dev/ttyACM0``, ...
        bitrate: of arbitration, bit/s. SocketCAN takes it from the system (``ip link set can0 type can bitrate ...``).
        data_bitrate: after the bit rate switch, bit/s; FD only.
        fd: send FD frames. The microcontroller answers in the format in which it was asked.
        node: of the microcontroller, 1..7.
    """

    interface: str = "socketcan"
    channel: str = "can0"
    bitrate: int = 1_000_000
    data_bitrate: int = 5_000_000
    fd: bool = True
    node: int = 1


@dataclass(slots=True)
class CanCounters:
    """What the bus did, beside what the reassembly counts."""

    segments: SegmentCounters
    frames_sent: int = 0
    frames_received: int = 0
    error_frames: int = 0
    """Error frames of the controller, and what was no frame at all."""
    bus_off: int = 0


@dataclass(slots=True)
class _Waiting:
    """A transfer on its way out."""

    frames: deque[CanFrame] = field(default_factory=deque)
    due_ns: int = 0


class CanTransport:
    """A :class:`~firmware_bridge.host.transport.Transport` on an open python-can bus, which it closes; for one loop.

    Args:
        bus: what python-can opened.
        node: of the microcontroller, 1..7.
        fd: send FD frames.
        name: for people.
        clock: monotonic ns.
    """

    def __init__(
        self,
        bus: can.BusABC,
        *,
        node: int = 1,
        fd: bool = False,
        name: str = "CAN",
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        import can

        if not 1 <= node <= CAN_NODE_MAX:
            raise LinkError(f"CAN node {node}", expected=f"1..{CAN_NODE_MAX}", remedy="correct the configuration")
        self.name = name
        self.dropped_frames = 0
        self._can = can
        self._bus: can.BusABC | None = bus
        self._node, self._fd, self._clock = node, fd, clock
        self._reassembler = Reassembler()
        self.counters = CanCounters(self._reassembler.counters)
        self._outbox: dict[CanClass, deque[_Waiting]] = {kind: deque() for kind in CanClass}
        self._transfer_id = dict.fromkeys(CanClass, 0)
        self._inbox = bytearray()

    @property
    def bus_end(self) -> BusEnd:
        """For the status of the link."""
        return BusEnd(self.counters.error_frames, self.counters.bus_off, self.counters.segments.bad)

    @property
    def backlog(self) -> int:
        """Bytes that wait here and would delay a heartbeat: a chunk that waits would not, a heartbeat overtakes it."""
        urgent = [queue for kind, queue in self._outbox.items() if kind <= CanClass.BEAT]
        return sum(len(frame.data) for queue in urgent for item in queue for frame in item.frames)

    def write(self, frame: bytes) -> None:
        """Hand over one frame of the link (COBS and delimiter, as for a serial line). Does not block.

        Raises:
            TransportClosed: the bus is gone.
        """
        transfer: bytes = cobs.decode(frame[:-1])
        kind = class_of(transfer[0])
        if kind <= CanClass.STOP:
            self._forget_motion()
        number = self._transfer_id[kind]
        self._transfer_id[kind] = number + 1 & 0x1F
        if kind is CanClass.ESTOP:
            frames = deque([CanFrame(CAN_ID_ESTOP, transfer[:HEADER_BYTES] + bytes([_SINGLE_FRAME_TAIL | number]))])
        else:
            frames = deque(segment(transfer, frame_id(transfer[0], self._node, to_host=False), number, fd=self._fd))
            waiting = sum(len(item.frames) for queue in self._outbox.values() for item in queue)
            if waiting + len(frames) > TX_FRAMES:
                self.dropped_frames += 1
                self._flush()
                return
        self._outbox[kind].append(_Waiting(frames, self._clock() + TX_AGE_NS))
        self._flush()

    def read(self) -> bytes:
        """Whole frames of the link that have arrived, possibly none. Does not block.

        Raises:
            TransportClosed: the bus is gone.
        """
        self._flush()
        for _ in range(_READ_BURST):
            message = self._receive(0.0)
            if message is None:
                break
            self._take(message)
        self._reassembler.expire(self._clock())
        data = bytes(self._inbox)
        self._inbox.clear()
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        """Let time pass until a whole frame is there, at most ``timeout_s``. True if there is.

        ``gather_s`` has no meaning here: what is reassembled is whole.
        """
        deadline = time.monotonic() + timeout_s
        while not self._inbox:
            left = deadline - time.monotonic()
            self._flush()
            message = self._receive(max(0.0, min(left, 0.001) if self._waiting else left))
            if message is not None:
                self._take(message)
            elif left <= 0.0:
                return False
        return True

    def close(self) -> None:
        """Give the bus back; may be called twice."""
        if self._bus is not None:
            with contextlib.suppress(self._can.CanError, OSError):
                self._flush()
            with contextlib.suppress(self._can.CanError, OSError):
                self._bus.shutdown()
            self._bus = None

    @property
    def _waiting(self) -> bool:
        return any(self._outbox.values())

    def _forget_motion(self) -> None:
        """A wish to stand still makes the motion that still waits worthless; it must not come after it."""
        self.dropped_frames += len(self._outbox[CanClass.MOTION])
        self._outbox[CanClass.MOTION].clear()

    def _flush(self) -> None:
        bus = self._open_bus()
        now = self._clock()
        for queue in self._outbox.values():
            while queue:
                item = queue[0]
                if now > item.due_ns:
                    queue.popleft()
                    self.dropped_frames += 1
                    continue
                while item.frames:
                    if not self._send(bus, item.frames[0]):
                        return
                    item.frames.popleft()
                queue.popleft()

    def _send(self, bus: can.BusABC, frame: CanFrame) -> bool:
        """False: the bus has no room now."""
        message = self._can.Message(
            arbitration_id=frame.id, is_extended_id=False, is_fd=frame.fd, bitrate_switch=frame.fd, data=frame.data
        )
        try:
            bus.send(message, timeout=0.0)
        except self._can.CanError as error:
            if getattr(error, "error_code", None) in _GONE:
                raise self._gone(error) from error
            return False
        except OSError as error:
            raise self._gone(error) from error
        self.counters.frames_sent += 1
        return True

    def _receive(self, timeout_s: float) -> can.Message | None:
        try:
            return self._open_bus().recv(timeout_s)
        except ValueError:
            # slcan: a line that is no frame. A message that is nothing, so that the caller goes on reading.
            return self._can.Message(is_error_frame=True, arbitration_id=0)
        except (self._can.CanError, OSError) as error:
            raise self._gone(error) from error

    def _take(self, message: can.Message) -> None:
        if message.is_error_frame:
            self.counters.error_frames += 1
            if message.arbitration_id & _ERROR_BUS_OFF:
                self.counters.bus_off += 1
                self._reassembler.reset()
                for queue in self._outbox.values():
                    self.dropped_frames += len(queue)
                    queue.clear()
            return
        identifier = message.arbitration_id
        if message.is_extended_id or identifier & 0x0F0 != CAN_TO_HOST | self._node << 4:
            return  # not every interface filters
        self.counters.frames_received += 1
        data = b"" if message.is_remote_frame else bytes(message.data)
        transfer = self._reassembler.feed(CanFrame(identifier, data, bool(message.is_fd)), self._clock())
        if transfer is not None:
            self._inbox += cobs.encode(transfer) + b"\x00"

    def _open_bus(self) -> can.BusABC:
        if self._bus is None:
            raise TransportClosed(f"{self.name} is closed", remedy="open a new transport")
        return self._bus

    def _gone(self, error: Exception) -> TransportClosed:
        return TransportClosed(
            f"{self.name}: the bus is gone: {error}",
            remedy="bring the interface up (ip link set can0 up) or plug the adapter in, and run again",
        )


def open_can(options: CanOptions) -> CanTransport:
    """Open a bus with python-can.

    Raises:
        LinkError: the interface is unknown, absent, down or refuses the bit rate.
    """
    import can

    name = f"{options.interface}:{options.channel}"
    try:
        bus = _open_bus(options)
    except (can.CanError, OSError, ValueError, ImportError, NotImplementedError) as error:
        raise LinkError(
            f"CAN bus {name} cannot be opened: {error}",
            expected="an interface that exists, is up and has the bit rate that was configured",
            remedy="ip link set can0 up type can bitrate 1000000 dbitrate 5000000 fd on restart-ms 100",
        ) from error
    return CanTransport(bus, node=options.node, fd=options.fd, name=name)


def _open_bus(options: CanOptions) -> can.BusABC:
    import can

    if options.interface == "slcan":
        from firmware_bridge.host.slcan_bus import SlcanBus

        return SlcanBus(options.channel, options.bitrate, options.data_bitrate if options.fd else None)
    return can.Bus(interface=options.interface, channel=options.channel, **_bus_arguments(options))


def _bus_arguments(options: CanOptions) -> dict[str, Any]:
    """What each interface wants to know. Where the system sets the bit rate, none is given."""
    if options.interface == "socketcan":
        # The kernel filters. Filters of python-can itself would make a poll end at the first foreign frame.
        mine = {"can_id": CAN_TO_HOST | options.node << 4, "can_mask": 0x0F0, "extended": False}
        return {"fd": options.fd, "can_filters": [mine]}
    if options.interface == "virtual":
        return {}
    if options.interface == "udp_multicast":
        return {"fd": options.fd, "hop_limit": 0}  # 0: not beyond this machine
    return {"bitrate": options.bitrate, "fd": options.fd, "data_bitrate": options.data_bitrate}
