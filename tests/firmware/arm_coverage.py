"""Which lines of the ARM binary have run: ``python -m tests.firmware.arm_coverage [--write]``.

Nothing is built for this: the emulator writes down every block of instructions that it translates, which it does when
the block is about to run for the first time (``-d in_asm``), and the debug information of the same file says which
lines the instructions are of. What runs is the shipped firmware in counted time, with a host that says everything in
every state (:func:`tour`). A line of several instructions counts when one of them has run.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import can

from firmware_bridge.errors import LinkError
from firmware_bridge.host import messages as m
from firmware_bridge.host.can_transport import CanTransport
from firmware_bridge.host.conversation import Conversation
from firmware_bridge.host.drive_emulation import DamiaoMotor, MitBus
from firmware_bridge.host.emulator import Emulator, EmulatorOptions
from firmware_bridge.host.framing import LinkFrame, encode_frame
from firmware_bridge.host.guest_time import GuestHost, demo_table
from firmware_bridge.host.limits import LimitTable
from firmware_bridge.host.slcan_bus import SlcanBus
from firmware_bridge.mcu import build as mcu_build
from firmware_bridge.mcu.profile.windows import disassemble
from tests.drives.arm import motor_set

ROOT = Path(__file__).resolve().parents[2]
REPORT = ROOT / "docs" / "measured" / "arm-coverage.md"
TARGET = "mps2-an386-nowfi"
_LOGGED = re.compile(r"^0x([0-9a-f]{8}):", re.MULTILINE)
Line = tuple[str, int]
"""File below firmware_bridge/mcu, number."""


@dataclass(frozen=True, slots=True)
class Ran:
    """Lines that have instructions, and those of which one has run."""

    lines: frozenset[Line]
    ran: frozenset[Line]
    instructions: int
    instructions_ran: int

    def by_file(self) -> list[tuple[str, int, int]]:
        """File, lines, of which ran."""
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for line in self.lines:
            counts[line[0]][0] += 1
            counts[line[0]][1] += line in self.ran
        return [(file, *count) for file, count in sorted(counts.items())]  # type: ignore[misc]


def lines_of(image: Path, addresses: Iterable[int]) -> dict[int, Line]:
    """The line of each instruction, of those that are of a file of the firmware."""
    asked = sorted(addresses)
    run = subprocess.run(
        ["arm-none-eabi-addr2line", "-e", str(image)], input="\n".join(map(hex, asked)), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    found: dict[int, Line] = {}
    for address, said in zip(asked, run.stdout.splitlines(), strict=True):
        place = re.search(r"mcu/((?:core|can|ports)/[^:]+):(\d+)", said)
        if place is not None:
            found[address] = (place[1], int(place[2]))
    return found


def evaluate(image: Path, logs: Iterable[Path]) -> Ran:
    """One image and everything that emulators have logged of it."""
    of = lines_of(image, disassemble(image))
    logged = {int(address, 16) for log in logs for address in _LOGGED.findall(log.read_text(errors="replace"))}
    ran = logged & of.keys()
    return Ran(frozenset(of.values()), frozenset(of[address] for address in ran), len(of), len(ran))


def _lengths() -> dict[int, int]:
    """Payload bytes of each message of the host that has a fixed length, by its type."""
    kinds = [kind for kind in vars(m).values() if hasattr(kind, "pack") and hasattr(kind, "TYPE") and kind.TYPE < 0x80]
    found: dict[int, int] = {}
    for kind in kinds:
        for length in range(120):
            with contextlib.suppress(LinkError):
                kind.unpack(bytes(length))
                found[kind.TYPE] = length
                break
    return found


def _everything(host: GuestHost, dice: random.Random, *, but: tuple[int, ...]) -> None:
    """Every type of message with zeros, with anything, and in any length; and noise on both cables."""
    lengths = _lengths()
    for kind in range(256):
        whole = lengths.get(kind, 16)
        for payload in (bytes(whole), dice.randbytes(whole), dice.randbytes(dice.randrange(80))):
            if kind not in but:
                body = LinkFrame(kind, dice.randrange(65536), host._session, payload, host._epoch).pack()
                host._link.write(encode_frame(body))
        if kind % 4 == 0:
            host.run(1)
        if kind % 16 == 0:
            host._link.write(dice.randbytes(40))
            host._drive.write(dice.randbytes(40))
    host._link.write(bytes([0x55]) * 700 + b"\0")
    host.run(50)


def _arm(host: GuestHost) -> None:
    """Whatever is latched is cleared, and the arm is armed."""
    host._armed = False
    for _ in range(40):
        host._ask_hello()
        host.run(25)
        hello = host._hello
        if host.state is m.McuState.DISARMED:
            break
        host.send(m.Disarm())
        if hello is not None and hello.estop:
            host.send(m.EstopClear(hello.clear_nonce))
        if hello is not None and hello.fault:
            host.send(m.FaultAck(hello.fault))
    host.arm()


def _over_can(emulator: Emulator, dice: random.Random) -> None:
    """Commands in FD and classic frames, frames that are none, and lines that are no frames."""
    for fd in (True, False):
        bus = SlcanBus(emulator.can_tty, 1_000_000, 5_000_000 if fd else None)
        transport = CanTransport(bus, fd=fd)
        talk = Conversation(transport, time.monotonic_ns)
        talk.ask_hello()
        end = time.monotonic() + 10.0
        while talk.hello_wanted and time.monotonic() < end:
            talk.poll()
            transport.wait(0.002)
        for message in (*demo_table(2).axes, m.LimitsGet(0), m.TimeReq(1), m.Hold(), m.Estop(), m.EventAck(1)):
            talk.send(message)
            transport.wait(0.002)
        for length in (0, 1, 8, *((12, 64) if fd else ())):
            bus.send(can.Message(
                arbitration_id=dice.randrange(0x800), is_extended_id=False, data=dice.randbytes(length),
                is_fd=length > 8, bitrate_switch=length > 8,
            ))  # fmt: skip
        for text in (b"r1110 T0000011121122 V F Z t11 tXYZ0 S8 L C O " + b"t" * 200).split():
            bus._line.write(text + b"\r")
            transport.wait(0.002)
        transport.close()


def _motors(emulator: Emulator, dice: random.Random) -> None:
    """Two motor drives on the second bus, which follow, and are then cut off; a reset at the end."""
    table = LimitTable.from_si(
        ["shoulder", "elbow"], position_min=[-1.0] * 2, position_max=[1.0] * 2, velocity_max=[2.0] * 2,
        acceleration_max=[20.0] * 2, jerk_max=[500.0] * 2, following_error_max=[0.5] * 2,
        drives=[motor_set(0, 1), motor_set(1, 2)],
    )  # fmt: skip
    host = GuestHost(emulator, table, plan_ticks=20)
    wire, drives = SlcanBus(emulator.motor_tty), MitBus([DamiaoMotor(n, n + 16) for n in (1, 2)])
    over = threading.Event()

    def serve() -> None:
        last_us = 0
        while not over.is_set():
            message = wire.recv(0.001)
            while message is not None:
                drives.send(message.arbitration_id, bytes(message.data), host.mcu_us)
                message = wire.recv(0.0)
            drives.advance((host.mcu_us - last_us) * 1e-6, host.mcu_us)
            last_us = host.mcu_us
            for identifier, data in drives.answers(host.mcu_us + 1000):
                with contextlib.suppress(can.CanOperationError):  # lost, as on a bus
                    wire.send(can.Message(arbitration_id=identifier, is_extended_id=False, data=data))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        host.run(50)
        with contextlib.suppress(LinkError):  # a machine that stalls cannot answer within a drive's patience
            host.arm()
            host.follow(300)
            host.send(m.Hold())
            host.run(200)
    finally:
        over.set()
        thread.join()
        wire.shutdown()
    host.run(300)
    emulator.reset_mcu()
    host.run(100)
    _everything(host, dice, but=())
    host.close()


def tour(folder: Path) -> list[Path]:
    """A host that says everything in every state, in counted time: 16 axes, one, CAN, motor drives. The logs."""
    logs = []
    dice = random.Random(1)
    table = (m.LimitsSet.TYPE, m.DriveSet.TYPE, m.StopsSet.TYPE, m.LimitsCommit.TYPE)
    for axes in (16, 1, 2):
        logs.append(folder / f"tour-{axes}.log")
        extra = ("-d", "in_asm", "-D", str(logs[-1]))
        options = EmulatorOptions(target=TARGET, icount=True, icount_shift=3, extra=extra, can=True)
        with Emulator("qemu", options) as emulator:
            if axes == 2:
                _motors(emulator, dice)
                continue
            host = GuestHost(emulator, demo_table(axes), plan_ticks=20, knots=19)
            host.run(50)
            _everything(host, dice, but=table)
            for order in (m.Hold(), m.Disarm(), m.Estop()):
                _arm(host)
                host.follow(150)
                host.send(order)
                host.run(150)
            _arm(host)
            host.follow(100)
            _everything(host, dice, but=(m.Disarm.TYPE, m.Estop.TYPE))
            _arm(host)
            host._armed = False
            host.run(300)
            _everything(host, dice, but=())
            if axes == 1:
                _over_can(emulator, dice)
            host.close()
    return logs


def _table(ran: Ran) -> str:
    """Markdown."""
    files = ran.by_file()
    rows = [f"| {file} | {lines} | {done} | {100 * done / lines:.0f} % |" for file, lines, done in files]
    share = 100 * len(ran.ran) / len(ran.lines)
    rows.append(f"| **all** | {len(ran.lines)} | {len(ran.ran)} | {share:.1f} % |")
    return "| file | lines with instructions | ran | share |\n|---|---|---|---|\n" + "\n".join(rows)


def _missing(ran: Ran) -> str:
    """The lines that have not run, a file each."""
    by_file: dict[str, list[str]] = defaultdict(list)
    for file, number in sorted(ran.lines - ran.ran):
        by_file[file].append(str(number))
    return "\n".join(f"- {file}: {', '.join(numbers)}" for file, numbers in by_file.items())


def main(arguments: list[str]) -> int:
    """Print the table; ``--write`` brings docs/measured/arm-coverage.md up to date."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args(arguments)
    for tool in ("qemu-system-arm", "arm-none-eabi-gcc", "arm-none-eabi-addr2line"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed: apt-get install qemu-system-arm gcc-arm-none-eabi", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="ew-arm-coverage-") as name:
        ran = evaluate(mcu_build.build(TARGET), tour(Path(name)))
    text = (
        "# Lines of the ARM binary that have run\n\n"
        f"`python -m tests.firmware.arm_coverage --write`: {TARGET} {mcu_build.build_id(TARGET):08x}, as the emulator "
        f"logged\nit. {ran.instructions_ran} of {ran.instructions} instructions of the files below ran.\n\n"
        f"{_table(ran)}\n\n"
        "## Not run\n\nNot asked for by this tour: servos, crashes, damaged memory. Their "
        f"tests run on\nthe core as a library or, in real time, on the emulated board.\n\n{_missing(ran)}\n"
    )
    print(text)
    if options.write:
        REPORT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
