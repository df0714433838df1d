"""What the control process counts, and how it becomes a Status five times a second."""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING

from edge_wam.executor import Splice
from edge_wam.faults import Fault
from edge_wam.histogram import Histogram
from edge_wam.shm import Mailbox
from edge_wam.status import FaultReport, SourceReport, Status
from firmware_bridge.host.link_state import LinkState, mcu_bus_end, mcu_dropped

if TYPE_CHECKING:
    from edge_wam.control_process import Control

_RATE_WINDOW_NS = 2_000_000_000
_FAULTS_KEPT = 100


class Tally:
    """Counters and histograms of one session."""

    def __init__(self, mailbox: Mailbox, recording: str) -> None:
        self.recording = recording
        self.latency, self.age, self.step = Histogram(), Histogram(), Histogram()
        self.control, self.work, self.wire = Histogram(), Histogram(), Histogram()
        self.refused: Counter[str] = Counter()
        self.faults: deque[FaultReport] = deque(maxlen=_FAULTS_KEPT)
        self.chunks = self.slowed = self.mcu_refused = self.repeated = self.trimmed = 0
        self.late_ticks = self.unsaid = 0
        self.recorder_error = ""
        self._mailbox = mailbox
        self._accepted: deque[int] = deque()

    def accept(self, now_ns: int, splice: Splice) -> None:
        """A chunk went out."""
        self.chunks += 1
        self.slowed += splice.slowed
        self._accepted.append(now_ns)

    def refuse(self, fault: Fault) -> None:
        """The host refused a chunk."""
        self.refused[fault.name] += 1

    def host_fault(self, at_ns: int, fault: Fault, text: str) -> None:
        """A fault of the host, for the live view and the result."""
        self.faults.append(FaultReport(at_ns, int(fault), fault.name, text))

    def mcu_fault(self, at_ns: int, number: int, name: str, text: str) -> None:
        """A fault that the microcontroller reported."""
        self.faults.append(FaultReport(at_ns, number, name, text))

    def publish(self, control: Control, now_ns: int, state: LinkState) -> None:
        """Put a Status into the mailbox and into the recording."""
        window_ns = min(_RATE_WINDOW_NS, max(now_ns - control.running_since_ns, 1_000_000_000))
        while self._accepted and now_ns - self._accepted[0] > _RATE_WINDOW_NS:
            self._accepted.popleft()
        ready = control.planning.channel.ready
        running = control.phase == "running"
        health = control.monitor.health(now_ns)
        status = Status(
            phase=control.phase,
            at_ns=now_ns,
            task=control.planning.instruction,
            episode=control.episode,
            running_s=(now_ns - control.running_since_ns) / 1e9 if running else 0.0,
            degrade=control.monitor.state.name,
            chunk_rate_hz=len(self._accepted) * 1e9 / window_ns,
            chunks=self.chunks,
            slowed=self.slowed,
            refused=dict(self.refused),
            mcu_refused=self.mcu_refused,
            repeated=self.repeated,
            trimmed=self.trimmed,
            latency=self.latency.summary(),
            age=self.age.summary(),
            step=self.step.summary(),
            wire=self.wire.summary(),
            control=self.control.summary(),
            control_missed=control.pacer.missed,
            control_lagging=control.pacer.lagging,
            control_work=self.work.summary(),
            link_connected=state.connected,
            mcu_state=state.mcu_state.name,
            mcu_stop_cause=state.stop_cause.name,
            mcu_fault=state.fault.name,
            mcu_boots=state.boots,
            clock_bound_ms=min(state.clock_bound_ns / 1e6, 1e9),
            rtt_ms=state.rtt_ns / 1e6,
            rtt_p50_ms=state.metrics.rtt_p50_ns / 1e6,
            rtt_p99_ms=state.metrics.rtt_p99_ns / 1e6,
            clock_drift_ppm=state.drift_ppm,
            wire_out_bytes_s=state.metrics.out_bytes_s,
            wire_in_bytes_s=state.metrics.in_bytes_s,
            wire_resent=state.counters.resent,
            wire_dropped=state.metrics.dropped,
            mcu_dropped=mcu_dropped(state.stats),
            bus_host=state.bus_end,
            bus_mcu=mcu_bus_end(state.stats) if state.bus_end is not None else None,
            watchdog_margin_us=state.stats.watchdog_margin_min_us if state.stats is not None else None,
            plan_remaining_ms=max(0.0, (control.planning.executor.end_ns - now_ns) / 1e6),
            position=tuple(state.position.tolist()),
            setpoint=tuple(state.setpoint.tolist()),
            surprise=control.monitor.surprise,
            sources={n: SourceReport(s.alive, s.on_rate, s.valid) for n, s in health.sources.items()},
            faults=tuple(self.faults),
            unwell=tuple(control.monitor.unwell(now_ns)),
            policy_ready=control.planning.channel.usable,
            model_hash=ready.model_hash if ready is not None else "",
            golden_exact=ready.golden_exact if ready is not None else False,
            recorder_dropped=control.recorder.dropped,
            os_refusals=control.refusals,
        )
        data = status.to_json()
        self._mailbox.put(data)
        control.recorder.put("/status", now_ns, data)
