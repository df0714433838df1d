"""The least and the most time that frames and transfers occupy a CAN bus, whatever they carry (ISO 11898-1:2015).

Classic data frame, 11-bit identifier: 34 bits from SOF to CRC beside the data, all of which may be stuffed; then CRC
delimiter, ACK slot and delimiter, EOF (7) and interframe space (3) are not. FD with bit rate switch: 17 bits to BRS
at the nominal rate; ESI, DLC, data, stuff count (4) and CRC (17 up to 16 bytes, else 21, with fixed stuff bits) at the
data rate; the end again at the nominal rate. A stuff bit follows five equal bits and counts as the first of the next
five, so n bits hold at most (n - 1) // 4 of them. What a given frame takes is in ``can_timing.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge.host.can_segments import fd_length
from firmware_bridge.host.messages import CAN_CLASSIC_BYTES, CAN_FD_LENGTHS, CAN_FRAME_BYTES, CRC_BYTES

_CLASSIC_STUFFED, _TAIL = 34, 13
_FD_ARBITRATION, _FD_CONTROL, _FD_STUFF_COUNT = 17, 5, 4


@dataclass(frozen=True, slots=True)
class BusRate:
    """Bit rates, bit/s. ``data`` None: classic CAN."""

    nominal: int = 1_000_000
    data: int | None = None

    @property
    def fd(self) -> bool:
        """FD frames are sent."""
        return self.data is not None


CLASSIC_1M = BusRate(1_000_000)
FD_1M_5M = BusRate(1_000_000, 5_000_000)
FD_1M_8M = BusRate(1_000_000, 8_000_000)


@dataclass(frozen=True, slots=True)
class FrameBits:
    """Bits of one frame with interframe space, without stuff bits; and the most stuff bits that it can need."""

    nominal: int
    data: int
    stuff_nominal_max: int
    stuff_data_max: int

    def time_us(self, rate: BusRate, *, worst: bool) -> float:
        """Time on the bus; ``worst``: with the most stuff bits, else with none."""
        nominal = self.nominal + worst * self.stuff_nominal_max
        data = self.data + worst * self.stuff_data_max
        return 1e6 * (nominal / rate.nominal + (data / rate.data if rate.data else 0.0))


def frame_bits(count: int, *, fd: bool) -> FrameBits:
    """Bits of a data frame with an 11-bit identifier and ``count`` bytes.

    Raises:
        ValueError: no frame has this length.
    """
    if count not in (CAN_FD_LENGTHS if fd else range(CAN_CLASSIC_BYTES + 1)):
        raise ValueError(f"no {'FD' if fd else 'classic'} frame has {count} bytes")
    if not fd:
        stuffed = _CLASSIC_STUFFED + 8 * count
        return FrameBits(stuffed + _TAIL, 0, (stuffed - 1) // 4, 0)
    crc = _FD_STUFF_COUNT + (17 if count <= 16 else 21)
    fixed = 1 + crc // 4
    stuffable = _FD_ARBITRATION + _FD_CONTROL + 8 * count
    early = (_FD_ARBITRATION - 1) // 4
    return FrameBits(
        _FD_ARBITRATION + _TAIL, _FD_CONTROL + 8 * count + crc + fixed, early, (stuffable - 1) // 4 - early
    )


def frame_lengths(body: int, *, fd: bool) -> list[int]:
    """Lengths of the frames of a transfer whose body has ``body`` bytes (header and payload, without CRC)."""
    room = (CAN_FRAME_BYTES if fd else CAN_CLASSIC_BYTES) - 1
    left, lengths = body + CRC_BYTES, []
    while left + fd > room:
        lengths.append(room + 1)
        left -= min(left, room)
    return [*lengths, fd_length(left + 2) if fd else left + 1]


def transfer_time_us(body: int, rate: BusRate, *, worst: bool) -> float:
    """Time on the bus of a whole transfer when nothing else is sent."""
    return sum(frame_bits(n, fd=rate.fd).time_us(rate, worst=worst) for n in frame_lengths(body, fd=rate.fd))
