"""The host's end of a CAN bus: bounded, never blocking, and plain about what went wrong."""

from __future__ import annotations

import errno
import itertools
import struct
from collections.abc import Iterator
from pathlib import Path

import can
import pytest

from edge_wam.config import LinkConfig
from firmware_bridge.errors import LinkError, TransportClosed
from firmware_bridge.host import messages as m
from firmware_bridge.host.can_segments import CanFrame, frame_id, segment
from firmware_bridge.host.can_transport import TX_AGE_NS, TX_FRAMES, CanOptions, CanTransport, open_can
from firmware_bridge.host.framing import FrameReceiver, LinkFrame, crc32c, encode_frame
from firmware_bridge.host.messages import CAN_TO_HOST

_NAMES = itertools.count()


class Clock:
    """Time that stands still until told."""

    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


class Wire(can.BusABC):
    """A bus that refuses, breaks and reports on demand."""

    def __init__(self) -> None:
        super().__init__(channel="wire")
        self.error: Exception | None = None
        self.sent: list[can.Message] = []
        self.coming: list[can.Message | Exception] = []

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(msg)

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        if not self.coming:
            return None, False
        first = self.coming.pop(0)
        if isinstance(first, Exception):
            raise first
        return first, False


@pytest.fixture
def wire() -> Iterator[tuple[Wire, CanTransport, Clock]]:
    bus, clock = Wire(), Clock()
    transport = CanTransport(bus, clock=clock)
    yield bus, transport, clock
    transport.close()


def frame(kind: type, payload: bytes = b"", seq: int = 1) -> bytes:
    return encode_frame(LinkFrame(kind.TYPE, seq, 0, payload).pack())  # type: ignore[attr-defined]


def message(data: bytes, identifier: int, *, fd: bool = False) -> can.Message:
    return can.Message(arbitration_id=identifier, is_extended_id=False, is_fd=fd, data=data)


def incoming(payload: bytes, *, transfer_id: int = 0, node: int = 1) -> list[can.Message]:
    body = struct.pack("<BBHH", m.Event.TYPE, 0, transfer_id, 0) + payload
    transfer = body + struct.pack("<I", crc32c(body))
    cut: Iterator[CanFrame] = segment(transfer, frame_id(m.Event.TYPE, node, to_host=True), transfer_id, fd=False)
    return [message(f.data, f.id) for f in cut]


FULL = can.CanOperationError("Transmit buffer full")


def test_what_foreign_nodes_say_does_not_hold_up_what_is_ours(wire: tuple[Wire, CanTransport, Clock]) -> None:
    bus, transport, _ = wire
    noise = [message(bytes(8), identifier) for identifier in (0x7FF, 0x310, CAN_TO_HOST | 0x320)]
    bus.coming = [one for ours in incoming(b"x" * 21) for one in (*noise, ours, *noise)]
    (body,) = FrameReceiver().feed(transport.read())
    assert body[6:] == b"x" * 21
    assert transport.counters.segments.bad == 0


def test_a_frame_of_the_link_comes_out_as_it_was_put_in(wire: tuple[Wire, CanTransport, Clock]) -> None:
    bus, transport, _ = wire
    transport.write(frame(m.Chunk, bytes(range(200))))
    data = b"".join(bytes(one.data)[:-1] for one in bus.sent)
    assert data[6:206] == bytes(range(200)) and len(bus.sent) == 30
    assert all(one.arbitration_id == frame_id(m.Chunk.TYPE, 1, to_host=False) for one in bus.sent)


def test_a_bus_without_room_never_blocks_and_whole_transfers_are_dropped(
    wire: tuple[Wire, CanTransport, Clock],
) -> None:
    bus, transport, _ = wire
    bus.error = FULL
    for seq in range(100):
        transport.write(frame(m.Chunk, bytes(200), seq))
    assert transport.backlog == 0, "a chunk that waits does not delay a heartbeat"
    transport.write(frame(m.Heartbeat, bytes(20)))
    assert 20 < transport.backlog < 64
    kept = 100 - transport.dropped_frames
    assert kept == TX_FRAMES // 30
    bus.error = None
    transport.read()
    assert len(bus.sent) == kept * 30 + 5 and transport.backlog == 0


def test_what_waited_too_long_is_not_sent_late(wire: tuple[Wire, CanTransport, Clock]) -> None:
    bus, transport, clock = wire
    bus.error = FULL
    transport.write(frame(m.Heartbeat, bytes(20)))
    clock.ns += TX_AGE_NS + 1
    bus.error = None
    transport.read()
    assert bus.sent == [] and transport.dropped_frames == 1 and transport.backlog == 0


def test_a_heartbeat_overtakes_a_chunk_that_waits(wire: tuple[Wire, CanTransport, Clock]) -> None:
    bus, transport, _ = wire
    bus.error = FULL
    transport.write(frame(m.Chunk, bytes(200)))
    transport.write(frame(m.Heartbeat, bytes(20)))
    bus.error = None
    transport.read()
    order = [one.arbitration_id for one in bus.sent]
    assert order[0] == frame_id(m.Heartbeat.TYPE, 1, to_host=False) and order == sorted(order)


@pytest.mark.parametrize("stop", [m.Hold, m.Disarm, m.Estop])
def test_motion_that_waits_is_forgotten_when_the_arm_is_to_stop(
    wire: tuple[Wire, CanTransport, Clock], stop: type
) -> None:
    bus, transport, _ = wire
    bus.error = FULL
    transport.write(frame(m.Chunk, bytes(200)))
    transport.write(frame(stop))
    bus.error = None
    transport.read()
    wanted = frame_id(stop.TYPE, 1, to_host=False)  # type: ignore[attr-defined]
    assert {one.arbitration_id for one in bus.sent} == {wanted}
    assert transport.dropped_frames == 1


def test_error_frames_and_bus_off_are_counted_and_bus_off_empties_the_queue(
    wire: tuple[Wire, CanTransport, Clock],
) -> None:
    bus, transport, _ = wire
    bus.error = FULL
    transport.write(frame(m.Chunk, bytes(200)))
    half = incoming(b"x" * 21)[:2]
    bus.coming = [*half, *(can.Message(is_error_frame=True, arbitration_id=kind) for kind in (0x8, 0x40))]
    assert transport.read() == b""
    assert (transport.counters.error_frames, transport.counters.bus_off) == (2, 1)
    assert transport.dropped_frames == 1
    bus.error = None
    transport.read()
    assert bus.sent == []
    assert transport.counters.segments.bad == 1


def test_a_line_that_is_no_frame_is_counted_and_reading_goes_on(wire: tuple[Wire, CanTransport, Clock]) -> None:
    bus, transport, _ = wire
    bus.coming = [ValueError("invalid literal for int()"), *incoming(b"abc")]
    assert transport.read() and transport.counters.error_frames == 1


@pytest.mark.parametrize(
    "error", [can.CanOperationError("Network is down", errno.ENETDOWN), OSError(errno.ENODEV, "gone")], ids=str
)
def test_a_bus_that_is_gone_is_a_closed_transport(wire: tuple[Wire, CanTransport, Clock], error: Exception) -> None:
    bus, transport, _ = wire
    bus.error = error
    with pytest.raises(TransportClosed, match="the bus is gone"):
        transport.write(frame(m.Hold))
    bus.error = None
    bus.coming = [error]
    with pytest.raises(TransportClosed, match="remedy"):
        transport.read()


def test_waiting_ends_with_a_whole_frame_and_not_before(wire: tuple[Wire, CanTransport, Clock]) -> None:
    bus, transport, _ = wire
    assert not transport.wait(0.01)
    parts = incoming(b"x" * 30)
    bus.coming = parts[:-1]
    assert not transport.wait(0.01)
    bus.coming = parts[-1:]
    assert transport.wait(1.0) and FrameReceiver().feed(transport.read())


def test_using_a_closed_transport_is_an_error() -> None:
    transport = CanTransport(Wire())
    transport.close()
    transport.close()
    with pytest.raises(TransportClosed, match="closed"):
        transport.read()


@pytest.mark.parametrize("node", [0, 8])
def test_a_node_that_an_identifier_cannot_hold_is_refused(node: int) -> None:
    bus = Wire()
    with pytest.raises(LinkError, match="node"):
        CanTransport(bus, node=node)
    bus.shutdown()


@pytest.mark.parametrize(
    "options",
    [CanOptions("no-such-driver"), CanOptions("socketcan", "not-there"), CanOptions("slcan", "/dev/null/x")],
    ids=lambda options: options.interface,
)  # fmt: skip
def test_a_bus_that_cannot_be_opened_is_refused_with_a_remedy(options: CanOptions) -> None:
    with pytest.raises(LinkError, match="remedy"):
        open_can(options)


def test_a_virtual_bus_is_opened_by_name() -> None:
    name = f"open-{next(_NAMES)}"
    first, second = (open_can(CanOptions("virtual", name)) for _ in range(2))
    first.write(frame(m.Hold))
    assert second.read() == b"" and second.counters.frames_received == 0, "a host hears another host"
    first.close()
    second.close()


def test_socketcan_is_one_line_of_configuration(tmp_path: Path) -> None:
    link = LinkConfig.model_validate({"kind": "can"})
    assert (link.address, link.can.interface, link.can.fd, link.can.node) == ("can0", "socketcan", True, 1)
    assert LinkConfig.model_validate(link.model_dump(mode="json")) == link
    assert LinkConfig.model_validate({"kind": "can", "address": "can1"}).address == "can1"
    with pytest.raises(ValueError, match=r"link\.address"):
        LinkConfig.model_validate({"kind": "emulator", "address": "can0"})
