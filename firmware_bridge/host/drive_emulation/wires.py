"""The wires between a simulated microcontroller and emulated drives, with the time that bytes and frames take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from firmware_bridge.host.drive_emulation.feetech import FeetechBus
from firmware_bridge.host.drive_emulation.mit import MitBus


class Master(Protocol):
    """The microcontroller's end, as a port sees it."""

    def servo_tx(self, now_us: int) -> bytes:
        """The next packet, empty: none now."""

    def servo_rx(self, data: bytes, now_us: int) -> None: ...

    def motor_tx(self, now_us: int) -> tuple[int, bytes] | None:
        """The next frame: identifier and data; None: none now."""

    def motor_rx(self, identifier: int, data: bytes, now_us: int) -> None: ...


@dataclass
class Wires:
    """A bus of servos, a bus of motor drives, or both."""

    servos: FeetechBus = field(default_factory=lambda: FeetechBus(()))
    motors: MitBus = field(default_factory=lambda: MitBus(()))
    step_us: int = 20
    """How often the port looks at them."""

    def run(self, mcu: Master, from_us: int, until_us: int) -> None:
        """Carries what is sent from ``from_us`` until before ``until_us``, then lets the shafts turn for as long."""
        for now_us in range(from_us, until_us, self.step_us):
            if answer := self.servos.answers(now_us):
                mcu.servo_rx(answer, now_us)
            for identifier, data in self.motors.answers(now_us):
                mcu.motor_rx(identifier, data, now_us)
            if packet := mcu.servo_tx(now_us):
                self.servos.master(packet, now_us)
            while (frame := mcu.motor_tx(now_us)) is not None:
                self.motors.send(*frame, now_us)
        dt_s = (until_us - from_us) / 1e6
        self.servos.advance(dt_s)
        self.motors.advance(dt_s, until_us)
