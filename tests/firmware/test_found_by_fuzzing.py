"""What the fuzzer has found, one test each (tests/proof/fuzz)."""

from __future__ import annotations

from firmware_bridge.host import messages as m
from firmware_bridge.host.messages import McuState
from tests.firmware.mcu import Mcu

OTHER = (-400_000, 400_000, 700_000, 9_000_000, 250_000, 80_000, 20)


def test_a_table_that_is_replaced_between_two_ticks_is_not_taken_for_damaged_memory() -> None:
    mcu = Mcu()
    mcu.heartbeat_on = True
    mcu.tick(21)
    for ticks in range(1, 8):  # wherever the memory check's pass over the old table was
        mcu.axes = [OTHER] * 2 if len(mcu.axes) == 1 else [OTHER]
        mcu.position = [0] * len(mcu.axes)
        mcu.ask(m.Disarm())
        mcu.configure()
        mcu.tick(ticks)
        assert mcu.state == McuState.CONFIGURED
    mcu.tick(50)
    assert mcu.state == McuState.CONFIGURED and mcu.report().fault == m.Fault.NONE
