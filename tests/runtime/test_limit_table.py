"""What the robot file says of stops and limits is what the microcontroller has locked."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.limit_table import limit_table
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import StopsSet
from firmware_bridge.mcu.build import build

ROBOT = load_embodiment(Path(__file__).resolve().parents[2] / "robots" / "metaworld_sawyer.toml")


def with_stops(brake_ms: int, off_ms: int) -> Embodiment:
    return Embodiment.model_validate(
        ROBOT.model_dump() | {"brake_after_ms": brake_ms, "torque_off_after_ms": off_ms}
    )


def test_the_second_stage_of_a_stop_is_locked_with_the_limits() -> None:
    assert limit_table(ROBOT).stops == StopsSet(0, 0)
    table = limit_table(with_stops(200, 500))
    assert table.stops == StopsSet(brake_after_ms=200, torque_off_after_ms=500)
    assert table.crc != limit_table(ROBOT).crc
    transport = LibraryTransport(build("lib"))
    link = Link(transport, table, clock=transport.now_ns)
    transport.encoder([axis.rest for axis in ROBOT.axes])
    link.connect()
    link.configure()
    link.close()


def test_torque_off_without_brakes_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match="brake_after_ms"):
        with_stops(0, 500)
