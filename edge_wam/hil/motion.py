"""Joint waypoints as a function of time: straight lines in joint space, fast in the middle, slow at the corners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_wam.contracts import F64


class Tour:
    """From waypoint to waypoint and round again, beginning and pausing at the first.

    Each leg has a trapezoidal speed: its fastest axis accelerates at ``acceleration`` to ``speed`` and back.

    Args:
        waypoints: [W, D], rad.
        speed: of the fastest axis, rad/s.
        acceleration: of the fastest axis, rad/s^2.
    """

    def __init__(self, waypoints: Sequence[Sequence[float]], speed: float, acceleration: float) -> None:
        points = np.asarray(waypoints, np.float64)
        self.home = points[0]
        closed = np.vstack([points, points[:1]])
        self._from, self._way = closed[:-1], np.diff(closed, axis=0)
        self._length = np.abs(self._way).max(axis=1)
        self._peak = np.minimum(speed, np.sqrt(self._length * acceleration))
        self._ramp = self._peak / acceleration
        cruise = np.maximum(0.0, self._length / np.maximum(self._peak, 1e-12) - self._ramp)
        self._duration = 2 * self._ramp + cruise
        self._begin = np.concatenate([[0.0], np.cumsum(self._duration)])
        self._acceleration = acceleration

    @property
    def period_s(self) -> float:
        return float(self._begin[-1])

    def at(self, seconds: F64) -> F64:
        """Positions [N, D] at times [N]; before the beginning it stands at the first waypoint."""
        within = np.where(seconds <= 0.0, 0.0, np.mod(seconds, self.period_s)) if self.period_s > 0 else seconds * 0.0
        leg = np.clip(np.searchsorted(self._begin, within, side="right") - 1, 0, len(self._way) - 1)
        t, total, ramp = within - self._begin[leg], self._duration[leg], self._ramp[leg]
        up = 0.5 * self._acceleration * np.minimum(t, ramp) ** 2
        down = 0.5 * self._acceleration * np.maximum(0.0, t - (total - ramp)) ** 2
        gone = up + self._peak[leg] * np.clip(t - ramp, 0.0, None) - down
        part = np.clip(gone / np.maximum(self._length[leg], 1e-12), 0.0, 1.0)
        out: F64 = self._from[leg] + part[:, None] * self._way[leg]
        return out
