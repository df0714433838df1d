"""The monitor: is every source alive, on rate and valid, and how far down the degrade ladder must the arm be.

Pure: time and observations are passed in. The ladder only goes down by itself; up again only by the operator, and only
when every source is well (:meth:`Monitor.operator_reset`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice

import numpy as np

from edge_wam import kernels
from edge_wam.config import MonitorConfig
from edge_wam.contracts import F32, F64, DegradeState, Health, Imagination, SourceHealth
from edge_wam.embodiment import Embodiment
from edge_wam.faults import FAULTS, Fault
from edge_wam.shm import FrameInfo

_RATE_WINDOW = 20
_ON_RATE = 0.8
_SURPRISE_ALPHA = 0.2
_SURPRISE_AFTER = 5
_KEEP_IMAGINATIONS = 64
_KEEP_FAULTS = 512
_TEXT = 200  # characters of a fault's text: it travels in every status


@dataclass(frozen=True, slots=True)
class Service:
    """One row of the table of sources.

    Attributes:
        rate_hz: what the source promises.
        alive_ms: older than this, it is gone.
        valid_rule: what makes its newest value valid, in words.
    """

    name: str
    rate_hz: float
    alive_ms: float
    valid_rule: str


def services(embodiment: Embodiment, settings: MonitorConfig, plan_rate_hz: float) -> tuple[Service, ...]:
    """The table of sources of one robot: its cameras, the microcontroller's state, the policy."""
    cameras = tuple(
        Service(c.name, c.rate_hz, settings.camera_gone_ms, "pixels change while the arm moves")
        for c in embodiment.cameras
    )
    return (
        *cameras,
        Service("mcu", 100.0, 100.0, "encoder fresh, session unchanged"),
        Service("policy", plan_rate_hz, 4000.0 / plan_rate_hz + 150.0, "the chunk was accepted"),
    )


class Source:
    """Health of one source, worked out by the reader from arrival times. ``valid`` is set by whoever knows the rule."""

    __slots__ = ("_alive_ns", "_gaps", "_last_ns", "_period_ns", "seen", "service", "valid")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.valid = True
        self.seen = 0
        self._alive_ns = int(service.alive_ms * 1e6)
        self._period_ns = 1e9 / service.rate_hz
        self._last_ns = 0
        self._gaps: deque[int] = deque(maxlen=_RATE_WINDOW)

    def heard(self, stamp_ns: int) -> None:
        """A new value with this time stamp arrived."""
        if self.seen:
            self._gaps.append(stamp_ns - self._last_ns)
        self._last_ns = stamp_ns
        self.seen += 1

    def forget(self, now_ns: int) -> None:
        """Start over: silence counts from now."""
        self._last_ns = now_ns
        self._gaps.clear()
        self.valid = True

    def alive(self, now_ns: int) -> bool:
        return self.seen > 0 and now_ns - self._last_ns <= self._alive_ns

    @property
    def on_rate(self) -> bool:
        """At least 80 % of the promised rate over the last 20 values; true until there are that many."""
        return len(self._gaps) < _RATE_WINDOW or sum(self._gaps) <= self._period_ns * _RATE_WINDOW / _ON_RATE

    def health(self, now_ns: int) -> SourceHealth:
        return SourceHealth(self.alive(now_ns), self.on_rate, self.valid)


class Monitor:
    """One session's health. Used by one thread.

    Args:
        embodiment: names, ranges and cameras.
        settings: thresholds.
        plan_rate_hz: how often a chunk is promised.
    """

    def __init__(self, embodiment: Embodiment, settings: MonitorConfig, plan_rate_hz: float) -> None:
        self.state = DegradeState.SAFE_OFF
        self.sources = {s.name: Source(s) for s in services(embodiment, settings, plan_rate_hz)}
        self.surprise: float | None = None
        self.latent_scale: F32 = np.ones(0, np.float32)
        """Spread of each latent channel in training, from the bundle."""
        self.faults: deque[tuple[int, Fault, str]] = deque(maxlen=_KEEP_FAULTS)
        self.raised = 0
        """Faults so far; the newest of them are in :attr:`faults`."""
        self._settings = settings
        self._cameras = [c.name for c in embodiment.cameras]
        self._span = embodiment.vector("position_max") - embodiment.vector("position_min")
        self._surprised = 0
        self._still: dict[str, tuple[int, int, F64 | None]] = {}
        self._last_index = dict.fromkeys(self._cameras, -1)
        self._position: F64 | None = None
        self._reported_slow: set[str] = set()
        self._imagined: deque[tuple[int, F32]] = deque(maxlen=_KEEP_IMAGINATIONS)
        self._hold_since_ns = 0

    def raise_fault(self, now_ns: int, fault: Fault, text: str = "") -> None:
        """Note a fault and descend as far as its row says. Never ascends."""
        self.faults.append((now_ns, fault, text[:_TEXT]))
        self.raised += 1
        self._descend(now_ns, FAULTS[fault].descends_to)

    def frame(self, now_ns: int, name: str, info: FrameInfo) -> bool:
        """The newest frame of a camera; returns True when it is a new one. Raises CAMERA_FROZEN where it must."""
        if info.index == self._last_index[name]:
            return False
        self._last_index[name] = info.index
        source = self.sources[name]
        source.heard(info.captured_at_ns)
        crc, count, since = self._still.get(name, (-1, 0, None))
        if info.crc != crc or since is None:
            self._still[name] = (info.crc, 1, self._position)
            source.valid = True
            return True
        self._still[name] = (info.crc, count + 1, since)
        moved = float((np.abs(self._position - since) / self._span).max()) if self._position is not None else 0.0
        frozen = count + 1 >= self._settings.frozen_frames and moved > self._settings.frozen_motion
        if frozen and source.valid:
            source.valid = False
            if self.state == DegradeState.NOMINAL:
                self.raise_fault(now_ns, Fault.CAMERA_FROZEN, f"{name}: {count + 1} identical frames")
        return True

    def mcu(self, at_ns: int, position: F64, valid: bool) -> None:
        """A new state of the microcontroller: encoder position [D], and whether it is to be believed."""
        source = self.sources["mcu"]
        source.heard(at_ns)
        source.valid = valid
        self._position = position.copy()

    def accepted(self, now_ns: int) -> None:
        """A chunk of the policy was spliced in."""
        self.sources["policy"].heard(now_ns)

    def imagine(self, imagination: Imagination) -> None:
        """Keep what the model expects to see, to be checked when its time comes."""
        self._imagined.extend(zip(imagination.for_ns, imagination.latents, strict=True))

    def observe(self, now_ns: int, latents: F32, captured_at_ns: int, tolerance_ns: int) -> float | None:
        """Compare observed latents [tokens, channels] with what was imagined for this time.

        Returns:
            The surprise of this frame (rms difference, each channel in units of ``latent_scale``), None when nothing
            was imagined for a time within ``tolerance_ns``.
        """
        best: F32 | None = None
        distance = tolerance_ns + 1
        for for_ns, predicted in self._imagined:
            if abs(for_ns - captured_at_ns) <= distance:  # the newest of equals: the best informed
                best, distance = predicted, abs(for_ns - captured_at_ns)
        if best is None or best.shape != latents.shape or len(self.latent_scale) != latents.shape[1]:
            return None
        value = kernels.surprise(best, latents, self.latent_scale)
        self.surprise = value if self.surprise is None else self.surprise + _SURPRISE_ALPHA * (value - self.surprise)
        limit = self._settings.surprise_limit
        self._surprised = self._surprised + 1 if limit is not None and self.surprise > limit else 0
        if self._surprised == _SURPRISE_AFTER and self.state == DegradeState.NOMINAL:
            self.raise_fault(now_ns, Fault.SURPRISE_HIGH, f"{self.surprise:.2f}")
        return value

    def step(self, now_ns: int, plan_end_ns: int, planning: bool) -> DegradeState:
        """One control tick.

        Args:
            plan_end_ns: time of the last knot of the running plan, 0 when there is none.
            planning: armed and expected to follow plans; otherwise only LINK_SILENT matters.
        """
        if self.state == DegradeState.SAFE_OFF:
            return self.state
        if self.state < DegradeState.HOLD and not self.sources["mcu"].alive(now_ns):
            self.raise_fault(now_ns, Fault.LINK_SILENT)
        if planning and self.state == DegradeState.NOMINAL:
            self._check_sources(now_ns)
        dry = 0 < plan_end_ns <= now_ns
        if planning and self.state == DegradeState.NOMINAL and dry:
            self.raise_fault(now_ns, Fault.PLAN_RAN_OUT)
        elif self.state == DegradeState.COAST and (dry or plan_end_ns == 0):
            self._descend(now_ns, DegradeState.HOLD)
        if self.state == DegradeState.HOLD and now_ns - self._hold_since_ns > self._settings.hold_timeout_s * 1e9:
            self._descend(now_ns, DegradeState.SOFT_STOP)
        return self.state

    def unwell(self, now_ns: int) -> list[str]:
        """Sources that forbid arming, in words. The policy's chunks only flow once armed, so it is not asked here."""
        out = []
        for name, source in self.sources.items():
            if name == "policy":
                continue
            if not source.alive(now_ns):
                out.append(f"{name} is silent")
            elif not source.valid:
                out.append(f"{name} is not valid ({source.service.valid_rule})")
        return out

    def operator_reset(self, now_ns: int) -> None:
        """The operator arms: back to NOMINAL. The caller has made sure that :meth:`unwell` is empty."""
        self.state = DegradeState.NOMINAL
        self.surprise = None
        self._surprised = 0
        self._imagined.clear()
        self._reported_slow.clear()
        self._still.clear()
        self.sources["policy"].forget(now_ns)
        self.sources["policy"].seen = 1

    def safe_off(self, now_ns: int) -> None:
        """The microcontroller is disarmed."""
        self._descend(now_ns, DegradeState.SAFE_OFF)

    def health(self, now_ns: int) -> Health:
        """What the status and the recording carry: the eight newest faults."""
        newest = list(islice(reversed(self.faults), 8))[::-1]
        return Health(
            state=self.state,
            sources={name: source.health(now_ns) for name, source in self.sources.items()},
            faults=tuple(int(fault) for _, fault, _ in newest),
            reasons=tuple(f"{fault.name}: {text}" if text else fault.name for _, fault, text in newest),
        )

    def _check_sources(self, now_ns: int) -> None:
        for name in self._cameras:
            source = self.sources[name]
            if not source.alive(now_ns):
                self.raise_fault(now_ns, Fault.CAMERA_GONE, name)
            elif not source.on_rate and name not in self._reported_slow:
                self._reported_slow.add(name)
                self.raise_fault(now_ns, Fault.CAMERA_SLOW, name)
        if not self.sources["policy"].alive(now_ns):
            self.raise_fault(now_ns, Fault.POLICY_SILENT)

    def _descend(self, now_ns: int, to: DegradeState) -> None:
        if to > self.state:
            self.state = to
            if to == DegradeState.HOLD:
                self._hold_since_ns = now_ns
