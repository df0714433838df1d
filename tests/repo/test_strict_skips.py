"""A test that did not run must not look like a test that passed."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
MARKERS = "[pytest]\nmarkers =\n    gpu: g\n    jetson: j\n    board: b\n"


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """An empty suite under the project's own conftest."""
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makefile(".ini", pytest=MARKERS)
    return pytester


def test_a_skip_for_a_missing_tool_is_an_error_when_strict(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\ndef test_tool():\n    pytest.skip('no qemu')\n")
    suite.runpytest_inprocess().assert_outcomes(skipped=1)
    strict = suite.runpytest_inprocess("--strict-skips")
    strict.assert_outcomes(failed=1)
    strict.stdout.fnmatch_lines(["*--strict-skips:*test_tool was skipped:*no qemu*"])


def test_a_skipped_module_is_an_error_when_strict(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\npytest.importorskip('no_such_package')\ndef test_it(): pass\n")
    assert suite.runpytest_inprocess().ret == pytest.ExitCode.NO_TESTS_COLLECTED
    strict = suite.runpytest_inprocess("--strict-skips")
    strict.assert_outcomes(errors=1)


@pytest.mark.parametrize(("marker", "file"), [("board", ""), ("jetson", "/etc/nv_tegra_release")])
def test_missing_hardware_is_allowed_and_listed(suite: pytest.Pytester, marker: str, file: str) -> None:
    if file and Path(file).exists():
        return  # the hardware is here, so nothing is left out
    suite.makepyfile(f"import pytest\n@pytest.mark.{marker}\ndef test_hardware():\n    assert False\n")
    strict = suite.runpytest_inprocess("--strict-skips")
    strict.assert_outcomes(skipped=1)
    strict.stdout.fnmatch_lines(["*not run for want of hardware*", f"*test_hardware*{marker}:*"])


def test_hardware_that_is_there_is_tested(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n@pytest.mark.board\ndef test_hardware():\n    pass\n")
    suite.runpytest_inprocess("--strict-skips", "--board", "/dev/ttyACM0").assert_outcomes(passed=1)


def test_a_skip_inside_a_hardware_test_is_still_an_error(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n@pytest.mark.board\ndef test_hardware():\n    pytest.skip('no tool')\n")
    suite.runpytest_inprocess("--strict-skips", "--board", "/dev/ttyACM0").assert_outcomes(failed=1)


def test_an_expected_failure_is_not_a_skip(suite: pytest.Pytester) -> None:
    suite.makepyfile("import pytest\n@pytest.mark.xfail(strict=True)\ndef test_known():\n    assert False\n")
    suite.runpytest_inprocess("--strict-skips").assert_outcomes(xfailed=1)
