"""The whole link over CAN: the host's code, a bus of python-can, and the microcontroller's own C core."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable

import numpy as np
import pytest

from firmware_bridge.errors import LinkError
from firmware_bridge.host import messages as m
from firmware_bridge.host.can_segments import CanFrame, frame_id, segment
from firmware_bridge.host.framing import FrameReceiver, crc32c, encode_frame
from firmware_bridge.host.link_metrics import BusEnd
from firmware_bridge.host.link_state import mcu_bus_end
from firmware_bridge.host.messages import CAN_ID_ESTOP, CAN_TO_HOST, AckCode, McuState, ResetCause, StopCause
from tests.can.node import CanNode, CanRig

MakeRig = Callable[..., CanRig]


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
@pytest.mark.parametrize("interface", ["virtual", "udp_multicast"])
def test_an_arm_is_configured_armed_moved_and_stopped(make_rig: MakeRig, interface: str, fd: bool) -> None:
    rig = make_rig(interface, fd=fd).ready()
    q = rig.ramp()
    rig.send(q, 1)
    rig.run(0.5)
    answer = rig.link.state.last_chunk
    assert answer is not None and answer.code is AckCode.OK
    assert rig.link.state.mcu_state is McuState.RUN
    path = np.array([setpoint[0] for enabled, setpoint in rig.mcu.orders if enabled])
    assert path[-1] > path[0] + 0.05
    assert {frame.fd for frame in rig.mcu.frames[10:]} == {fd}
    rig.link.estop()
    rig.run(0.3)
    assert rig.link.state.mcu_state is McuState.ESTOP
    held = np.array([setpoint[0] for _, setpoint in rig.mcu.orders[-50:]])
    assert np.ptp(held) == 0.0
    assert rig.transport.counters.segments.bad == rig.transport.dropped_frames == 0
    assert rig.mcu.counters[1:] == (0, 0, 0)


def test_a_silent_host_stops_the_arm_over_can_too(make_rig: MakeRig) -> None:
    rig = make_rig().ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.2)
    rig.run(0.2, beat=False)
    assert rig.link.state.stop_cause is StopCause.HOST_SILENT


def test_a_reset_is_noticed_and_nothing_of_before_counts(make_rig: MakeRig) -> None:
    rig = make_rig().ready()
    rig.mcu.reset(ResetCause.WATCHDOG, 0x1234)
    rig.run(0.3)
    state = rig.link.state
    assert state.mcu_state is McuState.FAULT and state.reset_cause is ResetCause.WATCHDOG
    with pytest.raises(LinkError, match="reset"):
        rig.send(rig.ramp(), 1)


# ---- emergency stop ----


@pytest.mark.parametrize(
    ("data", "remote", "fd"),
    [
        (b"", False, False), (b"\x00", False, False), (bytes(range(8)), False, False), (b"", True, False),
        (bytes(64), False, True), (b"\xff" * 7, False, False),
    ],
    ids=["empty", "one byte", "noise", "remote", "fd", "ones"],
)  # fmt: skip
def test_any_frame_with_the_lowest_identifier_stops_whatever_it_carries(
    make_rig: MakeRig, data: bytes, remote: bool, fd: bool
) -> None:
    rig = make_rig().ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.2)
    before = rig.mcu.setpoint().setpoint[0]
    rig.mcu.put(CanFrame(CAN_ID_ESTOP, data, fd), remote=remote)
    rig.mcu.tick()
    assert rig.mcu.mcu_state is McuState.ESTOP
    rig.run(0.3)
    assert not rig.mcu.setpoint().enabled
    assert rig.mcu.setpoint().setpoint[0] - before < 0.2**2 / (2 * 10.0) + 0.01


@pytest.mark.parametrize("prepare", ["boot", "connected", "configured", "armed", "fault"])
def test_the_emergency_stop_works_in_every_state_and_without_a_session(make_rig: MakeRig, prepare: str) -> None:
    rig = make_rig()
    steps = {"boot": 0, "connected": 1, "configured": 2, "armed": 3, "fault": 1}[prepare]
    for act in (rig.link.connect, rig.link.configure, rig.link.arm)[:steps]:
        act()
    if prepare == "fault":
        rig.mcu.reset(ResetCause.WATCHDOG)
    rig.mcu.put(CanFrame(CAN_ID_ESTOP, b""))
    rig.mcu.tick()
    assert rig.mcu.mcu_state is McuState.ESTOP
    rig.mcu.reset(ResetCause.UNKNOWN)
    rig.mcu.tick()
    assert rig.mcu.mcu_state is McuState.ESTOP


def test_the_emergency_stop_stops_an_arm_whose_host_is_on_the_serial_line(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.mcu.write(_serial(m.HelloReq(1)))
    rig.mcu.put(CanFrame(CAN_ID_ESTOP, b""))
    assert rig.mcu.mcu_state is McuState.ESTOP


def test_the_host_sends_its_emergency_stop_ahead_of_everything_that_waits(make_rig: MakeRig) -> None:
    rig = make_rig("virtual", fd=False)
    sent: list[int] = []
    full = True

    def send(message: object, timeout: float | None = None) -> None:
        if full:
            raise rig.transport._can.CanOperationError("Transmit buffer full")
        sent.append(message.arbitration_id)  # type: ignore[attr-defined]

    rig.transport._bus.send = send  # type: ignore[method-assign,union-attr]
    rig.transport.write(_serial(m.Chunk(1, 0, 5000, 1, 1, 0, 0, 20, 0, bytes(4))))
    rig.transport.write(_serial(m.HelloReq(1)))
    rig.transport.write(_serial(m.Estop()))
    full = False
    rig.transport.read()
    assert sent[0] == CAN_ID_ESTOP
    assert frame_id(m.Chunk.TYPE, 1, to_host=False) not in sent, "motion after the stop"
    assert rig.transport.dropped_frames == 1


# ---- faults of the bus ----


class Faults:
    """A bus that loses, repeats, reorders and cuts frames: each with this probability."""

    def __init__(self, seed: int, share: float) -> None:
        self.random = random.Random(seed)
        self.share = share
        self.late: list[CanFrame] = []

    def __call__(self, frame: CanFrame) -> list[CanFrame]:
        out, self.late = [frame, *self.late], []
        if self.random.random() < self.share:
            kind = self.random.choice(["lose", "repeat", "later", "cut", "flip"])
            if kind == "lose":
                out = out[1:]
            elif kind == "repeat":
                out.insert(0, frame)
            elif kind == "later":
                self.late = [out.pop(0)]
            elif kind == "cut":
                out[0] = CanFrame(frame.id, frame.data[: self.random.randrange(min(8, len(frame.data)) + 1)], frame.fd)
            else:
                data = bytearray(frame.data)
                data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
                out[0] = CanFrame(frame.id, bytes(data), frame.fd)
        return out


@pytest.mark.parametrize("fd", [False, True], ids=["classic", "fd"])
@pytest.mark.parametrize("seed", range(3))
def test_a_bad_bus_costs_transfers_and_is_counted_but_moves_nothing_outside_the_plan(
    make_rig: MakeRig, fd: bool, seed: int
) -> None:
    rig = make_rig(fd=fd, seed=seed + 1).ready()
    rig.mcu.to_mcu = Faults(seed, 0.03)
    rig.mcu.to_host = Faults(seed + 100, 0.03)
    start = len(rig.mcu.orders)
    for chunk_id in range(1, 11):
        try:
            rig.send(rig.ramp(speed=0.1), chunk_id)
        except LinkError:
            break  # stopped for want of heartbeats: an allowed end
        rig.run(0.1)
    delivered, bad, missed, twice = rig.mcu.counters
    assert delivered > 20 and bad + missed + twice > 0
    host = rig.transport.counters.segments
    assert host.bad + host.missed + host.duplicates > 0
    x = np.array([setpoint[0] for enabled, setpoint in rig.mcu.orders[start:] if enabled])
    assert np.abs(np.diff(x)).max() <= 0.8e-3 + 1e-6
    assert np.abs(np.diff(x, 2)).max() <= 10e-6 + 2e-6
    rig.mcu.to_mcu = rig.mcu.to_host = lambda frame: [frame]
    rig.run(1.2)
    stats = rig.link._stats
    assert stats is not None and stats.transfers_bad == rig.mcu.counters[1]


def test_bus_off_drops_what_waits_counts_it_and_the_link_comes_back(make_rig: MakeRig) -> None:
    rig = make_rig(fd=False).ready()
    rig.mcu.to_host = lambda _frame: []
    rig.mcu.to_mcu = lambda _frame: []
    rig.mcu.status(errors=17, bus_offs=1, bus_off=True)
    frames = len(rig.mcu.frames)
    rig.run(0.2)
    assert len(rig.mcu.frames) == frames, "a controller that is off the bus was given frames"
    assert rig.mcu.mcu_state is McuState.STOP
    rig.mcu.status(errors=17, bus_offs=1)
    rig.mcu.to_host = rig.mcu.to_mcu = lambda frame: [frame]
    rig.run(1.2)
    assert rig.link.state.stop_cause is StopCause.HOST_SILENT
    stats = rig.link._stats
    assert stats is not None and mcu_bus_end(stats) == BusEnd(17, 1, stats.transfers_bad)
    rig.transport.counters.error_frames = 3
    assert rig.link.state.bus_end == rig.transport.bus_end == BusEnd(3, 0, rig.transport.counters.segments.bad)


def test_a_transfer_that_bus_off_cut_in_two_is_counted_once_and_its_rest_is_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.link.connect()
    body = struct.pack("<BBHH", m.Chunk.TYPE, 0, 9, rig.link.state.session) + bytes(200)
    first, *rest = segment(body + struct.pack("<I", crc32c(body)), frame_id(m.Chunk.TYPE, 1, to_host=False), 0, fd=True)
    bad = rig.mcu.counters[1]
    rig.mcu.put(first)
    for _ in range(3):
        rig.mcu.status(bus_offs=1, bus_off=True)
        assert rig.mcu.counters[1] == bad + 1
    rig.mcu.status(bus_offs=1)
    delivered = rig.mcu.counters[0]
    for frame in rest:
        rig.mcu.put(frame)
    assert rig.mcu.counters[:2] == (delivered, bad + 1), "seen already: one transfer, counted once"


def test_a_remote_frame_carries_no_transfer(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.link.connect()
    bad = rig.mcu.counters[1]
    rig.mcu.put(CanFrame(frame_id(m.Hold.TYPE, 1, to_host=False), bytes(8)), remote=True)
    assert rig.mcu.counters[1] == bad + 1


def test_before_anybody_asked_both_transports_are_told_and_one_of_them_is_enough(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.mcu.status(bus_offs=1, bus_off=True)
    for _ in range(100):
        rig.mcu.tick()
    receiver = FrameReceiver()
    told = [m.MCU_MESSAGES[body[0]].unpack(body[6:]) for body in receiver.feed(rig.mcu.read())]
    assert sum(isinstance(message, m.State) for message in told) == 10
    for _ in range(1000):
        rig.mcu.tick()
        told += [m.MCU_MESSAGES[body[0]].unpack(body[6:]) for body in receiver.feed(rig.mcu.read())]
    assert [s.tx_dropped for s in told if isinstance(s, m.Stats)][-1] == 1, "the HELLO that waited for the bus"


def test_answers_that_find_no_room_in_the_queue_are_dropped_and_counted(make_rig: MakeRig) -> None:
    """A bus on which this node never wins: 1024 bytes of answers, then no more."""
    rig = make_rig(fd=False)
    rig.link.connect()
    node = rig.mcu
    take, node.take = node.take, lambda: None  # type: ignore[method-assign]
    for seq in range(100):
        body = struct.pack("<BBHH", m.LimitsGet.TYPE, 0, seq, rig.link.state.session) + b"\0"
        for frame in segment(
            body + struct.pack("<I", crc32c(body)), frame_id(m.LimitsGet.TYPE, 1, to_host=False), seq & 31, fd=False
        ):
            node.put(frame)
        node.tick()
    node.take = take  # type: ignore[method-assign]
    answers = {m.Ack.TYPE: 0}
    for frame in iter(node.take, None):
        if frame.data[-1] & 0x80 and frame.id == frame_id(m.Ack.TYPE, 1, to_host=True):
            answers[m.Ack.TYPE] += 1
    assert 10 < answers[m.Ack.TYPE] < 1024 // 30
    rig.run(1.2)
    stats = rig.link._stats
    assert stats is not None and stats.tx_dropped > 50


def test_what_waited_when_the_controller_left_the_bus_is_not_sent_when_it_is_back(make_rig: MakeRig) -> None:
    rig = make_rig(fd=False)
    rig.link.connect()
    take = rig.mcu.take
    rig.mcu.take = lambda: None  # type: ignore[method-assign]
    for _ in range(30):
        rig.mcu.tick()
    rig.mcu.status(bus_offs=1, bus_off=True)
    rig.mcu.status(bus_offs=1)
    assert take() is None
    for _ in range(10):
        rig.mcu.tick()
    frame = take()
    assert frame is not None and frame.data[-1] & 0x80, "the middle of a transfer of before"


def test_a_bus_that_is_too_slow_gets_fewer_states_and_never_old_ones(make_rig: MakeRig) -> None:
    rig = make_rig(fd=False)
    rig.link.connect()
    node = rig.mcu
    budget = 0.0
    take = node.take

    def slow() -> CanFrame | None:
        nonlocal budget
        if budget < 1.0:
            return None
        frame = take()
        budget -= frame is not None
        return frame

    node.take = slow  # type: ignore[method-assign]
    ages = []
    for _ in range(600):
        budget = min(budget + 0.8, 2.0)  # 800 frames/s: a third of what STATE at 100 Hz needs
        node.tick()
        ages += [
            node.mcu_us - message.now_us for message in rig.link.poll() if isinstance(message, m.State)
        ]
    assert 8 <= len(ages) < 40, "not the rate that the bus carries"
    assert max(ages) < 60_000, "an old STATE"


# ---- one host at a time ----


def _serial(message: m.HostMessage, session: int = 0, seq: int = 1) -> bytes:
    return encode_frame(struct.pack("<BBHH", message.TYPE, 0, seq, session) + message.pack())


def test_a_host_on_the_serial_line_cannot_take_over_an_armed_arm(make_rig: MakeRig) -> None:
    rig = make_rig().ready()
    session = rig.link.state.session
    rig.mcu.write(_serial(m.HelloReq(1)))
    rig.mcu.write(_serial(m.Disarm(), session))
    rig.run(0.3)
    assert rig.mcu.mcu_state is McuState.ARMED
    assert rig.link.state.age_ns < 20_000_000, "the host is not told any more"


def test_whoever_says_hello_while_the_drive_is_off_becomes_the_host(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.link.connect()
    rig.mcu.write(_serial(m.HelloReq(1)))
    rig.mcu.read()
    frames = len(rig.mcu.frames)
    for _ in range(50):
        rig.mcu.tick()
    assert len(rig.mcu.frames) == frames and rig.mcu.read()
    rig.link.connect()
    assert len(rig.mcu.frames) > frames


def test_a_chunk_that_a_hold_has_overtaken_does_not_move_the_arm(make_rig: MakeRig) -> None:
    rig = make_rig().ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.2)
    held: list[CanFrame] = []
    motion = frame_id(m.Chunk.TYPE, 1, to_host=False)

    def hold_back(frame: CanFrame) -> list[CanFrame]:
        if frame.id == motion:
            held.append(frame)
            return []
        return [frame]

    rig.mcu.to_mcu = hold_back
    rig.send(rig.ramp(), 2, lead_ns=200_000_000)
    rig.link.hold()
    rig.run(0.05)
    assert rig.mcu.mcu_state is McuState.ARMED
    for frame in held:
        rig.mcu.put(frame)
    rig.run(0.1)
    assert held and rig.mcu.mcu_state is McuState.ARMED
    answer = rig.link.state.last_chunk
    assert answer is not None and answer.code is AckCode.OLD_CHUNK


def test_frames_of_another_node_are_nobodys_business(make_rig: MakeRig) -> None:
    rig = make_rig().ready()
    before = rig.mcu.counters
    body = struct.pack("<BBHH", m.Disarm.TYPE, 0, 9, rig.link.state.session)
    for frame in segment(body + struct.pack("<I", crc32c(body)), frame_id(m.Disarm.TYPE, 2, to_host=False), 0, fd=True):
        rig.mcu.put(frame)
    rig.mcu.put(CanFrame(CAN_TO_HOST | 0x310, b"\xe0"))
    rig.run(0.05)
    assert rig.link.state.mcu_state is McuState.ARMED
    assert rig.mcu.counters[1] == before[1]


def test_a_node_without_can_hears_nothing(library: object, make_rig: MakeRig) -> None:
    rig = make_rig()
    deaf = CanNode(library, rig.mcu.bus, node=0)  # type: ignore[arg-type]
    deaf.put(CanFrame(CAN_ID_ESTOP, b""))
    assert deaf.mcu_state is McuState.DISARMED and deaf.take() is None
    deaf.close()
