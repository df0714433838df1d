"""The core's own conversions and packets, called directly."""

from __future__ import annotations

import ctypes

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
    ("ew_shaft_position", _BOOL, (ctypes.POINTER(Binding), _I32, _I64, ctypes.POINTER(_I64))),
    ("ew_shaft_velocity", _BOOL, (ctypes.POINTER(Binding), _I32, _I64, ctypes.POINTER(_I64))),
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


def shaft_of(binding: m.DriveSet, micro: int, most: int, what: str = "position") -> int | None:
    out = _I64()
    good = getattr(LIB, f"ew_shaft_{what}")(Binding.of(binding), micro, most, out)
    return out.value if good else None


def code_of(value: int, most: int, top: int) -> int | None:
    out = _U32()
    return out.value if LIB.ew_code_of(value, most, top, out) else None
