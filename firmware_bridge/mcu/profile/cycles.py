"""Instructions -> cycles of a Cortex-M4, bounded both ways, because no emulator models its pipeline or a flash.

Instruction timings: ARM DDI 0439 (Cortex-M4 r0p1 technical reference), table 3-1. P is the pipeline refill of a taken
branch, 1..3 cycles. The flash: STM32G4 at 170 MHz needs 4 wait states (RM0440, table of wait states, range 1 boost) and
reads 64 bits at a time.

* Low: every load pipelined behind its neighbour (1 cycle), P = 1, divisions in 2 cycles, flash never waited for (the
  code is in the CCM SRAM or the ART accelerator always hits).
* High: no load pipelined (2 cycles), P = 3, divisions in 12 cycles, and an accelerator that never hits: each 8 bytes of
  code, each branch target and each constant in the code costs its 4 wait states; code in CCM has none.

The truth on silicon lies between; what a bench must measure is listed in docs/not-verified.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

U32 = NDArray[np.uint32]
CLOCK_HZ = 170_000_000
WAIT_STATES = 4
FETCH_BYTES = 8
REFILL_LOW, REFILL_HIGH = 1, 3


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction of the listing, with its cycles when no branch is taken."""

    address: int
    size: int
    mnemonic: str
    operands: str
    function: str
    low: int
    high: int
    from_flash: bool
    """It loads a constant that lies in the code."""
    fast: bool = False
    """It lies in a memory without wait states."""


@dataclass(frozen=True, slots=True)
class CycleBounds:
    """Cycles of one stretch of instructions."""

    instructions: int
    low: int
    high: int

    @property
    def us(self) -> tuple[float, float]:
        """Both bounds in microseconds at 170 MHz."""
        return self.low / CLOCK_HZ * 1e6, self.high / CLOCK_HZ * 1e6


_LINE = re.compile(r"^\s*([0-9a-f]+):\t([0-9a-f ]+?)\s*\t(\S+)(?:\t(.*))?$")
_SYMBOL = re.compile(r"^[0-9a-f]+ <([^>]+)>:$")


def _registers(operands: str) -> int:
    """How many registers a list like {r4, r5-r7, lr} names."""
    inside = operands[operands.index("{") + 1 : operands.index("}")]
    count = 0
    for part in inside.split(","):
        low, _, high = part.strip().partition("-")
        count += int(high[1:]) - int(low[1:]) + 1 if high else 1
    return count


_TIMING: tuple[tuple[tuple[str, ...], int, int], ...] = (
    (("ldrd", "strd"), 3, 3),
    (("tbb", "tbh"), 2, 2),
    (("ldr", "str"), 1, 2),
    (("udiv", "sdiv"), 2, 12),
    (("mla", "mls"), 2, 2),
    (("mrs", "msr", "cps", "dsb", "dmb", "isb"), 1, 4),
    (("vdiv", "vsqrt"), 14, 14),
    (("vmla", "vmls", "vfma", "vfms"), 3, 3),
    (("vldr", "vstr"), 2, 3),
)
"""Beginnings of mnemonics, low and high cycles; what is not named takes 1. The refill of a branch comes on top."""


def _timing(mnemonic: str, operands: str) -> tuple[int, int]:
    name, _, _ = mnemonic.partition(".")
    if name.startswith(("push", "pop", "ldm", "stm", "vpush", "vpop")):
        n = _registers(operands)
        return 1 + n, 1 + n
    return next(((low, high) for names, low, high in _TIMING if name.startswith(names)), (1, 1))


def listing(text: str, fast: range = range(0)) -> dict[int, Instruction]:
    """The output of ``objdump -d`` by address; ``fast``: addresses without wait states."""
    found: dict[int, Instruction] = {}
    function = ""
    for line in text.splitlines():
        if symbol := _SYMBOL.match(line):
            function = symbol[1]
        elif (match := _LINE.match(line)) and not match[3].startswith("."):
            address, size = int(match[1], 16), len(match[2].replace(" ", "")) // 2
            operands = (match[4] or "").strip()
            low, high = _timing(match[3], operands)
            constant = match[3].startswith("ldr") and "[pc" in operands
            found[address] = Instruction(
                address, size, match[3], operands, function, low, high, constant, address in fast
            )
    return found


def bounds(stretch: U32, code: dict[int, Instruction]) -> CycleBounds:
    """Cycles of the instructions at these program counters, in the order in which they ran.

    Raises:
        KeyError: a program counter that is not in the listing.
    """
    if len(stretch) == 0:
        return CycleBounds(0, 0, 0)
    addresses, index = np.unique(stretch, return_inverse=True)
    rows = [code[int(address)] for address in addresses]
    size = np.array([row.size for row in rows])[index]
    at = stretch.astype(np.int64)
    taken = at[1:] != at[:-1] + size[:-1]
    # A fetch for each new 8 bytes that straight code enters, and for each branch target.
    entered = (at[1:] + size[1:] - 1) // FETCH_BYTES != (at[:-1] + size[:-1] - 1) // FETCH_BYTES
    slow = ~np.array([row.fast for row in rows])[index]
    constants = np.array([row.from_flash for row in rows])[index] & slow
    fetches = int(((taken | entered) & slow[1:]).sum()) + int(constants.sum()) + int(slow[0])
    low = int(np.array([row.low for row in rows])[index].sum()) + REFILL_LOW * int(taken.sum())
    high = int(np.array([row.high for row in rows])[index].sum()) + REFILL_HIGH * int(taken.sum())
    return CycleBounds(len(stretch), low, high + WAIT_STATES * fetches)


def by_function(stretch: U32, code: dict[int, Instruction]) -> list[tuple[str, int]]:
    """Instructions of a stretch by function, most first."""
    counts: dict[str, int] = {}
    addresses, times = np.unique(stretch, return_counts=True)
    for address, count in zip(addresses, times, strict=True):
        name = code[int(address)].function
        counts[name] = counts.get(name, 0) + int(count)
    return sorted(counts.items(), key=lambda row: -row[1])
