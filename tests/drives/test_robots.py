"""Robot files of arms with drives of their own: from the file through link and core to emulated drives."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge_wam.control_process import Control
from edge_wam.embodiment import Embodiment, load_embodiment, parse_embodiment
from edge_wam.errors import ConfigError
from edge_wam.limit_table import limit_table
from firmware_bridge.errors import FirmwareError, LinkError
from firmware_bridge.host import messages as m
from firmware_bridge.host.drive_emulation import DamiaoMotor, FeetechBus, FeetechServo, MitBus, Motor, Wires
from firmware_bridge.host.drives import drive_binding, drive_error_text
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.mcu.build import build

ROBOTS = Path(__file__).resolve().parents[2] / "robots"


def wires_of(robot: Embodiment) -> Wires:
    """Drives as the robot file says, standing at the robot's rest."""
    servos, motors = [], []
    for axis in robot.axes:
        assert axis.drive is not None
        shaft = Motor(position=(axis.rest - axis.drive.zero) * axis.drive.ratio[1] / axis.drive.ratio[0])
        if axis.drive.kind == "feetech":
            servos.append(FeetechServo(axis.drive.address, axis.drive.model, shaft))
        else:
            motors.append(DamiaoMotor(axis.drive.address, axis.drive.reply, axis.drive.model, shaft))
    return Wires(FeetechBus(servos), MitBus(motors))


def linked(robot: Embodiment, wires: Wires) -> tuple[LibraryTransport, Link]:
    mcu = LibraryTransport(build("lib"), wires=wires)
    link = Link(mcu, limit_table(robot), clock=mcu.now_ns)
    link.connect()
    return mcu, link


@pytest.mark.parametrize("name", ["so101", "yam"])
def test_an_arm_of_its_robot_file_is_configured_armed_and_moved(name: str) -> None:
    robot = load_embodiment(ROBOTS / f"{name}.toml")
    mcu, link = linked(robot, wires_of(robot))
    link.configure()
    link.arm()
    rest = robot.vector("rest")
    target = rest + 0.1 * np.minimum(1.0, robot.vector("position_max") - rest)
    s = np.linspace(0.0, 1.0, 10)[:, None]
    for cycle in range(120):
        link.heartbeat(cycle, m.Degrade.NOMINAL)
        if cycle == 2:
            knots = rest + (target - rest) * s * s * (3.0 - 2.0 * s)
            link.send_chunk(mcu.now_ns() + 40_000_000, 50_000_000, knots, 1)
        link.poll()
        link.service(mcu.now_ns() + 10_000_000)
        if cycle == 90:
            state = link.state
            assert state.fault is m.Fault.NONE and state.mcu_state in {m.McuState.RUN, m.McuState.STARVED}
            assert state.position == pytest.approx(target, abs=0.01)
    link.close()


def test_a_drive_that_is_missing_or_wrong_is_said_when_configuring() -> None:
    robot = load_embodiment(ROBOTS / "so101.toml")
    wires = wires_of(robot)
    wires.servos.servos[2].silent = True
    with pytest.raises(LinkError, match="a drive does not answer"):
        linked(robot, wires)[1].configure()
    wires = wires_of(robot)
    wires.servos.servos[2].put(3, 2825)
    wires.servos.servos[4].error = 0x24
    with pytest.raises(LinkError) as caught:
        linked(robot, wires)[1].configure()
    assert "axis elbow_flex is not the model" in str(caught.value)
    assert "axis wrist_roll reports too hot and overload" in str(caught.value)


def test_every_drive_of_the_robot_files_has_room_for_its_limits() -> None:
    """Published joint ranges within what the drives can say, with the codes at the ends left free."""
    for name in ("so101", "yam"):
        robot = load_embodiment(ROBOTS / f"{name}.toml")
        for axis in robot.axes:
            assert axis.drive is not None
            num, den = axis.drive.ratio
            half = np.pi if axis.drive.kind == "feetech" else 12.5
            for position in (axis.position_min, axis.position_max):
                assert abs((position - axis.drive.zero) * den / num) < half - 0.01
        assert "not run on the arm" in robot.description.lower()


GOOD = dict(kind="mit", model="DM4310", address=1, reply=17, kp=20.0, kd=1.0)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (dict(kind="mti"), "kind 'mti'"), (dict(model="DM431O"), "DM4310"), (dict(model="NONE"), "unknown"),
        (dict(address=0), "address is 0"), (dict(address=0x7FF), "address"), (dict(reply=0x7FF), "reply"),
        (dict(kp=float("nan")), "kp"), (dict(kp=0.0), "kp"), (dict(kp=501.0), "kp"), (dict(kd=0.0), "kd"),
        (dict(kd=5.1), "kd"), (dict(zero=float("inf")), "zero"), (dict(zero=101.0), "zero"),
        (dict(ratio=(0, 1)), "ratio"), (dict(ratio=(1, -1)), "ratio"), (dict(ratio=(1, 10**7)), "ratio"),
        (dict(kind="feetech", model="STS3215", address=254), "address is 254"),
    ],
)  # fmt: skip
def test_a_wrong_drive_is_refused_by_name(changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(FirmwareError) as caught:
        drive_binding(0, "elbow", **{**GOOD, **changes})  # type: ignore[arg-type]
    assert complaint in str(caught.value) and "elbow" in str(caught.value)


def test_a_misspelt_key_of_a_drive_is_named() -> None:
    text = (ROBOTS / "so101.toml").read_text(encoding="utf-8").replace("address = 3", "addreZs = 3")
    with pytest.raises(ConfigError, match=r"addreZs.*address"):
        parse_embodiment(text)


@pytest.mark.parametrize(
    ("drive", "errors", "text"),
    [
        (GOOD, 0xB, "power stage too hot"), (GOOD, 0x5, "its error 0x5"), (GOOD, m.DRIVE_ERR_TIMEOUT, "watchdog"),
        (dict(GOOD, model="AK60_6", reply=1), 7, "stall"), (GOOD, 0, "is well"),
        (dict(kind="feetech", model="STS3215", address=1), 0x21, "voltage and overload"),
    ],
)  # fmt: skip
def test_drive_errors_in_words(drive: dict[str, object], errors: int, text: str) -> None:
    assert text in drive_error_text(drive_binding(0, "x", **drive), errors)  # type: ignore[arg-type]


def test_the_operator_reads_what_the_drive_said() -> None:
    table = limit_table(load_embodiment(ROBOTS / "so101.toml"))
    told: list[str] = []
    control = SimpleNamespace(
        recorder=SimpleNamespace(put=lambda *_: None), link=SimpleNamespace(limits=table), _drive_words="",
        tally=SimpleNamespace(mcu_fault=lambda at, number, name, text: told.append(f"{name}: {text}")),
    )  # fmt: skip
    for event in (
        m.Event(1, 0, m.EventKind.DRIVE, 2, 0x24),
        m.Event(2, 0, m.EventKind.FAULT, m.Fault.DRIVE_ERROR, 2),
        m.Event(3, 0, m.EventKind.FAULT, m.Fault.ENCODER_LOST, 4),
        m.Event(4, 0, m.EventKind.DRIVE, 99, 1),
    ):
        Control._mcu_event(control, 0, event)  # type: ignore[arg-type]
    assert told == ["DRIVE_ERROR: axis elbow_flex reports too hot and overload", "ENCODER_LOST: axis 4"]
