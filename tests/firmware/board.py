"""An emulated board seen from both of its cables: the harness of the port tests."""

from __future__ import annotations

import struct
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar

from firmware_bridge.host import messages as m
from firmware_bridge.host.emulator import Emulator, EmulatorOptions, Kind
from firmware_bridge.host.framing import FrameReceiver, encode_frame
from firmware_bridge.mcu.build import build
from tests.firmware.mcu import WIDE, limits, table_crc

OUT = Path(__file__).resolve().parents[2] / "build" / "firmware"
LIMITS = limits(0, WIDE)


def unused_ram(target: str) -> int:
    """An address between the firmware's data and its stack, where code can be put that nothing overwrites."""
    run = subprocess.run(["arm-none-eabi-nm", str(build(target, OUT))], capture_output=True, text=True, check=True)
    symbols = {name: int(value, 16) for value, _, name in (line.split() for line in run.stdout.splitlines())}
    address = (symbols["_bss_end"] + 255) & ~255
    assert address + 256 < symbols["_stack_limit"]
    return address


class Board:
    """Sends heartbeats (every 20 ms) and encoder frames (every 5 ms) by the wall clock while it waits."""

    longest_gap_us: ClassVar[int] = 0
    """Longest time between two control ticks that any board told: the emulator waited for its processor."""

    def __init__(self, kind: Kind, target: str, *, icount: bool = False) -> None:
        self.emulator = Emulator(kind, EmulatorOptions(target=target, icount=icount), out=OUT)
        self.link = self.emulator.open_link()
        self.drive = self.emulator.open_drive()
        self.receivers = FrameReceiver(), FrameReceiver()
        self.inbox: list[m.McuMessage] = []
        self.setpoints: list[m.Setpoint] = []
        self.session = self.epoch = 0
        self.seq = 0
        self.alive = True
        self._beat = self._encode = 0.0
        self._seen = 0, 0.0

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.link.close()
        self.drive.close()
        self.emulator.close()

    def mcu_us(self) -> int:
        """The MCU's clock by the newest message that carried it: a little behind, never ahead."""
        told_us, at = self._seen
        return told_us + round((time.monotonic() - at) * 1e6) if told_us else 0

    def send(self, message: m.HostMessage) -> None:
        self.seq = (self.seq + 1) & 0xFFFF
        head = struct.pack("<BBHH", message.TYPE, self.epoch, self.seq, self.session)
        self.link.write(encode_frame(head + message.pack()))

    def poll(self) -> None:
        now = time.monotonic()
        if self.alive and now - self._beat >= 0.02:
            self._beat = now
            self.send(m.Heartbeat(self.mcu_us(), self.seq, 0, 0, m.HEARTBEAT_FLAG_ARMED))
        if self.alive and now - self._encode >= 0.005:
            self._encode = now
            position = self.setpoints[-1].setpoint if self.setpoints and self.setpoints[-1].flags else (0,)
            self.drive.write(encode_frame(bytes([m.Encoder.TYPE]) + m.Encoder(0, 1, position or (0,), (0,)).pack()))
        for body in self.receivers[0].feed(self.link.read()):
            self.epoch = body[1]
            self.session = struct.unpack_from("<H", body, 4)[0]
            message = m.MCU_MESSAGES[body[0]].unpack(body[6:])
            self.inbox.append(message)
            if isinstance(message, m.State | m.Hello):
                self._seen = message.now_us, time.monotonic()
        for body in self.receivers[1].feed(self.drive.read()):
            self.setpoints.append(m.Setpoint.unpack(body[1:]))
        self.link.wait(0.002)

    def wait(self, kind: type[m.McuMessage], timeout_s: float = 10.0, **wanted: int) -> m.McuMessage:
        """The next message of a kind whose fields have the wanted values."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self.inbox.clear()
            self.poll()
            for message in self.inbox:
                if isinstance(message, m.Stats):
                    Board.longest_gap_us = max(Board.longest_gap_us, message.tick_gap_max_us)
                if isinstance(message, kind) and all(getattr(message, k) == v for k, v in wanted.items()):
                    return message
        raise AssertionError(f"no {kind.__name__} with {wanted} in {timeout_s} s")

    def hello(self, timeout_s: float = 10.0) -> m.Hello:
        """Asks until it answers: a UART that is not set up yet loses what it hears."""
        deadline = time.monotonic() + timeout_s
        while True:
            self.send(m.HelloReq(77))
            try:
                hello = self.wait(m.Hello, 1.0, nonce=77)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            else:
                assert isinstance(hello, m.Hello)
                return hello

    def accept(self, message: m.HostMessage) -> None:
        self.send(message)
        ack = self.wait(m.Ack, of_type=message.TYPE)
        assert isinstance(ack, m.Ack) and ack.code == m.AckCode.OK, ack

    def arm(self) -> None:
        crc = table_crc([LIMITS])
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline:  # heartbeats and encoder values of this session come in
            self.poll()
        self.accept(LIMITS)
        self.accept(m.LimitsCommit(1, crc))
        ready = m.STATE_FLAG_ENCODER_FRESH | m.STATE_FLAG_LIMITS_LOCKED | m.STATE_FLAG_DRIVES_READY
        self.wait(m.State, flags=ready)
        # A stall of this PC makes heartbeats stale, and a stale host may not arm: it asks again, as a host does.
        deadline = time.monotonic() + 5.0
        while True:
            self.send(m.Arm(crc, m.SCHEMA_HASH))
            ack = self.wait(m.Ack, of_type=m.Arm.TYPE)
            assert isinstance(ack, m.Ack)
            if ack.code != m.AckCode.NO_HOST or time.monotonic() > deadline:
                break
        assert ack.code == m.AckCode.OK, ack
        self.wait(m.State, state=m.McuState.ARMED)
