"""What goes over a link, in words: frames of either direction decoded from the one definition, errors included.

The type of a message says who speaks, so one decoder serves a tap on either line, the drive stream, and a recording.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from cobs import cobs

from firmware_bridge.errors import LinkError
from firmware_bridge.host import messages
from firmware_bridge.host.framing import LinkFrame, crc32c
from firmware_bridge.host.messages import CRC_BYTES, MAX_BODY_BYTES
from firmware_bridge.protocol.definition import CONSTANTS, ENUMERATIONS, MESSAGES, Field, Message

_MESSAGES = {message.type: message for message in MESSAGES}
_NUMBERS = {e.name: {value.number: value.name for value in e.values} for e in ENUMERATIONS}
_SPEAKERS = {"host": "host", "mcu": "mcu", "drive": "mcu>drive", "plant": "drive>mcu"}
_LONGEST = MAX_BODY_BYTES + MAX_BODY_BYTES // 254 + 1
_SUFFIX_UNITS = {"us": "us", "ns": "ns", "ms": "ms", "hz": "Hz"}
_DOC_UNIT = re.compile(r"(?:micro|milli)-units(?:/s(?:\^\d)?)?")
_SHOWN_BYTES = 32


@dataclass(frozen=True, slots=True)
class Heard:
    """One frame, or what should have been one.

    Attributes:
        at_ns: when its last byte was seen.
        speaker: host, mcu, mcu>drive or drive>mcu; empty when it cannot be told.
        name: of the message; empty when it is none.
        values: field name -> (value, unit or meaning). Enumerations and flags carry their names.
        error: what is wrong; empty when nothing is.
        raw: the bytes as they came, without the delimiter.
    """

    at_ns: int
    speaker: str
    name: str = ""
    epoch: int = 0
    seq: int = 0
    session: int = 0
    values: dict[str, tuple[Any, str]] = field(default_factory=dict)
    error: str = ""
    raw: bytes = b""

    def line(self, since_ns: int = 0) -> str:
        """For people."""
        at = f"{(self.at_ns - since_ns) / 1e9:12.6f}"
        if self.error:
            shown = self.raw[:_SHOWN_BYTES].hex(" ") + (" ..." if len(self.raw) > _SHOWN_BYTES else "")
            return f"{at}  {self.speaker or '?':9}  !! {self.error}: {shown or 'nothing'}"
        head = ""
        if self.speaker in ("host", "mcu"):
            head = f"seq {self.seq} session {self.session:04x} epoch {self.epoch}  "
        return f"{at}  {self.speaker:9}  {self.name:12} {head}" + "  ".join(
            f"{name}={_shown(value)}{f' {unit}' if unit else ''}" for name, (value, unit) in self.values.items()
        )

    def record(self) -> dict[str, Any]:
        """For programs: plain JSON values."""
        return {
            "at_ns": self.at_ns, "from": self.speaker, "message": self.name, "seq": self.seq, "session": self.session,
            "epoch": self.epoch, "error": self.error, "raw": self.raw.hex() if self.error else "",
            "fields": {name: value for name, (value, _unit) in self.values.items()},
            "units": {name: unit for name, (_value, unit) in self.values.items() if unit},
        }


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(str(item) for item in value) + "]"
    return str(value)


def _meaning(what: Field, value: Any) -> str:
    """Unit of a number, name of an enumerated one, names of the flags that are set."""
    first = what.doc.split()[0].rstrip(",.;:") if what.doc else ""
    if first in _NUMBERS and isinstance(value, int):
        return _NUMBERS[first].get(value, "unknown")
    if first.endswith("_FLAG_*"):
        bits = [(c.name.removeprefix(first[:-1]), c.value) for c in CONSTANTS if c.name.startswith(first[:-1])]
        return "|".join(name for name, bit in bits if value & bit)
    if first == "bit" and "per Check" in what.doc:
        return "|".join(name for number, name in _NUMBERS["Check"].items() if value >> number & 1)
    suffix = what.name.rsplit("_", 1)[-1]
    found = _DOC_UNIT.search(what.doc)
    return _SUFFIX_UNITS.get(suffix, found.group(0) if found else "")


def _samples(values: dict[str, tuple[Any, str]], data: bytes) -> tuple[Any, str]:
    """Positions (and velocities) of a chunk, as many as there are; bytes where they do not come out even."""
    small = values["encoding"][0] == messages.ChunkEncoding.I16_LSB
    width = 2 if small else 4
    if len(data) % width:
        return data.hex(), "bytes"
    return list(struct.unpack(f"<{len(data) // width}{'h' if small else 'i'}", data)), "lsb" if small else "micro-units"


def _values(message: Message, payload: bytes) -> dict[str, tuple[Any, str]]:
    """Raises LinkError if the length is not that of the definition."""
    unpacked = getattr(messages, message.name).unpack(payload)
    values: dict[str, tuple[Any, str]] = {}
    for what in message.fields:
        value = getattr(unpacked, what.name)
        if what.type == "name":
            values[what.name] = value.rstrip(b"\0").decode("ascii", "replace"), ""
        elif isinstance(value, bytes):
            values[what.name] = _samples(values, value)
        else:
            values[what.name] = (list(value) if isinstance(value, tuple) else value), _meaning(what, value)
    return values


class Sniffer:
    """Decodes one direction of a stream. Never raises on any input; every byte is in what it yields."""

    def __init__(self, speaker: str = "") -> None:
        self._speaker = speaker
        self._buffer = bytearray()

    def feed(self, data: bytes, at_ns: int) -> Iterator[Heard]:
        """The frames that ``data`` completes."""
        self._buffer += data
        while (end := self._buffer.find(0)) >= 0:
            encoded = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            if encoded:
                yield self._frame(encoded, at_ns)
        if len(self._buffer) > 2 * _LONGEST:
            yield self._broken(bytes(self._buffer), "no delimiter in more than two of the longest frames", at_ns)
            self._buffer.clear()

    def end(self, at_ns: int) -> Iterator[Heard]:
        """What was left without a delimiter."""
        if self._buffer:
            yield self._broken(bytes(self._buffer), "cut off", at_ns)
            self._buffer.clear()

    def _broken(self, raw: bytes, error: str, at_ns: int) -> Heard:
        return Heard(at_ns, self._speaker, error=f"{error}, {len(raw)} bytes", raw=raw)

    def _frame(self, encoded: bytes, at_ns: int) -> Heard:
        if len(encoded) > _LONGEST:
            return self._broken(encoded, "longer than any frame", at_ns)
        try:
            raw: bytes = cobs.decode(encoded)
        except cobs.DecodeError:
            return self._broken(encoded, "not COBS", at_ns)
        body, crc = raw[:-CRC_BYTES], raw[-CRC_BYTES:]
        if not body or crc32c(body) != int.from_bytes(crc, "little"):
            return self._broken(encoded, "wrong CRC", at_ns)
        return self._message(body, encoded, at_ns)

    def _message(self, body: bytes, encoded: bytes, at_ns: int) -> Heard:
        message = _MESSAGES.get(body[0])
        if message is None:
            return self._broken(encoded, f"unknown type {body[0]:#04x}", at_ns)
        speaker = _SPEAKERS[message.direction]
        frame = LinkFrame(message.type, 0, 0, body[1:])
        if message.direction in ("host", "mcu"):
            whole = LinkFrame.unpack(body)
            if whole is None:
                return self._broken(encoded, f"{message.name} without a header", at_ns)
            frame = whole
        try:
            values = _values(message, frame.payload)
        except (LinkError, struct.error):
            return self._broken(encoded, f"{message.name} with a payload of {len(frame.payload)}", at_ns)
        return Heard(at_ns, speaker, message.name, frame.epoch, frame.seq, frame.session, values)
