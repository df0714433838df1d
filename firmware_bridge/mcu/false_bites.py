"""Does the watchdog bite a firmware that does nothing wrong? ``python -m firmware_bridge.mcu.false_bites MODE FILE``.

``icount``: the shipped 20 ms, in guest time that counts instructions, until so many ticks have run. ``realtime``: the
500 ms of the integration build, against the wall clock and whatever else this machine does. Both drive 7 axes with a
chunk every 100 ms, heartbeats and encoder values. A line is appended for each part; the same command goes on where it
was interrupted, as long as the firmware is the same. ``show`` adds the lines up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.emulator import Emulator, EmulatorOptions
from firmware_bridge.host.guest_time import GuestHost, demo_table
from firmware_bridge.mcu.build import build_id

AXES = 7
BOOT_TICKS = 100


@dataclass(frozen=True, slots=True)
class Mode:
    """How a run is made. ``part_ticks`` is what one line of the file covers."""

    target: str
    icount: bool
    part_ticks: int
    wait_s: float


MODES = {
    "icount": Mode("mps2-an386-nowfi", True, 10_000, 0.0005),
    "realtime": Mode("mps2-an386-realtime", False, 30_000, 0.004),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One line. Ticks are the MCU's, ``seconds`` the wall clock's, ``load`` the 1-minute average over both ends.
    ``stops``: why the arm was stopped although nobody asked (a stall of this machine); it was armed again at once.
    ``starved_s``: how long the emulator was ready to run and its core was given to others (0 where this
    kernel does not say). A bite in a part with little of it is a defect; with much of it, it is this machine's."""

    mode: str
    firmware: str
    ticks: int
    seconds: float
    bites: int
    resets: int
    causes: tuple[str, ...]
    chunks: int
    refused: int
    late_ticks: int
    margin_min_us: int
    stops: tuple[str, ...]
    starved_s: float
    load: float


def read(path: Path) -> list[Part]:
    """The lines of a file, none if it does not exist. A last line that was cut short is left out."""
    parts = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        parts.append(Part(**{**row, "causes": tuple(row["causes"]), "stops": tuple(row["stops"])}))
    return parts


def run(mode: str, path: Path, ticks: int) -> list[Part]:
    """Go on until the file holds ``ticks`` ticks of the present firmware; returns its parts.

    Raises:
        FirmwareError: the emulator cannot be started or stands still.
    """
    how = MODES[mode]
    firmware = f"{how.target} {build_id(how.target):08x}"
    done = [part for part in read(path) if (part.mode, part.firmware) == (mode, firmware)]
    torn = path.exists() and not path.read_bytes().endswith(b"\n")  # a line that was cut short stays alone
    options = EmulatorOptions(target=how.target, icount=how.icount)
    with Emulator("qemu", options) as emulator:
        host = GuestHost(emulator, demo_table(AXES), wait_s=how.wait_s)
        host.run(BOOT_TICKS)
        host.arm()
        while (left := ticks - sum(part.ticks for part in done)) > 0:
            part = _part(mode, firmware, emulator, host, min(left, how.part_ticks))
            done.append(part)
            with path.open("a", encoding="utf-8") as file:
                file.write("\n" * torn + json.dumps(asdict(part)) + "\n")
                torn = False
        host.close()
    return done


def _waited_s(pid: int) -> float:
    """Seconds that the threads of a process have waited for a processor; 0 where the kernel does not say."""
    waited = 0.0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError):  # a thread that has just ended
            waited += int(path.read_text(encoding="ascii").split()[1]) * 1e-9
    return waited


def _part(mode: str, firmware: str, emulator: Emulator, host: GuestHost, ticks: int) -> Part:
    begin, load, waited = time.monotonic(), os.getloadavg()[0], _waited_s(emulator.pid)
    bites, resets, causes = emulator.qmp_events().count("WATCHDOG"), host.resets, len(host.causes)
    late = host.stats.late_ticks if host.stats is not None else 0
    host.codes.clear()
    host.margin_min_us = 0xFFFFFFFF
    begun = host.tick
    stops = host.follow(ticks)
    if host.resets > resets:
        ticks = min(ticks, host.last_tick - begun)  # it counts from zero again: the part ends here
        host.arm()
    assert host.stats is not None, "STATS come every second"
    return Part(
        mode=mode,
        firmware=firmware,
        ticks=ticks,
        seconds=round(time.monotonic() - begin, 1),
        bites=emulator.qmp_events().count("WATCHDOG") - bites,
        resets=host.resets - resets,
        causes=tuple(cause.name for cause in host.causes[causes:]),
        chunks=host.codes.total(),
        refused=sum(count for code, count in host.codes.items() if code >= code.BAD_STATE),
        late_ticks=host.stats.late_ticks - (0 if host.resets > resets else late),
        margin_min_us=host.margin_min_us,
        stops=tuple(stops),
        starved_s=round(_waited_s(emulator.pid) - waited, 2),
        load=round((load + os.getloadavg()[0]) / 2, 2),
    )


def show(parts: list[Part]) -> str:
    """One line for each firmware and mode."""
    lines = []
    for key in dict.fromkeys((part.mode, part.firmware) for part in parts):
        rows = [part for part in parts if (part.mode, part.firmware) == key]
        loads = [row.load for row in rows]
        lines.append(
            f"{key[0]} {key[1]}: {sum(r.ticks for r in rows)} ticks in {sum(r.seconds for r in rows):.0f} s, "
            f"{sum(r.bites for r in rows)} bites, {sum(r.resets for r in rows)} resets, "
            f"{sum(r.chunks for r in rows)} chunks ({sum(r.refused for r in rows)} refused), "
            f"{sum(len(r.stops) for r in rows)} stops {sorted({s for r in rows for s in r.stops})}, "
            f"emulator starved {sum(r.starved_s for r in rows):.0f} s, "
            f"{sum(r.late_ticks for r in rows)} late ticks, least margin {min(r.margin_min_us for r in rows)} us, "
            f"load {min(loads):.1f}..{max(loads):.1f} (mean {sum(loads) / len(loads):.1f})"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> int:
    """Exit code 1: something bit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=[*MODES, "show"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--ticks", type=int, default=0, help="default: 1000000 (icount), 3600000 (realtime)")
    given = parser.parse_args(arguments)
    try:
        ticks = given.ticks or (3_600_000 if given.mode == "realtime" else 1_000_000)
        parts = read(given.file) if given.mode == "show" else run(given.mode, given.file, ticks)
    except FirmwareError as error:
        print(error, file=sys.stderr)
        return 2
    print(show(parts))
    return 1 if any(part.bites or part.resets for part in parts) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
