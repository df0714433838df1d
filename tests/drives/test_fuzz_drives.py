"""Random drives against the drivers, under sanitizers: ``fuzz_drives.c`` says what must hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from firmware_bridge.mcu.build import HERE as MCU

SOURCES = ("ew_drives", "ew_drive_sim", "ew_drive_feetech", "ew_drive_mit", "ew_drive_units", "ew_feetech")
ROUNDS = 400


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "fuzz_drives"
    subprocess.run(
        ["cc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=all", f"-I{MCU / 'core'}", *(str(MCU / "core" / f"{name}.c") for name in SOURCES),
         str(Path(__file__).with_name("fuzz_drives.c")), "-o", str(path)],
        check=True,
    )  # fmt: skip
    return path


@pytest.mark.parametrize("seed", [1, 2])
def test_no_random_drive_is_powered_without_the_enable_or_breaks_the_order(program: Path, seed: int) -> None:
    done = subprocess.run([str(program), str(seed), str(ROUNDS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 1000
