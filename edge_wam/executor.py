"""The executor: the running plan as a function of time, and the splice of each new chunk into it.

Pure: time is passed in. The plan is what the microcontroller was sent, knot by knot; between knots it is linear.
Nothing extrapolates: after the last knot there is no plan, and the microcontroller brakes and holds.

Committed prefix: a request for a chunk carries the knots that will have been driven before its answer can take effect.
The model gets them as given, so its answer continues them, and the splice is at the last of them: no jump by design.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np

from edge_wam.config import PlanConfig
from edge_wam.contracts import F64, ActionChunk
from edge_wam.embodiment import Embodiment
from edge_wam.faults import Fault, Refused
from edge_wam.guard import Guard

_KEEP_NS = 1_500_000_000  # past knots are kept this long; a prefix reaches back to the observation, at most 250 ms
_LATENCIES = 16
_MCU_GUARD_NS = 3_000_000  # two ticks of guard, and one for the tick in progress
_LEAD_MAX_NS = 100_000_000  # a wire slower than this cannot carry motion: chunks then come late, and are counted


@dataclass(frozen=True, slots=True)
class Splice:
    """What goes on the wire: knot k [D] at ``t0_ns + k * dt_ns`` replaces the plan from ``t0_ns`` on.

    Attributes:
        chunk_id: strictly increasing on the wire, also for a repeated plan.
        sequence: of the model's chunk.
        observed_at_ns: oldest input of that chunk; ``t0_ns - observed_at_ns`` is its age at actuation.
        slowed: the guard delayed it.
    """

    t0_ns: int
    dt_ns: int
    q: F64
    chunk_id: int
    sequence: int
    observed_at_ns: int
    slowed: bool


class Executor:
    """One robot's running plan. Used by one thread."""

    def __init__(self, embodiment: Embodiment, settings: PlanConfig, guard: Guard, model_hash: str) -> None:
        self.dof = embodiment.dof
        self.dt_ns = embodiment.chunk_dt_ms * 1_000_000
        self._lead_ns = int(settings.lead_ms * 1e6)
        self._transits = [0]
        self.max_age_ns = int(settings.max_age_ms * 1e6)
        self.model_hash = model_hash
        self._max_prefix = settings.max_prefix_knots
        self._guard = guard
        # One knot's travel at full speed: a chunk that begins farther away from the running plan does not continue it.
        self._jump_max = embodiment.vector("velocity_max") * self.dt_ns / 1e9
        self._latencies = [int(settings.expected_latency_ms * 1e6)]
        self._times: list[int] = []
        self._q: list[F64] = []
        self._before: tuple[list[int], list[F64]] = ([], [])
        self._hold = np.zeros(self.dof)
        self._sequence = 0
        self._chunk_id = 0
        self._running: Splice | None = None

    def start(self, hold: F64, chunk_id: int = 0) -> None:
        """Armed, at ``hold`` [D] (the microcontroller's setpoint), with no plan. Chunk ids go on after ``chunk_id``."""
        self._times, self._q, self._before = [], [], ([], [])
        self._running = None
        self._hold = np.array(hold, np.float64)
        self._chunk_id = max(self._chunk_id, chunk_id)

    @property
    def end_ns(self) -> int:
        """Time of the last knot; 0 when there is no plan."""
        return self._times[-1] if self._times else 0

    @property
    def running(self) -> Splice | None:
        """The newest splice that is in force or on its way."""
        return self._running

    @property
    def lead_ns(self) -> int:
        """How far ahead of now a splice must lie to reach the microcontroller in time.

        As configured, or the slowest of the last 16 transits and the microcontroller's guard of two ticks, where the
        wire is slower than expected (an emulator on a busy machine).
        """
        return min(max(self._lead_ns, max(self._transits) + _MCU_GUARD_NS), _LEAD_MAX_NS)

    def arrived(self, transit_ns: int) -> None:
        """The microcontroller got a chunk ``transit_ns`` after it was sent."""
        self._transits = [*self._transits[-(_LATENCIES - 1):], transit_ns]

    def expected_latency_ns(self) -> int:
        """From request to answer: the slowest of the last answers."""
        return max(self._latencies)

    def at(self, t_ns: int) -> F64:
        """Planned position [D]. Before the first knot: where the arm held. After the last: the last knot (held)."""
        times = self._times
        if not times or t_ns < times[0]:
            return self._hold.copy()
        right = bisect_right(times, t_ns)
        if right == len(times):
            last: F64 = self._q[-1].copy()
            return last
        left = right - 1
        w = (t_ns - times[left]) / (times[right] - times[left])
        between: F64 = self._q[left] + w * (self._q[right] - self._q[left])  # exact where the arm holds
        return between

    def velocity_before(self, t_ns: int) -> F64:
        """Slope [D], axis units/s, of the plan just before ``t_ns``; zero where the arm holds."""
        right = bisect_left(self._times, t_ns)
        if right == 0 or right == len(self._times):
            return np.zeros(self.dof)
        dt_s = (self._times[right] - self._times[right - 1]) / 1e9
        slope: F64 = (self._q[right] - self._q[right - 1]) / dt_s
        return slope

    def prefix(self, observed_at_ns: int, now_ns: int) -> F64:
        """Committed knots [d, D] for a request made now on an observation of ``observed_at_ns``.

        Knot k is for ``observed_at_ns + (k + 1) * dt``. There are as many as reach the expected splice; none beyond the
        end of the plan, because what is not on its way is not committed (a holding arm is: it stays where it is).
        """
        t0 = observed_at_ns + self.dt_ns
        splice_at = now_ns + self.expected_latency_ns() + self.lead_ns
        # At least knot 0: a splice begins at the running plan's own position, and the model should know it.
        wanted = min(max(0, -((t0 - splice_at) // self.dt_ns)) + 1, self._max_prefix)
        if self._times and self.end_ns >= now_ns:
            wanted = min(wanted, max(0, (self.end_ns - t0) // self.dt_ns + 1))
        if wanted == 0:
            return np.zeros((0, self.dof))
        return np.array([self.at(t0 + k * self.dt_ns) for k in range(wanted)])

    def offer(self, chunk: ActionChunk, now_ns: int, *, asked_sequence: int, answered_after_ns: int) -> Splice:
        """Splice a new chunk into the running plan and return what to send.

        The splice is at the last committed knot of the chunk, or at its first knot that lies ``lead`` ahead of now if
        that is later. The first knot sent is the running plan's own position at that time.

        Args:
            chunk: the model's answer.
            now_ns: the time of this decision.
            asked_sequence: the sequence number of the outstanding request.
            answered_after_ns: latency of this answer.

        Raises:
            Refused: the chunk is not used and the running plan is unchanged.
        """
        self._check(chunk, now_ns, asked_sequence)
        self._latencies = [*self._latencies[-(_LATENCIES - 1):], answered_after_ns]
        first = max(chunk.prefix - 1, -((chunk.t0_ns - now_ns - self.lead_ns) // self.dt_ns), 0)
        ahead = len(chunk.q) - first
        if ahead < 2:
            raise Refused(Fault.CHUNK_LATE, f"{max(ahead, 0)} knot(s) ahead of the splice", expected="at least 2")
        t0_ns = chunk.t0_ns + first * self.dt_ns
        start = self.at(t0_ns)
        jump = np.abs(chunk.q[first] - start)
        if (jump > self._jump_max).any():
            axis = int(np.argmax(jump / self._jump_max))
            raise Refused(
                Fault.CHUNK_JUMP, f"axis {self._guard.names[axis]} by {jump[axis]:.4f}",
                expected=f"at most {self._jump_max[axis]:.4f}",
            )
        asked = chunk.q[first:].copy()
        asked[0] = start
        shaped = self._guard.shape(asked, self.velocity_before(t0_ns), self.dt_ns / 1e9)
        self._chunk_id += 1
        self._sequence = chunk.sequence
        splice = Splice(
            t0_ns, self.dt_ns, shaped.q, self._chunk_id, chunk.sequence, chunk.observed_at_ns, shaped.slowed
        )
        self._install(splice, now_ns)
        return splice

    def repeat(self, now_ns: int) -> Splice | None:
        """The rest of the running plan as a new splice, for one that the wire lost; None when too little is left."""
        if self._running is None:
            return None
        first = bisect_left(self._times, now_ns + self.lead_ns)
        if len(self._times) - first < 2:
            return None
        self._chunk_id += 1
        running = self._running
        splice = Splice(
            self._times[first], self.dt_ns, np.array(self._q[first:]), self._chunk_id, running.sequence,
            running.observed_at_ns, running.slowed,
        )
        if splice.t0_ns < running.t0_ns:  # the knots before the splice are the older plan's, off this chunk's grid
            splice = Splice(
                running.t0_ns, self.dt_ns, running.q, self._chunk_id, running.sequence, running.observed_at_ns,
                running.slowed,
            )
        self._running = splice
        return splice

    def refused_by_mcu(self, chunk_id: int) -> bool:
        """The microcontroller did not take the newest splice: fall back to the plan before it. False: an older id."""
        if self._running is None or self._running.chunk_id != chunk_id:
            return False
        self._times, self._q = self._before
        self._running = None
        return True

    def clear(self) -> None:
        """The arm was stopped: there is no plan any more."""
        self._times, self._q, self._before = [], [], ([], [])
        self._running = None

    def _check(self, chunk: ActionChunk, now_ns: int, asked_sequence: int) -> None:
        if chunk.q.shape[1] != self.dof or chunk.dt_ns != self.dt_ns:
            raise Refused(
                Fault.CHUNK_SHAPE, f"{chunk.q.shape[1]} axes every {chunk.dt_ns / 1e6:.1f} ms",
                expected=f"{self.dof} axes every {self.dt_ns / 1e6:.1f} ms",
            )
        if chunk.model_hash != self.model_hash:
            raise Refused(
                Fault.CHUNK_OTHER_MODEL, f"made by {chunk.model_hash[:12]}", expected=f"{self.model_hash[:12]}"
            )
        if chunk.sequence != asked_sequence or chunk.sequence <= self._sequence:
            raise Refused(
                Fault.CHUNK_SEQUENCE, f"sequence {chunk.sequence} after {self._sequence}", expected=f"{asked_sequence}"
            )
        age = now_ns - chunk.observed_at_ns
        if not 0 <= age <= self.max_age_ns:
            raise Refused(
                Fault.CHUNK_STALE, f"{age / 1e6:.0f} ms old", expected=f"0..{self.max_age_ns / 1e6:.0f} ms"
            )

    def _install(self, splice: Splice, now_ns: int) -> None:
        self._before = (self._times, self._q)
        low = bisect_left(self._times, now_ns - _KEEP_NS)
        cut = bisect_left(self._times, splice.t0_ns)
        # The first knot is where the plan was anyway, so a gap after a plan that ran dry reads as the hold that it is.
        self._times = self._times[low:cut] + [splice.t0_ns + k * splice.dt_ns for k in range(len(splice.q))]
        self._q = self._q[low:cut] + list(splice.q)
        self._running = splice
