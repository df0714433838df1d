"""Host time where a microcontroller under emulation counts instructions and its time runs slower than the wall's."""

from __future__ import annotations

import time

from firmware_bridge.host.framing import FrameReceiver, LinkFrame
from firmware_bridge.host.messages import MCU_MESSAGES, Ack, State, TimeResp
from firmware_bridge.host.transport import Transport

_ORIGIN_NS = 1_000_000_000
_PACE = 0.3
"""MCU time per wall time that is assumed between two reports; too slow only delays, too fast would promise."""
_REPORT_NS = 10_000_000
_STAMPED = (State.TYPE, TimeResp.TYPE, Ack.TYPE)
_BACK_US = 100_000
"""An MCU clock that is this far back is that of another boot; the host's goes on from where it was."""


class CountedTransport:
    """Passes everything on; :meth:`clock` is the newest STATE on the wire, and what little has passed since."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._receiver = FrameReceiver()
        self._mcu_us = 0
        self._wall_ns = time.monotonic_ns()
        self._given_ns = 0
        self._origin_ns = _ORIGIN_NS

    @property
    def dropped_frames(self) -> int:
        return self._transport.dropped_frames

    @property
    def backlog(self) -> int:
        return self._transport.backlog

    def clock(self) -> int:
        """Monotonic ns."""
        passed = min(_REPORT_NS - 1_000_000, round((time.monotonic_ns() - self._wall_ns) * _PACE))
        self._given_ns = max(self._given_ns, self._origin_ns + self._mcu_us * 1000 + passed)
        return self._given_ns

    def write(self, frame: bytes) -> None:
        self._transport.write(frame)

    def read(self) -> bytes:
        data = self._transport.read()
        for body in self._receiver.feed(data):
            frame = LinkFrame.unpack(body)
            if frame is not None and frame.type in _STAMPED:
                message = MCU_MESSAGES[frame.type].unpack(frame.payload)
                now_us = message.t3_us if isinstance(message, TimeResp) else message.now_us  # type: ignore[union-attr]
                if now_us > self._mcu_us or now_us + _BACK_US < self._mcu_us:
                    if now_us < self._mcu_us:
                        self._origin_ns = self._given_ns - now_us * 1000
                    self._mcu_us = now_us
                    self._wall_ns = time.monotonic_ns()
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        return self._transport.wait(timeout_s, gather_s)

    def close(self) -> None:
        self._transport.close()
