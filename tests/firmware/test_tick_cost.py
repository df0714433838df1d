"""The tick stays affordable: instructions are counted in the emulator; a quarter more than the table says fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.errors import FirmwareError
from firmware_bridge.mcu import tick_cost
from firmware_bridge.mcu.profile.cycles import bounds, by_function, listing
from firmware_bridge.mcu.profile.windows import INTERRUPTS, Window, plugin_argument

LISTING = """
00000100 <f>:
 100:\tb510      \tpush\t{r4, lr}
 102:\t4b04      \tldr\tr3, [pc, #16]\t; (114 <f+0x14>)
 104:\tfb93 f0f1 \tsdiv\tr0, r3, r1
 108:\td1fc      \tbne.n\t104 <f+0x4>
 10a:\tf000 f805 \tbl\t118 <g>
 10e:\tbd10      \tpop\t{r4, pc}
 110:\te8bd 00f0 \tldmia.w\tsp!, {r4-r7}
 114:\t20000000 \t.word\t0x20000000

00000118 <g>:
 118:\t4770      \tbx\tlr

0000011a <Uart_Handler>:
 11a:\t4770      \tbx\tlr

0000011c <Reset_Handler>:
 11c:\te7fe      \tb.n\t11c <Reset_Handler>
"""
CODE = listing(LISTING)


def _stretch(*addresses: int) -> np.ndarray:
    return np.array(addresses, np.uint32)


def test_the_listing_is_read_without_its_constants() -> None:
    assert sorted(CODE) == [0x100, 0x102, 0x104, 0x108, 0x10A, 0x10E, 0x110, 0x118, 0x11A, 0x11C]
    assert (CODE[0x104].size, CODE[0x104].low, CODE[0x104].high) == (4, 2, 12)
    assert (CODE[0x100].low, CODE[0x110].low) == (3, 5)  # 1 + registers
    assert CODE[0x102].from_flash and CODE[0x118].function == "g"


def test_straight_code_costs_its_instructions_and_a_taken_branch_its_refill() -> None:
    straight = bounds(_stretch(0x100, 0x102), CODE)
    # high: 3 + 2 cycles, one line of 8 bytes and one constant at 4 wait states
    assert (straight.instructions, straight.low, straight.high) == (2, 4, 3 + 2 + 4 + 4)
    once = bounds(_stretch(0x104, 0x108), CODE)
    twice = bounds(_stretch(0x104, 0x108, 0x104, 0x108), CODE)
    assert twice.low - 2 * once.low == 1  # one branch taken: the refill
    assert twice.high > 2 * once.high - 4


def test_low_is_never_above_high_and_both_grow_with_the_code() -> None:
    whole = bounds(_stretch(0x100, 0x102, 0x104, 0x108, 0x10A, 0x118, 0x10E), CODE)
    assert whole.low <= whole.high and whole.us[0] == pytest.approx(whole.low / 170)
    assert bounds(_stretch(), CODE).high == 0


def test_instructions_are_told_by_function_most_first() -> None:
    assert by_function(_stretch(0x100, 0x10A, 0x118), CODE) == [("f", 2), ("g", 1)]


def test_a_window_ends_where_its_function_has_returned_or_begins_again(tmp_path: Path) -> None:
    folder = tmp_path
    windows = (Window("once", "g"), Window("turn", "g", again=True))
    argument = plugin_argument(folder / "p.so", folder / "out", windows, CODE)
    assert argument == f"{folder}/p.so,out={folder}/out,window=once:118:10e,window=turn:118:118,handler=11a"
    with pytest.raises(FirmwareError, match="no call of nobody"):
        plugin_argument(folder / "p.so", folder / "out", (Window("x", "nobody"),), CODE)


def test_code_without_wait_states_costs_no_fetches() -> None:
    stretch = _stretch(0x100, 0x102, 0x104, 0x108, 0x10A, 0x118, 0x10E)
    fast, mixed = (bounds(stretch, listing(LISTING, where)) for where in (range(0x100, 0x200), range(0x118, 0x200)))
    assert fast.high < mixed.high < bounds(stretch, CODE).high
    assert fast.low == mixed.low and fast.high == 3 + 2 + 12 + 1 + 1 + 1 + 3 + 3 * 2  # two branches taken
    assert {row.function for row in listing(LISTING, range(0x118, 0x11A)).values() if row.fast} == {"g"}


def test_no_part_of_a_turn_costs_a_quarter_more_than_the_table_says() -> None:
    found = tick_cost.measure(ticks=300)
    assert found.chunks > 0
    # A UART's interrupts come as fast as this machine hands over its bytes: they are counted, and count nowhere else.
    interrupts = {"Uart0_Handler", "Uart1_Handler", "SysTick_Handler", "receive_interrupt", "ring_put"}
    assert found.cost(INTERRUPTS).count > 100
    assert {function for function, _ in found.cost(INTERRUPTS).functions} & interrupts
    for cost in found.costs[:-1]:
        assert interrupts.isdisjoint(function for function, _ in cost.functions)
    for name, instructions in tick_cost.EXPECTED.items():
        cost = found.cost(name)
        assert cost.count > 0
        assert cost.worst.instructions <= instructions * 5 // 4, f"{name}: {cost.functions[:6]}"
        assert 0 < cost.p50 <= cost.p99 <= cost.worst.instructions
        assert sum(count for _, count in cost.functions) == cost.worst.instructions
        assert cost.worst.instructions <= cost.worst.low <= cost.worst.high
    # By the estimate that never spares the processor anything, a turn of an STM32G4 ends before the next tick is due.
    assert found.cost(tick_cost.TURN.name).worst.high < tick_cost.BUDGET_CYCLES
