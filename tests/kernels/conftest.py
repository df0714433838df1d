"""Every backend that can run here, one at a time: numpy, Cython, the CUDA bodies on the CPU, and a real GPU."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from edge_wam import kernels
from edge_wam.kernels import Backend, cuda

ROOT = Path(__file__).parents[2]
FATBIN_MAGIC = bytes.fromhex("50ed55ba")


@pytest.fixture(scope="session")
def emulated_cuda(tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """The CUDA backend's own Python over a stand-in for the driver, with the kernels' own bodies."""
    folder = tmp_path_factory.mktemp("cuda")
    library = folder / "libfakecuda.so"
    flags = ["-O2", "-std=c++17", "-ffp-contract=off", "-Wall", "-Werror", "-shared", "-fPIC"]
    source = Path(__file__).with_name("fake_driver.cpp")
    subprocess.run(
        ["g++", *flags, f"-I{ROOT / 'kernels/cuda'}", str(source), "-o", str(library)], check=True, capture_output=True
    )
    fatbin = folder / "kernels.fatbin"
    fatbin.write_bytes(FATBIN_MAGIC + bytes(64))
    return cuda.open_backend(str(library), fatbin)


@pytest.fixture(
    params=["numpy", "cython", "emulated-cuda", pytest.param("cuda", marks=pytest.mark.gpu)], scope="session"
)
def every_backend(request: pytest.FixtureRequest) -> Backend:
    """One backend."""
    if request.param == "emulated-cuda":
        backend: Backend = request.getfixturevalue("emulated_cuda")
        return backend
    return kernels._open(request.param)


@pytest.fixture
def backend(every_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> Backend:
    """``edge_wam.kernels`` dispatches to this backend for one test."""
    monkeypatch.setattr(kernels, "_active", every_backend)
    return every_backend
