"""Skips are honest: a missing tool is an error in CI, missing hardware is listed by name at the end.

``--strict-skips`` turns every skip into a failure, except that of a test marked ``gpu``, ``jetson`` or ``board``
on a machine without that hardware. CI installs the tools, so a skip there means that something was not tested.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ("pytester",)  # for the tests of this file

# How long an example takes is decided by what else the machine does: no property depends on it.
settings.register_profile("unhurried", deadline=None)
if settings.get_current_profile_name() == "default":
    settings.load_profile("unhurried")


def _has_gpu(config: pytest.Config) -> bool:
    """The driver is installed and counts at least one device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _is_jetson(config: pytest.Config) -> bool:
    return Path("/etc/nv_tegra_release").exists()


def _has_board(config: pytest.Config) -> bool:
    return config.getoption("--board") is not None


HARDWARE: dict[str, tuple[Callable[[pytest.Config], bool], str]] = {
    "gpu": (_has_gpu, "no NVIDIA GPU with its driver here"),
    "jetson": (_is_jetson, "this is not a Jetson"),
    "board": (_has_board, "no microcontroller board: name its port with --board PORT"),
}
_left_out: pytest.StashKey[list[tuple[str, str]]] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="a skip for want of a tool is an error")
    parser.addoption("--board", metavar="PORT", help="serial port of a microcontroller board for tests marked board")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_left_out] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    there = {name: probe(config) for name, (probe, _) in HARDWARE.items()}
    for item in items:
        for name, (_, reason) in HARDWARE.items():
            if item.get_closest_marker(name) and not there[name]:
                item.user_properties.append(("hardware", f"{name}: {reason}"))
                item.add_marker(pytest.mark.skip(reason=reason))


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"--strict-skips: {report.nodeid} was skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not report.skipped or hasattr(report, "wasxfail"):
        return report
    hardware = dict(item.user_properties).get("hardware")
    if hardware is not None:
        item.config.stash[_left_out].append((report.nodeid, str(hardware)))
    elif item.config.getoption("--strict-skips"):
        _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and collector.config.getoption("--strict-skips"):
        _refuse(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash[_left_out]
    if left_out:
        terminalreporter.section("not run for want of hardware")
        for nodeid, reason in left_out:
            terminalreporter.line(f"{nodeid}  ({reason})")
