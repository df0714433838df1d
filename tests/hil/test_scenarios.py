"""Every scenario that may run in lockstep does, once: physics, firmware and host in simulated time, to the tick."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_wam.embodiment import load_embodiment
from edge_wam.errors import ConfigError
from edge_wam.hil.evidence import Evidence
from edge_wam.hil.injections import INJECTIONS
from edge_wam.hil.judge import Verdict, judge
from edge_wam.hil.lockstep import LockstepBench
from edge_wam.hil.scenario import load_scenario, parse_scenario

FOLDER = Path(__file__).parent / "scenarios"
FILES = sorted(FOLDER.glob("*.toml"))
LOCKSTEP = [path for path in FILES if "lockstep" in load_scenario(path).targets]


def run(path: Path) -> tuple[Verdict, Evidence]:
    scenario = load_scenario(path)
    evidence = LockstepBench(scenario).run()
    return judge(scenario, load_embodiment(scenario.robot), evidence), evidence


@pytest.mark.parametrize("path", LOCKSTEP, ids=lambda path: path.stem)
def test_in_lockstep(path: Path) -> None:
    verdict, _ = run(path)
    assert verdict.good, "\n".join(
        f"{'ok ' if finding.good else 'BAD'} {finding.check}: {finding.seen}" for finding in verdict.findings
    )


def test_two_runs_are_the_same_to_the_last_order() -> None:
    first, second = (run(FOLDER / "host-killed.toml")[1] for _ in range(2))
    assert (first.orders[0].setpoint == second.orders[0].setpoint).all()
    assert (first.joint == second.joint).all()


def test_every_injection_is_used_by_a_scenario() -> None:
    used = {one.kind for path in FILES for one in load_scenario(path).inject}
    assert used == set(INJECTIONS)


def test_no_scenario_claims_a_target_on_which_its_injections_cannot_be_made() -> None:
    for path in FILES:
        scenario = load_scenario(path)
        for target in scenario.targets:
            if target != "board":
                assert scenario.impossible(target) == [], path.name


TEXT = (FOLDER / "host-killed.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('kind = "host_kill"', 'kind = "host_kil"', "did you mean 'host_kill'"),
        ("at_ms = 1000", "at_msec = 1000", "did you mean 'at_ms'"),
        ('kind = "host_kill"', 'kind = "host_kill"\njoint = 1', "takes no joint"),
        ('kind = "host_kill"', 'kind = "encoder_stuck"', "needs joint"),
        ('ends = "DISARMED"', 'ends = "DISARMD"', "did you mean 'DISARMED'"),
        ('until = "stop:HOST_SILENT"', 'until = "stop:HOST_SILNT"', "HOST_SILENT"),
        ('after = "last_heartbeat"', 'after = "heartbeat"', "is none of"),
        ("at_ms = 1000", "at_ms = 1e9", "less than or equal"),
        ("at_ms = 1000", "at_ms = 100000", "injected after the end"),
        ("at_ms = 1000", "at_ms = nan", "finite"),
        ('"lockstep"', '"lockstop"', "targets"),
        ("schema_version = 1", "schema_version = 2", "schema_version"),
        ("stands_still_after_ms = 250", "counted = {rx_worse = 1}", "no field of STATS"),
        ("0.5, -0.3, 1.1, 0.5, 0.3, 0.3", "0.5, -0.3", "differ in their number"),
        ("[motion]", "[motion", "not valid TOML"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_scenario_is_refused_by_name(old: str, new: str, complaint: str) -> None:
    assert old in TEXT
    with pytest.raises(ConfigError, match=complaint):
        parse_scenario(TEXT.replace(old, new, 1), FOLDER)


def test_an_expectation_that_is_not_met_is_a_bad_finding_not_an_error() -> None:
    scenario = parse_scenario(
        TEXT.replace('ends = "DISARMED"', 'ends = "RUN"').replace("within_ms = 102", "within_ms = 99", 1)
        .replace("on_plan_rad = 0.006", "on_plan_rad = 0.0001"),
        FOLDER,
    )  # fmt: skip
    verdict = judge(scenario, load_embodiment(scenario.robot), LockstepBench(scenario).run())
    bad = [finding.check for finding in verdict.findings if not finding.good]
    assert not verdict.good
    assert len(bad) == 3 and any("ends in RUN" in check for check in bad)
