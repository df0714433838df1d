"""The live view in the terminal: what the arm does now, in ten lines. Without a terminal: one line a second."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edge_wam.faults import Fault
from edge_wam.histogram import Summary
from edge_wam.status import Phase, Status

_PLAIN_EVERY_S = 1.0
_GOOD_MCU = ("READY", "ARMED", "RUN")


def times(summary: Summary) -> str:
    """``p50 / p99`` in milliseconds, a dash when nothing was measured yet."""
    return f"{summary.p50_ms:.0f} / {summary.p99_ms:.0f} ms" if summary.count else "–"


def margin(status: Status) -> str:
    """The least time that was left to the hardware watchdog in the last second."""
    us = status.watchdog_margin_us
    return "not reported yet" if us is None else f"{us / 1000:.0f} ms left at worst in the last second"


def wire(status: Status) -> str:
    """Rates of the link, the time of an answer, and what was lost."""
    return (
        f"{status.wire_out_bytes_s / 1000:.1f} kB/s out, {status.wire_in_bytes_s / 1000:.1f} in, answers after "
        f"{status.rtt_p50_ms:.1f} / {status.rtt_p99_ms:.1f} ms, {status.wire_resent} resent, "
        f"{status.wire_dropped + status.mcu_dropped} dropped"
    )


def rows(status: Status) -> list[tuple[str, str, bool]]:
    """(name, value, as it should be) of everything that is shown."""
    refused = sum(status.refused.values()) + status.mcu_refused
    running = status.phase is Phase.RUNNING
    ends = [end for end in (status.bus_host, status.bus_mcu) if end is not None]
    chunks = f"{status.chunk_rate_hz:.1f} a second, {status.chunks} used"
    if refused:
        chunks += f", {refused} refused"
    link = "up" if status.link_connected else "down"
    if status.link_connected:
        link += f", round trip {status.rtt_ms:.1f} ms, clock known to {status.clock_bound_ms:.2f} ms"
    mcu = status.mcu_state or "unknown"
    if status.mcu_stop_cause not in ("", "NONE"):
        mcu += f", stopped by {status.mcu_stop_cause}"
    if status.mcu_fault not in ("", "NONE"):
        mcu += f", fault {status.mcu_fault}"
    surprise = "" if status.surprise is None else f", surprise {status.surprise:.2f}"
    return [
        ("task", status.task or "–", True),
        ("phase", f"{status.phase}" + (f", {status.running_s:.1f} s" if running else ""), True),
        ("host", status.degrade + surprise, status.degrade == "NOMINAL" or not running),
        ("chunks", chunks, refused == 0),
        ("latency p50 / p99", times(status.latency), True),
        ("age at actuation p50 / p99", times(status.age), True),
        ("control lateness p50 / p99", f"{status.control.p50_ms:.2f} / {status.control.p99_ms:.2f} ms"
         if status.control.count else "–", not status.control_lagging),
        ("link", link, status.link_connected),
        ("wire", wire(status), True),
        *([("CAN bus", status.bus_words(), not any(end.bus_off for end in ends))] if ends else []),
        ("microcontroller", mcu, status.mcu_state in _GOOD_MCU or not running),
        ("watchdog margin", margin(status), status.watchdog_margin_us is None or status.watchdog_margin_us > 0),
        ("axes", "  ".join(f"{q:+.3f}" for q in status.position) or "–", True),
    ]


def render(title: str, status: Status) -> RenderableType:
    """The panel for one status."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value, good in rows(status):
        grid.add_row(name, Text(value, style="" if good else "bold yellow"))
    for fault in [fault for fault in status.faults if fault.name != Fault.OPERATOR_STOP.name][-3:]:
        grid.add_row("event", Text(f"{fault.number} {fault.name} {fault.text}", style="yellow"))
    return Panel(grid, title=title, title_align="left", border_style="dim")


def line(status: Status) -> str:
    """The same in one line, for logs and pipes."""
    return (
        f"{status.phase} {status.running_s:5.1f} s | host {status.degrade} | {status.chunk_rate_hz:.1f} chunks/s | "
        f"latency {times(status.latency)} | age {times(status.age)} | MCU {status.mcu_state} | "
        f"watchdog {'–' if status.watchdog_margin_us is None else f'{status.watchdog_margin_us / 1000:.0f} ms'}"
    )


class LiveView:
    """A context manager; hand :meth:`update` to the session as ``on_status``."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
        self._said_s = 0.0
        self._phase: Phase | None = None

    def update(self, status: Status) -> None:
        """Show one status. Costs a few milliseconds of this process, none of the control process."""
        if self._live is not None:
            self._live.update(render(self._title, status), refresh=True)
            return
        now = time.monotonic()
        if status.phase is not self._phase or (status.phase is Phase.RUNNING and now - self._said_s >= _PLAIN_EVERY_S):
            self._phase, self._said_s = status.phase, now
            self._console.print(line(status), markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A remark above the panel; without a terminal, a line of its own."""
        self._console.print(text, style="dim", markup=False, soft_wrap=True)

    def __enter__(self) -> LiveView:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
