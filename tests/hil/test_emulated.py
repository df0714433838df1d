"""The same scenario files on the emulated microcontroller, in counted time: what lockstep cannot show.

Instruction counting makes the guest's time its own: a busy machine delays these tests, it does not change them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_wam.hil.runner import play

FOLDER = Path(__file__).parent / "scenarios"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["mcu-hang-shipped", "stack-overflow"])
def test_the_shipped_watchdog_resets_20_ms_after_its_last_feed(name: str) -> None:
    outcome = play(FOLDER / f"{name}.toml", "mps2-an386-icount", 1)
    findings = outcome.verdict.findings if outcome.verdict is not None else []
    assert outcome.word == "good", (outcome.why, [f"{f.check}: {f.seen}" for f in findings if not f.good])
    assert outcome.verdict is not None
    assert outcome.verdict.reactions["last_feed -> reset"] == pytest.approx(20.0, rel=0.02)
