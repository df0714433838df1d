"""The wheel holds everything that a robot needs, and nothing that only a datacentre or a test does."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.repo.tracked import ROOT, tracked

TRACKED = tracked()


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The paths inside a wheel built from a copy of what is tracked."""
    copy = tmp_path_factory.mktemp("wheel")
    for name in TRACKED:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "bdist_wheel"], cwd=copy, check=True, capture_output=True, timeout=170
    )
    (wheel,) = (copy / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_compiled_kernels(names: set[str]) -> None:
    for module in ("edge_wam/kernels/_cpu.", "firmware_bridge/host/_knots."):
        assert any(name.startswith(module) and name.endswith(".so") for name in names)
    assert ("edge_wam/kernels/edge_wam_kernels.fatbin" in names) == (shutil.which("nvcc") is not None)


def test_the_wheel_holds_the_source_of_the_firmware(names: set[str]) -> None:
    code = {".c", ".h", ".S", ".s", ".ld"}
    needed = {name for name in TRACKED if name.startswith("firmware_bridge/mcu/") and Path(name).suffix in code}
    assert needed
    assert needed <= names


def test_the_wheel_holds_the_data_of_its_packages(names: set[str]) -> None:
    """Keys, type information, page templates: whatever lies beside the Python of a package."""
    packages = ("edge_wam/", "firmware_bridge/host/", "firmware_bridge/protocol/")
    assert {name for name in TRACKED if name.startswith(packages)} <= names


def test_the_wheel_holds_no_test(names: set[str]) -> None:
    assert not [name for name in names if name.startswith("tests/")]
