"""Make the bundle: export, calibrate on the student's own episodes, quantise, record the golden run, sign."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic import Field

from distill.models.config import config_named
from distill.release import Calibration, release
from distill.run import CONFIG
from distill.stages.frame import Context, StageConfig
from edge_wam.bundle import demo_private_key, load_private_key


class Config(StageConfig):
    """Attributes:
    size, robot: the student's size; the robot file, relative to the recipe. It becomes part of the bundle.
    student: run directory with ``codec.pt`` and ``wam.pt``, relative to the work folder.
    name: the bundle is ``NAME.wam`` in the work folder.
    episodes, feeds: episodes of each task to calibrate on, and model inputs kept of all.
    """

    size: str = "nano"
    robot: Path
    student: Path = Path("pretrain")
    name: str = Field(default="student", pattern=r"^[a-z0-9][a-z0-9.-]*$")
    episodes: int = Field(default=4, ge=1)
    feeds: int = Field(default=256, ge=6)


def run(config: Config, context: Context) -> None:
    """Write the bundle, replacing one that is there."""
    if not context.place.leads:
        return
    release(
        context.work / config.student, context.work / f"{config.name}.wam", robot_file=context.recipe / config.robot,
        config=config_named(config.size),
        key=demo_private_key() if context.key is None else load_private_key(context.key),
        calibration=Calibration(config.episodes, config.feeds),
        card={
            "command": "edge-wam distill all", "recipe": _told(context.work / config.student, config),
            "success": "not measured yet: edge-wam eval measures it",
        },
        report=context.named("release"),
    )  # fmt: skip


def _told(student: Path, config: Config) -> dict[str, Any]:
    """What the student's run and this stage were told, for the card; a folder that is no run says nothing."""
    told = student / CONFIG
    trained = {"student": tomllib.loads(told.read_text())} if told.exists() else {}
    return {**trained, "release": config.model_dump(mode="json")}
