"""A microcontroller made of answers only, in simulated time: for what the real one does not do on demand.

It loses answers, repeats old frames, changes its session, speaks another protocol. It moves nothing; what an axis does
is asserted on the real core.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from firmware_bridge.errors import LinkError, TransportClosed
from firmware_bridge.host.framing import FrameReceiver, LinkFrame, encode_frame
from firmware_bridge.host.limits import LimitTable
from firmware_bridge.host.messages import (
    SCHEMA_HASH,
    STATE_FLAG_ENCODER_FRESH,
    Ack,
    AckCode,
    Arm,
    Chunk,
    Disarm,
    DriveSet,
    Estop,
    EventAck,
    Heartbeat,
    Hello,
    HelloReq,
    Hold,
    Limits,
    LimitsCommit,
    LimitsGet,
    LimitsSet,
    McuMessage,
    McuState,
    ResetCause,
    State,
    StopsSet,
    TimeReq,
    TimeResp,
)

HOST_MESSAGES = {
    kind.TYPE: kind
    for kind in (
        Arm, Chunk, Disarm, DriveSet, Estop, EventAck, Heartbeat, HelloReq, Hold, LimitsCommit, LimitsGet, LimitsSet,
        StopsSet, TimeReq,
    )
}
LIMITS = LimitTable.from_si(
    ["x", "y", "z", "gripper"],
    position_min=[-0.5, 0.4, 0.05, -1.0],
    position_max=[0.5, 1.0, 0.5, 1.0],
    velocity_max=[0.8, 0.8, 0.8, 20.0],
    acceleration_max=[10.0, 10.0, 10.0, 400.0],
    jerk_max=[1000.0, 1000.0, 1000.0, 100_000.0],
    following_error_max=[0.25, 0.25, 0.25, 2.5],
)


class FakeMcu:
    """A transport with the answers behind it."""

    dropped_frames = 0
    backlog = 0

    def __init__(self) -> None:
        self.time_ns = 1_000_000_000
        self.mcu_ahead_us = 12_345_678
        self.session = 4711
        self.schema_hash = SCHEMA_HASH
        self.boots = 1
        self.max_knots = 64
        self.state = McuState.DISARMED
        self.limits: dict[int, LimitsSet] = {}
        self.limits_crc = 0
        self.reset_cause = ResetCause.POWER_ON
        self.reset_pc = 0
        self.estop = 0
        self.received: list[object] = []
        self.sent: list[bytes] = []
        self.swallow: Callable[[McuMessage], bool] = lambda message: False
        self.refuse: dict[type, AckCode] = {}
        self.gone = False
        self._receiver = FrameReceiver()
        self._out = bytearray()
        self._seq = 0

    def now_ns(self) -> int:
        return self.time_ns

    def of(self, kind: type) -> list[object]:
        """The messages of a kind that the host has sent."""
        return [message for message in self.received if isinstance(message, kind)]

    def reboot(self, cause: ResetCause, pc: int) -> None:
        """Another session, another clock, disarmed; says so unasked as the real one does."""
        self.session += 1
        self.boots += 1
        self.state, self.reset_cause, self.reset_pc = McuState.FAULT, cause, pc
        self.limits_crc, self.mcu_ahead_us = 0, -self.time_ns // 1000
        self.say(self.hello(0))

    def hello(self, nonce: int) -> Hello:
        return Hello(
            schema_hash=self.schema_hash, build_id=1, version=0x100, nonce=nonce, boots=self.boots,
            reset_cause=self.reset_cause, reset_pc=self.reset_pc, reset_tick=0, reset_missing=0,
            watchdog_resets=0, fault=0, estop=self.estop, clear_nonce=99,
            limits_crc=self.limits_crc, locked=int(self.limits_crc != 0), state=self.state,
            max_knots=self.max_knots, max_axes=16, tick_hz=1000, watchdog_ms=20, now_us=self.mcu_us,
        )

    def report(self, **changes: int) -> State:
        report = State(
            now_us=self.mcu_us, tick=0, state=self.state, stop_cause=0, fault=0, flags=STATE_FLAG_ENCODER_FRESH,
            degrade=0, knots=0, chunk_id=0, remaining_us=0, heartbeat_age_ms=0, policy_age_ms=0, clipped=0, axes=4,
            position=(0, 600_000, 200_000, 0), setpoint=(0, 600_000, 200_000, 0), velocity=(0, 0, 0, 0),
            effort=(0, 0, 0, 0),
        )
        return replace(report, **changes)

    @property
    def mcu_us(self) -> int:
        return self.time_ns // 1000 + self.mcu_ahead_us

    def say(self, message: McuMessage, session: int | None = None) -> None:
        if self.swallow(message):
            return
        self._seq += 1
        body = LinkFrame(
            message.TYPE, self._seq & 0xFFFF, self.session if session is None else session, message.pack()
        ).pack()
        self.say_raw(encode_frame(body))

    def say_raw(self, data: bytes) -> None:
        self.sent.append(data)
        self._out += data

    def write(self, frame: bytes) -> None:
        if self.gone:
            raise TransportClosed("fake is gone")
        for body in self._receiver.feed(frame):
            got = LinkFrame.unpack(body)
            assert got is not None
            self._answer(HOST_MESSAGES[got.type].unpack(got.payload), got)

    def read(self) -> bytes:
        if self.gone:
            raise TransportClosed("fake is gone")
        data = bytes(self._out)
        self._out.clear()
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        if not self._out:
            self.time_ns += round(timeout_s * 1e9)
            self.say(self.report())
        return True

    def close(self) -> None:
        self.gone = True

    def _answer(self, message: object, frame: LinkFrame) -> None:
        self.received.append(message)
        match message:
            case HelloReq():
                self.say(self.hello(message.nonce))
                return
            case TimeReq():
                self.say(TimeResp(message.t1_ns, self.mcu_us, self.mcu_us))
                return
            case Heartbeat() | EventAck():
                return
        code = self._act(message, frame)
        self.say(Ack(frame.type, code, frame.seq, int(self.state), self.mcu_us, 0, 0))

    def _act(self, message: object, frame: LinkFrame) -> AckCode:
        if frame.session != self.session and not isinstance(message, Estop):
            return AckCode.BAD_SESSION
        if type(message) in self.refuse:
            return self.refuse[type(message)]
        match message:
            case LimitsSet():
                self.limits[message.axis] = message
            case LimitsCommit():
                if self.limits_crc:
                    return AckCode.BAD_STATE
                self.limits_crc, self.state = message.crc, McuState.CONFIGURED
            case LimitsGet():
                self.say(Limits.unpack(self.limits[message.axis].pack()))
            case Disarm():
                self.limits_crc, self.state = 0, McuState.DISARMED
            case Arm():
                if self.state is not McuState.CONFIGURED:
                    return AckCode.BAD_STATE
                self.state = McuState.ARMED
            case Estop():
                self.estop, self.state = 1, McuState.ESTOP
            case Chunk() | Hold() | DriveSet() | StopsSet():
                pass
            case _:
                raise LinkError(f"unexpected {message}")
        return AckCode.OK
