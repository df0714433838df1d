"""From fresh frames to knots on the wire: when to ask, what with, what becomes of the answer.

Part of the control loop: nothing here waits. What may move the arm is decided in the executor and the guard.
"""

from __future__ import annotations

from collections import deque

from edge_wam.cameras.watch import CameraWatch
from edge_wam.contracts import F64, DegradeState
from edge_wam.control_report import Tally
from edge_wam.executor import Executor, Splice
from edge_wam.faults import Fault, Refused
from edge_wam.monitor import Monitor
from edge_wam.planner_channel import PlannerChannel
from edge_wam.planner_wire import PlanAnswer, PlanRequest
from edge_wam.recorder import Recorder
from firmware_bridge.errors import FirmwareError, TransportClosed
from firmware_bridge.host.link import Link
from firmware_bridge.host.link_state import LinkState
from firmware_bridge.host.messages import AckCode

_HISTORY = 64  # states of the microcontroller kept, 0.6 s: a frame goes with the state of its own time
_REHEARSAL_PATIENCE = 10.0  # while nothing moves, the first answer may take this many deadlines


class Planning:
    """One session's planning. ``counter`` is the heartbeat's policy counter: it advances with every request that is
    made and every chunk that is taken, so it stands still when either side of planning hangs."""

    def __init__(
        self, channel: PlannerChannel, executor: Executor, link: Link, cameras: CameraWatch, monitor: Monitor,
        recorder: Recorder, tally: Tally, rate_hz: float, instruction: str,
    ) -> None:  # fmt: skip
        self.channel = channel
        self.executor = executor
        self.instruction = instruction
        self.counter = 0
        self._link = link
        self._cameras = cameras
        self._monitor = monitor
        self._recorder = recorder
        self._tally = tally
        self._period_ns = int(1e9 / rate_hz)
        self._history: deque[tuple[int, F64, F64]] = deque(maxlen=_HISTORY)
        self._sequence = 0
        self._reset = True
        self._next_ns = 0
        self._pending: dict[int, tuple[Splice, int]] = {}
        self._last_answer = 0
        self._unanswered = 0

    def remember(self, at_ns: int, position: F64, setpoint: F64) -> bool:
        """A state of the microcontroller; False when it is the one already known."""
        if self._history and at_ns <= self._history[-1][0]:
            return False
        self._history.append((at_ns, position, setpoint))
        return True

    def rehearse(self, now_ns: int) -> None:
        """Ask once while nothing moves; the answer is thrown away. After it the policy knows the instruction."""
        self._ask(now_ns, reset=True, rehearsal=True)

    def begin(self, now_ns: int, state: LinkState) -> None:
        """Armed: hold where the microcontroller holds, and plan from the next frame on."""
        self.executor.start(state.setpoint)
        self._cameras.tick(now_ns, record=False)
        self._cameras.discard()
        self._reset = True
        self._next_ns = now_ns
        self._pending.clear()
        self._last_answer = state.last_chunk.chunk_id if state.last_chunk is not None else 0
        self._unanswered = state.counters.chunks_unanswered

    def plan(self, now_ns: int) -> None:
        """Ask for a chunk when it is time, every camera has a new frame, and nothing is in flight."""
        if self.channel.in_flight is not None or not self.channel.usable or not self._history:
            return
        if now_ns + self._period_ns // 20 < self._next_ns or not self._cameras.fresh():
            return
        self._next_ns = max(self._next_ns + self._period_ns, now_ns + self._period_ns // 2)
        self._ask(now_ns, reset=self._reset, rehearsal=False)
        self._reset = False
        self.counter += 1

    def receive(self, now_ns: int, *, follow: bool) -> PlanAnswer | tuple[Fault, str] | None:
        """An answer, or the fault by which the channel was closed. With ``follow`` the answer is spliced in and sent,
        unless the arm is already on its way down the ladder."""
        got = self.channel.poll(now_ns)
        if got is None:
            return None
        if isinstance(got[0], Fault):
            return got[0], str(got[1])
        data, answer = got
        assert isinstance(answer, PlanAnswer)
        self._recorder.put("/answer", now_ns, data)
        if follow and self._monitor.state == DegradeState.NOMINAL:
            self._offer(now_ns, answer)
        return answer

    def settle(self, now_ns: int, state: LinkState) -> None:
        """What became of the chunks that were sent."""
        answer = state.last_chunk
        if answer is not None and answer.chunk_id != self._last_answer:
            self._last_answer = answer.chunk_id
            self._recorder.put("/event", now_ns, {
                "from": "link", "chunk_id": answer.chunk_id, "code": answer.code.name, "arg": answer.arg,
                "taken": answer.accepted, "lead_ns": answer.lead_ns, "round_trip_ns": answer.round_trip_ns,
            })
            splice, sent_ns = self._pending.pop(answer.chunk_id, (None, 0))
            if splice is not None:
                transit_ns = splice.t0_ns - sent_ns - answer.lead_ns
                self.executor.arrived(transit_ns)
                self._tally.wire.add(transit_ns)
            if answer.accepted and splice is not None:
                dropped = answer.arg if answer.code is AckCode.OK_TRIMMED else 0
                self._tally.trimmed += dropped > 0
                self._tally.age.add(splice.t0_ns + dropped * splice.dt_ns - splice.observed_at_ns)
            elif not answer.accepted:
                self.executor.refused_by_mcu(answer.chunk_id)
                self._tally.mcu_refused += 1
                self._monitor.raise_fault(now_ns, Fault.CHUNK_REFUSED_BY_MCU, f"{answer.code.name} arg {answer.arg}")
        if state.counters.chunks_unanswered > self._unanswered:
            self._unanswered = state.counters.chunks_unanswered
            self._pending.clear()
            again = self.executor.repeat(now_ns)
            if again is not None and self._send(now_ns, again):
                self._tally.repeated += 1

    def _ask(self, now_ns: int, *, reset: bool, rehearsal: bool) -> None:
        frames, captured_ns = self._cameras.pick(now_ns)
        # The frames show the robot as it was when they were captured: so must the state that goes with them.
        at_ns, position, setpoint = min(self._history, key=lambda entry: abs(entry[0] - captured_ns))
        self._sequence += 1
        prefix = self.executor.prefix(at_ns, now_ns)
        request = PlanRequest(
            self._sequence, self.channel.generation, reset, self.instruction, frames, at_ns, position, setpoint,
            prefix[:0] if rehearsal else prefix,
        )
        self.channel.ask(request, now_ns, _REHEARSAL_PATIENCE if rehearsal else 1.0)
        self._recorder.put("/request", now_ns, request.pack())

    def _offer(self, now_ns: int, answer: PlanAnswer) -> None:
        self._tally.latency.add(self.channel.answered_after_ns)
        self._tally.step.add(answer.total_ns)
        surprise = self._monitor.observe(now_ns, answer.latents, answer.captured_at_ns, self.executor.dt_ns // 2)
        try:
            splice = self.executor.offer(
                answer.chunk, now_ns, asked_sequence=self._sequence, answered_after_ns=self.channel.answered_after_ns
            )
        except Refused as refused:
            self._tally.refuse(refused.fault)
            self._monitor.raise_fault(now_ns, refused.fault, refused.what)
            return
        self._monitor.imagine(answer.imagination)
        if self._send(now_ns, splice):
            self._monitor.accepted(now_ns)
            self.counter += 1
            self._tally.accept(now_ns, splice)
        self._recorder.put("/splice", now_ns, {
            "sequence": splice.sequence, "chunk_id": splice.chunk_id, "t0_ns": splice.t0_ns, "dt_ns": splice.dt_ns,
            "q": splice.q, "observed_at_ns": splice.observed_at_ns, "slowed": splice.slowed, "surprise": surprise,
            "prefix": answer.chunk.prefix, "latency_ns": self.channel.answered_after_ns, "step_ns": answer.total_ns,
        }, size=2048)  # fmt: skip

    def _send(self, now_ns: int, splice: Splice) -> bool:
        try:
            self._link.send_chunk(splice.t0_ns, splice.dt_ns, splice.q, splice.chunk_id)
        except TransportClosed as error:
            self._monitor.raise_fault(now_ns, Fault.LINK_FAILED, error.what)
            return False
        except FirmwareError as error:
            self.executor.refused_by_mcu(splice.chunk_id)
            self._tally.mcu_refused += 1
            self._monitor.raise_fault(now_ns, Fault.CHUNK_REFUSED_BY_MCU, error.what)
            return False
        self._pending[splice.chunk_id] = (splice, now_ns)
        return True
