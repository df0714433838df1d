"""Every line and every branch of the core is executed by the tests, or accounted for."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.firmware import coverage


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> coverage.Counted:
    found = coverage.run(tmp_path_factory.mktemp("counted"), coverage.TESTS)
    assert found is not None, "a test fails with counters"
    return found


@pytest.mark.timeout(1200)
def test_every_line_and_branch_of_the_core_is_executed_or_accounted_for(counted: coverage.Counted) -> None:
    accounted = tomllib.loads((Path(coverage.__file__).parent / "coverage.toml").read_text()).get("accounted", [])
    assert coverage.judge(counted, accounted) == []
    files = {path.name for path in coverage.CORE.glob("*.c")}
    assert {file for file, _ in counted.lines if file.endswith(".c")} == files, "a file without counters"


def test_what_was_not_executed_and_what_was_although_it_is_accounted_for_are_found(counted: coverage.Counted) -> None:
    line = min(key for key, branches in counted.branches.items() if key[0] == "ew_host.c" and branches)
    text = (coverage.CORE / line[0]).read_text().splitlines()[line[1] - 1].strip()
    half = coverage.Counted(counted.lines, {**counted.branches, line: [0, *counted.branches[line][1:]]})
    assert f"{line[0]}:{line[1]}: 1 branches never taken: {text}" in coverage.judge(half, [])
    none = coverage.Counted({**counted.lines, line: 0}, counted.branches)
    assert f"{line[0]}:{line[1]}: not executed: {text}" in coverage.judge(none, [])
    stale = {"file": line[0], "code": text, "reason": "none"}
    assert any("coverage.toml" in wrong for wrong in coverage.judge(counted, [stale]))
    assert not any(text in wrong for wrong in coverage.judge(none, [stale]))
