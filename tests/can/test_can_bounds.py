"""Wire time, and what priority is worth on a bus that is full."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.can_bounds import (
    CLASSIC_1M,
    FD_1M_5M,
    FD_1M_8M,
    BusRate,
    frame_bits,
    frame_lengths,
    transfer_time_us,
)
from firmware_bridge.host.can_segments import CanFrame, frame_id, segment
from firmware_bridge.host.can_timing import frame_ns, stuffed
from firmware_bridge.host.framing import crc32c
from firmware_bridge.host.messages import CAN_FD_LENGTHS, CAN_ID_ESTOP, McuState
from tests.can.arbitration import Arbitration, Delivered, Sender
from tests.can.node import CanRig

CHUNK_16X7 = 6 + m.CHUNK_HEADER_BYTES + 16 * 7 * 2


@pytest.mark.parametrize(
    ("count", "fd", "rate", "least_us", "most_us"),
    [
        (8, False, CLASSIC_1M, 111.0, 135.0),  # the textbook figures
        (0, False, CLASSIC_1M, 47.0, 55.0),
        (64, True, FD_1M_5M, 139.8, 169.6),
        (64, True, FD_1M_8M, 98.6, 118.8),
        (8, True, FD_1M_5M, 49.2, 56.6),
    ],
)
def test_a_frame_takes_the_time_of_its_bits(
    count: int, fd: bool, rate: BusRate, least_us: float, most_us: float
) -> None:
    bits = frame_bits(count, fd=fd)
    assert bits.time_us(rate, worst=False) == pytest.approx(least_us, abs=0.1)
    assert bits.time_us(rate, worst=True) == pytest.approx(most_us, abs=0.15)


@given(st.integers(0, 0x7FF), st.booleans(), st.sampled_from(CAN_FD_LENGTHS), st.randoms(use_true_random=False))
def test_every_frame_lies_within_the_bounds(identifier: int, fd: bool, size: int, rng: random.Random) -> None:
    size = size if fd else min(size, 8)
    data = bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(size))
    rate = FD_1M_5M if fd else CLASSIC_1M
    exact_us = frame_ns(CanFrame(identifier, data, fd), 1_000_000, 5_000_000) / 1000
    bounds = frame_bits(size, fd=fd)
    # The CRC delimiter of an FD frame changes the rate in its middle: here it is slow, there fast.
    assert bounds.time_us(rate, worst=False) - 0.81 <= exact_us <= bounds.time_us(rate, worst=True)


def test_the_worst_stuffing_is_reached() -> None:
    for count in (0, 4, 8):
        length = 34 + 8 * count
        worst = ([0] * 5 + [bit for i in range(length) for bit in [1 - i % 2] * 4])[:length]
        assert len(stuffed(worst)) - length == frame_bits(count, fd=False).stuff_nominal_max


@pytest.mark.parametrize("count", [9, 63, 65, -1])
def test_a_length_that_no_frame_has_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match="bytes"):
        frame_bits(count, fd=True)


@pytest.mark.parametrize("fd", [False, True])
def test_lengths_are_those_of_the_frames_that_are_sent(fd: bool) -> None:
    for body in range(1, 637):
        frames = segment(bytes(body + m.CRC_BYTES), 0x410, 0, fd=fd)
        assert [len(frame.data) for frame in frames] == frame_lengths(body, fd=fd)


def test_a_chunk_of_16_knots_and_7_axes_takes_what_the_plan_reckons_with() -> None:
    assert 3900 < transfer_time_us(CHUNK_16X7, CLASSIC_1M, worst=False) < 4000
    assert transfer_time_us(CHUNK_16X7, CLASSIC_1M, worst=True) < 4850
    assert 550 < transfer_time_us(CHUNK_16X7, FD_1M_5M, worst=False) < 570
    assert transfer_time_us(CHUNK_16X7, FD_1M_5M, worst=True) < 690


# ---- a bus that is full ----


def _transfer(kind: int, payload: int, transfer_id: int, node: int, *, fd: bool) -> list[CanFrame]:
    body = struct.pack("<BBHH", kind, 0, transfer_id, 0) + bytes(payload)
    whole = body + struct.pack("<I", crc32c(body))
    return list(segment(whole, frame_id(kind, node, to_host=kind >= 0x80), transfer_id & 31, fd=fd))


def _full_bus(rate: BusRate, estop_at_us: list[float], estop_id: int = CAN_ID_ESTOP) -> tuple[list[Delivered], float]:
    """Seven arms whose hosts and controllers all send as fast as they can, and a button on a node of its own."""
    senders = []
    for node in range(1, 8):
        host, arm = Sender(), Sender()
        for i in range(60):
            host.offer(0.0, *_transfer(m.Chunk.TYPE, 240, i, node, fd=rate.fd))
            host.offer(0.0, *_transfer(m.Heartbeat.TYPE, 22, i, node, fd=rate.fd))
            arm.offer(0.0, *_transfer(m.State.TYPE, 150, i, node, fd=rate.fd))
        senders += [host, arm]
    button = Sender()
    for at in estop_at_us:
        button.offer(at, CanFrame(estop_id, b"\xe0", rate.fd))
    bus = Arbitration(rate, [*senders, button])
    seen = bus.run(max(estop_at_us) + 2000.0)
    return [one for one in seen if one.frame.id == estop_id], bus.busy_us / bus.now_us


@pytest.mark.parametrize("rate", [CLASSIC_1M, FD_1M_5M], ids=["classic 1M", "FD 1M/5M"])
def test_an_emergency_stop_on_a_full_bus_waits_for_one_frame_at_most(rate: BusRate) -> None:
    rng = random.Random(2)
    asked = sorted(rng.uniform(1000.0, 80_000.0) for _ in range(200))
    stops, load = _full_bus(rate, asked)
    longest = frame_bits(64 if rate.fd else 8, fd=rate.fd).time_us(rate, worst=True)
    own = frame_bits(1, fd=rate.fd).time_us(rate, worst=True)
    assert load > 0.999 and len(stops) == len(asked)
    alone = [one for one, before in zip(stops[1:], stops, strict=False) if one.asked_us > before.end_us]
    assert len(alone) > 100
    assert max(one.latency_us for one in alone) <= longest + own + 1e-6
    assert max(one.latency_us for one in alone) > 0.8 * longest, "the bus was not full"


def test_without_its_priority_the_same_frame_would_not_get_through() -> None:
    """What the test above rests on: the identifier, not luck."""
    stops, _ = _full_bus(CLASSIC_1M, [1000.0], estop_id=0x7FF)
    assert stops == []


@pytest.mark.parametrize("rate", [CLASSIC_1M, FD_1M_5M], ids=["classic 1M", "FD 1M/5M"])
def test_on_a_full_bus_the_arm_brakes_in_the_tick_after_the_frame(
    make_rig: Callable[..., CanRig], rate: BusRate
) -> None:
    rig = make_rig(fd=rate.fd).ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.3)
    assert rig.mcu.mcu_state is McuState.RUN
    begin_us = rig.mcu.mcu_us
    noise = [Sender() for _ in range(6)]
    for node, sender in enumerate(noise, start=2):
        for i in range(8):
            sender.offer(0.0, *_transfer(m.Chunk.TYPE, 240, i, node, fd=rate.fd))
    button = Sender()
    button.offer(1234.0, CanFrame(CAN_ID_ESTOP, b"", rate.fd))
    bus = Arbitration(rate, [*noise, button])
    arrived_us = None
    while rig.mcu.mcu_state is McuState.RUN:
        one = bus.next()
        assert one is not None
        while rig.mcu.mcu_us - begin_us + 1000 <= one.end_us:
            rig.mcu.tick()
        rig.mcu.put(one.frame)
        arrived_us = one.end_us
    assert arrived_us is not None and arrived_us - 1234.0 <= 170.0 + 60.0
    speed = [setpoint[0] for _, setpoint in rig.mcu.orders[-3:]]
    rig.mcu.tick()
    rig.mcu.tick()
    after = [setpoint[0] for _, setpoint in rig.mcu.orders[-3:]]
    assert rig.mcu.mcu_state is McuState.ESTOP
    assert after[1] - after[0] < speed[2] - speed[1], "still at speed in the tick after the frame"


def test_the_bus_shares_of_the_plan_fit() -> None:
    """Chunks at 50 Hz, STATE at 100 Hz with 7 axes, heartbeats at 50 Hz, on classic CAN of 1 Mbit/s, worst case."""
    state = 6 + 45 + 4 * 7 * 4
    share = (
        50 * transfer_time_us(CHUNK_16X7, CLASSIC_1M, worst=True)
        + 100 * transfer_time_us(state, CLASSIC_1M, worst=True)
        + 50 * transfer_time_us(6 + 22, CLASSIC_1M, worst=True)
    ) * 1e-6
    assert share < 0.65
    share_fd = 50 * transfer_time_us(CHUNK_16X7, FD_1M_5M, worst=True) * 1e-6
    assert share_fd < 0.04
