"""The rings between interrupts and main loop: order, nothing lost without a count, each delimiter with its time."""

from __future__ import annotations

import ctypes
import subprocess
from collections import deque
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.mcu.build import HERE
from firmware_bridge.mcu.targets import COMMON_FLAGS

LIBRARY: list[Path] = []
CAPACITY, STAMPS = 2048, 32
LINK, DRIVE, CAN = 0, 1, 2


@pytest.fixture(scope="module", autouse=True)
def _library(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("rings")
    clock = folder / "clock.c"
    clock.write_text(
        '#include "board.h"\nuint64_t fake_now_us;\nuint32_t fake_sleeps;\n'
        "uint64_t board_now_us(void)\n{\n    return fake_now_us;\n}\n"
    )
    fake = Path(__file__).with_name("fake_cortex.h")
    path = folder / "rings.so"
    subprocess.run(
        ["cc", *COMMON_FLAGS, "-shared", "-fPIC", "-DPORT_SLCAN", "-include", str(fake), f"-I{HERE / 'core'}",
         f"-I{HERE / 'ports/common'}", str(HERE / "ports/common/rings.c"), str(clock), "-o", str(path)], check=True,
    )  # fmt: skip
    LIBRARY[:] = [path]


class Rings:
    """The C side, emptied; it is one for the whole process."""

    def __init__(self) -> None:
        self.lib = ctypes.CDLL(str(LIBRARY[0]))
        self.lib.ring_room.restype = self.lib.rings_overruns.restype = ctypes.c_uint32
        self.lib.rings_empty.restype = ctypes.c_bool
        self.now = ctypes.c_uint64.in_dll(self.lib, "fake_now_us")
        self.sleeps = ctypes.c_uint32.in_dll(self.lib, "fake_sleeps")
        for stream in (LINK, DRIVE, CAN):
            while self.get(stream) is not None:
                pass
        self.before = self.lib.rings_overruns()

    def write(self, stream: int, data: bytes, at_us: int, singly: bool) -> None:
        self.now.value = at_us
        if singly:
            for byte in data:
                self.lib.ring_put(stream, byte)
        else:
            self.lib.ring_write(stream, data, len(data))

    def get(self, stream: int) -> tuple[int, int] | None:
        """Byte and stamp (0 where none is given)."""
        stamp = ctypes.c_uint64()
        byte = self.lib.ring_get(stream, ctypes.byref(stamp))
        return None if byte < 0 else (byte, stamp.value)

    def lost(self) -> int:
        return int(self.lib.rings_overruns()) - self.before


STEPS = st.lists(
    st.tuples(
        st.sampled_from([LINK, DRIVE, CAN]), st.booleans(),
        st.binary(max_size=40) | st.integers(0, 40).map(bytes)
        | st.integers(2000, 2100).map(lambda n: b"x" * n + b"\0\r"),
        st.integers(0, 60) | st.integers(2000, 2100),
    ), max_size=12,
)  # fmt: skip


@settings(max_examples=60)
@given(STEPS)
def test_bytes_keep_their_order_and_delimiters_their_time_and_what_has_no_room_is_counted(
    steps: list[tuple[int, bool, bytes, int]],
) -> None:
    rings = Rings()
    model: dict[int, deque[tuple[int, int | None]]] = {stream: deque() for stream in (LINK, DRIVE, CAN)}
    stamps = dict.fromkeys(model, 0)
    lost = 0
    for k, (stream, singly, data, reads) in enumerate(steps):
        at_us = 1000 * (k + 1)
        rings.write(stream, data, at_us, singly)
        for byte in data:
            if len(model[stream]) == CAPACITY:
                lost += 1
                continue
            stamped = byte == (13 if stream == CAN else 0) and stamps[stream] < STAMPS
            stamps[stream] += stamped
            model[stream].append((byte, at_us if stamped else None))
        assert rings.lost() == lost and rings.lib.ring_room(stream) == CAPACITY - len(model[stream])
        rings.now.value = at_us + 7
        for _ in range(min(reads, len(model[stream]))):
            byte, stamp_us = model[stream].popleft()
            delimiter = byte == (13 if stream == CAN else 0)
            stamps[stream] -= stamp_us is not None
            expected = stamp_us if stamp_us is not None else at_us + 7 if delimiter else 0
            assert rings.get(stream) == (byte, expected)
        slept = rings.sleeps.value
        rings.lib.rings_sleep()
        waiting = any(model.values())
        assert (rings.sleeps.value > slept) is not waiting and rings.lib.rings_empty() is not waiting


def test_losses_of_a_uart_itself_add_to_those_of_the_rings() -> None:
    rings = Rings()
    for stream in (LINK, DRIVE, CAN):
        rings.lib.ring_overrun(stream)
    rings.write(LINK, bytes(CAPACITY + 5), 0, singly=False)
    assert rings.lost() == 3 + 5
