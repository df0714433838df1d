"""Builds the Cython extensions (the kernels of ``edge_wam``, the chunk encoder of ``firmware_bridge``) always, the CUDA
fatbin where nvcc is.

A machine without nvcc or without a GPU gets a working package: the fatbin is data, loaded through the driver when
one is there. A fatbin that is older than its sources is removed, never shipped.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CUDA_FOLDER = Path("kernels/cuda")
FATBIN = Path("edge_wam/kernels/edge_wam_kernels.fatbin")
# Orin (87), Hopper (90: where the kernels are developed), Thor (110). Anything else of 8.7 or newer compiles the PTX.
ARCHITECTURES = (87, 90, 110)

# -ffp-contract=off: a fused multiply-add rounds once where numpy rounds twice, and the kernels equal numpy bit for bit.
C_FLAGS = ["-O3", "-g0", "-ffp-contract=off"]
NVCC_FLAGS = ["-O3", "-std=c++17", "--fmad=false", "--fatbin"]


class BuildKernels(build_ext):
    """``build_ext`` followed by nvcc."""

    def run(self) -> None:
        super().run()
        target = FATBIN if self.inplace else Path(self.build_lib) / FATBIN
        sources = sorted(CUDA_FOLDER.iterdir())
        if target.exists():
            newest = max(path.stat().st_mtime for path in (*sources, Path(__file__)))
            if self.inplace and target.stat().st_mtime >= newest:
                return
            target.unlink()
        nvcc = shutil.which("nvcc")
        if nvcc is None:
            print("nvcc not found: the CUDA kernels are left out", file=sys.stderr)
            return
        try:
            self._compile(nvcc, target)
        except (OSError, subprocess.CalledProcessError) as error:
            target.unlink(missing_ok=True)
            detail = getattr(error, "stderr", "") or error
            print(f"nvcc failed: the CUDA kernels are left out\n{detail}", file=sys.stderr)

    @staticmethod
    def _compile(nvcc: str, target: Path) -> None:
        listed = subprocess.run([nvcc, "--list-gpu-arch"], check=True, capture_output=True, text=True).stdout.split()
        known = [arch for arch in ARCHITECTURES if f"compute_{arch}" in listed]
        if not known:
            raise OSError(f"{nvcc} knows none of the architectures {ARCHITECTURES}")
        codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in known]
        codes.append(f"-gencode=arch=compute_{known[0]},code=compute_{known[0]}")
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [nvcc, *NVCC_FLAGS, *codes, str(CUDA_FOLDER / "kernels.cu"), "-o", str(target)],
            check=True,
            capture_output=True,
            text=True,
        )


setup(
    cmdclass={"build_ext": BuildKernels},
    ext_modules=cythonize(
        [
            Extension(module, [f"kernels/cpu/{source}"], extra_compile_args=C_FLAGS, depends=["setup.py"])
            for module, source in (
                ("edge_wam.kernels._cpu", "_cpu.pyx"),
                ("firmware_bridge.host._knots", "_knots.pyx"),
            )
        ],
        language_level=3,
        build_dir="build/cython",
    ),
)
