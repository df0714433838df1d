"""The loop that every port runs over its CAN controllers: torque off waits behind nothing."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import DamiaoMotor
from firmware_bridge.mcu.build import HERE
from firmware_bridge.mcu.targets import COMMON_FLAGS
from tests.drives.arm import Arm, motor_set

OFF = b"\xff" * 7 + b"\xfd"
LINE = b"t0078" + b"0" * 16 + b"\r"
TESTS = Path(__file__).resolve().parents[1]


def _library(path: Path, *sources: Path) -> Path:
    folders = [f"-I{HERE / name}" for name in ("core", "can")]
    command = ["cc", *COMMON_FLAGS, "-shared", "-fPIC", *folders, *map(str, sources), "-o", str(path)]
    subprocess.run(command, check=True)
    return path


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    core = sorted((HERE / "core").glob("*.c"))
    return _library(
        tmp_path_factory.mktemp("can_loop") / "loop.so", *core, HERE / "can" / "can_loop.c",
        Path(__file__).with_name("fake_can.c"),
    )  # fmt: skip


class LoopArm(Arm):
    """An arm whose motor bus is served by ``can_loop.c`` through a controller with some places."""

    def __init__(self, library: Path, count: int, *, places: int = 3) -> None:
        motors = [DamiaoMotor(number, number + 16) for number in range(1, count + 1)]
        super().__init__([motor_set(axis, axis + 1) for axis in range(count)], motors=motors)
        self.loop = ctypes.CDLL(str(library))
        self.loop.can_loop_turn.argtypes = [ctypes.c_void_p, ctypes.c_uint64]
        self.loop.can_loop_start.argtypes = [ctypes.c_void_p, ctypes.c_uint8, ctypes.c_uint64]
        self.loop.fake_can_take.restype = ctypes.c_uint8
        self.loop.fake_can_room(places)
        self.loop.can_loop_start(self.handle, 1, self.now_us)
        self.blocked = False

    def wires(self) -> None:
        for identifier, data in self.motor_bus.answers(self.now_us):
            self.loop.fake_can_give(identifier, data, len(data))
        self.loop.can_loop_turn(self.handle, self.now_us)
        while not self.blocked and self.loop.fake_can_take(ctypes.byref(self._id), self._data):
            self.motor_bus.send(self._id.value, self._data.raw, self.now_us)


@pytest.fixture
def arm(built: Path, tmp_path: Path) -> LoopArm:
    """A fresh one: the loop keeps its state for as long as it is loaded."""
    return LoopArm(Path(shutil.copy(built, tmp_path)), 6)


def test_six_drives_are_armed_and_moved_through_the_loop(arm: LoopArm) -> None:
    arm.run()
    arm.tick(1000)
    assert [motor.motor.position for motor in arm.motor_bus.motors] == pytest.approx([0.3] * 6, abs=0.002)


@pytest.mark.parametrize("how", [m.Disarm(), m.Estop()])
def test_what_waits_for_a_blocked_bus_is_thrown_away_for_torque_off(arm: LoopArm, how: m.HostMessage) -> None:
    arm.start()
    arm.tick(10)
    assert all(arm.torques())
    arm.blocked = True
    arm.tick(3)  # three commands fill the controller and a fourth waits in front of it
    arm.ask(how)
    arm.tick(5)
    assert not arm.drive_on and all(arm.torques())
    arm.motor_bus.sent.clear()
    arm.blocked = False
    arm.tick(2)
    frames = [(identifier, data) for _, identifier, data in arm.motor_bus.sent]
    assert frames[:6] == [(number, OFF) for number in range(1, 7)]
    assert not any(arm.torques())


def test_torque_off_for_the_second_half_does_not_throw_away_that_for_the_first(arm: LoopArm) -> None:
    arm.start()
    arm.tick(10)
    arm.ask(m.Estop())
    arm.blocked = True  # the controller takes three of six
    arm.tick(5)
    arm.motor_bus.sent.clear()
    arm.blocked = False
    arm.wires()
    arm.wires()
    assert [(identifier, data) for _, identifier, data in arm.motor_bus.sent] == [(n, OFF) for n in range(1, 7)]


def test_last_words_reach_every_drive_twice_and_end_on_a_bus_that_takes_nothing(arm: LoopArm) -> None:
    arm.run()
    arm.blocked = True
    arm.tick(2)
    arm.loop.fake_can_room(64)
    arm.loop.can_loop_off()
    words = []
    while arm.loop.fake_can_take(ctypes.byref(arm._id), arm._data):
        words.append((arm._id.value, arm._data.raw))
    assert words == [(number, OFF) for number in range(1, 7)] * 2
    arm.loop.fake_can_room(0)
    arm.loop.can_loop_off()


def test_a_line_that_is_cut_for_torque_off_is_ended_so_that_the_next_one_is_whole(tmp_path: Path) -> None:
    sources = (HERE / "can" / "slcan.c", HERE / "can" / "slcan_hal.c", TESTS / "can" / "fake_uart.c")
    lib = ctypes.CDLL(str(_library(tmp_path / "slcan.so", *sources)))
    for name in ("can_hal_start", "can_hal_send", "can_hal_service", "can_hal_receive"):
        getattr(lib, name).restype = ctypes.c_bool
    frame, stamp, out = (ctypes.create_string_buffer(n) for n in (128, 8, 4096))

    def sent() -> bytes:
        while lib.can_hal_service(1):
            pass
        return gone()

    def gone() -> bytes:
        count = lib.fake_uart_take(out)
        return out.raw[:count]

    lib.can_hal_start(1, None)
    lib.can_hal_receive(1, frame, stamp)
    lib.fake_uart_room(1000)
    assert sent() == b"\r", "the channel is open"
    for cut in range(1, len(LINE)):
        frame[0:4] = b"\x07\x00\x08\x00"
        assert lib.can_hal_send(1, frame)
        lib.fake_uart_room(cut)
        lib.can_hal_service(1)
        lib.can_hal_service(1)
        assert gone() == LINE[:cut]
        lib.can_hal_flush(1)
        lib.fake_uart_room(1000)
        assert sent() == b"\r"
        assert lib.can_hal_send(1, frame)
        assert sent() == LINE
    assert lib.can_hal_send(1, frame)
    lib.can_hal_flush(1)
    assert sent() == b"", "nothing of it had left"
