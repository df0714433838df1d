"""Evidence against expectations. Every finding says what was asked, what was seen, and whether that is good."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edge_wam.contracts import F64
from edge_wam.embodiment import Embodiment
from edge_wam.hil.evidence import Boot, Evidence, Orders
from edge_wam.hil.scenario import Expect, Reaction, Scenario
from firmware_bridge.host.messages import (
    STATE_FLAG_DRIVE_ON,
    Event,
    EventKind,
    Fault,
    McuState,
    ResetCause,
    StopCause,
)

MICRO = 1e-6
"""Orders are whole micro-units."""
_SILENCING = frozenset({
    "host_kill", "host_stop", "clock_jump", "chunk_storm", "link_cut", "link_silent", "bit_errors", "babble",
    "frames_truncated", "frames_flipped", "frames_reordered", "frames_delayed",
})  # fmt: skip
"""Injections that may silence the host; with any other its silence is the PC's doing."""
ENCODERS_LATE_MS = 25.0
"""A stall of the arm's own thread from which its readings may be lost: 50 ms of a guest that counts up to twice as fast
as the wall."""
_BEFORE_US = 50_000
"""A host's own clock begins a lead time (60 ms) before the microcontroller's motion does."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One question and its answer."""

    check: str
    good: bool
    seen: str


@dataclass
class Verdict:
    """``reactions``: measured times in ms by "after -> until", also where nothing was asked of them."""

    findings: list[Finding] = field(default_factory=list)
    reactions: dict[str, float] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        return bool(self.findings) and all(finding.good for finding in self.findings)

    def add(self, check: str, good: bool, seen: str) -> None:
        self.findings.append(Finding(check, bool(good), seen))


def judge(scenario: Scenario, embodiment: Embodiment, evidence: Evidence) -> Verdict:
    """All findings of one run."""
    verdict = Verdict()
    expect = scenario.expect
    _lawful(verdict, embodiment, evidence)
    _states(verdict, expect, evidence)
    _resets(verdict, expect, evidence)
    for reaction in expect.reactions:
        _reaction(verdict, reaction, evidence)
    _motion(verdict, scenario, evidence)
    _counts(verdict, expect, evidence)
    return verdict


# -- always -----------------------------------------------------------------------------------------------------------


def _lawful(verdict: Verdict, embodiment: Embodiment, evidence: Evidence) -> None:
    """No enabled order leaves the robot file's limits, whatever was injected."""
    low, high = embodiment.vector("position_min"), embodiment.vector("position_max")
    fastest, hardest = embodiment.vector("velocity_max"), embodiment.vector("acceleration_max")
    worst = {"position": -np.inf, "speed": 0.0, "acceleration": 0.0}
    count = 0
    for orders in evidence.orders:
        q = orders.setpoint[orders.enabled]
        if not len(q):
            continue
        count += len(q)
        worst["position"] = max(worst["position"], float(np.maximum(low - q, q - high).max()))
        for part in _consecutive(orders):
            # An order is rounded to 1e-6, so a step is known to 1e-6 and a second difference to 2e-6.
            speed = np.maximum(np.abs(np.diff(part, axis=0)) - MICRO, 0.0) * 1e3
            worst["speed"] = max(worst["speed"], float((speed / fastest).max(initial=0.0)))
            change = np.maximum(np.abs(np.diff(part, n=2, axis=0)) - 2 * MICRO, 0.0) * 1e6
            worst["acceleration"] = max(worst["acceleration"], float((change / hardest).max(initial=0.0)))
    good = worst["position"] <= 1e-9 and worst["speed"] <= 1.0 + 1e-9 and worst["acceleration"] <= 1.0 + 1e-9
    verdict.add(
        "every enabled order is inside the limits", good and count > 0,
        f"{count} orders; {-worst['position']:.3f} rad from the nearest limit, at most {worst['speed']:.1%} of the "
        f"speed and {worst['acceleration']:.1%} of the acceleration allowed" if count else "no enabled order at all",
    )


def _consecutive(orders: Orders) -> list[F64]:
    """Setpoints of runs of enabled orders without a missing tick."""
    breaks = np.flatnonzero((np.diff(orders.tick) != 1) | ~orders.enabled[1:] | ~orders.enabled[:-1]) + 1
    parts = np.split(orders.setpoint, breaks)
    enabled = np.split(orders.enabled, breaks)
    return [part for part, on in zip(parts, enabled, strict=True) if len(part) > 2 and on.all()]


# -- states -----------------------------------------------------------------------------------------------------------


def visited(evidence: Evidence) -> list[str]:
    """States over all boots in order, by the events that report every change."""
    out: list[str] = []
    for boot in evidence.boots:
        for event in sorted(boot.events, key=lambda event: event.event_id):
            if event.kind == EventKind.STATE:
                out.append(McuState(event.arg1).name)
    return out


def _states(verdict: Verdict, expect: Expect, evidence: Evidence) -> None:
    way = visited(evidence)
    if expect.visits:
        rest = iter(way)
        verdict.add(
            "states in order " + " → ".join(expect.visits), all(state in rest for state in expect.visits),
            " → ".join(way),
        )
    last = evidence.last
    if last is None:
        verdict.add("the microcontroller reports", False, "no STATE at all")
        return
    if expect.ends is not None:
        verdict.add(f"ends in {expect.ends}", McuState(last.state).name == expect.ends, McuState(last.state).name)
    if expect.drive is not None:
        on = bool(last.flags & STATE_FLAG_DRIVE_ON)
        verdict.add(f"the drive is {expect.drive} at the end", on == (expect.drive == "on"), "on" if on else "off")
    if expect.fault is not None:
        verdict.add(f"fault {expect.fault}", Fault(last.fault).name == expect.fault, Fault(last.fault).name)
    if expect.stop_cause is not None:
        seen = StopCause(last.stop_cause).name
        verdict.add(f"stop cause {expect.stop_cause}", seen == expect.stop_cause, seen)


def _resets(verdict: Verdict, expect: Expect, evidence: Evidence) -> None:
    if expect.reset is not None:
        hello = evidence.boots[-1].hello
        cause = ResetCause(hello.reset_cause).name if hello is not None and len(evidence.boots) > 1 else "no reset"
        verdict.add(f"reset by {expect.reset}", cause == expect.reset, cause)
        if expect.reset_pc:
            pc = hello.reset_pc if hello is not None else 0
            verdict.add("its program counter was kept", pc != 0, f"{pc:#010x}")
    if len(evidence.boots) > 1:
        booted = evidence.events(EventKind.STATE, len(evidence.boots) - 1)
        safe = [e.at_us for e in booted if e.arg1 in (McuState.DISARMED, McuState.FAULT, McuState.ESTOP)]
        if safe:
            verdict.reactions["boot -> drive off"] = safe[0] / 1e3
    if expect.stays_disarmed:
        after = evidence.orders[1:]
        enabled = sum(int(orders.enabled.sum()) for orders in after)
        verdict.add(
            "after the reset no order enables the drive", bool(after) and enabled == 0,
            f"{enabled} of {sum(len(orders.tick) for orders in after)} orders",
        )


# -- reactions --------------------------------------------------------------------------------------------------------


def _happening(reaction: Reaction, evidence: Evidence) -> tuple[int, int] | None:
    """(boot, MCU clock in us) of ``until``, the first one after the injection where there is one."""
    exact = [mark for mark in evidence.marks if mark.exact]
    since = min((mark.at_us for mark in exact if mark.boot == 0), default=0)
    kind, _, name = reaction.until.partition(":")
    boot = evidence.boots[0]
    if kind == "stop":
        found = [e for e in boot.events if e.kind == EventKind.STOP and e.arg0 == StopCause[name] and e.at_us >= since]
        return (0, found[0].at_us) if found else None
    if kind == "fault":
        found = [
            e for e in boot.events
            if e.kind == EventKind.FAULT and (not name or e.arg0 == Fault[name]) and e.at_us >= since
        ]
        return (0, found[0].at_us) if found else None
    stop = _answered(reaction, evidence)
    if reaction.until in ("slower", "stopping"):
        if stop is None:
            return None
        from_tick, orders = boot.tick_of(stop.at_us), evidence.orders[0]
        tick = braking_tick(orders, from_tick)
        if tick is None and reaction.until == "stopping" and stands(orders, from_tick):
            left = orders.after(from_tick)
            tick = next((int(at) for at in left.tick[~left.enabled]), None)
        return None if tick is None else (0, boot.us_of(tick))
    if reaction.until == "drive_off":
        orders = evidence.orders[0].after(boot.tick_of(max(since, 0 if stop is None else stop.at_us)))
        off = orders.tick[~orders.enabled]
        return (0, boot.us_of(int(off[0]))) if len(off) else None
    return None


def _answered(reaction: Reaction, evidence: Evidence) -> Event | None:
    """The event that tells what the arm reacts to: the emergency stop where its arrival is asked for, whatever has
    stopped the arm before; else the first stop of all."""
    if reaction.after != "arrival":
        return first_stop(evidence)
    found = [e for e in evidence.boots[0].events if e.kind == EventKind.STOP and e.arg0 == StopCause.ESTOP]
    return min(found, key=lambda event: event.at_us) if found else None


def first_stop(evidence: Evidence) -> Event | None:
    """The first STOP or FAULT of the first boot."""
    found = [event for event in evidence.boots[0].events if event.kind in (EventKind.STOP, EventKind.FAULT)]
    return min(found, key=lambda event: event.at_us) if found else None


def void(scenario: Scenario, evidence: Evidence) -> str:
    """Why this run tells nothing: the machine itself stopped the arm before anything was injected. Empty if it did not.

    Only in real time, where a PC that stalls for 100 ms silences its host for as long.
    """
    if evidence.target in ("lockstep", "board") or not scenario.inject:
        return ""
    if evidence.target == "mps2-an386-icount" and evidence.notes:
        return "; ".join(evidence.notes)  # counted time: the PC had no time for the guest
    stop = first_stop(evidence)
    kinds = {one.kind for one in scenario.inject}
    silent = stop is not None and stop.kind == EventKind.STOP and stop.arg0 == StopCause.HOST_SILENT
    if silent and not kinds & _SILENCING:
        return f"the PC silenced its own host; the bench stalled for {evidence.stalls_ms[0]:.0f} ms"
    lost = any(event.arg0 == Fault.ENCODER_LOST for event in evidence.events(EventKind.FAULT))
    if lost and "encoder_silent" not in kinds and evidence.stalls_ms[0] >= ENCODERS_LATE_MS:
        return f"the PC kept the arm's readings back; the bench stalled for {evidence.stalls_ms[0]:.0f} ms"
    exact = [mark.at_us for mark in evidence.marks if mark.exact and mark.boot == 0]
    planned_us = evidence.begin_us + min(one.at_ms for one in scenario.inject) * 1000 - _BEFORE_US
    first_us = min(exact, default=planned_us)
    dry = [e.at_us for e in evidence.events(EventKind.STATE) if e.arg1 == McuState.STARVED and e.at_us < first_us]
    stopped_us = min([*dry, *([stop.at_us] if stop is not None else [])], default=first_us)
    if stopped_us < first_us:
        return (
            f"stopped {(first_us - stopped_us) / 1e3:.0f} ms before anything was injected; the bench stalled for "
            f"{evidence.stalls_ms[0]:.0f} ms, the emulated processor for {evidence.stalls_ms[1]:.0f} ms"
        )
    return ""


def braking_tick(orders: Orders, from_tick: int) -> int | None:
    """The first tick at or after ``from_tick`` from which the fastest axis only slows down, to standstill or until the
    drive goes off. None if it was not moving, or has not come to rest. Of an axis that was speeding up it is the first
    tick that speeds up less: the jerk limit lets it take some more until it is slower.
    """
    live = orders.where(orders.enabled)
    at = int(np.searchsorted(live.tick, from_tick))
    if at < 2 or at >= len(live.tick):
        return None
    axis = int(np.abs(live.setpoint[at - 1] - live.setpoint[at - 2]).argmax())
    step = np.abs(np.diff(live.setpoint[:, axis])) / np.maximum(np.diff(live.tick), 1)
    if step[at - 2] <= 2 * MICRO:
        return None
    for index in range(at - 1, len(step)):
        # step[index] leads to order index + 1; more than the rounding of two orders must be gone.
        if step[index] < step[index - 1] - 1.5 * MICRO:
            rest = step[index:]
            stands = np.flatnonzero(rest <= 1.01 * MICRO)
            end = int(stands[0]) + 1 if len(stands) else len(rest)
            if (np.diff(rest[:end]) <= 2.1 * MICRO).all():
                gain = np.diff(step, prepend=step[0])  # of speed in each order
                first = index
                while first >= at and gain[first - 1] < gain[first - 2] - 1.5 * MICRO:
                    first -= 1  # it sped up less already
                return int(live.tick[first + 1])
    return None


def stands(orders: Orders, from_tick: int) -> bool:
    """No enabled order from the last one before ``from_tick`` on moves an axis by more than the end of a stop does."""
    live = orders.where(orders.enabled)
    q = live.setpoint[max(0, int(np.searchsorted(live.tick, from_tick)) - 2) :]
    return len(q) == 0 or float(np.ptp(q, axis=0).max()) <= 4 * MICRO


def _reference(reaction: Reaction, boot: Boot, evidence: Evidence, at_us: int) -> int | None:
    """MCU clock of ``after``. Ages are whole milliseconds rounded down: the stamp of the heartbeat that they mean, or
    else the earliest moment that they allow."""
    if reaction.after == "injection":
        marks = [mark for mark in evidence.marks if mark.exact and mark.boot == 0 and mark.at_us <= at_us]
        return marks[-1].at_us if marks else None
    stop = _answered(reaction, evidence)
    if stop is None:
        return None
    if reaction.after == "arrival":
        return stop.at_us
    state = boot.before(stop.at_us - 1)
    if state is None:
        return None
    age = state.heartbeat_age_ms if reaction.after == "last_heartbeat" else state.policy_age_ms
    latest = state.now_us - age * 1000
    if reaction.after == "last_heartbeat":
        meant = [stamp for stamp in evidence.heartbeats_us if latest - 999 <= stamp <= latest]
        if meant:
            return meant[-1]
    return latest - 999


def _reaction(verdict: Verdict, reaction: Reaction, evidence: Evidence) -> None:
    name = f"{reaction.after} -> {reaction.until}"
    took: float | None
    if reaction.until in ("reset", "early_warning"):
        took = evidence.measured_ms.get(f"{reaction.after} -> {reaction.until}")
    else:
        happened = _happening(reaction, evidence)
        took = None
        if happened is not None:
            boot, at_us = happened
            began = _reference(reaction, evidence.boots[boot], evidence, at_us)
            took = None if began is None else (at_us - began) / 1e3
    asked = f"{name} within {reaction.within_ms:g} ms"
    if reaction.at_least_ms:
        asked += f", not before {reaction.at_least_ms:g} ms"
    if took is None:
        verdict.add(asked, False, "did not happen, or cannot be timed")
        return
    verdict.reactions[name] = took
    verdict.add(asked, reaction.at_least_ms <= took <= reaction.within_ms, f"{took:.3f} ms")


# -- motion -----------------------------------------------------------------------------------------------------------


def _motion(verdict: Verdict, scenario: Scenario, evidence: Evidence) -> None:
    expect = scenario.expect
    boot, orders = evidence.boots[0], evidence.orders[0]
    tour = scenario.motion.tour()
    path = tour.at(np.arange(0.0, max(tour.period_s, 1e-3), 2e-3))
    if expect.stands_still_after_ms is not None:
        stop = first_stop(evidence)
        if stop is None:
            verdict.add("stands still after the stop", False, "there was none")
        else:
            after = orders.after(boot.tick_of(stop.at_us) + round(expect.stands_still_after_ms))
            q = after.setpoint[after.enabled]
            moved = float(np.ptp(q, axis=0).max()) if len(q) else 0.0
            verdict.add(
                f"no enabled order moves from {expect.stands_still_after_ms:g} ms after the stop on",
                moved == 0.0 and len(after.tick) > 20,
                f"{moved:.6f} rad in {len(q)} enabled of {len(after.tick)} orders",
            )
    if expect.on_plan_rad is not None:
        q = orders.setpoint[orders.enabled][::5]
        off = float(max((np.abs(path - one).max(axis=1).min() for one in q), default=np.inf))
        verdict.add(
            f"orders stay within {expect.on_plan_rad:g} rad of the path", off <= expect.on_plan_rad, f"{off:.5f} rad"
        )
    if expect.joints_move_at_most_rad is not None and len(evidence.joint):
        out = np.maximum(path.min(axis=0) - evidence.joint, evidence.joint - path.max(axis=0)).max()
        verdict.add(
            f"no link goes farther than {expect.joints_move_at_most_rad:g} rad beyond the motion's range",
            out <= expect.joints_move_at_most_rad, f"{max(0.0, float(out)):.4f} rad",
        )
    if expect.falls_at_least_rad is not None and len(evidence.joint):
        dead = np.flatnonzero(~orders.enabled & (orders.tick > boot.tick_of(evidence.begin_us)))
        start = orders.tick[dead[0]] if len(dead) else evidence.joint_tick[-1]
        falling = evidence.joint[evidence.joint_tick >= start]
        fell = float(np.abs(falling - falling[0]).max()) if len(falling) else 0.0
        verdict.add(f"without torque it falls by {expect.falls_at_least_rad:g} rad", fell >= expect.falls_at_least_rad,
                    f"{fell:.3f} rad")  # fmt: skip


def _counts(verdict: Verdict, expect: Expect, evidence: Evidence) -> None:
    if expect.refused_by_host is not None:
        count = sum(evidence.refused.values())
        why = ", ".join(f"{name} {number}" for name, number in sorted(evidence.refused.items()))
        verdict.add(f"the host refuses {expect.refused_by_host} chunks", count >= expect.refused_by_host, why or "none")
    stats = [one for boot in evidence.boots for one in boot.stats[-1:]]
    if expect.refused_by_mcu is not None:
        count = sum(one.chunks_refused + one.chunks_late for one in stats)
        verdict.add(f"the MCU refuses {expect.refused_by_mcu} chunks", count >= expect.refused_by_mcu, str(count))
    for name, least in expect.counted.items():
        count = sum(getattr(one, name) for one in stats)
        verdict.add(f"{name} counts at least {least}", count >= least, str(count))
