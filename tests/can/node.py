"""A simulated microcontroller on a python-can bus, in simulated time: C core, CAN link, perfect drive."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path

import can
import numpy as np

from firmware_bridge.hil.echo_plant import HOME
from firmware_bridge.host.can_segments import CanFrame
from firmware_bridge.host.can_transport import CanTransport
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import ResetCause
from tests.link.fake_mcu import LIMITS

FD, REMOTE = 1, 2
Fault = Callable[[CanFrame], list[CanFrame]]
"""What a bus does to a frame: deliver it, more than once, changed, later with another, or not at all."""


def whole(frame: CanFrame) -> list[CanFrame]:
    """A bus that works."""
    return [frame]


class CanNode(LibraryTransport):
    """The microcontroller. ``to_mcu`` and ``to_host`` are the faults of the two directions."""

    def __init__(self, library: Path, bus: can.BusABC, *, node: int = 1, seed: int = 1) -> None:
        super().__init__(library, seed=seed, on_tick=self._drive)
        self.bus = bus
        self.node = node
        self.to_mcu: Fault = whole
        self.to_host: Fault = whole
        self.frames: list[CanFrame] = []
        """Everything that the microcontroller has sent."""
        self.patience_s = 0.0
        """Real time that a frame may take between the two ends of the bus."""
        self.position = np.array(HOME)
        self.orders: list[tuple[bool, np.ndarray]] = []
        self._id, self._flags = ctypes.c_uint16(), ctypes.c_uint8()
        self._data = ctypes.create_string_buffer(64)
        lib, u8, u16, u32, u64 = self._library, ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64
        lib.ewl_can_start.argtypes = [ctypes.c_void_p, u8, u64]
        lib.ewl_can_rx.argtypes = [ctypes.c_void_p, u16, ctypes.c_char_p, u8, u8, u64]
        lib.ewl_can_tx.argtypes = [ctypes.c_void_p, ctypes.POINTER(u16), ctypes.c_char_p, ctypes.POINTER(u8)]
        lib.ewl_can_tx.restype = ctypes.c_int32
        lib.ewl_can_status.argtypes = [ctypes.c_void_p, u32, u32, u8]
        lib.ewl_can_counters.argtypes = [ctypes.c_void_p, ctypes.POINTER(u32)]
        lib.ewl_can_start(self._handle(), node, 0)

    def reset(self, cause: ResetCause, pc: int = 0) -> None:
        super().reset(cause, pc)
        self._library.ewl_can_start(self._handle(), self.node, self.mcu_us)

    def status(self, *, errors: int = 0, bus_offs: int = 0, bus_off: bool = False) -> None:
        """What the controller says."""
        self._library.ewl_can_status(self._handle(), errors, bus_offs, bus_off)

    @property
    def counters(self) -> tuple[int, int, int, int]:
        """Transfers delivered, bad, missed, duplicates."""
        values = (ctypes.c_uint32 * 4)()
        self._library.ewl_can_counters(self._handle(), values)
        return (values[0], values[1], values[2], values[3])

    def put(self, frame: CanFrame, *, remote: bool = False) -> None:
        """One frame reaches the microcontroller."""
        flags = (FD if frame.fd else 0) | (REMOTE if remote else 0)
        self._library.ewl_can_rx(self._handle(), frame.id, frame.data, len(frame.data), flags, self.mcu_us)

    def take(self) -> CanFrame | None:
        """The next frame that it wants to send."""
        count = self._library.ewl_can_tx(self._handle(), ctypes.byref(self._id), self._data, ctypes.byref(self._flags))
        if count < 0:
            return None
        return CanFrame(self._id.value, self._data.raw[:count], bool(self._flags.value & FD))

    def pump(self) -> None:
        """What is on the bus goes in, what the microcontroller wants to send goes out."""
        while (message := self.bus.recv(self.patience_s)) is not None:
            if not message.is_error_frame:
                frame = CanFrame(message.arbitration_id, bytes(message.data), bool(message.is_fd))
                for one in self.to_mcu(frame):
                    self.put(one, remote=message.is_remote_frame)
        while (frame_out := self.take()) is not None:
            self.frames.append(frame_out)
            for one in self.to_host(frame_out):
                self.bus.send(
                    can.Message(
                        arbitration_id=one.id, is_extended_id=False, data=one.data, is_fd=one.fd, bitrate_switch=one.fd
                    )
                )

    def _drive(self) -> None:
        order = self.setpoint()
        self.orders.append((order.enabled, order.setpoint))
        if order.enabled:
            self.position = order.setpoint
        self.encoder(self.position)
        self.pump()


class LockstepCan(CanTransport):
    """A transport whose waiting lets the node's time pass, so that a link over a real bus needs no real time."""

    def __init__(self, bus: can.BusABC, node: CanNode, *, fd: bool) -> None:
        self.mcu = node
        super().__init__(bus, node=node.node, fd=fd, clock=node.now_ns)

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        for _ in range(max(1, round(timeout_s * 1000))):
            self.mcu.pump()
            if super().wait(self.mcu.patience_s):
                return True
            self.mcu.tick()
        return super().wait(self.mcu.patience_s)


class CanRig:
    """Host link, bus and microcontroller."""

    def __init__(self, library: Path, buses: tuple[can.BusABC, can.BusABC], *, fd: bool, seed: int = 1) -> None:
        host_bus, mcu_bus = buses
        self.mcu = CanNode(library, mcu_bus, seed=seed)
        self.transport = LockstepCan(host_bus, self.mcu, fd=fd)
        self.link = Link(self.transport, LIMITS, clock=self.mcu.now_ns)
        self.policy = 0

    def ready(self) -> CanRig:
        """Connected, configured and armed."""
        self.link.connect()
        self.link.configure()
        self.link.arm()
        return self

    def run(self, seconds: float, *, think: bool = True, beat: bool = True) -> None:
        """The control loop at 100 Hz."""
        for _ in range(round(seconds * 100)):
            self.policy += think
            if beat:
                self.link.heartbeat(self.policy, 0)
            self.link.poll()
            for _ in range(10):
                self.mcu.pump()
                self.mcu.tick()
        self.link.poll()

    def ramp(self, speed: float = 0.2, knots: int = 16) -> np.ndarray:
        """Knots [knots, axes] that move axis x."""
        q = np.tile(self.mcu.position, (knots, 1))
        q[:, 0] += speed * np.arange(knots) * 0.05
        return q

    def send(self, q: np.ndarray, chunk_id: int, lead_ns: int = 20_000_000) -> None:
        """A chunk with 50 ms between knots."""
        self.link.send_chunk(self.mcu.now_ns() + lead_ns, 50_000_000, q, chunk_id)

    def close(self) -> None:
        self.link.close()
        self.mcu.bus.shutdown()
        self.mcu.close()
