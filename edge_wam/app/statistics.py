"""The figures by which a policy is judged: success with its interval, jerk, latency."""

from __future__ import annotations

from math import sqrt

import numpy as np

from edge_wam.contracts import F64

_Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution
JERK_STEP_S = 0.01


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """95 % Wilson score interval of a success rate; (0, 1) when nothing was tried."""
    if trials == 0:
        return 0.0, 1.0
    rate = successes / trials
    scale = 1.0 + _Z95**2 / trials
    centre = (rate + _Z95**2 / (2 * trials)) / scale
    half = _Z95 * sqrt(rate * (1 - rate) / trials + _Z95**2 / (4 * trials**2)) / scale
    # At 0 and n successes the bound is exactly 0 or 1; rounding must not hide that.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == trials else centre + half)


def jerk(t_s: F64, setpoint: F64) -> float:
    """Mean |third difference| of setpoints [T, D] sampled every 10 ms, axis units/s^3; 0 with fewer than 4 samples.

    Samples with a gap before them (a lost report) are left out: a gap is not a movement.
    """
    if len(setpoint) < 4:
        return 0.0
    regular = np.abs(np.diff(t_s) - JERK_STEP_S) < 0.1 * JERK_STEP_S
    whole = regular[:-2] & regular[1:-1] & regular[2:]
    third = np.abs(np.diff(setpoint, 3, axis=0))[whole]
    return float(third.mean() / JERK_STEP_S**3) if len(third) else 0.0
