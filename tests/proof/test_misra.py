"""The gate of static analysis: the firmware passes it, and it finds what it is there to find."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from firmware_bridge.mcu import build as mcu_build
from tests.proof import misra

pytestmark = pytest.mark.timeout(900)  # a minute of processor time, and CI shares its cores

_PLANT = re.compile(r"/\* plant (?P<rule>[\w.]+) \*/")


@pytest.fixture(scope="module")
def found() -> list[misra.Finding]:
    return misra.findings()


def test_every_finding_is_justified_and_every_justification_is_needed(found: list[misra.Finding]) -> None:
    assert misra.judge(found, misra.deviations()) == []


def test_the_analyzer_of_gcc_finds_nothing_in_the_core() -> None:
    assert misra.analyzer() == []


def test_every_source_that_runs_on_a_microcontroller_is_checked() -> None:
    checked = {source for program in misra.programs().values() for source in program.sources}
    there = {str(path.relative_to(mcu_build.HERE)) for path in mcu_build.HERE.rglob("*.c")}
    assert {source for source in there - checked if not source.startswith(("ports/host/", "profile/"))} == set()
    assert checked <= there


def test_a_reason_stands_behind_every_deviation() -> None:
    table = misra.deviations()
    assert all(len(entry.reason) > 30 for entry in table)
    assert {entry.category for entry in table} == {"required", "advisory", "cppcheck"}
    assert {entry.rule for entry in table} & misra.MANDATORY == set()
    # Only an advisory rule that is not followed at all is not counted; a required one is deviated from file by file.
    assert [e.rule for e in table if (e.count is None) != ("*" in "".join(e.where))] == []
    assert [e.rule for e in table if e.category != "advisory" and e.count is None] == []


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[misra.Finding], list[tuple[str, int]]]:
    """What is found when violations stand among the sources of the core; and which rules are broken in which lines."""
    root = tmp_path_factory.mktemp("plants")
    misra.copy_sources(root)
    text = (Path(__file__).parent / "misra_plants.c").read_text()
    (root / "core" / "planted.c").write_text(text)
    lines = [
        (match["rule"], number + line.startswith("/*"))
        for number, line in enumerate(text.splitlines(), 1)
        for match in _PLANT.finditer(line)
    ]
    program = misra.Program(("core/ew_states.c", "core/planted.c"), ("core",), ("EW_BUILD_ID=1u",))
    return misra.cppcheck(root, program), lines


def test_a_planted_violation_of_every_rule_is_found_in_its_line(
    planted: tuple[list[misra.Finding], list[tuple[str, int]]],
) -> None:
    seen = {(finding.rule, finding.line) for finding in planted[0] if finding.file == "core/planted.c"}
    assert len(planted[1]) > 60
    assert [plant for plant in planted[1] if plant not in seen] == []


def test_no_deviation_hides_a_planted_violation_of_a_required_rule(
    planted: tuple[list[misra.Finding], list[tuple[str, int]]],
) -> None:
    table = misra.deviations()
    wrong = "\n".join(misra.judge(planted[0], table))
    advised = {entry.rule for entry in table if entry.category == "advisory"}
    assert [p for p in planted[1] if p[0] not in advised and f"core/planted.c:{p[1]}: {p[0]}:" not in wrong] == []


def test_a_justification_that_nothing_needs_and_one_too_few_are_both_named() -> None:
    finding = misra.Finding("10.8", "core/a.c", 3, "x")
    right = misra.Deviation("10.8", ("core/a.c",), "required", "because", 1)
    assert misra.judge([finding], [right]) == []
    assert misra.judge([], [right]) == ["misra.toml: rule 10.8 in core/a.c: 1 said, 0 found"]
    assert misra.judge([finding, misra.Finding("10.8", "core/a.c", 4, "y")], [right]) != []
    assert misra.judge([misra.Finding("10.8", "core/b.c", 3, "x")], [right])[0].startswith("core/b.c:3: 10.8")
    mandatory = misra.Deviation("17.3", ("core/a.c",), "required", "because", 1)
    assert misra.judge([misra.Finding("17.3", "core/a.c", 1, "f();")], [mandatory])[0].startswith("core/a.c:1: 17.3")
