"""The bench is honest: it says what it cannot do, knows a void run, reads a braking off the orders, and reports."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_wam.embodiment import load_embodiment
from edge_wam.errors import ConfigError
from edge_wam.hil.evidence import Orders, split_boots, split_orders
from edge_wam.hil.judge import Verdict, braking_tick, judge, stands, void
from edge_wam.hil.lockstep import LockstepBench
from edge_wam.hil.report import render
from edge_wam.hil.runner import play, scenario_files
from edge_wam.hil.scenario import Expect, Injection, Reaction, load_scenario
from edge_wam.hil.table import COLUMNS, ROWS, Result, page, read_results, shortened, summary
from firmware_bridge.hil.cable import Babble, BitErrors, Delay, Tamper
from firmware_bridge.host.framing import FrameReceiver, encode_frame
from firmware_bridge.host.messages import Event, EventKind, Fault, McuState, StopCause
from firmware_bridge.host.plant_port import DriveCommand

FOLDER = Path(__file__).parent / "scenarios"
DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_what_needs_a_hand_on_a_board_is_not_run_and_says_which_hand() -> None:
    for name in ("brown-out", "estop-pin", "mcu-hang", "power-cycle"):
        outcome = play(FOLDER / f"{name}.toml", "board", 1)
        assert outcome.word == "not run"
        assert outcome.why.startswith("by hand: ") and len(outcome.why) > 40


def test_a_target_that_a_scenario_is_not_made_for_is_not_run() -> None:
    outcome = play(FOLDER / "power-cycle.toml", "lockstep", 1)
    assert (outcome.word, outcome.verdict) == ("not run", None)
    assert "mps2-an386" in outcome.why


def test_the_report_shows_every_finding_and_every_refusal() -> None:
    outcomes = [play(FOLDER / f"{name}.toml", "lockstep", 1) for name in ("estop", "power-cycle")]
    assert [one.word for one in outcomes] == ["good", "not run"]
    html = render(outcomes, "two & more")
    assert "two &amp; more" in html and "1 good, 1 not run" in html and html.count("<svg") >= 3
    verdict = outcomes[0].verdict
    assert verdict is not None
    assert all(finding.seen.split(" → ")[0] in html for finding in verdict.findings)
    assert "<script" not in html and "http://" not in html.replace("http://www.w3.org", "")
    parsed = json.loads(json.dumps([one.as_dict() for one in outcomes]))
    # In lockstep a frame is stamped with the tick that it comes before: that tick, or the next one.
    assert 0.0 <= parsed[0]["reactions_ms"]["arrival -> slower"] <= 1.01


def test_no_file_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no scenario file"):
        scenario_files([tmp_path])


def ramp(speed: int, brake_at: int, brake: int) -> Orders:
    """Orders in micro-units: ``speed`` a tick, from ``brake_at`` on ``brake`` less each tick."""
    steps = [speed if tick < brake_at else max(0, speed - brake * (tick - brake_at + 1)) for tick in range(1, 200)]
    q = np.concatenate([[0], np.cumsum(steps)]) / 1e6
    count = len(q)
    return Orders(np.arange(count), np.ones(count, bool), np.zeros(count, bool), q[:, None])


@pytest.mark.parametrize("brake", [4, 10, 50])
@pytest.mark.parametrize("looked_from", [60, 90, 100])
def test_a_braking_is_dated_by_its_first_slower_order(brake: int, looked_from: int) -> None:
    assert braking_tick(ramp(200, 100, brake), looked_from) == 100


@pytest.mark.parametrize("seen", [100, 101])
def test_a_braking_that_begins_while_the_arm_speeds_up_is_dated_by_the_first_order_that_speeds_up_less(
    seen: int,
) -> None:
    # 10 rad/s^2, turned around by 4000 rad/s^3: slower only three orders later.
    gain = [10] * 100 + [6, 2, -2, -6] + [-10] * 120
    steps = np.maximum(np.cumsum([0, *gain]), 0)
    q = np.concatenate([[0], np.cumsum(steps)]) / 1e6
    count = len(q)
    orders = Orders(np.arange(count), np.ones(count, bool), np.zeros(count, bool), q[:, None])
    first = 102
    assert steps[first - 1] > steps[first - 2] and steps[first + 1] < steps[first]
    assert braking_tick(orders, seen) == first
    assert braking_tick(orders, first + 1) == first + 1, "not before it was asked for"


def test_an_arm_that_does_not_stop_or_did_not_move_has_no_braking() -> None:
    assert braking_tick(ramp(200, 500, 10), 100) is None
    assert braking_tick(ramp(0, 100, 10), 100) is None


def test_a_run_that_the_pc_stopped_is_void_and_one_that_the_fault_stopped_is_not() -> None:
    scenario = load_scenario(FOLDER / "host-killed.toml")
    evidence = LockstepBench(scenario).run()
    evidence.target = "mps2-an386"
    assert void(scenario, evidence) == ""
    early = Event(999, evidence.begin_us + 300_000, EventKind.STOP, StopCause.HOST_SILENT, 0)
    evidence.boots[0].events.append(early)
    assert "before anything was injected" in void(scenario, evidence)
    evidence.boots[0].events.remove(early)
    lost = Event(999, evidence.begin_us + 1_900_000, EventKind.FAULT, Fault.ENCODER_LOST, 0)
    evidence.boots[0].events.append(lost)
    assert void(scenario, evidence) == "", "nobody has seen the PC stall"
    evidence.stalls_ms = (117.0, 1.0)
    assert "readings back" in void(scenario, evidence)
    silenced = Injection(at_ms=1000, kind="encoder_silent")
    assert void(scenario.model_copy(update={"inject": (*scenario.inject, silenced)}), evidence) == ""
    stuck = load_scenario(FOLDER / "encoder-stuck.toml")
    evidence = LockstepBench(stuck).run()
    evidence.target = "mps2-an386"
    (mark,) = evidence.marks
    assert mark.exact and void(stuck, evidence) == ""
    for before in (
        Event(999, mark.at_us - 1000, EventKind.FAULT, Fault.FOLLOWING_ERROR, 0),
        Event(999, mark.at_us - 1000, EventKind.STATE, McuState.RUN, McuState.STARVED),
    ):
        evidence.boots[0].events.append(before)
        assert "before anything was injected" in void(stuck, evidence), "marks are exact: nothing before is its doing"
        evidence.boots[0].events.remove(before)
    frozen = load_scenario(FOLDER / "policy-frozen.toml")
    evidence = LockstepBench(frozen).run()
    evidence.target = "mps2-an386"
    assert void(frozen, evidence) == ""
    silent = Event(999, evidence.begin_us + 1_000_000, EventKind.STOP, StopCause.HOST_SILENT, 0)
    evidence.boots[0].events.insert(0, silent)
    assert "silenced its own host" in void(frozen, evidence)


ESTOP_STOPPING = Expect(reactions=(Reaction(after="arrival", until="stopping", within_ms=2.001),))


def estop_after(*others: Injection) -> Verdict:
    """An emergency stop at 1600 ms, with other trouble before it."""
    scenario = load_scenario(FOLDER / "estop.toml")
    estop = scenario.inject[0].model_copy(update={"at_ms": 1600.0})
    scenario = scenario.model_copy(update={"inject": (*others, estop), "expect": ESTOP_STOPPING})
    return judge(scenario, load_embodiment(scenario.robot), LockstepBench(scenario).run())


@pytest.mark.parametrize("others", [(), (Injection(at_ms=900, kind="soft_stop"),)], ids=["it moves", "it stands"])
def test_an_emergency_stop_is_timed_from_its_own_arrival_whether_the_arm_still_moves_or_not(
    others: tuple[Injection, ...],
) -> None:
    verdict = estop_after(*others)
    assert verdict.good, [f"{finding.check}: {finding.seen}" for finding in verdict.findings]
    assert 0.0 <= verdict.reactions["arrival -> stopping"] <= 1.001


def test_an_arm_that_creeps_is_not_one_that_stands() -> None:
    assert stands(ramp(0, 0, 0), 50)
    assert not stands(ramp(1, 500, 0), 50)
    assert stands(ramp(200, 10, 50), 50) and not stands(ramp(200, 10, 50), 11)


def test_an_order_outside_the_limits_is_always_a_bad_finding() -> None:
    scenario = load_scenario(FOLDER / "estop.toml")
    robot = load_embodiment(scenario.robot)
    evidence = LockstepBench(scenario).run()
    assert judge(scenario, robot, evidence).good
    evidence.orders[0].setpoint[800, 0] += 0.001  # one step of 1 rad/s and back: an acceleration of 1000 rad/s^2
    bad = [finding.check for finding in judge(scenario, robot, evidence).findings if not finding.good]
    assert "every enabled order is inside the limits" in bad


def test_last_words_do_not_begin_a_boot_and_a_reset_does() -> None:
    def order(tick: int, dof: int = 2) -> DriveCommand:
        return DriveCommand(tick, dof > 0, np.zeros(dof))

    parts = split_orders([order(5), order(6), order(0, 0), order(1), order(2)], 2)
    assert [part.tick.tolist() for part in parts] == [[5, 6], [1, 2]]
    assert len(split_boots([])) == 1


def test_the_fault_table_counts_what_went_well_apart_from_what_was_timed() -> None:
    row = ROWS[0]
    lines = [
        Result(dict.fromkeys(COLUMNS, "") | {"fault": row.fault, "run": str(run), "ms": ms, "outcome": outcome,
                                             "voids": "2", "joint_rad": "0.01"})
        for run, (ms, outcome) in enumerate([("100.5", "good"), ("101.5", "good"), ("300", "slow"), ("", "void: no")])
    ]  # fmt: skip
    assert summary(row, lines) == (row.fault, "3", "2", "100.500", "101.500", "300.000", row.goal, "0.010")
    text = page(lines)
    assert "8 runs were void" in text and f"- {row.fault}, run 2: slow" in text


def test_the_safety_page_says_what_the_fault_table_has_measured() -> None:
    results = read_results(DOCS / "measured" / "firmware-faults.csv")
    said = [line.split(" | ")[:3] for line in (DOCS / "safety.md").read_text(encoding="utf-8").splitlines()]
    for row in ROWS:
        fault, _, _, *times, goal, _ = summary(row, results)
        assert [f"| {fault}", goal, " / ".join(times)] in said, fault


def test_every_row_of_the_fault_table_shortens_its_scenario_and_each_run_differs() -> None:
    for row in ROWS:
        first, second = shortened(row, FOLDER, 1), shortened(row, FOLDER, 2)
        assert first.inject[0].at_ms != second.inject[0].at_ms
        assert row.at_ms[0] <= first.inject[0].at_ms <= row.at_ms[1]
        assert first.duration_ms < load_scenario(FOLDER / f"{row.scenario}.toml").duration_ms + 1000
        asked = {f"{one.after} -> {one.until}" for one in row.expect.reactions}
        assert row.reaction in asked | {"boot -> drive off"}


# -- cables -----------------------------------------------------------------------------------------------------------


def test_bit_errors_come_at_their_rate_and_are_the_same_for_the_same_seed() -> None:
    data = bytes(200_000)
    first, second = BitErrors(1e-3, 1), BitErrors(1e-3, 1)
    broken = first(data)
    assert broken == second(data)
    assert first.flipped == sum(byte.bit_count() for byte in broken)
    assert first.flipped == pytest.approx(1600, rel=0.1)
    assert BitErrors(0.0, 1)(data) == data


def test_a_late_cable_loses_nothing_and_keeps_the_order() -> None:
    now = [0.0]
    cable = Delay(0.3, lambda: now[0])
    assert cable(b"abc") == b"" and cable(b"def") == b""
    now[0] = 0.31
    assert cable(b"ghi") == b"abcdef"
    now[0] = 0.62
    assert cable(b"") == b"ghi"


def test_a_babbler_leaves_the_frames_of_the_host_whole() -> None:
    now = [0.0]
    cable = Babble(5000.0, lambda: now[0], 1)
    frames = [encode_frame(bytes([1, 2, number])) for number in range(20)]
    out = b""
    for frame in frames:
        now[0] += 0.01
        out += cable(frame[:3]) + cable(frame[3:])
    assert cable.sent > 500
    bodies = FrameReceiver().feed(out)
    assert [body for body in bodies if body[:2] == b"\x01\x02" and len(body) == 3] == [
        bytes([1, 2, number]) for number in range(20)
    ]


@pytest.mark.parametrize("way", Tamper.WAYS)
def test_every_third_frame_is_touched_and_the_others_are_not(way: str) -> None:
    frames = [encode_frame(bytes([7, number, 9, 9, 9])) for number in range(60)]
    tamper = Tamper(way)
    out = b"".join(tamper(frame) for frame in frames)
    assert tamper.touched >= 15
    whole = {body for body in FrameReceiver().feed(out)}
    untouched = [number for number in range(60) if bytes([7, number, 9, 9, 9]) in whole]
    assert len(untouched) >= (60 if way in ("duplicate",) else 38)
