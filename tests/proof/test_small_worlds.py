"""Stops and steps of the limiter in every state of small worlds; no proof tells how stops of all sizes end."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_bridge.mcu.build import HERE

SOURCE = Path(__file__).with_name("small_worlds.c")
# A mistake each, and what the program says of it.
MISTAKES = {
    "a stop may end beyond the last position": (
        "ew_limiter.c", "((step->position + path.high) <= limits->position_max)", "true"),
    "a stop may pass the velocity limit": ("ew_limiter.c", "(ew_magnitude(path.turn) <= fastest)", "true"),
    "a step without its stop": ("ew_limiter.c", "axis->stop = state->stop;", ";"),
    "a step too much of a whole jerk": ("ew_stop.c", "stop->full = (int32_t)full;", "stop->full = (int32_t)full + 1;"),
    "no tick at zero": ("ew_stop.c", "stop->hold = (turn == 0u) ? 1 : stop->hold;", ";"),
    "the rest is forgotten": ("ew_stop.c", "next = -stop->side * stop->rest;", "next = 0;"),
}  # fmt: skip


def tried(folder: Path, core: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    compiler = shutil.which("cc")
    assert compiler is not None, "a C compiler is in packages.txt"
    program = folder / "small_worlds"
    subprocess.run([compiler, "-std=c11", "-O2", "-w", *flags, f"-I{core}", str(SOURCE), str(core / "ew_stop.c"), "-o",
                    str(program)], check=True)  # fmt: skip
    return subprocess.run([program], capture_output=True, text=True, check=False)


def test_in_small_worlds_every_reachable_state_has_its_stop_and_every_step_is_within_the_limits(tmp_path: Path) -> None:
    ran = tried(tmp_path, HERE / "core")
    assert ran.returncode == 0, ran.stdout
    states, steps, worlds, wrong = map(int, re.findall(r"\d+", ran.stdout))
    assert (states > 300_000, steps > 5_000_000, worlds > 400, wrong) == (True, True, True, 0), ran.stdout


def test_a_bound_that_is_one_tighter_does_not_hold(tmp_path: Path) -> None:
    ran = tried(tmp_path, HERE / "core", "-DTIGHT=1")
    assert ran.returncode == 1 and "position" in ran.stdout


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_found(mistake: str, tmp_path: Path) -> None:
    file, right, wrong = MISTAKES[mistake]
    core = tmp_path / "core"
    shutil.copytree(HERE / "core", core)
    text = (core / file).read_text()
    assert text.count(right) == 1
    (core / file).write_text(text.replace(right, wrong))
    ran = tried(tmp_path, core)
    assert ran.returncode == 1 and "position" in ran.stdout, ran.stdout
