"""What is behind a drive: a shaft with a position, a velocity and a torque."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class Motor:
    """A shaft. Units: rad, rad/s, N m, degrees Celsius, at the output.

    A plant may replace ``move``: it is called with this motor and the time step in seconds after the drive has worked
    out ``torque`` (MIT) or ``goal`` (servo), and has to leave the new ``position`` and ``velocity``.
    """

    position: float = 0.0
    velocity: float = 0.0
    torque: float = 0.0
    """What the drive exerts, 0 when its torque is off."""
    goal: float = 0.0
    """Where a position servo is going, rad."""
    speed_max: float = 6.0
    """A servo's own, rad/s: 50 rev/min is 5.2."""
    inertia: float = 0.02
    """kg m^2 at the output."""
    damping: float = 0.2
    """N m s/rad."""
    temperature: float = 35.0
    move: Callable[[Motor, float], None] | None = None

    def follow(self, powered: bool, dt_s: float) -> None:
        """As a position servo: to the goal at the speed that it has, and no load in the way."""
        if self.move is not None:
            self.move(self, dt_s)
            return
        step = 0.0
        if powered:
            reach = self.speed_max * dt_s
            step = max(-reach, min(reach, self.goal - self.position))
        self.position += step
        self.velocity = step / dt_s

    def swing(self, dt_s: float) -> None:
        """As a torque-driven joint without gravity: semi-implicit Euler."""
        if self.move is not None:
            self.move(self, dt_s)
            return
        self.velocity += (self.torque - self.damping * self.velocity) / self.inertia * dt_s
        self.position += self.velocity * dt_s
