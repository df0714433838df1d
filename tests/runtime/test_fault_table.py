"""The document of the host's faults is what the table says, and the numbers never meet the microcontroller's."""

from __future__ import annotations

from pathlib import Path

from edge_wam.faults import FAULTS, markdown
from firmware_bridge.host.messages import Fault as McuFault

DOCUMENT = Path(__file__).parents[2] / "docs" / "faults.md"


def test_the_document_is_generated_from_the_table() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == markdown(), "run: python -m edge_wam.faults docs/faults.md"


def test_host_numbers_start_at_1000_and_the_microcontrollers_end_before() -> None:
    assert min(FAULTS) >= 1000 > max(McuFault)
