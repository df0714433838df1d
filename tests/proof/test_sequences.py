"""The core's decoders and whole command sequences under sanitizers, with observers who believe nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.proof import fuzzing


def _storm(name: str, count: int, folder: Path) -> int:
    """The corpus, then changes of it: what the programs have reached."""
    harness = fuzzing.HARNESSES[name]
    program = fuzzing.build(harness, folder / "storm", fuzzing.SANITIZED, "storm.c")
    run = fuzzing.storm(harness, program, 20_261_123, count, folder)
    assert run.returncode == 0, run.stderr[-2000:]
    return [int(n) for n in re.findall(r"sequences, (\d+) ", run.stdout)][-1]


def test_no_sequence_of_commands_breaks_a_limit_a_latch_or_the_language(tmp_path: Path) -> None:
    assert _storm("sequence", 4_000, tmp_path) > 10_000, "ticks in RUN: the arm hardly moved, the test tests nothing"


@pytest.mark.parametrize("name", ["frame", "can"])
def test_no_bytes_from_a_wire_leave_a_buffer_or_become_what_was_not_sent(name: str, tmp_path: Path) -> None:
    assert _storm(name, 30_000, tmp_path) > 10_000, "hardly anything was taken: the test tests nothing"
