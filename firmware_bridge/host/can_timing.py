"""How long a frame is on a CAN bus, bit by bit, stuff bits included (ISO 11898-1:2015), 11-bit identifiers.

Classic: a stuff bit after five equal bits from SOF to the end of the CRC. FD: the same up to the end of the data, then
a stuff count and a CRC with fixed stuff bits; the fast rate goes from the bit after BRS to the CRC delimiter. (The two
bits in which the rate changes are counted whole on the side on which they begin; controllers split them at their
sample point: at most one slow bit of difference, 1 us at 1 Mbit/s.)
"""

from __future__ import annotations

from firmware_bridge.host.can_segments import CanFrame
from firmware_bridge.host.messages import CAN_FD_LENGTHS

_CRC15 = 0x4599
_TAIL_CLASSIC = 1 + 1 + 1 + 7 + 3
"""CRC delimiter, ACK, its delimiter, end of frame, interframe space."""
_TAIL_FD = 1 + 1 + 7 + 3
"""The same without the CRC delimiter, which is sent fast."""


def _bits(value: int, count: int) -> list[int]:
    return [value >> (count - 1 - k) & 1 for k in range(count)]


def _data_bits(data: bytes) -> list[int]:
    return [byte >> (7 - k) & 1 for byte in data for k in range(8)]


def _crc15(bits: list[int]) -> list[int]:
    crc = 0
    for bit in bits:
        crc = (crc << 1 & 0x7FFF) ^ (_CRC15 if bit ^ crc >> 14 else 0)
    return _bits(crc, 15)


def stuffed(bits: list[int]) -> list[int]:
    """The bits as they go onto the wire: after five equal ones comes their opposite, which counts from there."""
    out: list[int] = []
    run = 0
    for bit in bits:
        run = run + 1 if out and out[-1] == bit else 1
        out.append(bit)
        if run == 5:
            out.append(1 - bit)
            run = 1
    return out


def classic_bits(frame: CanFrame) -> int:
    """Bit times of a classic data frame with its interframe space."""
    head = [0, *_bits(frame.id, 11), 0, 0, 0, *_bits(len(frame.data), 4), *_data_bits(frame.data)]
    return len(stuffed([*head, *_crc15(head)])) + _TAIL_CLASSIC


def fd_bits(frame: CanFrame) -> tuple[int, int]:
    """Slow and fast bit times of an FD data frame with bit rate switch and its interframe space."""
    slow_head = [0, *_bits(frame.id, 11), 0, 0, 1, 0, 1]  # SOF, identifier, RRS, IDE, FDF, res, BRS
    fast_head = [0, *_bits(CAN_FD_LENGTHS.index(len(frame.data)), 4), *_data_bits(frame.data)]  # ESI, DLC, data
    slow = len(stuffed(slow_head))
    fast = len(stuffed([*slow_head, *fast_head])) - slow
    # Stuff count (4) and CRC (17 or 21) with a fixed stuff bit before them and after every fourth bit; CRC delimiter.
    fast += (4 + 17 + 6 if len(frame.data) <= 16 else 4 + 21 + 7) + 1
    return slow + _TAIL_FD, fast


def frame_ns(frame: CanFrame, bitrate: int, data_bitrate: int) -> int:
    """Nanoseconds from SOF until the next frame may begin."""
    if not frame.fd:
        return round(classic_bits(frame) * 1e9 / bitrate)
    slow, fast = fd_bits(frame)
    return round(slow * 1e9 / bitrate + fast * 1e9 / data_bitrate)
