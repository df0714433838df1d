"""The fault table: every fault injected for real on an emulated microcontroller, many times, and what it took.

Each run begins from power-on and injects at another moment, drawn by its number. Runs are appended to a CSV file as
they end, so a campaign of an hour may be interrupted and goes on where it was. A run in which the PC itself stopped the
arm before anything was injected is void: it is counted and done again.
"""

from __future__ import annotations

import csv
import platform
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_wam.embodiment import load_embodiment
from edge_wam.hil.injections import Target
from edge_wam.hil.judge import judge, void
from edge_wam.hil.realtime import RealTimeBench
from edge_wam.hil.scenario import Expect, Reaction, Scenario, load_scenario
from edge_wam.machine import processor
from firmware_bridge.errors import FirmwareError
from firmware_bridge.mcu.build import build_id

TARGET: Target = "mps2-an386-icount"
IMAGE = "mps2-an386-nowfi"
VOIDS_MAX = 20
COLUMNS = ("fault", "run", "target", "build", "at_ms", "reaction", "ms", "joint_rad", "outcome", "voids", "stall_ms")


def _within(after: str, until: str, within_ms: float, at_least_ms: float = 0.0) -> Reaction:
    return Reaction(after=after, until=until, within_ms=within_ms, at_least_ms=at_least_ms)


@dataclass(frozen=True)
class Row:
    """One fault of the table.

    Attributes:
        fault: in words.
        scenario: file in the folder of scenarios that is shortened for it.
        reaction: which time is tabulated.
        goal: what is asked of it, in words.
        expect: what every run must show, the tabulated reaction included.
        at_ms: the first injection comes between these, the others after it as in the file.
        tail_ms: how long the run goes on after its last injection.
        means: how the time is to be read.
    """

    fault: str
    scenario: str
    reaction: str
    goal: str
    expect: Expect
    at_ms: tuple[float, float] = (230.0, 430.0)
    tail_ms: float = 380.0
    means: str = ""


_SILENT = Expect(
    visits=("RUN", "STOP"), stop_cause="HOST_SILENT", drive="on", fault="NONE", stands_still_after_ms=200,
    on_plan_rad=0.01, reactions=(_within("last_heartbeat", "slower", 102),),
)
_RESET = Expect(
    visits=("RUN", "FAULT"), ends="FAULT", fault="WATCHDOG", drive="off", reset="WATCHDOG", reset_pc=True,
    stays_disarmed=True, reactions=(_within("last_feed", "reset", 20.4, 19.6),
                                    _within("last_feed", "early_warning", 10.2, 9.8)),
)  # fmt: skip
_HEARTBEAT = "from the last heartbeat to the first slower order"
_ARRIVAL = "from the arrival of the emergency stop to the first slower order"

ROWS: tuple[Row, ...] = (
    Row("host killed (kill -9)", "host-killed", "last_heartbeat -> slower", "≤ 102 ms", _SILENT,
        means=_HEARTBEAT),
    Row("host stopped (SIGSTOP)", "host-stopped", "last_heartbeat -> slower", "≤ 102 ms", _SILENT,
        means=_HEARTBEAT),
    Row("link cut", "link-cut", "last_heartbeat -> slower", "≤ 102 ms", _SILENT, means=_HEARTBEAT),
    Row("host clock jumps by an hour", "clock-jump", "last_heartbeat -> slower", "≤ 102 ms", _SILENT,
        at_ms=(2200.0, 2400.0),  # in its first 1.6 s a host exchanges stamps so often that it soon knows better
        means="from the last heartbeat that was believed to the first slower order"),
    Row("planner hung, heartbeats go on", "policy-frozen", "last_policy -> slower", "≤ 251 ms",
        Expect(visits=("RUN", "STOP"), stop_cause="POLICY_FROZEN", drive="on", fault="NONE", stands_still_after_ms=200,
               on_plan_rad=0.01, reactions=(_within("last_policy", "slower", 251),)),
        tail_ms=700, means="from the last advance of the policy counter to the first slower order"),
    Row("bit errors, 1 in 1000 bits", "bit-errors", "arrival -> stopping", "≤ 2 ms",
        Expect(visits=("RUN", "ESTOP"), ends="ESTOP", drive="off", fault="NONE", stands_still_after_ms=200,
               on_plan_rad=0.01, reactions=(_within("arrival", "stopping", 2.001),)),
        means=f"nothing broken is obeyed; {_ARRIVAL} that is sent after 1.2 s of it, or where errors have stopped the "
        "arm before that, to the first order without enable"),
    Row("chunk storm, 200 a second", "chunk-storm", "arrival -> slower", "≤ 2 ms",
        Expect(visits=("RUN", "ESTOP"), ends="ESTOP", drive="off", fault="NONE", stands_still_after_ms=200,
               on_plan_rad=0.01, reactions=(_within("arrival", "slower", 2.001),)),
        means=f"{_ARRIVAL} that is sent in the middle of it"),
    Row("emergency stop", "estop", "arrival -> slower", "next tick (≤ 2 ms)",
        Expect(visits=("RUN", "ESTOP"), ends="ESTOP", drive="off", fault="NONE", stands_still_after_ms=200,
               on_plan_rad=0.01, reactions=(_within("arrival", "slower", 2.001),)), means=_ARRIVAL),
    Row("encoder stuck", "encoder-stuck", "injection -> fault", "by the robot file's limits",
        Expect(visits=("RUN", "FAULT"), ends="FAULT", drive="off", reactions=(_within("injection", "fault", 200),)),
        tail_ms=400, means="from the last good value to the fault; how far the link ran away is in the last column"),
    Row("encoders silent", "encoder-silent", "injection -> fault", "50 ms from the last one (≤ 57 ms)",
        Expect(visits=("RUN", "FAULT"), ends="FAULT", fault="ENCODER_LOST", drive="off",
               reactions=(_within("injection", "fault", 57, 45),)),
        tail_ms=400,
        means="from the order after which no reading comes any more to the fault; the last was up to 5 ms earlier"),
    Row("brown-out", "brown-out", "boot -> drive off", "boots disarmed",
        Expect(ends="DISARMED", drive="off", reset="UNKNOWN", stays_disarmed=True), tail_ms=200,
        means="from the start of the MCU's clock to DISARMED; no order before or after it enables the drive"),
    Row("main loop hangs", "mcu-hang-shipped", "last_feed -> reset", "20 ms ± 2 %", _RESET,
        tail_ms=150, means="from the last feed of the watchdog to the reset; the enable drops at half"),
    Row("processor hangs, interrupts masked", "mcu-hang-masked", "last_feed -> reset",
        "20 ms ± 2 %", _RESET, tail_ms=150, means="as above"),
    Row("interrupt storm", "interrupt-storm", "injection -> reset", "20 ± 2 ms",
        Expect(visits=("RUN", "FAULT"), ends="FAULT", fault="WATCHDOG", drive="off", reset="WATCHDOG", reset_pc=True,
               stays_disarmed=True, reactions=(_within("injection", "reset", 22, 18),)),
        tail_ms=150,
        means="from the first interrupt of the storm to the reset; the last feed is at most two ticks away"),
    Row("stack overflow", "stack-overflow", "injection -> drive_off", "≤ 3 ms",
        Expect(visits=("RUN", "FAULT"), ends="FAULT", drive="off", reset="WATCHDOG", stays_disarmed=True,
               reactions=(_within("injection", "drive_off", 3.0), _within("injection", "reset", 22, 18))),
        tail_ms=150,
        means="from the overflow to the first order without enable; after one more feed at most, the reset"),
)  # fmt: skip


@dataclass
class Result:
    """One line of the CSV."""

    values: dict[str, str] = field(default_factory=dict)

    @property
    def ms(self) -> float | None:
        return float(self.values["ms"]) if self.values["ms"] else None


def shortened(row: Row, scenarios: Path, run: int) -> Scenario:
    """The row's scenario with the first injection at a moment that the run's number draws, and an early end."""
    scenario = load_scenario(scenarios / f"{row.scenario}.toml")
    first = min(one.at_ms for one in scenario.inject)
    shift = random.Random(f"{row.fault} {run}").uniform(*row.at_ms) - first
    inject = tuple(
        one.model_copy(update={"at_ms": one.at_ms + shift, "duration_ms": None if one.kind == "host_stop"
                               else one.duration_ms})
        for one in scenario.inject
    )  # fmt: skip
    end = max(one.at_ms for one in inject) + row.tail_ms
    return scenario.model_copy(update={"inject": inject, "duration_ms": end, "expect": row.expect})


def read_results(path: Path) -> list[Result]:
    """What has been measured so far."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [Result(dict(line)) for line in csv.DictReader(file)]


def measure(row: Row, run: int, scenarios: Path, core: int | None) -> Result:
    """One run that is not void, or the last of :data:`VOIDS_MAX` that were."""
    scenario = shortened(row, scenarios, run)
    robot = load_embodiment(scenario.robot)
    why = ""
    for voids in range(VOIDS_MAX):
        try:
            evidence = RealTimeBench(scenario, TARGET, seed=run, core=core).run()
        except FirmwareError as error:
            why = f"void: {error.what}"  # the arm never moved: nothing was injected
            continue
        why = void(scenario, evidence)
        if why:
            why = f"void: {why}"
            continue
        verdict = judge(scenario, robot, evidence)
        bad = "; ".join(f"{finding.check}: {finding.seen}" for finding in verdict.findings if not finding.good)
        took = verdict.reactions.get(row.reaction)
        path = scenario.motion.tour().at(np.arange(0.0, scenario.motion.tour().period_s, 2e-3))
        ran = np.maximum(path.min(axis=0) - evidence.joint, evidence.joint - path.max(axis=0)).max()
        return _line(row, run, scenario, voids, ms="" if took is None else f"{took:.3f}", outcome=bad or "good",
                     joint_rad=f"{max(0.0, float(ran)):.4f}", stall_ms=f"{max(evidence.stalls_ms):.0f}")  # fmt: skip
    return _line(row, run, scenario, VOIDS_MAX, ms="", outcome=why, joint_rad="", stall_ms="")


def _line(row: Row, run: int, scenario: Scenario, voids: int, **values: str) -> Result:
    at_ms = f"{min(one.at_ms for one in scenario.inject):.1f}"
    return Result({
        "fault": row.fault, "run": str(run), "target": TARGET, "build": f"{build_id(IMAGE):08x}", "at_ms": at_ms,
        "reaction": row.reaction, "voids": str(voids), **values,
    })  # fmt: skip


def campaign(
    rows: tuple[Row, ...], runs: int, scenarios: Path, out: Path, *, seconds: float, core: int | None,
    say: Callable[[str], None],
) -> bool:  # fmt: skip
    """Fill ``out``.csv up to ``runs`` runs of each row, for at most ``seconds``; then write ``out``.md.

    Returns:
        True when every row has its runs.
    """
    deadline = time.monotonic() + seconds
    table = out.with_suffix(".csv")
    table.parent.mkdir(parents=True, exist_ok=True)
    complete = True
    done = {(one.values["fault"], int(one.values["run"])) for one in read_results(table)}
    for run in range(1, runs + 1):  # all faults in turn, so that an unfinished table is evenly filled
        for row in rows:
            if (row.fault, run) in done:
                continue
            if time.monotonic() > deadline:
                complete = False
                break
            result = measure(row, run, scenarios, core)
            fresh = not table.is_file()
            with table.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if fresh:
                    writer.writeheader()
                writer.writerow(result.values)
            say(f"{row.fault}, run {run}: {result.values['ms'] or '–'} ms, {result.values['outcome'][:160]}")
    out.with_suffix(".md").write_text(page(read_results(table)), encoding="utf-8")
    return complete


def summary(row: Row, results: list[Result]) -> tuple[str, ...]:
    """The row's cells: fault, runs, good, min, median, max, goal, farthest link."""
    mine = [one for one in results if one.values["fault"] == row.fault]
    valid = [one for one in mine if not one.values["outcome"].startswith("void")]
    good = sum(one.values["outcome"] == "good" for one in valid)
    times = [one.ms for one in valid if one.ms is not None]
    ran = max((float(one.values["joint_rad"]) for one in valid if one.values["joint_rad"]), default=0.0)
    cells = [f"{value:.3f}" for value in (min(times), float(np.median(times)), max(times))] if times else ["–"] * 3
    return (row.fault, str(len(valid)), str(good), *cells, row.goal, f"{ran:.3f}")


def page(results: list[Result]) -> str:
    """The table as Markdown, with what it was measured on."""
    builds = sorted({f"{one.values['target']} {one.values['build']}" for one in results})
    voids = sum(int(one.values["voids"]) for one in results)
    odd = [one.values for one in results if one.values["outcome"] != "good"]
    return _PAGE.format(
        rows="\n".join("| " + " | ".join(summary(row, results)) + " |" for row in ROWS),
        means="\n".join(f"| {row.fault} | {row.means} |" for row in ROWS),
        machine=f"{processor() or platform.machine()}, {platform.system()} {platform.release()}",
        voids=voids,
        builds=", ".join(builds) or "none",
        odd="\n".join(f"- {one['fault']}, run {one['run']}: {one['outcome']}" for one in odd) or "None.",
    )


_PAGE = """# Faults injected into the emulated microcontroller

Made by `edge-wam hil table`; every run is a line of [firmware-faults.csv](firmware-faults.csv). The firmware runs in
QEMU's model of an MPS2 board (Cortex-M4F), the 6-axis arm of `robots/arm6.toml` in MuJoCo at its drive stream, the host
is a process of its own. Times are the microcontroller's own clock, in milliseconds. The age of the policy counter is
reported in whole milliseconds and taken as the longest that it can mean. Time is counted in instructions, 8 ns each
(`-icount`; about what a Cortex-M4 at 170 MHz does), so the shipped numbers hold: 20 ms watchdog, 50 ms for the encoder,
4 ms between ticks. **Rows with fewer than 50 runs
are unfinished**: the command goes on where it was.

| fault | runs | as expected | min | median | max | asked | farthest link, rad |
|---|---|---|---|---|---|---|---|
{rows}

| fault | the time is |
|---|---|
{means}

As expected: besides the time, every enabled order stayed inside the robot file's limits, the states were passed in
their order, nothing moved 200 ms after the stop, and after a reset the drive stayed off. The first slower order is, of
an arm that speeds up, the first that speeds up less: within its jerk limit it needs 2.5 ms to turn that around.
Farthest link: how far any link really went beyond the motion's own range, with holding brakes that close 40 ms after
the enable has gone.

Machine: {machine}, shared with other work. {voids} runs were void, because that work stopped the arm before anything
was injected or kept its readings back; they were repeated. Firmware builds (target, build id): {builds}.

Runs that did not go as expected:

{odd}
"""
