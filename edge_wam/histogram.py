"""A histogram of durations with fixed buckets: constant memory, no allocation when counting, honest tails."""

from __future__ import annotations

from dataclasses import dataclass

_BUCKETS_PER_OCTAVE = 8  # a bucket is 9 % wide: the error of any percentile
_FIRST_NS = 1_000  # everything below 1 us shares bucket 0
_OCTAVES = 24  # up to 16.8 s


@dataclass(frozen=True, slots=True)
class Summary:
    """Durations in milliseconds. ``count`` 0 means that nothing was measured and every number is zero."""

    count: int
    min_ms: float
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


class Histogram:
    """Logarithmic buckets from 1 us to 16 s. Percentiles are exact to 9 %; minimum and maximum are exact."""

    __slots__ = ("_max", "_min", "_total", "buckets", "count")

    def __init__(self) -> None:
        self.buckets = [0] * (_OCTAVES * _BUCKETS_PER_OCTAVE + 1)
        self.count = 0
        self._total = 0
        self._min = 0
        self._max = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration; a negative one counts as zero (early is not late)."""
        value = duration_ns if duration_ns > 0 else 0
        if value < _FIRST_NS:
            bucket = 0
        else:
            octave = (value // _FIRST_NS).bit_length() - 1
            bucket = 1 + octave * _BUCKETS_PER_OCTAVE + (value * _BUCKETS_PER_OCTAVE // (_FIRST_NS << octave)) - 8
            if bucket >= len(self.buckets):
                bucket = len(self.buckets) - 1
        self.buckets[bucket] += 1
        if self.count == 0 or value < self._min:
            self._min = value
        self._max = max(self._max, value)
        self._total += value
        self.count += 1

    def percentile_ns(self, percent: float) -> int:
        """Upper edge of the bucket that holds this percentile, never above the largest value seen."""
        if self.count == 0:
            return 0
        wanted = percent / 100.0 * self.count
        seen = 0
        for bucket, number in enumerate(self.buckets):
            seen += number
            if seen >= wanted and number:
                return min(max(self._upper_ns(bucket), self._min), self._max)
        return self._max

    @staticmethod
    def _upper_ns(bucket: int) -> int:
        if bucket == 0:
            return _FIRST_NS
        octave, step = divmod(bucket - 1, _BUCKETS_PER_OCTAVE)
        return (_FIRST_NS << octave) * (step + 1 + _BUCKETS_PER_OCTAVE) // _BUCKETS_PER_OCTAVE

    def summary(self) -> Summary:
        """The numbers that a report prints."""
        return Summary(
            count=self.count,
            min_ms=self._min / 1e6,
            mean_ms=self._total / self.count / 1e6 if self.count else 0.0,
            p50_ms=self.percentile_ns(50) / 1e6,
            p90_ms=self.percentile_ns(90) / 1e6,
            p99_ms=self.percentile_ns(99) / 1e6,
            max_ms=self._max / 1e6,
        )
