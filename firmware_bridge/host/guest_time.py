"""A host whose clock is the microcontroller's own: for emulators that count instructions and run at their own pace.

Each setpoint frame of the drive stream is one control tick. Encoder values, heartbeats and chunks are sent when so many
ticks have passed, so what is tested does not depend on how fast this machine is. Messages are sent raw: a link would
want clocks to compare, and here there is only one.
"""

from __future__ import annotations

import time
from collections import Counter

import numpy as np

from firmware_bridge.errors import LinkError
from firmware_bridge.host import messages as m
from firmware_bridge.host.emulator import Emulator
from firmware_bridge.host.framing import FrameReceiver, LinkFrame, encode_frame
from firmware_bridge.host.knots import MICRO
from firmware_bridge.host.limits import LimitTable
from firmware_bridge.host.motion import chunk_message, encode_knots

ENCODER_TICKS, HEARTBEAT_TICKS = 5, 20
DT_US, LEAD_US = 50_000, 60_000
SWAY = 0.01
"""Of an axis' range, to both sides of its middle."""
SWAY_HZ = 0.5
ANSWER_TICKS = 2000
BRAKE_TICKS = 2500
"""Until a stopped arm stands and its drive is off."""
CLOCK_ERROR_US = 500
"""What heartbeats say: times are the MCU's own, so knots are exact; half a tick is what its frames resolve."""
STALL_S = 30.0
ATTEMPTS = 10
LOOK_TICKS = 500
FOLLOWING = (m.McuState.ARMED, m.McuState.RUN, m.McuState.STARVED)


def demo_table(axes: int) -> LimitTable:
    """Limits of that many joints."""
    return LimitTable.from_si(
        [f"joint_{k + 1}" for k in range(axes)], position_min=[-3.0] * axes, position_max=[3.0] * axes,
        velocity_max=[2.0] * axes, acceleration_max=[10.0] * axes, jerk_max=[500.0] * axes,
        following_error_max=[0.25] * axes,
    )  # fmt: skip


class GuestHost:
    """One emulated microcontroller, armed, following plans that never end.

    Args:
        emulator: running.
        table: limits of the axes.
        plan_ticks: between two chunks.
        knots: of a chunk.
        wait_s: longest sleep between two looks at the streams.

    Attributes:
        tick: newest control tick that was seen.
        last_tick: of the boot before this one.
        codes: answers to chunks by code.
        resets: boots after the first: every one was a bite of the watchdog or a crash.
        causes: of these boots.
        stats: newest of the MCU.
        work_max_us, margin_min_us: worst of all STATS: a tick's own work, and what the watchdog's first stage had left.
    """

    def __init__(
        self, emulator: Emulator, table: LimitTable, *, plan_ticks: int = 100, knots: int = 16, wait_s: float = 0.0005
    ) -> None:
        self.table = table
        self._knots = knots
        self._wait_s = wait_s
        self.plan_ticks = plan_ticks
        self.tick = 0
        self.last_tick = 0
        self.codes: Counter[m.AckCode] = Counter()
        self.resets = 0
        self.causes: list[m.ResetCause] = []
        self.stats: m.Stats | None = None
        self.work_max_us = 0
        self.margin_min_us = 0xFFFFFFFF
        self._link, self._drive = emulator.open_link(), emulator.open_drive()
        self._receivers = FrameReceiver(), FrameReceiver()
        self._seq = self._session = self._epoch = self._counter = self._chunk_id = 0
        self._offset_us = 0
        self._state: m.State | None = None
        self._acks: list[m.Ack] = []
        self._hello: m.Hello | None = None
        self._position = tuple((row.position_min + row.position_max) // 2 for row in table.axes)
        self._middle = (table.knots.low + table.knots.high) / 2
        self._half = (table.knots.high - table.knots.low) / 2 * SWAY
        self._next = dict.fromkeys(("encoder", "heartbeat", "plan"), 0)
        self._armed = False

    def close(self) -> None:
        """Give both streams back."""
        self._link.close()
        self._drive.close()

    @property
    def mcu_us(self) -> int:
        """The MCU's clock at the newest tick."""
        return self._offset_us + self.tick * m.TICK_US

    @property
    def state(self) -> m.McuState:
        return m.McuState.BOOT if self._state is None else m.McuState(self._state.state)

    def run(self, ticks: int) -> None:
        """Let ticks pass; a reset ends it early.

        Raises:
            LinkError: the emulator stands still.
        """
        until = self.tick + ticks
        seen, at = self.tick, time.monotonic()
        while self.tick < until:
            self._serve()
            if self.tick != seen:
                if self.tick < seen:  # it was reset and counts from zero again
                    return
                seen, at = self.tick, time.monotonic()
            elif time.monotonic() - at > STALL_S:
                raise LinkError(f"the emulated microcontroller stands still at tick {self.tick}")

    def follow(self, ticks: int) -> list[str]:
        """Armed, let ticks pass; ends early after a reset. A machine may stall whoever drives the emulator on it, and
        the MCU then stops the arm, as it must: it is armed again.

        Returns:
            Why the arm was stopped, each time.

        Raises:
            LinkError: the emulator stands still, or arming was refused ten times in a row.
        """
        stops: list[str] = []
        end, resets = self.tick + ticks, self.resets
        while (left := end - self.tick) > 0 and self.resets == resets:
            self.run(min(left, LOOK_TICKS))
            if self.state not in FOLLOWING and self.resets == resets:
                stops.append(self._why_stopped())
                self.arm()
        return stops

    def arm(self) -> None:
        """Upload the table, lock it, arm.

        Raises:
            LinkError: refused ten times in a row.
        """
        for attempt in range(ATTEMPTS):
            try:
                self._arm_once()
            except LinkError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return

    def _arm_once(self) -> None:
        self._armed = False
        self.run(BRAKE_TICKS if self.state not in (m.McuState.BOOT, m.McuState.DISARMED) else 50)
        self._ask_hello()
        self.run(50)
        if self._hello is not None and self._hello.fault:
            self._command(m.FaultAck(self._hello.fault))
        if self._hello is not None and self._hello.locked:
            self._command(m.Disarm())
            self.run(50)
        for message in self.table.uploads():
            self._command(message)
        self._command(m.LimitsCommit(self.table.dof, self.table.crc))
        self.run(20)
        self._command(m.Arm(self.table.crc, m.SCHEMA_HASH))
        self._chunk_id = 0
        self._armed = True
        self._next["plan"] = self.tick

    def chunk(self) -> m.Chunk:
        """The next plan: every axis sways about its middle, a function of the MCU's time."""
        self._chunk_id += 1
        t0_us = self.mcu_us + LEAD_US
        seconds = (t0_us + np.arange(self._knots)[:, None] * DT_US) * 1e-6
        samples = self._middle + self._half * np.sin(2 * np.pi * SWAY_HZ * seconds + np.arange(self.table.dof))
        encoding = m.ChunkEncoding.I16_LSB
        encoded = encode_knots(samples / MICRO, self.table, encoding)
        return chunk_message(encoded, len(samples), self.table.dof, t0_us, DT_US * 1000, self._chunk_id, encoding)

    def send(self, message: m.HostMessage) -> None:
        """One frame, without waiting."""
        self._seq = (self._seq + 1) & 0xFFFF
        frame = LinkFrame(message.TYPE, self._seq, self._session, message.pack(), self._epoch)
        self._link.write(encode_frame(frame.pack()))

    def _serve(self) -> None:
        """Take what has come, send what is due by the ticks that were seen."""
        self._link.wait(self._wait_s)
        for body in self._receivers[1].feed(self._drive.read()):
            setpoint = m.Setpoint.unpack(body[1:])
            self._on_setpoint(setpoint)
        for body in self._receivers[0].feed(self._link.read()):
            frame = LinkFrame.unpack(body)
            kind = m.MCU_MESSAGES.get(frame.type) if frame is not None else None
            if frame is not None and kind is not None:
                self._epoch = frame.epoch
                self._take(frame.session, kind.unpack(frame.payload))
        self._send_due()

    def _on_setpoint(self, setpoint: m.Setpoint) -> None:
        if setpoint.tick < self.tick:
            self.last_tick = self.tick
            self._next = dict.fromkeys(self._next, 0)
        self.tick = setpoint.tick
        if setpoint.flags & m.SETPOINT_FLAG_ENABLE:
            self._position = setpoint.setpoint

    def _take(self, session: int, message: m.McuMessage) -> None:
        if self._session not in (0, session):
            self.resets += 1
            self._armed = False
            self._session = session
            self._ask_hello()
        self._session = session
        match message:
            case m.State():
                self._state = message
                self._offset_us = message.now_us - message.tick * m.TICK_US
            case m.Hello():
                known, self._hello = self._hello, message
                if message.reset_cause != m.ResetCause.POWER_ON and (known is None or known.boots != message.boots):
                    self.causes.append(m.ResetCause(message.reset_cause))
            case m.Stats():
                self._on_stats(message)
            case m.Event():
                self.send(m.EventAck(message.event_id))
            case m.Ack() if message.of_type == m.Chunk.TYPE:
                self.codes[m.AckCode(message.code)] += 1
            case m.Ack():
                self._acks.append(message)

    def _on_stats(self, stats: m.Stats) -> None:
        self.stats = stats
        self.work_max_us = max(self.work_max_us, stats.tick_work_max_us)
        self.margin_min_us = min(self.margin_min_us, stats.watchdog_margin_min_us)

    def _why_stopped(self) -> str:
        """Cause and fault of the newest STATE."""
        if self._state is None:
            return "nothing known"
        return f"{m.STOPCAUSE_TEXT[self._state.stop_cause].name}/{m.FAULT_TEXT[self._state.fault].name}"

    def _due(self, what: str, every: int) -> bool:
        if self.tick < self._next[what]:
            return False
        self._next[what] = self.tick + every
        return True

    def _send_due(self) -> None:
        if self._due("encoder", ENCODER_TICKS):
            encoder = m.Encoder(self.tick, self.table.dof, self._position, (0,) * self.table.dof)
            self._drive.write(encode_frame(bytes([m.Encoder.TYPE]) + encoder.pack()))
        if self._session and self._due("heartbeat", HEARTBEAT_TICKS):
            self._counter += 1
            flags = m.HEARTBEAT_FLAG_ARMED if self._armed else 0
            self.send(m.Heartbeat(self.mcu_us, self._counter, CLOCK_ERROR_US, int(m.Degrade.NOMINAL), flags))
        if self._armed and self._due("plan", self.plan_ticks):
            self.send(self.chunk())

    def _ask_hello(self) -> None:
        self.send(m.HelloReq(self.tick & 0x7FFFFFFF))

    def _command(self, message: m.HostMessage) -> None:
        self._acks.clear()
        self.send(message)
        until = self.tick + ANSWER_TICKS
        while not self._acks and self.tick < until:
            self.run(1)
        code = self._acks[0].code if self._acks else None
        if code != m.AckCode.OK:
            said = "no answer" if code is None else m.ACKCODE_TEXT[code].name
            raise LinkError(f"{type(message).__name__}: {said}")
