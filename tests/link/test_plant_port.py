"""The plant's end of the drive stream: whole orders out of any bytes, and no encoder value that is no number."""

from __future__ import annotations

import math
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.framing import FrameReceiver, encode_frame
from firmware_bridge.host.messages import Encoder, Setpoint
from firmware_bridge.host.plant_port import PlantPort, encoder_micro
from firmware_bridge.host.transport import SocketTransport


@pytest.fixture
def port_and_peer():  # type: ignore[no-untyped-def]
    ours, theirs = socket.socketpair()
    port = PlantPort(SocketTransport(ours, "pair"))
    yield port, theirs
    port.close()
    theirs.close()


def order(tick: int, enable: int, *micro: int) -> bytes:
    return encode_frame(bytes([Setpoint.TYPE]) + Setpoint(tick, enable, micro).pack())


def test_orders_come_out_in_si_units_oldest_first(port_and_peer) -> None:  # type: ignore[no-untyped-def]
    port, peer = port_and_peer
    peer.sendall(order(7, 1, 100_000, -5) + order(8, 0, 100_001, -6))
    first, second = port.poll()
    assert (first.tick, first.enabled, first.setpoint.tolist()) == (7, True, [0.1, -5e-6])
    assert (second.tick, second.enabled) == (8, False)
    assert port.poll() == []


def test_broken_frames_and_frames_of_another_kind_are_no_orders(port_and_peer) -> None:  # type: ignore[no-untyped-def]
    port, peer = port_and_peer
    broken = bytearray(order(9, 1, 1))
    broken[3] ^= 4
    peer.sendall(bytes(broken) + encode_frame(b"\x7fhello") + encode_frame(bytes([Setpoint.TYPE, 1])) + order(10, 1, 2))
    assert [command.tick for command in port.poll()] == [10]
    assert port.malformed == 2
    assert port.counters.bad_crc + port.counters.bad_cobs == 1


def test_flags_that_are_not_of_this_protocol_are_no_order_to_move(port_and_peer) -> None:  # type: ignore[no-untyped-def]
    port, peer = port_and_peer
    peer.sendall(order(1, 255, 0))
    assert not port.poll()[0].enabled


def test_encoder_values_are_numbered_and_rounded_to_micro_units(port_and_peer) -> None:  # type: ignore[no-untyped-def]
    port, peer = port_and_peer
    port.send_encoder([0.1234567, -1.0])
    port.send_encoder([0.0, 0.0])
    bodies = FrameReceiver().feed(peer.recv(1000))
    values = [Encoder.unpack(body[1:]) for body in bodies]
    assert values == [Encoder(1, 2, (123_457, -1_000_000), (0, 0)), Encoder(2, 2, (0, 0), (0, 0))]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_only_finite_plausible_positions_of_1_to_16_axes_become_encoder_values(values: list[float]) -> None:
    good = 1 <= len(values) <= 16 and all(math.isfinite(value) and abs(value) < 199.9 for value in values)
    bad = not 1 <= len(values) <= 16 or any(not math.isfinite(value) or abs(value) > 200.1 for value in values)
    if good:
        assert encoder_micro(values).tolist() == pytest.approx([value * 1e6 for value in values], abs=0.51)
    elif bad:
        with pytest.raises(FirmwareError, match="stay silent"):
            encoder_micro(values)
