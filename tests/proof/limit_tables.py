"""The limits of every axis of every robot file, as the firmware sees them: what the limiter is proved for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_wam.embodiment import load_embodiment
from edge_wam.limit_table import limit_table
from firmware_bridge.host.limits import LimitTable
from firmware_bridge.host.messages import LimitsSet

ROBOTS = Path(__file__).resolve().parents[2] / "robots"


@dataclass(frozen=True, slots=True)
class AxisLimits:
    """One axis; names: of all axes that share these numbers."""

    name: str
    limits: LimitsSet

    def defines(self) -> tuple[str, ...]:
        """For the compiler: the upload's fields."""
        m = self.limits
        return (
            f"POSITION_MIN={m.position_min}", f"POSITION_MAX={m.position_max}", f"VELOCITY_MAX={m.velocity_max}u",
            f"ACCELERATION_MAX={m.acceleration_max}u", f"JERK_MAX={m.jerk_max}u",
        )  # fmt: skip


def shipped() -> list[AxisLimits]:
    """All distinct ones, named after the axes that have them."""
    found: dict[tuple[str, ...], AxisLimits] = {}
    for path in sorted(ROBOTS.glob("*.toml")):
        if "[[axes]]" not in path.read_text():
            continue  # a session's configuration
        table: LimitTable = limit_table(load_embodiment(path))
        for name, limits in zip(table.names, table.axes, strict=True):
            label = f"{path.stem}.{name}"
            key = AxisLimits(label, limits).defines()
            if key in found:
                label = f"{found[key].name}, {label if not found[key].name.startswith(path.stem) else name}"
            found[key] = AxisLimits(label, limits)
    return list(found.values())
