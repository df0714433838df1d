"""Magnitudes of a stream in bounded memory: the 99.99 % point of activations that nobody could keep."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edge_wam.errors import ContractError

BINS = 8192
SMALLEST_TOP = 2.0**-20
"""Ranges are powers of two: every histogram stands on one ladder of bins, and halving the resolution rounds nothing."""


@dataclass
class Histogram:
    """Counts of magnitudes in ``BINS`` equal bins of [0, top); the range doubles when a larger value comes.

    Two histograms merged are, count for count, the histogram of both streams in any order.
    """

    top: float = SMALLEST_TOP
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    peak: float = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count magnitudes.

        Raises:
            ContractError: a value is not finite.
        """
        magnitude = np.abs(values, dtype=np.float64).ravel()
        if not np.isfinite(magnitude).all():
            raise ContractError("calibration met a number that is none", expected="finite activations")
        self.peak = max(self.peak, float(magnitude.max(initial=0.0)))
        while self.peak >= self.top:
            self._double()
        self.counts += np.bincount((magnitude * (BINS / self.top)).astype(np.int64), minlength=BINS)

    def merge(self, other: Histogram) -> None:
        """Take in what another one counted; ``other`` stays as it is."""
        theirs = Histogram(other.top, other.counts.copy(), other.peak)
        while theirs.top < self.top:
            theirs._double()
        while self.top < theirs.top:
            self._double()
        self.counts += theirs.counts
        self.peak = max(self.peak, theirs.peak)

    def _double(self) -> None:
        self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
        self.top *= 2.0

    def percentile(self, percent: float) -> float:
        """The upper edge of the bin below which ``percent`` % of all values lie, never above the largest value.

        Raises:
            ContractError: nothing was counted.
        """
        total = np.cumsum(self.counts)
        if not total[-1]:
            raise ContractError("nothing to calibrate on", expected="inputs from the student's own episodes")
        index = int(np.searchsorted(total, total[-1] * percent / 100.0))
        return min((index + 1) * self.top / BINS, self.peak)


def merged(parts: Iterable[Histogram]) -> Histogram:
    """One histogram of all ``parts``."""
    out = Histogram()
    for part in parts:
        out.merge(part)
    return out
