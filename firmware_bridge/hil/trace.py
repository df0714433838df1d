"""Orders that a drive was given, in control ticks of the microcontroller: what the axes were told to do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from firmware_bridge.host.plant_port import DriveCommand


@dataclass(frozen=True)
class Trace:
    """Orders to the drive. tick [N] (1 ms each), enabled [N], setpoint [N, D] in axis units."""

    tick: NDArray[np.int64]
    enabled: NDArray[np.bool_]
    setpoint: NDArray[np.float64]

    @classmethod
    def of(cls, commands: list[DriveCommand]) -> Trace:
        """From the orders of one boot, dropping those before the number of axes was known."""
        dof = len(commands[-1].setpoint)
        rows = [command for command in commands if len(command.setpoint) == dof]
        return cls(
            np.array([row.tick for row in rows], np.int64),
            np.array([row.enabled for row in rows]),
            np.array([row.setpoint for row in rows]),
        )

    def after(self, tick: int) -> Trace:
        keep = self.tick >= tick
        return Trace(self.tick[keep], self.enabled[keep], self.setpoint[keep])

    def while_enabled(self) -> Trace:
        return Trace(self.tick[self.enabled], self.enabled[self.enabled], self.setpoint[self.enabled])

    @property
    def speed(self) -> NDArray[np.float64]:
        """|velocity| of each axis between orders [N-1, D], axis units/s."""
        return np.abs(np.diff(self.setpoint, axis=0)) / (np.diff(self.tick)[:, None] * 1e-3)
