"""The same scenario files on the emulated microcontroller, in counted time: what lockstep cannot show.

Instruction counting makes the guest's time its own: a busy machine delays these tests, it does not change them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_wam.hil.runner import play

FOLDER = Path(__file__).parent / "scenarios"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("name", "reaction", "ms"),
    # Of an overflow the first check that sees it may come after one more feed, a tick later.
    [("mcu-hang-shipped", "last_feed -> reset", 20.0), ("stack-overflow", "injection -> drive_off", 1.0)],
)
def test_the_shipped_watchdog_and_stack_check_act_in_their_time(name: str, reaction: str, ms: float) -> None:
    outcome = play(FOLDER / f"{name}.toml", "mps2-an386-icount", 1)
    findings = outcome.verdict.findings if outcome.verdict is not None else []
    assert outcome.word == "good", (outcome.why, [f"{f.check}: {f.seen}" for f in findings if not f.good])
    assert outcome.verdict is not None
    assert outcome.verdict.reactions[reaction] <= ms * 1.02 + (1.0 if name == "stack-overflow" else 0.0)
