"""The core's own conversions and packets, called directly."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from firmware_bridge.host import messages as m
from tests.firmware.mcu import load

LIB = load()


class Binding(ctypes.Structure):
    """``ew_drive_set_t``."""

    _fields_ = (
        ("axis", ctypes.c_uint8), ("kind", ctypes.c_uint8), ("model", ctypes.c_uint8), ("address", ctypes.c_uint16),
        ("reply", ctypes.c_uint16), ("zero", ctypes.c_int32), ("ratio_num", ctypes.c_int32),
        ("ratio_den", ctypes.c_int32), ("kp", ctypes.c_uint32), ("kd", ctypes.c_uint32),
    )  # fmt: skip

    @classmethod
    def of(cls, message: m.DriveSet) -> Binding:
        return cls(*(int(getattr(message, name)) for name, *_ in cls._fields_))


_I64, _I32, _U32, _BOOL = ctypes.c_int64, ctypes.c_int32, ctypes.c_uint32, ctypes.c_bool
for _name, _result, _arguments in (
    ("ew_nearest", _I64, (_I64, _I64)),
    ("ew_axis_position", _BOOL, (ctypes.POINTER(Binding), _I64, ctypes.POINTER(_I32))),
    ("ew_axis_velocity", _BOOL, (ctypes.POINTER(Binding), _I64, ctypes.POINTER(_I32))),
    ("ew_axis_effort", _BOOL, (ctypes.POINTER(Binding), _I64, ctypes.POINTER(_I32))),
    ("ew_shaft_position", _BOOL, (ctypes.POINTER(Binding), _I32, ctypes.POINTER(_I64))),
    ("ew_shaft_velocity", _BOOL, (ctypes.POINTER(Binding), _I32, ctypes.POINTER(_I64))),
    ("ew_code_of", _BOOL, (_I64, _I64, _U32, ctypes.POINTER(_U32))),
    ("ew_value_of", _I64, (_U32, _I64, _U32)),
    ("ew_ft_seal", ctypes.c_size_t, (ctypes.c_char_p, ctypes.c_uint8, ctypes.c_uint8, ctypes.c_uint8)),
    ("ew_ft_word", ctypes.c_uint16, (ctypes.c_char_p, _BOOL)),
    ("ew_ft_signed", _I32, (ctypes.c_uint16, ctypes.c_uint8)),
    ("ew_ft_receive", ctypes.c_size_t,
     (ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t, ctypes.c_uint8, ctypes.POINTER(_U32))),
):  # fmt: skip
    getattr(LIB, _name).restype = _result
    getattr(LIB, _name).argtypes = list(_arguments)


def sealed(number: int, instruction: int, parameters: bytes) -> bytes:
    """A packet as the core makes it."""
    buffer = ctypes.create_string_buffer(b"\0" * 5 + parameters, 300)
    count = LIB.ew_ft_seal(buffer, number, instruction, len(parameters))
    return buffer.raw[:count]


class Receiver:
    """The core's packet receiver: what it makes of bytes."""

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self.buffer = ctypes.create_string_buffer(capacity)
        self.count = ctypes.c_uint8()
        self.broken = _U32()

    def feed(self, data: bytes) -> list[bytes]:
        out = []
        for byte in data:
            whole = LIB.ew_ft_receive(self.buffer, self.count, self.capacity, byte, self.broken)
            if whole:
                out.append(self.buffer.raw[:whole])
        return out


def axis_of(binding: m.DriveSet, shaft_nano: int, what: str = "position") -> int | None:
    out = _I32()
    good = getattr(LIB, f"ew_axis_{what}")(Binding.of(binding), shaft_nano, out)
    return out.value if good else None


def shaft_of(binding: m.DriveSet, micro: int, what: str = "position") -> int | None:
    out = _I64()
    good = getattr(LIB, f"ew_shaft_{what}")(Binding.of(binding), micro, out)
    return out.value if good else None


def code_of(value: int, most: int, top: int) -> int | None:
    out = _U32()
    return out.value if LIB.ew_code_of(value, most, top, out) else None


class Span(ctypes.Structure):
    """``ew_drive_span_t``."""

    _fields_ = (("low", _I32), ("high", _I32), ("velocity", _U32))


class CanFrame(ctypes.Structure):
    """``ew_can_frame_t``."""

    _fields_ = (
        ("id", ctypes.c_uint16), ("count", ctypes.c_uint8), ("fd", _BOOL), ("remote", _BOOL),
        ("data", ctypes.c_uint8 * 64),
    )  # fmt: skip


class _Head(ctypes.Structure):
    """The beginning of ``ew_drives_t``."""

    _fields_ = (
        ("axes", ctypes.c_uint8), ("seen", ctypes.c_uint8), ("buses", ctypes.c_uint8), ("on", _BOOL),
        ("hush", ctypes.c_uint8), ("servo_slack_us", _U32), ("setpoint", _I32 * m.MAX_AXES),
        ("velocity", _I32 * m.MAX_AXES),
    )  # fmt: skip


for _name, _result, _arguments in (
    ("ew_drives_init", None, (ctypes.c_void_p, ctypes.c_uint8, _U32)),
    ("ew_drives_unfit", ctypes.c_uint8, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint8)),
    ("ew_drives_bind", None, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint8, _I64)),
    ("ew_drives_tick", None, (ctypes.c_void_p, _BOOL, _U32, _I64)),
    ("ew_drives_not_ready", ctypes.c_uint8, (ctypes.c_void_p,)),
    ("ew_drives_in_error", ctypes.c_uint8, (ctypes.c_void_p,)),
    ("ew_feetech_tx", ctypes.c_size_t, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, _I64)),
    ("ew_feetech_rx", None, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, _I64)),
    ("ew_mit_tx", _BOOL, (ctypes.c_void_p, ctypes.POINTER(CanFrame), _I64)),
    ("ew_mit_rx", None, (ctypes.c_void_p, ctypes.POINTER(CanFrame), _I64)),
    ("ew_mit_last_words", ctypes.c_uint8, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint8)),
):
    getattr(LIB, _name).restype = _result
    getattr(LIB, _name).argtypes = list(_arguments)


class Drives:
    """The drivers without the core around them: whatever is asked of them, sensible or not."""

    def __init__(self, sets: Sequence[m.DriveSet], *, buses: int = 6, reach: int = 1_000_000, fast: int = 1_000_000):
        self.memory = ctypes.create_string_buffer(16384)
        self.head = _Head.from_buffer(self.memory)
        self.count = len(sets)
        self.now_us = 0
        self.ticks = 0
        self._sets = (Binding * len(sets))(*(Binding.of(message) for message in sets))
        self._spans = (Span * len(sets))(*[Span(-reach, reach, fast)] * len(sets))
        LIB.ew_drives_init(self.memory, buses, 0)

    def unfit(self) -> int:
        return int(LIB.ew_drives_unfit(self.memory, self._sets, self._spans, self.count))

    def bind(self) -> None:
        LIB.ew_drives_bind(self.memory, self._sets, self._spans, self.count, self.now_us)

    def tick(self, on: bool = False) -> None:
        self.now_us += m.TICK_US
        self.ticks += 1
        LIB.ew_drives_tick(self.memory, on, self.ticks, self.now_us)

    def frames(self, capacity: int = 100) -> list[tuple[int, bytes]]:
        frame, out = CanFrame(), []
        while len(out) < capacity and LIB.ew_mit_tx(self.memory, frame, self.now_us):
            out.append((frame.id, bytes(frame.data[:8])))
        return out

    def frame(self, identifier: int, data: bytes, *, remote: bool = False) -> None:
        values = (ctypes.c_uint8 * 64)(*data)
        LIB.ew_mit_rx(self.memory, CanFrame(identifier, len(data), False, remote, values), self.now_us)

    def packet(self, capacity: int = 64) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        count = LIB.ew_feetech_tx(self.memory, buffer, capacity, self.now_us)
        return buffer.raw[:count]

    def answer(self, data: bytes) -> None:
        LIB.ew_feetech_rx(self.memory, data, len(data), self.now_us)

    @property
    def in_error(self) -> int:
        return int(LIB.ew_drives_in_error(self.memory))

    @property
    def not_ready(self) -> int:
        return int(LIB.ew_drives_not_ready(self.memory))
