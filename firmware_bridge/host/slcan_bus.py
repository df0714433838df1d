"""A python-can bus on a slcan adapter that reads what is there at once, and never writes half a line.

python-can's own ``slcan`` bus asks the system for one byte at a time, which costs more processor time than the arm's
control loop has at 100 reports a second (a classic STATE is 500 characters), and with a short timeout it leaves a
frame's line half written. Same dialect: Lawicel, with the CAN FD letters of CANable 2 (d, b).
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from pathlib import Path

import can

from firmware_bridge.errors import TransportClosed
from firmware_bridge.host.messages import CAN_FD_LENGTHS
from firmware_bridge.host.transport import SerialTransport, open_serial

_BIT_RATES = {
    10_000: "S0", 20_000: "S1", 50_000: "S2", 100_000: "S3", 125_000: "S4", 250_000: "S5", 500_000: "S6",
    750_000: "S7", 1_000_000: "S8",
}  # fmt: skip
_DATA_BIT_RATES = {2_000_000: "Y2", 5_000_000: "Y5"}
_LINE_MAX = 256
_WAITING_MAX = 256
"""Characters that may wait here, 2 FD frames: an urgent frame cannot overtake what is a line of text already."""


class SlcanBus(can.BusABC):
    """See the module.

    Args:
        channel: serial device of the adapter.
        bitrate: of arbitration, bit/s.
        data_bitrate: after the bit rate switch; None: classic only.
        tty_baudrate: of the serial line (an adapter on USB does not mind).

    Raises:
        ValueError: a bit rate that the dialect has no letter for.
        LinkError: the device cannot be opened.
    """

    def __init__(
        self, channel: Path | str, bitrate: int = 1_000_000, data_bitrate: int | None = None,
        tty_baudrate: int = 3_000_000,
    ) -> None:  # fmt: skip
        if bitrate not in _BIT_RATES or (data_bitrate is not None and data_bitrate not in _DATA_BIT_RATES):
            raise ValueError(
                f"slcan has no letter for {bitrate} / {data_bitrate} bit/s: "
                f"one of {', '.join(map(str, _BIT_RATES))} / {', '.join(map(str, _DATA_BIT_RATES))}"
            )
        self._line: SerialTransport = open_serial(channel, tty_baudrate)
        self._buffer = bytearray()
        self._messages: deque[can.Message] = deque()
        self._can_protocol = can.CanProtocol.CAN_20 if data_bitrate is None else can.CanProtocol.CAN_FD
        super().__init__(channel=str(channel))
        # An empty line first: it ends whatever a killed host has left half typed.
        opening = ["", "C", _BIT_RATES[bitrate], "" if data_bitrate is None else _DATA_BIT_RATES[data_bitrate], "O"]
        for word in opening:
            self._line.write(word.encode() + b"\r")

    def send(self, msg: can.Message, timeout: float | None = None) -> None:
        """Hand one frame over; never waits.

        Raises:
            can.CanOperationError: the adapter does not keep up.
            TransportClosed: it is gone.
        """
        if self._line.backlog > _WAITING_MAX:
            self._line.wait(0.0)  # lets it go on
            if self._line.backlog > _WAITING_MAX:
                raise can.CanOperationError("Transmit buffer full")
        letter = ("b" if msg.bitrate_switch else "d") if msg.is_fd else ("r" if msg.is_remote_frame else "t")
        identifier = f"{msg.arbitration_id:08X}" if msg.is_extended_id else f"{msg.arbitration_id:03X}"
        length = f"{CAN_FD_LENGTHS.index(msg.dlc):X}"
        data = "" if msg.is_remote_frame else msg.data.hex().upper()
        text = (letter.upper() if msg.is_extended_id else letter) + identifier + length + data
        self._line.write(text.encode() + b"\r")

    def _recv_internal(self, timeout: float | None) -> tuple[can.Message | None, bool]:
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._messages:
            left = 1.0 if deadline is None else deadline - time.monotonic()
            if self._line.wait(max(0.0, left)):
                self._split(self._line.read())
            elif deadline is not None:
                break
        return (self._messages.popleft() if self._messages else None), False

    def _split(self, data: bytes) -> None:
        self._buffer += data
        *lines, rest = bytes(self._buffer).replace(b"\a", b"\r").split(b"\r")
        self._buffer[:] = rest if len(rest) <= _LINE_MAX else b""
        for line in lines:
            if line[:1] in b"tTrRdDbB" and line:
                self._messages.append(_parse(line))

    def shutdown(self) -> None:
        super().shutdown()
        with contextlib.suppress(TransportClosed):  # there is nobody left to tell
            self._line.write(b"C\r")
        self._line.close()


def _parse(line: bytes) -> can.Message:
    """A line that begins like a frame; an error frame if it is none."""
    letter = chr(line[0]).lower()
    extended = line[:1].isupper()
    at = 9 if extended else 4
    try:
        identifier, length = int(line[1:at], 16), CAN_FD_LENGTHS[int(line[at : at + 1], 16)]
        data = b"" if letter == "r" else bytes.fromhex(line[at + 1 :].decode("ascii"))
    except ValueError:
        return can.Message(is_error_frame=True)
    if letter != "r" and len(data) != length:
        return can.Message(is_error_frame=True)
    return can.Message(
        arbitration_id=identifier, is_extended_id=extended, is_remote_frame=letter == "r", dlc=length, data=data,
        is_fd=letter in "db", bitrate_switch=letter == "b", timestamp=time.time(),
    )  # fmt: skip
