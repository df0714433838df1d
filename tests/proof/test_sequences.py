"""Whole command sequences against the core, under sanitizers, with an observer who believes nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.proof import fuzzing


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("storm")
    return fuzzing.build(folder / "storm", fuzzing.SANITIZED, "fuzz_sequence.c", "watch.c", "storm.c")


def test_no_sequence_of_commands_breaks_a_limit_a_latch_or_the_language(program: Path, tmp_path: Path) -> None:
    """The corpus, then changes of it."""
    run = fuzzing.storm(program, 20_261_123, 4_000, tmp_path)
    assert run.returncode == 0, run.stderr[-2000:]
    counts = [int(n) for n in re.findall(r"(\d+) ticks in RUN", run.stdout)]
    assert counts[-1] > 10_000, "the arm hardly moved: the test tests nothing"
