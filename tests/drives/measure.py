"""Times of the drivers on emulated wires: ``python -m tests.drives.measure``. Prints the table of docs/drives.md.

Wire time is counted, computing time is not: what a processor adds is not in these figures.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import pairwise

from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import DamiaoMotor, FeetechServo
from firmware_bridge.host.drive_emulation import feetech as ft
from tests.drives.arm import STEP_US, Arm, motor_set, servo_set


def servos(count: int, delay: int = 0) -> Arm:
    there = [FeetechServo(number) for number in range(1, count + 1)]
    for servo in there:
        servo.table[7] = delay
    return Arm([servo_set(axis, axis + 1) for axis in range(count)], servos=there)


def motors(count: int) -> Arm:
    there = [DamiaoMotor(number, 0x100 + number) for number in range(1, count + 1)]
    return Arm([motor_set(axis, axis + 1, reply=0x101 + axis) for axis in range(count)], motors=there)


def powered(arm: Arm) -> list[bool]:
    return [s.torque_on for s in arm.servo_bus.servos] + [d.enabled for d in arm.motor_bus.motors]


def until(arm: Arm, done: Callable[[], bool]) -> int:
    """Microseconds until ``done``, in steps of the port's look at its wires."""
    begin = arm.now_us
    tick_end = arm.now_us + m.TICK_US
    while not done():
        if arm.now_us + STEP_US >= tick_end:
            arm.now_us = tick_end - m.TICK_US
            super(Arm, arm).tick()
            tick_end = arm.now_us + m.TICK_US
        else:
            arm.now_us += STEP_US
        arm.wires()
    return arm.now_us - begin


def setpoint_times(arm: Arm) -> list[int]:
    if arm.servo_bus.servos:
        return [at for at, data in arm.servo_bus.sent if data[4] == ft.SYNC_WRITE and data[5] == 42]
    return [at for at, number, data in arm.motor_bus.sent if number == 1 and data[:6] != b"\xff" * 6]


def row(name: str, make: Callable[[], Arm], phases: int = 12, *, silent: bool = False) -> str:
    start, on, off = [], [], []
    period = 0.0
    for phase in range(phases):
        arm = make()
        start.append(arm.start(limit_ticks=1000))
        on.append(until(arm, lambda arm=arm: all(powered(arm))))
        arm.tick(20 + phase)
        times = setpoint_times(arm)[-8:]
        period = statistics.median(b - a for a, b in pairwise(times))
        if silent:
            arm.servo_bus.servos[0].silent = True
            arm.tick(20)
        arm.ask(m.Estop())
        off.append(until(arm, lambda arm=arm: not any(powered(arm)[silent:])))
    return (
        f"| {name} | {1e6 / period:.0f} | {max(start)} | {statistics.median(on) / 1e3:.1f} / {max(on) / 1e3:.1f} | "
        f"{statistics.median(off) / 1e3:.1f} / {max(off) / 1e3:.1f} |"
    )


def main() -> None:
    print("| drives | setpoints per second | checked after, ms | ARM to all on, ms | e-stop at rest to all off, ms |")
    print("|---|---|---|---|---|")
    for count, delay in ((1, 0), (6, 0), (6, 250), (7, 0), (16, 0)):
        text = "answer at once" if delay == 0 else f"wait {2 * delay} us before they answer"
        print(row(f"{count} Feetech servos that {text}", lambda count=count, delay=delay: servos(count, delay)))
    print(row("6 Feetech servos, the first fallen silent 20 ms before", lambda: servos(6), silent=True))
    for count in (1, 3, 6, 7, 16):
        print(row(f"{count} Damiao drives", lambda count=count: motors(count)))


if __name__ == "__main__":
    main()
