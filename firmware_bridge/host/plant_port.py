"""The plant's end of the drive stream: setpoints of the microcontroller in, encoder values out.

Here a simulator stands where a servo drive would be. It is not part of the safety chain: a plant that falls silent is a
lost encoder to the MCU, and that is a fault there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.errors import FirmwareError, LinkError
from firmware_bridge.host.framing import FrameReceiver, FramingCounters, encode_frame
from firmware_bridge.host.knots import MICRO
from firmware_bridge.host.link_state import F64, si
from firmware_bridge.host.messages import (
    EFFORT_MAX_MAX,
    MAX_AXES,
    POSITION_ABS_MAX,
    SETPOINT_FLAG_BRAKE,
    SETPOINT_FLAG_ENABLE,
    Encoder,
    Setpoint,
)
from firmware_bridge.host.transport import Transport


@dataclass(frozen=True, slots=True)
class DriveCommand:
    """One control tick's order to the drive: ``setpoint`` [D], axis units; with ``enabled`` false it is not to move,
    with ``brake`` true the holding brakes grip."""

    tick: int
    enabled: bool
    setpoint: F64
    brake: bool = False


def encoder_micro(position: Sequence[float] | F64) -> NDArray[np.int32]:
    """Measured positions [D] in axis units -> micro-units.

    Raises:
        FirmwareError: no axis or too many, a number that is none, or one that no limit table could hold.
    """
    values = np.asarray(position, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * MICRO)
        inside = np.abs(scaled) <= 2 * POSITION_ABS_MAX
    if values.ndim != 1 or not 1 <= len(values) <= MAX_AXES or not inside.all():
        raise FirmwareError(
            f"encoder values {values.tolist()}", expected=f"1..{MAX_AXES} finite positions",
            remedy="a plant that does not know where it is must stay silent: the MCU then takes the drive away",
        )
    return scaled.astype(np.int32)


def effort_micro(effort: Sequence[float] | F64 | None, axes: int) -> NDArray[np.int32]:
    """Measured efforts [D] in N m or N -> micro-units; zeros where nothing is measured.

    Raises:
        FirmwareError: not one number per axis, a number that is none, or more than a limit table could hold.
    """
    if effort is None:
        return np.zeros(axes, dtype=np.int32)
    values = np.asarray(effort, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.rint(values * MICRO)
        inside = np.abs(scaled) <= EFFORT_MAX_MAX
    if values.shape != (axes,) or not inside.all():
        raise FirmwareError(f"efforts {values.tolist()}", expected=f"{axes} finite numbers")
    return scaled.astype(np.int32)


class PlantPort:
    """The drive stream over a transport. One loop owns it."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._receiver = FrameReceiver()
        self._seq = 0
        self.malformed = 0
        """Frames with a right CRC that are no setpoint."""

    @property
    def counters(self) -> FramingCounters:
        return self._receiver.counters

    def poll(self) -> list[DriveCommand]:
        """The commands that have come since the last call, oldest first; the last one is what holds now.

        Raises:
            TransportClosed: the MCU is gone.
        """
        commands = []
        for body in self._receiver.feed(self._transport.read()):
            try:
                if body[0] != Setpoint.TYPE:
                    raise LinkError(f"drive frame of type {body[0]:#x}")
                frame = Setpoint.unpack(body[1:])
            except LinkError:
                self.malformed += 1
                continue
            commands.append(self._command(frame))
        return commands

    @staticmethod
    def _command(frame: Setpoint) -> DriveCommand:
        known = frame.flags & ~(SETPOINT_FLAG_ENABLE | SETPOINT_FLAG_BRAKE) == 0
        enabled = known and bool(frame.flags & SETPOINT_FLAG_ENABLE)
        brake = not known or bool(frame.flags & SETPOINT_FLAG_BRAKE)
        return DriveCommand(frame.tick, enabled, si(frame.setpoint), brake)

    def wait(self, timeout_s: float) -> bool:
        """Sleep until a command comes, at most ``timeout_s``."""
        return self._transport.wait(timeout_s)

    def send_encoder(self, position: Sequence[float] | F64, effort: Sequence[float] | F64 | None = None) -> None:
        """Tell the MCU where the axes are [D], axis units, and what it takes [D], N m or N (None: not measured). To be
        called at about 200 Hz.

        Raises:
            FirmwareError: see :func:`encoder_micro`; nothing was sent.
            TransportClosed: the MCU is gone.
        """
        micro = encoder_micro(position)
        self._seq = (self._seq + 1) & 0xFFFFFFFF
        efforts = effort_micro(effort, len(micro))
        message = Encoder(self._seq, len(micro), tuple(micro.tolist()), tuple(efforts.tolist()))
        self._transport.write(encode_frame(bytes([Encoder.TYPE]) + message.pack()))

    def close(self) -> None:
        self._transport.close()
