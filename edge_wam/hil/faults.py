"""Injections of a scenario -> the cable and plant faults that carry them out."""

from __future__ import annotations

from collections.abc import Callable

from edge_wam.hil.scenario import Injection
from edge_wam.sim.arm import Broken, PlantFault
from firmware_bridge.hil.cable import Babble, BitErrors, Delay, Mangle, Tamper, cut, intact


def plant_fault(one: Injection) -> PlantFault:
    """Of a plant injection."""
    return PlantFault(Broken(one.kind), -1 if one.joint is None else one.joint, one.value or 0.0)


def cable_faults(one: Injection, clock_s: Callable[[], float], seed: int) -> tuple[Mangle, Mangle]:
    """(towards the MCU, towards the host) of a cable injection."""

    def make(salt: int) -> Mangle:
        match one.kind:
            case "link_silent" | "link_cut":
                return cut
            case "bit_errors":
                return BitErrors(one.rate or 0.0, 2 * seed + salt)
            case "babble":
                return Babble(one.rate or 0.0, clock_s, seed)
            case "frames_delayed":
                return Delay((one.value or 0.0) / 1e3, clock_s)
            case _:
                way = {"truncated": "truncate", "duplicated": "duplicate", "reordered": "reorder", "flipped": "flip"}
                return Tamper(way[one.kind.removeprefix("frames_")], 2 * seed + salt)

    direction = one.direction or ("to_mcu" if one.kind in ("babble", "frames_delayed") else "both")
    return (
        make(0) if direction in ("to_mcu", "both") else intact,
        make(1) if direction in ("to_host", "both") else intact,
    )
