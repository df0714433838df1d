"""``experiment_cfg/`` of a published checkpoint: per-robot statistics and modalities, made into our robot file.

``metadata.json`` holds for each embodiment tag the statistics {max, min, mean, std, q01, q99} of every state and action
key, and their shapes; ``conf.yaml`` says which action keys are relative to the last observed state. It knows nothing of
velocities or accelerations: those come from a robot file, which is also where the order of the axes is taken from.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_wam.contracts import ACTION_WIDTH, STATE_WIDTH
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError, nearest

Number = Annotated[float, Field(allow_inf_nan=False)]


class _Foreign(BaseModel):
    """Another project's file: what it says beyond this is not ours to refuse."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Statistics(_Foreign):
    q01: tuple[Number, ...]
    q99: tuple[Number, ...]

    @model_validator(mode="after")
    def _paired(self) -> Statistics:
        if len(self.q01) != len(self.q99):
            raise ValueError(f"{len(self.q01)} values of q01 and {len(self.q99)} of q99")
        return self


class Video(_Foreign):
    resolution: tuple[int, int]
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Vector(_Foreign):
    absolute: bool
    shape: tuple[int, ...]


class _Statistics(_Foreign):
    state: dict[str, Statistics]
    action: dict[str, Statistics]


class _Modalities(_Foreign):
    video: dict[str, Video]
    state: dict[str, Vector]
    action: dict[str, Vector]


class TeacherRobot(_Foreign):
    """What a checkpoint knows of one robot. Keys keep the file's order, which is the order of the vectors."""

    statistics: _Statistics
    modalities: _Modalities

    @model_validator(mode="after")
    def _complete(self) -> TeacherRobot:
        for kind, width in (("state", STATE_WIDTH), ("action", ACTION_WIDTH)):
            vectors, numbers = getattr(self.modalities, kind), getattr(self.statistics, kind)
            total = 0
            for key, vector in vectors.items():
                size = int(np.prod(vector.shape))
                if key not in numbers or len(numbers[key].q01) != size:
                    raise ValueError(f"{kind} key {key!r} of {size} numbers has no statistics of that size")
                total += size
            if total > width:
                raise ValueError(f"{total} {kind} numbers; the teacher takes {width}")
        return self


def load_teacher_robot(folder: Path, tag: str) -> TeacherRobot:
    """Statistics of one embodiment tag, e.g. ``oxe_droid``, of a checkpoint folder.

    Raises:
        ConfigError: no such file or tag, or a statistic is missing, of another size, or none.
    """
    path = folder / "experiment_cfg" / "metadata.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", expected="a checkpoint's experiment_cfg/metadata.json",
            remedy="download it again",
        ) from error  # fmt: skip
    if not isinstance(document, dict) or tag not in document:
        tags = list(document) if isinstance(document, dict) else []
        raise ConfigError(f"{path} knows no embodiment {tag!r}{nearest(tag, tags)}", expected=", ".join(tags))
    try:
        return TeacherRobot.model_validate(document[tag])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {tag}: {where}: {first['msg']}", remedy="download it again") from error


def relative_keys(folder: Path) -> frozenset[str]:
    """Action keys whose values are relative to the last observed state, from ``experiment_cfg/conf.yaml``.

    Raises:
        ConfigError: no such file, or it is not YAML.
    """
    path = folder / "experiment_cfg" / "conf.yaml"
    try:
        document: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        keys = document.get("relative_action_keys") or [] if document.get("relative_action") else []
        return frozenset(str(key) for key in keys)
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", expected="experiment_cfg/conf.yaml") from error


def with_teacher_statistics(robot: Embodiment, teacher: TeacherRobot, relative: frozenset[str]) -> Embodiment:
    """``robot`` with the teacher's statistics and action representation, axis by axis in the order of its action keys.

    Limits, drives and cameras stay the robot's own.

    Raises:
        ConfigError: another number of axes, an action key without a state of its size (which a relative key is added
            to), or a key that is to be relative and is none of the actions.
    """
    actions, states = teacher.modalities.action, teacher.modalities.state
    if unknown := sorted(relative - set(actions)):
        raise ConfigError(f"relative action key {unknown[0]!r}", expected=", ".join(actions))
    rows: list[dict[str, Any]] = []
    for key, vector in actions.items():
        size = int(np.prod(vector.shape))
        if key not in states or int(np.prod(states[key].shape)) != size:
            raise ConfigError(f"action key {key!r} has no state of {size} numbers", expected=", ".join(states))
        action, state = teacher.statistics.action[key], teacher.statistics.state[key]
        kind = "relative" if key in relative else "absolute"
        rows += [
            {"action": kind, "action_q01": a0, "action_q99": a1, "state_q01": s0, "state_q99": s1}
            for a0, a1, s0, s1 in zip(action.q01, action.q99, state.q01, state.q99, strict=True)
        ]
    if len(rows) != robot.dof:
        raise ConfigError(
            f"robot {robot.name!r} has {robot.dof} axes", expected=f"{len(rows)}: {', '.join(actions)}",
            remedy="choose the robot file, or the embodiment tag, that belongs to the other",
        )  # fmt: skip
    axes = [axis.model_dump() | row for axis, row in zip(robot.axes, rows, strict=True)]
    try:
        return Embodiment.model_validate(robot.model_dump() | {"axes": axes})
    except ValidationError as error:
        raise ConfigError(f"robot {robot.name!r} with the teacher's statistics: {error.errors()[0]['msg']}") from error
