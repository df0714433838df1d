"""Limits, arming and telemetry: what is refused, why, and that a refusal changes nothing."""

from __future__ import annotations

import ctypes
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.host import messages as m
from firmware_bridge.host.framing import FrameReceiver, encode_frame
from firmware_bridge.host.limits import sim_drive
from firmware_bridge.host.messages import AckCode, McuState
from tests.firmware.mcu import WIDE, Mcu, limits

NARROW = (-1000, 1000, 100_000, 100_000, 100, 100, 1)


@pytest.mark.parametrize(
    ("field", "index", "good", "bad"),
    [
        ("axis", 0, (0, 15), (16, 255)),
        ("position_min", 1, (-m.POSITION_ABS_MAX, 999), (-m.POSITION_ABS_MAX - 1, -(2**31), m.POSITION_ABS_MAX + 1)),
        ("position_min", 2, (), (1000, 1001)),
        ("position_max", 2, (m.POSITION_ABS_MAX, -999), (m.POSITION_ABS_MAX + 1, 2**31 - 1, -1000)),
        ("velocity_max", 3, (4_000, m.VELOCITY_MAX_MAX), (0, 3_999, m.VELOCITY_MAX_MAX + 1)),
        ("acceleration_max", 4, (m.ACCELERATION_MIN, m.ACCELERATION_MAX_MAX), (0, m.ACCELERATION_MIN - 1, 2**32 - 1)),
        ("following_error_max", 5, (1, 2 * m.POSITION_ABS_MAX), (0, 2 * m.POSITION_ABS_MAX + 1)),
        ("jump_max", 6, (1, 2 * m.POSITION_ABS_MAX), (0, 2 * m.POSITION_ABS_MAX + 1)),
        ("lsb", 7, (1, m.LSB_MAX), (0, m.LSB_MAX + 1, 2**32 - 1)),
        ("jerk_max", 8, (m.JERK_MIN, m.JERK_MAX_MAX), (0, m.JERK_MIN - 1, m.JERK_MAX_MAX + 1)),
        ("effort_max", 9, (0, m.EFFORT_MAX_MAX), (m.EFFORT_MAX_MAX + 1,)),
        ("move_max", 10, (1, 2 * m.POSITION_ABS_MAX), (0, 2 * m.POSITION_ABS_MAX + 1)),
        ("window_max", 11, (1, 2 * m.POSITION_ABS_MAX), (0, 2 * m.POSITION_ABS_MAX + 1)),
        ("velocity_lsb", 12, (1, m.LSB_MAX), (0, m.LSB_MAX + 1)),
        ("kind", 13, tuple(int(kind) for kind in m.AxisKind), (max(m.AxisKind) + 1, 255)),
    ],
)
def test_limits_are_taken_up_to_their_bounds_and_refused_by_field_beyond(
    field: str, index: int, good: tuple[int, ...], bad: tuple[int, ...]
) -> None:
    mcu = Mcu()
    for value in good:
        assert mcu.ask(limits(0, NARROW, **{field: value})).code == AckCode.OK, value
    for value in bad:
        ack = mcu.ask(limits(0, NARROW, **{field: value}))
        assert (ack.code, ack.arg) == (AckCode.BAD_VALUE, index), value


def test_the_acceleration_maximum_is_inclusive() -> None:
    mcu = Mcu()
    assert mcu.ask(limits(0, NARROW, acceleration_max=m.ACCELERATION_MAX_MAX + 1)).code == AckCode.BAD_VALUE


def test_a_table_is_committed_only_whole_and_as_the_host_means_it() -> None:
    mcu = Mcu([WIDE, WIDE])
    for axes in (0, 17, 255):
        assert mcu.ask(m.LimitsCommit(axes, mcu.limits_crc())).code == AckCode.BAD_VALUE
    mcu.ask(mcu.table()[1])
    assert mcu.ask(m.LimitsCommit(2, mcu.limits_crc())).code == AckCode.BAD_LIMITS_CRC, "axis 0 is missing"
    mcu.ask(mcu.table()[0])
    assert mcu.ask(m.LimitsCommit(2, mcu.limits_crc() ^ 1)).code == AckCode.BAD_LIMITS_CRC
    assert mcu.state == McuState.DISARMED
    assert mcu.ask(m.LimitsCommit(2, mcu.limits_crc())).code == AckCode.OK
    assert (mcu.hello().locked, mcu.hello().limits_crc) == (1, mcu.limits_crc())


def test_an_axis_that_was_not_set_cannot_be_read_back() -> None:
    mcu = Mcu()
    for axis in (0, 15, 16, 255):
        assert mcu.ask(m.LimitsGet(axis)).code == AckCode.BAD_VALUE


def test_the_second_stage_of_a_stop_is_read_back_as_it_stands() -> None:
    mcu = Mcu()
    for brake_ms, torque_ms in ((0, 0), (2**32 - 1, 7), (40, 0)):
        assert mcu.ask(m.StopsSet(brake_ms, torque_ms)).code == AckCode.OK
        stops, ack = mcu.send(m.StopsGet())
        assert stops == m.Stops(brake_ms, torque_ms)
        assert isinstance(ack, m.Ack) and ack.code == AckCode.OK


def test_a_binding_is_read_back_and_there_are_as_many_as_axes() -> None:
    mcu = Mcu()
    for axis in (0, 15):
        drive, ack = mcu.send(m.DriveGet(axis))
        assert isinstance(drive, m.Drive) and drive.pack() == sim_drive(axis).pack()
        assert isinstance(ack, m.Ack) and ack.code == AckCode.OK
    for axis in (16, 255):
        assert mcu.ask(m.DriveGet(axis)).code == AckCode.BAD_VALUE


def _configured() -> Mcu:
    mcu = Mcu()
    mcu.heartbeat_on = True
    mcu.tick(21)
    mcu.configure()
    return mcu


def test_arming_needs_the_same_schema_and_the_same_table() -> None:
    mcu = _configured()
    assert mcu.ask(m.Arm(mcu.limits_crc(), m.SCHEMA_HASH ^ 1)).code == AckCode.BAD_SCHEMA
    assert mcu.ask(m.Arm(mcu.limits_crc() ^ 1, m.SCHEMA_HASH)).code == AckCode.BAD_LIMITS_CRC
    assert mcu.state == McuState.CONFIGURED


def test_arming_needs_a_fresh_encoder_of_the_same_axes() -> None:
    mcu = _configured()
    mcu.encoder_on = False
    mcu.tick(m.ENCODER_TIMEOUT_US // 1000)
    assert mcu.arm().code == AckCode.NO_ENCODER
    mcu.encoder([0, 0])
    assert mcu.arm().code == AckCode.NO_ENCODER
    mcu.encoder([0])
    assert mcu.arm().code == AckCode.OK


def test_arming_needs_a_fresh_heartbeat_of_a_nominal_host() -> None:
    mcu = Mcu()
    mcu.tick(21)
    mcu.configure()
    assert mcu.arm().code == AckCode.NO_HOST, "no heartbeat ever"
    mcu.heartbeat()
    mcu.tick(99)
    mcu.encoder([0])
    assert mcu.arm().code == AckCode.OK
    mcu = _configured()
    mcu.heartbeat()
    mcu.heartbeat_on = False
    mcu.tick(100)
    assert mcu.arm().code == AckCode.NO_HOST, "too old"
    for degrade in (1, 2, 3, 4):
        mcu.degrade = degrade
        mcu.heartbeat()
        assert mcu.arm().code == AckCode.NO_HOST
    mcu.degrade = 0
    mcu.heartbeat()
    assert mcu.arm().code == AckCode.OK


@pytest.mark.parametrize(
    ("q", "code"), [(500_000, AckCode.OK), (500_001, AckCode.POSITION), (-500_001, AckCode.POSITION)]
)
def test_an_axis_outside_its_limits_cannot_be_armed(q: int, code: AckCode) -> None:
    mcu = Mcu([WIDE, WIDE])
    mcu.heartbeat_on = True
    mcu.position = [0, q]
    mcu.tick(21)
    mcu.configure()
    ack = mcu.arm()
    assert (ack.code, ack.arg) == (code, 1 if code == AckCode.POSITION else 0)


def test_arming_holds_where_the_arm_is() -> None:
    mcu = Mcu().ready([123_456])
    assert set(mcu.tick(500)) == {(123_456,)}


def test_while_disarmed_the_setpoint_repeats_the_encoder() -> None:
    mcu = Mcu()
    for q in (5, -7, 100):
        mcu.encoder_on = False
        mcu.encoder([q, 2 * q])
        assert mcu.tick()[0] == (q, 2 * q)
        assert not mcu.drive_on


@pytest.mark.parametrize("message", [
    limits(0, NARROW), m.LimitsCommit(1, 2), m.Arm(1, 2), m.EstopClear(1), m.FaultAck(1), m.LimitsGet(0),
    m.Disarm(), m.Hold(), m.Chunk(1, 0, 100, 0, 0, 0, 0, 0, 0, b""), sim_drive(0), m.DriveGet(0), m.StopsSet(1, 1),
    m.StopsGet(),
], ids=lambda message: type(message).__name__)  # fmt: skip
@pytest.mark.parametrize("extra", [-1, 1, 100])
def test_commands_of_another_length_are_refused(message: m.HostMessage, extra: int) -> None:
    payload = message.pack()
    payload = payload[:extra] if extra < 0 else payload + b"\0" * extra
    if len(payload) == len(message.pack()) or (isinstance(message, m.Chunk) and extra > 0):
        return
    mcu = Mcu()
    mcu.raw(mcu.frame(message.TYPE, payload))
    (ack,) = [a for a in mcu.pump() if isinstance(a, m.Ack)]
    assert (ack.code, ack.arg) == (AckCode.BAD_LENGTH, len(payload))


@pytest.mark.parametrize("message", [m.HelloReq(1), m.TimeReq(1), m.EventAck(1), m.Heartbeat(0, 0, 0, 0, 0)])
def test_messages_without_an_answer_of_another_length_are_ignored(message: m.HostMessage) -> None:
    mcu = Mcu()
    mcu.raw(mcu.frame(message.TYPE, message.pack() + b"\0"))
    assert mcu.pump() == []
    assert mcu.report().heartbeat_age_ms == 65535


@settings(deadline=None)
@given(st.integers(0, 255), st.binary(max_size=64))
def test_unknown_types_are_named_and_refused(message_type: int, payload: bytes) -> None:
    mcu = Mcu()
    if message_type in range(0x01, 0x13):
        return
    mcu.raw(mcu.frame(message_type, payload))
    (ack,) = mcu.pump()
    assert isinstance(ack, m.Ack)
    assert (ack.of_type, ack.code, ack.arg) == (message_type, AckCode.UNKNOWN, message_type)


@pytest.mark.parametrize("message", [m.Disarm(), m.Hold(), m.Arm(0, 0), m.LimitsGet(0), m.EstopClear(0), m.FaultAck(0)])
def test_frames_of_another_session_change_nothing(message: m.HostMessage) -> None:
    mcu = Mcu().ready()
    mcu.tick(20)
    assert mcu.ask(message, session=mcu.session ^ 1).code == AckCode.BAD_SESSION
    mcu.tick(2)
    assert mcu.state == McuState.ARMED


def test_time_requests_are_answered_with_both_stamps() -> None:
    mcu = Mcu()
    mcu.tick(5)
    (resp,) = mcu.send(m.TimeReq(2**63 + 5), session=0)
    assert resp == m.TimeResp(2**63 + 5, mcu.now_us, mcu.now_us)


def test_state_comes_at_100_hz_and_statistics_at_1_hz() -> None:
    mcu = Mcu()
    mcu.tick(10)
    mcu.inbox.clear()
    mcu.tick(3000)
    states = [s for s in mcu.inbox if isinstance(s, m.State)]
    assert len(states) == 300
    assert {b.now_us - a.now_us for a, b in itertools.pairwise(states)} == {10_000}
    assert len([s for s in mcu.inbox if isinstance(s, m.Stats)]) == 3


def test_events_are_sent_again_until_they_are_acknowledged_and_once_more_to_a_new_host() -> None:
    mcu = Mcu()
    mcu.tick(50)
    first = [e for e in mcu.inbox if isinstance(e, m.Event)]
    assert [e.event_id for e in first] == [1, 2, 3]
    mcu.inbox.clear()
    mcu.tick(m.EVENT_RESEND_US // 1000)
    assert {e.event_id for e in mcu.inbox if isinstance(e, m.Event)} == {1, 2, 3}
    for event in first[:2]:
        mcu.send(m.EventAck(event.event_id))
    mcu.send(m.EventAck(999))
    mcu.inbox.clear()
    mcu.tick(200)
    assert {e.event_id for e in mcu.inbox if isinstance(e, m.Event)} == {3}
    mcu.inbox.clear()
    mcu.hello()
    mcu.tick(2)
    assert {e.event_id for e in mcu.inbox if isinstance(e, m.Event)} == {3}


def test_events_that_nobody_took_are_counted() -> None:
    mcu = Mcu().ready()
    for _ in range(20):
        mcu.ask(mcu.chunk([(0,)] * 16))
        mcu.ask(m.Hold())
        mcu.tick()
    seen = {}
    for _ in range(60):
        mcu.inbox.clear()
        mcu.tick(10)
        for event in mcu.inbox:
            if isinstance(event, m.Event):
                seen[event.event_id] = event
                mcu.send(m.EventAck(event.event_id))
    (lost,) = [e for e in seen.values() if e.kind == m.EventKind.EVENTS_LOST]
    assert lost.arg0 + len(seen) == max(seen)


def test_a_host_that_does_not_read_loses_telemetry_but_the_arm_runs_on() -> None:
    mcu = Mcu().ready()
    mcu.ask(mcu.chunk([(1000 * k,) for k in range(16)]))
    for _ in range(900):
        if mcu._ticks % 5 == 0:
            mcu.encoder(mcu.setpoint())
        if mcu._ticks % 20 == 0:
            mcu.heartbeat()
        mcu.now_us += 1000
        mcu._ticks += 1
        mcu.lib.ewl_tick(mcu.handle, mcu.now_us)
        if mcu._ticks % 7 == 0:
            mcu.raw(mcu.frame(m.HelloReq.TYPE, m.HelloReq(1).pack()))
    assert mcu.setpoint() == (15_000,)
    mcu.pump()
    mcu.inbox.clear()
    mcu.tick(1200)
    assert [s for s in mcu.inbox if isinstance(s, m.Stats)][-1].tx_dropped > 100


def test_the_drive_stream_carries_setpoints_out_and_encoders_in() -> None:
    mcu = Mcu()
    mcu.encoder_on = False
    frame = encode_frame(bytes([m.Encoder.TYPE]) + m.Encoder(1, 2, (11, -22), (0, 5)).pack())
    for data in (b"\0\0", frame[:5], b"\0", frame[:3] + b"\xff" + frame[4:], frame):
        mcu.lib.ewl_drive_rx(mcu.handle, data, len(data), mcu.now_us)
    mcu.tick()
    buffer = ctypes.create_string_buffer(200)
    assert mcu.lib.ewl_drive_tx(mcu.handle, buffer, 20) == 0, "no room: kept"
    count = mcu.lib.ewl_drive_tx(mcu.handle, buffer, 200)
    (body,) = FrameReceiver().feed(buffer.raw[:count])
    assert body[0] == m.Setpoint.TYPE
    assert m.Setpoint.unpack(body[1:]) == m.Setpoint(1, 0, (11, -22))
    assert mcu.lib.ewl_drive_tx(mcu.handle, buffer, 200) == 0, "one per tick"
    for wrong in (b"\x42" + b"\0" * 8, b"\x41" + b"\0" * 5, b"\x41\0\0\0\0\x11" + b"\0" * (17 * 8), b"\x41\0\0\0\0\0",
                  b"\x41\0\0\0\0", b"\x41\0\0\0\0\x01" + b"\0" * 7, b"\x41\0\0\0\0\x01" + b"\0" * 9):  # fmt: skip
        data = encode_frame(wrong)
        mcu.lib.ewl_drive_rx(mcu.handle, data, len(data), mcu.now_us)
    mcu.inbox.clear()
    mcu.tick(1010)
    assert [s for s in mcu.inbox if isinstance(s, m.Stats)][-1].drive_bad == 9
    assert mcu.report().position == (11, -22)
