"""The guard: the host's last look at a chunk. It can slow it, shorten it or refuse it; it never invents motion.

Pure: no clock, no state. The microcontroller checks everything again against its own, slightly looser limits.

Slowing is re-timing: the path through the knots is kept, the progress along it is delayed, so that at every moment
the arm is somewhere on the asked path and never farther along it than was asked. Delaying pushes the end of the path
out of the chunk (it is as long as before), which shortens what is driven; the next chunk starts from where the arm is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_wam.config import GuardConfig
from edge_wam.contracts import F64
from edge_wam.embodiment import Embodiment
from edge_wam.faults import Fault, Refused

# Progress speeds tried, fastest first, when the acceleration limit does not hold at full speed.
_SCALES = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25)
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Shaped:
    """Knots within every limit, and what had to be done for that.

    Attributes:
        q: knots [n, D], axis units; ``q[0]`` is the committed start.
        progress: how far along the asked path each knot lies [n], in knots: never decreasing, ``progress[k] <= k``.
        clamped: largest distance by which a knot was moved back inside the position limits, as a part of the range.
    """

    q: F64
    progress: F64
    clamped: float

    @property
    def slowed(self) -> bool:
        return bool(self.progress[-1] < len(self.q) - 1 - _ROUNDING)


class Guard:
    """Limits of one robot, for knots of one spacing ``dt_s``."""

    def __init__(self, embodiment: Embodiment, settings: GuardConfig) -> None:
        self.names = [axis.name for axis in embodiment.axes]
        self.low = embodiment.vector("position_min")
        self.high = embodiment.vector("position_max")
        self.velocity = embodiment.vector("velocity_max") * settings.margin
        self.acceleration = embodiment.vector("acceleration_max") * settings.margin
        self._span = self.high - self.low
        self._tolerance = settings.position_tolerance * self._span
        self._refuse_ratio = settings.refuse_speed_ratio / settings.margin

    def shape(self, asked: F64, velocity: F64, dt_s: float) -> Shaped:
        """Check and, where needed, slow a piece of motion.

        Args:
            asked: knots [n, D]; ``asked[0]`` is where the arm will be at the splice (already committed).
            velocity: velocity [D] of the running plan at the splice, axis units/s.
            dt_s: spacing of the knots.

        Raises:
            Refused: CHUNK_NOT_FINITE, CHUNK_OUTSIDE_LIMITS, CHUNK_TOO_FAST or CHUNK_TOO_ABRUPT.
        """
        if not (np.isfinite(asked).all() and np.isfinite(velocity).all()):
            raise Refused(Fault.CHUNK_NOT_FINITE, "a knot is no finite number", expected="finite numbers only")
        outside = np.maximum(self.low - asked, asked - self.high)
        if (outside > self._tolerance).any():
            knot, axis = np.unravel_index(int(np.argmax(outside / self._span)), outside.shape)
            raise Refused(
                Fault.CHUNK_OUTSIDE_LIMITS,
                f"axis {self.names[axis]}, knot {knot}: {asked[knot, axis]:.4f}",
                expected=f"{self.low[axis]:.4f}..{self.high[axis]:.4f}",
            )
        clamped = max(0.0, float((outside / self._span).max()))
        path = np.clip(asked, self.low, self.high) if clamped > 0.0 else asked
        duration = np.abs(np.diff(path, axis=0)) / (self.velocity * dt_s)
        ratio = duration.max(axis=1)
        if ratio.max() > self._refuse_ratio:
            knot, axis = np.unravel_index(int(np.argmax(duration)), duration.shape)
            raise Refused(
                Fault.CHUNK_TOO_FAST,
                f"axis {self.names[axis]}, knot {knot + 1}: {duration[knot, axis]:.2f} times the velocity limit",
                expected=f"at most {self._refuse_ratio:.2f} times",
            )
        times = np.concatenate(([0.0], np.cumsum(np.maximum(ratio, 1.0))))
        steps = np.arange(len(path), dtype=np.float64)
        worst = 0.0
        for scale in _SCALES:
            reached = np.interp(steps * scale, times, steps)
            q = path if scale == 1.0 and reached[-1] == steps[-1] else _along(path, reached)
            excess = self._acceleration_excess(q, velocity, dt_s)
            if excess <= 1.0 + _ROUNDING:
                return Shaped(q, reached, clamped)
            worst = max(worst, excess)
        raise Refused(
            Fault.CHUNK_TOO_ABRUPT,
            f"{worst:.2f} times the acceleration limit, and slowing does not help",
            expected="a chunk that continues the running motion",
        )

    def _acceleration_excess(self, q: F64, velocity: F64, dt_s: float) -> float:
        speeds = np.diff(q, axis=0) / dt_s
        changes = np.abs(np.diff(np.vstack((velocity, speeds)), axis=0)) / dt_s
        return float((changes / self.acceleration).max())


def _along(path: F64, progress: F64) -> F64:
    """Points [n, D] at ``progress`` (in knots, within the path) of a piecewise linear path [n, D]."""
    whole = np.minimum(progress.astype(np.int64), len(path) - 2)
    part = (progress - whole)[:, None]
    points: F64 = (1.0 - part) * path[whole] + part * path[whole + 1]
    return points
