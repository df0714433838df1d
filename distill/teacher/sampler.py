"""DreamZero's sampler: UniPC of order 2 on the flow schedule, with steps that reuse the last velocity.

UniPC: arXiv 2302.04867, B(h) = exp(h) - 1 ("bh2"), predicting the sample. The coefficients depend on the schedule
alone, so a schedule is a table of numbers: :func:`unipc_table`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edge_wam.errors import ConfigError

STEPS = 16
SHIFT = 5.0
SIGMA_FIRST = 0.999
"""Of the unshifted schedule: 1 - 1/1000."""
GUIDANCE = 5.0
"""Of the video alone; the action is always the conditional one."""
NOISE_SEED = 1140
"""The reference starts every chunk from the noise of this seed."""

RUN_STEPS: dict[int, frozenset[int]] = {
    5: frozenset({0, 1, 2, 7, 12}),
    6: frozenset({0, 1, 5, 10, 14, 15}),
    7: frozenset({0, 1, 2, 6, 10, 14, 15}),
    8: frozenset({0, 1, 2, 6, 10, 13, 14, 15}),
    16: frozenset(range(16)),
}
"""Of 16 steps, those in which the transformer runs, by how many there are; the others reuse its last answer. The
reference's default is 8."""


def flow_sigmas(steps: int = STEPS, shift: float = SHIFT, last: float = 0.0) -> np.ndarray:
    """Noise levels [steps + 1], float32, from nearly 1 down to ``last``.

    ``last`` > 0 is the reference's decoupled inference: video ends there (0.8) while actions go to 0.
    """
    s = np.linspace(SIGMA_FIRST, 0.0, steps + 1)[:-1]
    sigmas = np.append(shift * s / (1 + (shift - 1) * s), 0.0).astype(np.float32)
    if last:
        sigmas = (sigmas * (sigmas[0] - np.float32(last)) / sigmas[0] + np.float32(last)).astype(np.float32)
    return sigmas


def flow_times(sigmas: np.ndarray) -> np.ndarray:
    """What the transformer is told, whole numbers in 0..999: [steps]. The reference truncates."""
    return (sigmas[:-1].astype(np.float64) * 1000.0).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Step:
    """One step: first the sample is corrected with what the model just said, then carried on to the next level.

    corrected = c_last * last + c_m0 * m[-1] + c_m1 * m[-2] + c_now * m_now;
    next = p_x * corrected + p_m0 * m_now + p_m1 * m[-1], where m are past estimates of the data, x - sigma v.
    """

    sigma: float
    corrector: tuple[float, float, float, float] | None
    predictor: tuple[float, float, float]


def unipc_table(sigmas: np.ndarray) -> tuple[Step, ...]:
    """The coefficients of every step of a schedule [steps + 1].

    Raises:
        ConfigError: levels that do not fall, or lie outside (0, 1).
    """
    levels = [float(s) for s in sigmas]
    falling = all(a > b for a, b in pairwise(levels))  # false with a NaN
    if len(levels) < 2 or not (falling and levels[0] < 1 and levels[-1] >= 0):
        raise ConfigError(f"noise levels {levels}", expected="at least two, falling, from below 1 down to 0 or above")
    steps = len(levels) - 1
    table = []
    order_before = 0
    for i in range(steps):
        corrector = _corrector(levels, i, order_before) if i else None
        order = min(2, steps - i, i + 1)  # 1 at first, for want of a past; 1 at last, for stability
        table.append(Step(levels[i], corrector, _predictor(levels, i, order)))
        order_before = order
    return tuple(table)


def _lambda(sigma: float) -> float:
    """Half the logarithmic signal-to-noise ratio."""
    return math.log(1.0 - sigma) - math.log(sigma) if sigma > 0 else math.inf


def _predictor(levels: list[float], i: int, order: int) -> tuple[float, float, float]:
    now, then = levels[i], levels[i + 1]
    h = _lambda(then) - _lambda(now)
    phi = math.expm1(-h)  # -1 at a level of 0, where nothing but the estimate is left
    p_x, p_m0, p_m1 = then / now, -(1.0 - then) * phi, 0.0
    if order == 2:
        r = (_lambda(levels[i - 1]) - _lambda(now)) / h
        weight = -(1.0 - then) * phi * 0.5 / r
        p_m0, p_m1 = p_m0 - weight, weight
    return p_x, p_m0, p_m1


def _corrector(levels: list[float], i: int, order: int) -> tuple[float, float, float, float]:
    before, now = levels[i - 1], levels[i]
    h = _lambda(now) - _lambda(before)
    phi = math.expm1(-h)
    scale = -(1.0 - now) * phi
    c_last, c_m0 = now / before, scale
    if order == 1:
        return c_last, c_m0 - 0.5 * scale, 0.0, 0.5 * scale
    r = (_lambda(levels[i - 2]) - _lambda(before)) / h
    b1 = phi / -h - 1.0
    b2 = (b1 / -h - 0.5) * 2.0
    b1, b2 = b1 / phi, b2 / phi
    # [[1, 1], [r, 1]] rho = [b1, b2]
    rho_past = (b1 - b2) / (1.0 - r)
    rho_now = b1 - rho_past
    return c_last, c_m0 - scale * (rho_past / r + rho_now), scale * rho_past / r, scale * rho_now


@dataclass(slots=True)
class UniPC:
    """Walks one sample down a schedule."""

    table: tuple[Step, ...]
    _index: int = 0
    _estimates: list[Tensor] = field(default_factory=list)
    _last: Tensor | None = None

    def step(self, velocity: Tensor, sample: Tensor) -> Tensor:
        """The sample at the next level, of the same dtype."""
        step = self.table[self._index]
        estimate = sample - step.sigma * velocity
        if step.corrector is not None:
            assert self._last is not None
            c_last, c_m0, c_m1, c_now = step.corrector
            sample = c_last * self._last + c_m0 * self._estimates[-1] + c_now * estimate
            if c_m1:
                sample = sample + c_m1 * self._estimates[-2]
        self._last = sample
        p_x, p_m0, p_m1 = step.predictor
        out = p_x * sample + p_m0 * estimate
        if p_m1:
            out = out + p_m1 * self._estimates[-1]
        self._estimates = [*self._estimates[-1:], estimate]
        self._index += 1
        return out


class StepSkip:
    """Which of the steps run: a fixed set, or as the video velocity turns (the reference's dynamic schedule).

    Dynamic: two steps always run; when the last two velocities point the same way (cosine over 0.95, or 0.93), this
    step and those after it, 4 in all, or 2, reuse the last one, and then one runs.
    """

    THRESHOLDS = ((0.95, 4), (0.93, 2))

    def __init__(self, run: int | str = 8, steps: int = STEPS) -> None:
        if run != "dynamic" and (run not in RUN_STEPS or steps != STEPS) and run != steps:
            expected = f"dynamic, {steps}, or of 16 one of {sorted(RUN_STEPS)}"
            raise ConfigError(f"{run!r} of {steps} steps", expected=expected)
        self._set = None if run == "dynamic" else RUN_STEPS[int(run)] if steps == STEPS else frozenset(range(steps))
        self._countdown = 0
        self._velocities: list[Tensor] = []

    def runs(self, index: int) -> bool:
        """Ask once for each step, in order."""
        if self._set is not None:
            return index in self._set
        if len(self._velocities) < 2:
            return True
        if self._countdown:
            self._countdown -= 1
            return self._countdown == 0
        previous, last = (v.flatten(1).float() for v in self._velocities)
        alike = float(F.cosine_similarity(last, previous, dim=1).mean())
        for threshold, count in self.THRESHOLDS:
            if alike > threshold:
                self._countdown = count
                return False
        return True

    def saw(self, velocity: Tensor) -> None:
        """The video velocity of a step that ran, after guidance."""
        if self._set is None:
            self._velocities = [*self._velocities[-1:], velocity]


def start_noise(
    shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype, seed: int = NOISE_SEED
) -> Tensor:
    """The noise a chunk starts from; the same for every chunk, as in the reference."""
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device, dtype=dtype)
