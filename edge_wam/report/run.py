"""One run, ready to be drawn: plain numbers in seconds from the first motion, axis units and milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edge_wam.contracts import F64, U8


@dataclass(frozen=True, slots=True)
class AxisInfo:
    """Name, unit and position limits of one axis."""

    name: str
    unit: str
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time in one state. ``good``: the state that one hopes for."""

    start_s: float
    end_s: float
    name: str
    good: bool


@dataclass(frozen=True, slots=True)
class Event:
    """A fault as it happened; ``orderly``: an ordinary stop, nothing to worry about."""

    at_s: float
    number: int
    name: str
    text: str
    remedy: str = ""
    orderly: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """One splice: knots [H, D] at ``t_s`` [H], and the age of its oldest input when it took effect.

    ``age_ms`` counts to the first knot that the microcontroller took; None where it took none.
    """

    t_s: F64
    q: F64
    age_ms: float | None
    slowed: bool


@dataclass(frozen=True, slots=True)
class Moment:
    """What the cameras showed at one time, and what the model had imagined for that time.

    Attributes:
        camera: the model's canvas, uint8 [h, w, 3].
        seen: the same after encoding and decoding: what the model can see of it at all; None without a decoder.
        imagined: (seconds ahead, picture), shortest outlook first.
    """

    at_s: float
    camera: U8
    seen: U8 | None
    imagined: Sequence[tuple[float, U8]]
    surprise: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict. ``done`` None: nobody judged it (a real robot has no referee)."""

    done: bool | None
    headline: str
    why: str


def _empty() -> F64:
    return np.zeros(0)


@dataclass(frozen=True)
class RunData:
    """Everything that the page shows.

    Attributes:
        facts: rows of the table of circumstances (name, value).
        duration_s: of the motion.
        mcu_t_s [N], position, setpoint [N, D]: as the microcontroller reported them.
        latency_ms: from request to answer; ``step_ms``: the model's own part.
        surprise_t_s, surprise: of each frame that could be compared.
        outlook_errors: outlook in seconds -> (error of the imagined latents, error of copying the frame that was seen
            when it was imagined), rms in units of the latents' spread. Imagining is worth something below copying.
        control_late_ms: lateness of control ticks as (p50, p99, max); None when not recorded.
    """

    title: str
    outcome: Outcome
    facts: Sequence[tuple[str, str]]
    axes: Sequence[AxisInfo]
    duration_s: float
    start_s: float = 0.0
    mcu_t_s: F64 = field(default_factory=_empty)
    position: F64 = field(default_factory=_empty)
    setpoint: F64 = field(default_factory=_empty)
    plans: Sequence[Plan] = ()
    mcu_states: Sequence[Span] = ()
    degrade: Sequence[Span] = ()
    events: Sequence[Event] = ()
    latency_ms: F64 = field(default_factory=_empty)
    step_ms: F64 = field(default_factory=_empty)
    deadline_ms: float | None = None
    surprise_t_s: F64 = field(default_factory=_empty)
    surprise: F64 = field(default_factory=_empty)
    outlook_errors: Mapping[float, tuple[float, float]] = field(default_factory=dict)
    moments: Sequence[Moment] = ()
    control_late_ms: tuple[float, float, float] | None = None
    refused: Mapping[str, int] = field(default_factory=dict)
    complete: bool = True
    recording: str = ""

    @property
    def age_ms(self) -> F64:
        """Age of the oldest input of each splice that the microcontroller took, when it took effect."""
        return np.array([plan.age_ms for plan in self.plans if plan.age_ms is not None])

    @property
    def faults(self) -> Sequence[Event]:
        """The events that are no ordinary stop."""
        return [event for event in self.events if not event.orderly]

    @property
    def end_s(self) -> float:
        return self.start_s + self.duration_s


def percentiles(values: F64) -> str:
    """``p50 / p99 (max)`` in words, or a dash when nothing was measured."""
    if not len(values):
        return "–"
    p50, p99 = np.percentile(values, [50, 99])
    return f"{p50:.1f} / {p99:.1f} ms (max {values.max():.1f})"
