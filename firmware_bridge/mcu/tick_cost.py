"""What a control tick costs the microcontroller: ``python -m firmware_bridge.mcu.tick_cost [--ticks N] [--json]``.

The shipped firmware runs in QEMU with counted instructions: the build that does not sleep, its control path in a memory
of its own as on the STM32G474; 16 axes, the longest chunk that a frame holds spliced again and again, events, STATE,
STATS. Counted exactly: instructions of the main loop, and apart from them those of each interrupt, because an emulated
UART brings its bytes as fast as this machine is.
Bounded, not measured: cycles on a 170 MHz Cortex-M4 (:mod:`firmware_bridge.mcu.profile.cycles`).
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.emulator import Emulator, EmulatorOptions
from firmware_bridge.host.guest_time import GuestHost, demo_table
from firmware_bridge.host.messages import TICK_US, Hold
from firmware_bridge.mcu.build import build, build_id
from firmware_bridge.mcu.profile.cycles import CLOCK_HZ, CycleBounds, Instruction, bounds, by_function
from firmware_bridge.mcu.profile.windows import (
    INTERRUPTS,
    Counted,
    Window,
    build_plugin,
    disassemble,
    plugin_argument,
    read_counts,
)
from firmware_bridge.spread import percentile

TARGET = "mps2-an386-fast"
AXES = 16
KNOTS = 19
"""16 axes x 19 knots x 2 bytes: what the largest frame holds."""
PLAN_TICKS = 20
BUDGET_CYCLES = CLOCK_HZ // 1_000_000 * TICK_US
PARTS = (
    Window("control tick", "ew_tick"),
    Window("bytes from the host", "ew_rx"),
    Window("bytes from the drive", "ew_drive_rx"),
    Window("bytes to the host", "ew_tx"),
    Window("work that may wait", "ew_work"),
    Window("bytes to the drive", "ew_drive_tx"),
)
TURN = Window("turn of the main loop", "ew_tick", again=True)
WINDOWS = (*PARTS, TURN)
EXPECTED = {
    "control tick": 50_000,
    "bytes from the host": 25_000,  # LIMITS_COMMIT; a chunk 7,000
    "bytes from the drive": 6_500,
    "work that may wait": 25_000,  # the splice of a chunk
    "turn of the main loop": 56_000,
}
"""Instructions of the worst stretch as last measured; a call that makes up for a late tick counts both. From the drive
the main loop takes 64 bytes or one frame's end a turn, whatever is waiting. A test fails a quarter above: then either
the code became slow by mistake, or this table and docs/measured/firmware-link.md are brought up to date on purpose."""
IDLE_INSTRUCTIONS = 200
"""A call of ew_tick that finds nothing to do is shorter; it is no control tick."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One window. ``worst`` is the longest stretch that was seen, with its cycles bounded both ways."""

    name: str
    count: int
    p50: int
    p99: int
    worst: CycleBounds
    functions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class TickCost:
    """All windows, and the turn in which every part is at its worst at once (it need not have happened)."""

    firmware: str
    axes: int
    knots: int
    ticks: int
    chunks: int
    late_ticks: int
    costs: tuple[Cost, ...]
    together: CycleBounds

    def cost(self, name: str) -> Cost:
        """By the window's name."""
        return next(cost for cost in self.costs if cost.name == name)


def measure(ticks: int = 3000) -> TickCost:
    """Run the scenario.

    Raises:
        FirmwareError: a tool is missing, or the emulator stands still.
    """
    image = build(TARGET)
    code = disassemble(image)
    with tempfile.TemporaryDirectory(prefix="edge-wam-cost-") as name:
        folder = Path(name)
        out = folder / "counts"
        argument = plugin_argument(build_plugin(folder), out, WINDOWS, code)
        options = EmulatorOptions(target=TARGET, icount=True, extra=("-plugin", argument), nice=0)
        with Emulator("qemu", options) as emulator:
            host = GuestHost(emulator, demo_table(AXES), plan_ticks=PLAN_TICKS, knots=KNOTS)
            host.run(50)
            host.arm()
            host.follow(ticks // 2)
            host.send(Hold())  # events, and the stop from full motion
            host.follow(ticks - ticks // 2)
            chunks = sum(count for code_, count in host.codes.items() if code_ < code_.BAD_STATE)
            late = host.stats.late_ticks if host.stats is not None else 0
            host.close()
            emulator.send_signal(signal.SIGTERM)  # the plugin writes when QEMU ends by itself
            assert emulator.process is not None
            emulator.process.wait(timeout=30)
        counted = read_counts(out, WINDOWS)
    costs = tuple(_cost(name, counted[name], code) for name in (*(window.name for window in WINDOWS), INTERRUPTS))
    parts = [cost.worst for cost in costs[: len(PARTS)]]
    together = CycleBounds(*(sum(getattr(part, field) for part in parts) for field in ("instructions", "low", "high")))
    return TickCost(f"{TARGET} {build_id(TARGET):08x}", AXES, KNOTS, ticks, chunks, late, costs, together)


def _cost(name: str, counted: Counted, code: dict[int, Instruction]) -> Cost:
    lengths = counted.lengths[counted.lengths > IDLE_INSTRUCTIONS] if "tick" in name else counted.lengths
    ordered = sorted(lengths.tolist())
    p50, p99 = (percentile(ordered, share) for share in (0.5, 0.99))
    return Cost(name, len(ordered), p50, p99, bounds(counted.longest, code), tuple(by_function(counted.longest, code)))


def _row(name: str, cost: CycleBounds) -> str:
    low_us, high_us = cost.us
    return (
        f"{name:24} {cost.instructions:>9} instructions, {cost.low} .. {cost.high} cycles = "
        f"{low_us:.0f} .. {high_us:.0f} us at 170 MHz, headroom {1 - cost.high / BUDGET_CYCLES:.0%} .. "
        f"{1 - cost.low / BUDGET_CYCLES:.0%}"
    )


def text(found: TickCost) -> str:
    """For people."""
    lines = [f"{found.firmware}: {found.axes} axes, {found.knots} knots, {found.ticks} ticks, {found.chunks} chunks, "
             f"{found.late_ticks} late ticks"]  # fmt: skip
    for cost in found.costs:
        lines.append(_row(cost.name, cost.worst) + f" (p50 {cost.p50}, p99 {cost.p99}, n {cost.count})")
        lines += [f"    {share:>7}  {function}" for function, share in cost.functions[:8]]
    lines.append(_row("all at once", found.together))
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Exit code 2: a tool is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ticks", type=int, default=3000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    try:
        found = measure(given.ticks)
    except FirmwareError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(asdict(found), indent=2) if given.json else text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
