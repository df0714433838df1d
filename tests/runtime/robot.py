"""The robot of the runtime's tests: the shipped Meta-World arm."""

from __future__ import annotations

from pathlib import Path

from edge_wam.embodiment import Embodiment, load_embodiment

ROBOT_FILE = Path(__file__).parents[2] / "robots" / "metaworld_sawyer.toml"


def robot() -> Embodiment:
    return load_embodiment(ROBOT_FILE)
