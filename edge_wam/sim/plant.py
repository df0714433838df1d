"""The drive's view of a world: one millisecond at a time, orders in, encoder values out."""

from __future__ import annotations

from edge_wam.contracts import F64
from edge_wam.sim.world import PHYSICS_STEP_NS, World
from firmware_bridge.host.plant_port import DriveCommand

TICK_NS = 1_000_000


class Plant:
    """Advances a world by control ticks; physics steps of 2.5 ms take the newest setpoint.

    With the drive off the arm stays under its last setpoint: a Cartesian mocap body has no gravity to fall under, so
    "drive off" here means that nothing the MCU says moves it.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._hold = world.setpoint()
        self._due_ns = world.time_ns
        self.paused = True
        """While true the world stands still (the episode begins when the arm is armed, not while it connects)."""

    def order(self, command: DriveCommand) -> None:
        """The MCU's newest order."""
        if command.enabled and len(command.setpoint) == len(self._hold):
            self._hold = command.setpoint

    def advance(self, duration_ns: int) -> None:
        """Let the world run for ``duration_ns`` more."""
        if self.paused:
            return
        self._due_ns += duration_ns
        while self.world.time_ns + PHYSICS_STEP_NS <= self._due_ns:
            self.world.step_setpoint(self._hold)

    def position(self) -> F64:
        """Encoder values [4], axis units."""
        return self.world.position()
