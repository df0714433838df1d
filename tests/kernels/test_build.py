"""What ``setup.py`` leaves in ``edge_wam/kernels``."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from edge_wam import kernels
from edge_wam.kernels import cuda
from tests.kernels.conftest import FATBIN_MAGIC, ROOT

SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "kernels", "edge_wam", "firmware_bridge", "distill")


def test_the_compiled_kernels_are_the_active_ones() -> None:
    assert kernels.backend() == "cython"


def test_the_fatbin_is_as_new_as_its_sources_where_nvcc_is() -> None:
    if shutil.which("nvcc") is None:
        assert not cuda.FATBIN.exists()
        return
    assert cuda.FATBIN.read_bytes()[:4] == FATBIN_MAGIC
    assert cuda.FATBIN.stat().st_mtime >= max(path.stat().st_mtime for path in (ROOT / "kernels/cuda").iterdir())


def test_the_fatbin_serves_orin_hopper_thor_and_whatever_comes_after() -> None:
    """Machine code for each, and PTX for the oldest, which a driver compiles for any newer GPU."""
    if shutil.which("nvcc") is None:
        return  # the test above holds that there is none
    data = cuda.FATBIN.read_bytes()
    _, _, offset, _ = struct.unpack_from("<IHHQ", data)
    entries = set()
    while offset < len(data):
        kind, _, header, size = struct.unpack_from("<HHIQ", data, offset)
        entries.add((("ptx", "sm")[kind - 1], struct.unpack_from("<I", data, offset + 28)[0]))
        offset += header + size
    assert entries == {("sm", 87), ("sm", 90), ("sm", 110), ("ptx", 87)}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what ``setup.py`` reads, without anything built."""
    ignore = shutil.ignore_patterns("*.so", "*.fatbin", "__pycache__")
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=ignore)
        else:
            shutil.copy(source, tmp_path / name)
    return tmp_path


@pytest.fixture
def tools(tmp_path: Path) -> Path:
    """A PATH with a C compiler, also under the name that this Python was built with, and without nvcc."""
    folder = tmp_path / "tools"
    folder.mkdir()
    configured = str(sysconfig.get_config_var("CC")).split()[0]  # Debian: x86_64-linux-gnu-gcc
    for tool in sorted({"gcc", "cc", "as", "ld", configured}):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    return folder


def build(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=folder,
        env={"PATH": path, "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_without_nvcc_the_build_succeeds_and_a_stale_fatbin_is_removed(checkout: Path, tools: Path) -> None:
    stale = checkout / "edge_wam/kernels/edge_wam_kernels.fatbin"
    stale.write_bytes(FATBIN_MAGIC)
    os.utime(stale, (1, 1))
    result = build(checkout, str(tools))
    assert "nvcc not found" in result.stderr
    assert not stale.exists()
    assert list((checkout / "edge_wam/kernels").glob("_cpu*.so"))


def test_an_nvcc_that_fails_leaves_a_working_package(checkout: Path, tools: Path) -> None:
    broken = tools / "nvcc"
    broken.write_text("#!/bin/sh\necho broken toolkit >&2\nexit 1\n")
    broken.chmod(0o755)
    result = build(checkout, str(tools) + ":/usr/bin:/bin")
    assert "broken toolkit" in result.stderr
    assert not (checkout / "edge_wam/kernels/edge_wam_kernels.fatbin").exists()
    assert list((checkout / "edge_wam/kernels").glob("_cpu*.so"))
