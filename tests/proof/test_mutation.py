"""Small mistakes in the core are noticed by its tests, and what is no mistake is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proof.mutants import mutants
from tests.proof.mutation import CORE, FIRST, explained

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)
def test_mistakes_in_the_state_table_and_in_framing_are_noticed() -> None:
    """All of them: ``python -m tests.proof.mutation``, docs/measured/mutation.md."""
    call = [sys.executable, "-m", "tests.proof.mutation", "--sample", "4", "ew_states.c", "ew_frame.c"]
    run = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout, run.stderr
    for file, verdicts in json.loads(run.stdout.splitlines()[-1]).items():
        assert verdicts.pop("no mutant") == "survived", f"the tests of {file} fail without a mistake"
        assert len(verdicts) >= 3 and set(verdicts.values()) <= {"killed", "hangs"}, (file, verdicts)
    assert run.returncode == 0


def test_what_is_explained_is_a_mutant_of_the_source_as_it_is() -> None:
    names = {(file, mutant.name) for file in FIRST for mutant in mutants(file, (CORE / file).read_text())}
    assert set(explained()) <= names
