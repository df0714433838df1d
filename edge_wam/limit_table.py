"""The robot file's limits as the microcontroller takes them."""

from __future__ import annotations

from dataclasses import replace

from edge_wam.embodiment import Axis, Embodiment
from firmware_bridge.host.drives import drive_binding
from firmware_bridge.host.limits import LimitTable, sim_drive
from firmware_bridge.host.messages import AxisKind, DriveSet, StopsSet

_KIND_OF_UNIT = {"rad": AxisKind.REVOLUTE, "m": AxisKind.CARTESIAN, "1": AxisKind.UNITLESS}


def _binding(index: int, axis: Axis) -> DriveSet:
    if axis.drive is None:
        return sim_drive(index)
    return drive_binding(index, axis.name, **axis.drive.model_dump())


def limit_table(robot: Embodiment) -> LimitTable:
    """What is uploaded to the microcontroller and locked there.

    Raises:
        FirmwareError: a number that the firmware cannot hold.
    """
    table = LimitTable.from_si(
        [axis.name for axis in robot.axes],
        position_min=robot.vector("position_min").tolist(),
        position_max=robot.vector("position_max").tolist(),
        velocity_max=robot.vector("velocity_max").tolist(),
        acceleration_max=robot.vector("acceleration_max").tolist(),
        jerk_max=robot.vector("jerk_max").tolist(),
        following_error_max=robot.vector("following_error_max").tolist(),
        effort_max=[axis.effort_max for axis in robot.axes],
        move_max=[axis.move_max for axis in robot.axes],
        window_max=[axis.window_max for axis in robot.axes],
        kinds=[AxisKind[axis.kind.upper()] if axis.kind else _KIND_OF_UNIT[axis.unit] for axis in robot.axes],
        drives=[_binding(index, axis) for index, axis in enumerate(robot.axes)],
    )
    return replace(table, stops=StopsSet(robot.brake_after_ms, robot.torque_off_after_ms))
