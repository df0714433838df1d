"""Random hosts against the core, under the address and undefined-behaviour sanitizers of the compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_bridge.mcu import build as mcu_build

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "fuzz_core"
    core = mcu_build.HERE / "core"
    compiler = shutil.which("cc")
    assert compiler is not None
    subprocess.run(
        [
            compiler, "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
            f"-I{core}", *map(str, sorted(core.glob("*.c"))), str(HERE / "fuzz_core.c"), "-o", str(out),
        ],
        check=True,
    )  # fmt: skip
    return out


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_random_host_breaks_a_limit_or_the_language(fuzzer: Path, seed: int) -> None:
    run = subprocess.run([str(fuzzer), str(seed), "600"], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout.split()[0]) > 50_000, "the arm hardly moved: the test tests nothing"
