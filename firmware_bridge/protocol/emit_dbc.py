"""Definition -> ``docs/edge-wam.dbc``: the CAN side of the host link for bus analysers, as seen with CAN FD frames.

A message whose transfer fits into one FD frame has its fields as signals. Of a longer one the first frame has those
fields that lie in it whole, and every other frame is bytes; which of the two a frame is stands in its last byte.
"""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge.protocol.can_ids import ESTOP_ID, ON_CAN, can_id, fd_length
from firmware_bridge.protocol.definition import ENUMERATIONS, SIZES, Field, Message, schema_hash

NODE = 1
FRAME_BYTES = 64
_HEADER = (("msg_type", 1), ("epoch", 1), ("seq", 2), ("session", 2))
_HEADER_BYTES, _CRC_BYTES = 6, 4
_UNITS = {"us": "us", "ms": "ms", "ns": "ns", "hz": "Hz"}


@dataclass(frozen=True, slots=True)
class _Signal:
    """A run of bytes of a frame. ``part``: "" always there, "m1" first frame of a transfer, "m0" the others."""

    name: str
    at: int
    size: int
    signed: bool = False
    part: str = ""
    unit: str = ""
    doc: str = ""

    def line(self, receiver: str) -> str:
        bits = 8 * self.size
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if self.signed else (0, (1 << bits) - 1)
        part = f" {self.part}" if self.part else ""
        sign = "-" if self.signed else "+"
        return f' SG_ {self.name}{part} : {8 * self.at}|{bits}@1{sign} (1,0) [{low}|{high}] "{self.unit}" {receiver}'


def _tail(at: int, receiver: str, *, multiplexed: bool) -> list[str]:
    """The tail byte, bit by bit."""
    start = "tail_start M" if multiplexed else "tail_start"
    rows = (("tail_transfer", 0, 5, 31), ("tail_toggle", 5, 1, 1), ("tail_end", 6, 1, 1), (start, 7, 1, 1))
    return [f' SG_ {name} : {8 * at + bit}|{bits}@1+ (1,0) [0|{top}] "" {receiver}' for name, bit, bits, top in rows]


def _payload(message: Message) -> tuple[list[_Signal], int | None]:
    """Fields at fixed places, and the length of the payload; None if it varies."""
    out: list[_Signal] = []
    at = _HEADER_BYTES
    for field in message.fields:
        if field.count and not field.count.isdigit():
            return out, None
        for index in range(int(field.count or 1)):
            name = f"{field.name}_{index}" if field.count else field.name
            out += _scalars(field, name, at)
            at += SIZES[field.type]
    return out, at - _HEADER_BYTES


def _scalars(field: Field, name: str, at: int) -> list[_Signal]:
    """A field as signals of 8 bytes at most: text is in two halves."""
    size = SIZES[field.type]
    unit = _UNITS.get(field.name.rsplit("_", 1)[-1], "")
    if size <= 8:
        return [_Signal(name, at, size, field.type.startswith("i"), unit=unit, doc=field.doc)]
    return [
        _Signal(f"{name}_{index}", at + 8 * index, min(8, size - 8 * index), doc=field.doc)
        for index in range((size + 7) // 8)
    ]


def _header() -> list[_Signal]:
    at, out = 0, []
    for name, size in _HEADER:
        out.append(_Signal(name, at, size))
        at += size
    return out


def _frame(message: Message, receiver: str) -> tuple[int, list[_Signal], list[str]]:
    """Length of the frame, its signals, and the lines of its tail."""
    if message.can_class == "ESTOP":
        return _HEADER_BYTES + 1, _header(), _tail(_HEADER_BYTES, receiver, multiplexed=False)
    fields, payload = _payload(message)
    if payload is not None and _HEADER_BYTES + payload + _CRC_BYTES + 2 <= FRAME_BYTES:
        crc = _HEADER_BYTES + payload
        length = fd_length(crc + _CRC_BYTES + 2)
        fixed = [_Signal("crc32c", crc, _CRC_BYTES), _Signal("zeros", length - 2, 1)]
        return length, [*_header(), *fields, *fixed], _tail(length - 1, receiver, multiplexed=False)
    first = [signal for signal in [*_header(), *fields] if signal.at + signal.size < FRAME_BYTES]
    shown = [_Signal(s.name, s.at, s.size, s.signed, "m1", s.unit, s.doc) for s in first]
    room = FRAME_BYTES - 1
    others = [_Signal(f"bytes_{at}", at, min(8, room - at), part="m0") for at in range(0, room, 8)]
    return FRAME_BYTES, [*shown, *others], _tail(FRAME_BYTES - 1, receiver, multiplexed=True)


def _text(text: str) -> str:
    return text.replace("\\", "/").replace('"', "'")


def _enumeration_of(field_doc: str) -> list[tuple[int, str]]:
    words = {word.strip(".,;:()") for word in field_doc.split()}
    return next(
        ([(v.number, v.name) for v in e.values] for e in ENUMERATIONS if e.name in words), []
    )


def emit_dbc() -> str:
    """The text of docs/edge-wam.dbc."""
    lines = [f'VERSION "{schema_hash():08x}"', "", "NS_ :", *(f"\t{name}" for name in _SECTIONS), ""]
    lines += ["BS_:", "", "BU_: HOST MCU", ""]
    comments = [
        f'CM_ "edge-wam host link, node {NODE}; add 16 to an identifier per node. Generated from definition.py by '
        'firmware_bridge/protocol/generate.py. Frame lengths are those of CAN FD.";'
    ]
    attributes, values = [], []
    for message in ON_CAN:
        identifier = can_id(message, NODE)
        sender, receiver = ("HOST", "MCU") if message.direction == "host" else ("MCU", "HOST")
        length, signals, tail = _frame(message, receiver)
        lines.append(f"BO_ {identifier} {message.name}: {length} {sender}")
        lines += [signal.line(receiver) for signal in signals] + tail + [""]
        comments.append(f'CM_ BO_ {identifier} "{_text(message.doc)}";')
        attributes.append(f'BA_ "VFrameFormat" BO_ {identifier} {0 if identifier == ESTOP_ID else 14};')
        for signal in signals:
            if signal.doc:
                comments.append(f'CM_ SG_ {identifier} {signal.name} "{_text(signal.doc)}";')
                if table := _enumeration_of(signal.doc):
                    words = " ".join(f'{number} "{name}"' for number, name in reversed(table))
                    values.append(f"VAL_ {identifier} {signal.name} {words} ;")
    formats = ",".join(f'"{name}"' for name in _FRAME_FORMATS)
    lines += comments
    lines += [f'BA_DEF_ BO_ "VFrameFormat" ENUM {formats};', 'BA_DEF_ "BusType" STRING ;']
    lines += ['BA_DEF_DEF_ "VFrameFormat" "StandardCAN";', 'BA_DEF_DEF_ "BusType" "CAN FD";', 'BA_ "BusType" "CAN FD";']
    return "\n".join([*lines, *attributes, *values]) + "\n"


_SECTIONS = ("CM_", "BA_DEF_", "BA_", "VAL_", "BA_DEF_DEF_")
_FRAME_FORMATS = (
    "StandardCAN", "ExtendedCAN", *("reserved",) * 12, "StandardCAN_FD", "ExtendedCAN_FD",
)  # fmt: skip
