"""Order statistics of what was measured. Here because both packages measure, and the import rules let the runtime look
into the bridge and not the other way."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T", int, float)


def percentile(ordered: Sequence[T], share: float) -> T:
    """A value that at least ``share`` of the ordered ones do not exceed: one that happened, never a mean of two.

    Raises:
        IndexError: there are none.
    """
    return ordered[math.ceil(share * (len(ordered) - 1))]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of measured values; all zero when nothing was measured."""

    count: int
    min: float
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        a = sorted(float(value) for value in values)
        if not a:
            return cls(0, 0.0, 0.0, 0.0, 0.0)
        return cls(len(a), a[0], percentile(a, 0.5), percentile(a, 0.99), a[-1])
