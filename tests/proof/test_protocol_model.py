"""The protocol between host and MCU, checked by spin in every order of events: tests/proof/spin/link.pml.

Each claim also stands against a protocol that lacks one rule, where spin must find the violation; a claim that nothing
can break says nothing.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

MODEL = Path(__file__).parent / "spin" / "link.pml"
SMALL = ("-DHOSTS=1", "-DLATCHES=1", "-DEPOCHS=1")


@dataclass(frozen=True)
class Verdict:
    """What the verifier said. ``violated`` is the first claim that does not hold, "" if all do."""

    states: int
    violated: str


def check(folder: Path, *defines: str, claim: str = "") -> Verdict:
    """Search all states of the model; with ``claim`` (a named LTL formula) for cycles that break it."""

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=150)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("spin", *defines, "-a", str(MODEL))
    # Without -DSAFETY the verifier looks for cycles; -DNFAIR is room for the processes that must all get their turn.
    kind = ("-DNFAIR=3",) if claim else ("-DSAFETY", "-DNOCLAIM")
    run("gcc", "-O2", "-w", "-DMEMLIM=1500", *kind, "-o", "pan", "pan.c")
    said = run("./pan", "-m200000", *(("-a", "-f", "-N", claim) if claim else ()))
    states = re.search(r"(\d+) states, stored", said)
    assert states is not None, said
    assert "max search depth too small" not in said and "out of memory" not in said, said
    violated = re.search(r"pan:1: (.*?) \(at depth", said)
    assert (violated is None) == ("errors: 0" in said), said
    return Verdict(int(states.group(1)), violated.group(1) if violated else "")


@pytest.mark.parametrize(
    "lives",
    [("-DHOSTS=1", "-DEPOCHS=1"), ("-DBOOTS=1", "-DHOSTS=1")],
    ids=["the MCU is reset", "the operator arms twice"],
)
def test_no_order_of_events_breaks_a_claim(tmp_path: Path, lives: tuple[str, ...]) -> None:
    """No deadlock; no stale chunk; an emergency stop wins until it is cleared; never armed without the operator.

    Small cases; docs/protocol-model.md has those of a longer run.
    """
    verdict = check(tmp_path, "-DLATCHES=1", *lives)
    assert verdict.violated == ""
    assert verdict.states > 100_000, "hardly anything was looked at"


@pytest.mark.parametrize(
    ("missing", "claim"),
    [
        ("SESSION", "assertion violated g"),
        ("EPOCH", "assertion violated g"),
        ("ORDER", "assertion violated (n>chunk)"),
        ("NONCE", "assertion violated g"),
        ("LATCH", "assertion violated  !(must_stand)"),
        ("ESTOP", "assertion violated (latched||(latches==2))"),
        ("OPERATOR", "assertion violated pressed"),
    ],
)
def test_without_any_one_rule_a_claim_breaks(tmp_path: Path, missing: str, claim: str) -> None:
    epochs = 2 if missing == "EPOCH" else 1  # only an epoch needs another one to be taken for it
    assert check(tmp_path, "-DHOSTS=1", f"-DEPOCHS={epochs}", f"-DBREAK_{missing}").violated == claim


@pytest.mark.parametrize("claim", ["found_again", "stop_arrives"])
def test_what_must_happen_in_the_end_happens(tmp_path: Path, claim: str) -> None:
    """Host and MCU find each other after resets; a pressed emergency stop arrives."""
    assert check(tmp_path, "-DLIVE", "-DMISHAPS=1", *SMALL, claim=claim).violated == ""


@pytest.mark.parametrize(("missing", "claim"), [("RESYNC", "found_again"), ("RESEND", "stop_arrives")])
def test_without_repeating_it_does_not(tmp_path: Path, missing: str, claim: str) -> None:
    assert check(tmp_path, "-DLIVE", "-DMISHAPS=1", *SMALL, f"-DBREAK_{missing}", claim=claim).violated
