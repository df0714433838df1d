"""Drives in software, byte for byte as their public protocols describe them.

They are the other side of the firmware's drivers in its tests, and motors for a simulated plant. What they do is
written from the makers' documents (named in each module), not from our firmware: neither knows the other's tables.
"""

from firmware_bridge.host.drive_emulation.feetech import FeetechBus, FeetechServo
from firmware_bridge.host.drive_emulation.mit import CubeMarsMotor, DamiaoMotor, MitBus, MitMotor
from firmware_bridge.host.drive_emulation.motor import Motor
from firmware_bridge.host.drive_emulation.wires import Master, Wires

__all__ = [
    "CubeMarsMotor", "DamiaoMotor", "FeetechBus", "FeetechServo", "Master", "MitBus", "MitMotor", "Motor", "Wires"
]  # fmt: skip
