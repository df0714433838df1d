"""Beyond the numbers that the checker can multiply, the contract of the way of braking is tried at every speed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_bridge.mcu.build import HERE
from tests.proof.limit_tables import shipped

SOURCE = Path(__file__).with_name("braking_way.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is in packages.txt"
    path = tmp_path_factory.mktemp("way") / "braking_way"
    core = [str(source) for source in sorted((HERE / "core").glob("*.c"))]
    subprocess.run(
        [compiler, "-std=c11", "-O2", "-Wall", "-Werror", f"-I{HERE / 'core'}", *core, str(SOURCE), "-o", str(path)],
        check=True,
    )
    return path


def test_the_way_of_braking_keeps_its_contract_at_every_speed_of_every_shipped_table(program: Path) -> None:
    tables = {(t.limits.velocity_max, t.limits.acceleration_max, t.limits.jerk_max) for t in shipped()}
    assert len(tables) >= 5
    for table in sorted(tables):
        ran = subprocess.run([program, *map(str, table)], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout
        assert int(ran.stdout.split()[0]) > 1000
