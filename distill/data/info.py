"""What a LeRobot dataset of either version is, once its ``meta`` folder has been read: one index for all of them.

``meta/info.json`` names the features and where files lie; who reads which version's list of episodes fills the rest
(``lerobot_v2.py``, ``lerobot_v3.py``). Nothing here opens a video or a table of data.
"""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.data.gear import Modality
from edge_wam.errors import ConfigError, nearest

NUMBERS = frozenset({"float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8"})
SCALARS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns that every dataset has and that are no feature of the robot."""


class Foreign(BaseModel):
    """Another project's file: what it says beyond this is not ours to refuse."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class FeatureInfo(Foreign):
    dtype: str
    shape: tuple[int, ...]
    names: Any = None

    @property
    def width(self) -> int:
        """Numbers a frame."""
        return int(np.prod(self.shape))


class Info(Foreign):
    """``meta/info.json``."""

    codebase_version: str
    fps: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    total_episodes: Annotated[int, Field(ge=1)]
    features: dict[str, FeatureInfo]
    data_path: str
    video_path: str | None = None
    chunks_size: Annotated[int, Field(ge=1)] = 1000
    robot_type: str | None = None


@dataclass(frozen=True, slots=True)
class VideoPart:
    """Where an episode's frames of one camera are: a file, and when in it the episode begins."""

    file: Path
    start_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One episode of the index: ``length`` rows from ``first_row`` of the table ``data``."""

    index: int
    length: int
    tasks: tuple[str, ...]
    data: Path
    first_row: int
    videos: dict[str, VideoPart]


@dataclass(frozen=True, slots=True)
class Index:
    """All that is known of a dataset without its data.

    Attributes:
        tasks: instruction by task number.
        meta: the files that were read for it.
    """

    root: Path
    info: Info
    tasks: dict[int, str]
    episodes: tuple[Entry, ...]
    meta: tuple[Path, ...]
    modality: Modality | None = None

    @property
    def camera_keys(self) -> tuple[str, ...]:
        """Features of pictures: videos, and pictures in the tables."""
        return tuple(name for name, f in self.info.features.items() if f.dtype in {"video", "image"})

    @property
    def vector_keys(self) -> tuple[str, ...]:
        """Features of numbers, without the scalars of every dataset."""
        return tuple(k for k, f in self.info.features.items() if f.dtype in NUMBERS and k not in SCALARS)

    def feature(self, name: str) -> FeatureInfo:
        """One feature; raises ConfigError naming the nearest."""
        if name not in self.info.features:
            raise ConfigError(
                f"{self.root} has no feature {name!r}{nearest(name, self.info.features)}",
                expected=", ".join(self.info.features),
            )
        return self.info.features[name]


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        ConfigError: missing, unreadable or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", remedy="copy the dataset's meta folder again") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line.

    Raises:
        ConfigError: missing, unreadable, or a line is no JSON object.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", remedy="copy the dataset's meta folder again") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ConfigError(f"{path} line {number} is no JSON: {error}", remedy="copy the file again") from error
        if not isinstance(row, dict):
            raise ConfigError(f"{path} line {number} is {type(row).__name__}", expected="a JSON object")
        rows.append(row)
    return rows


T = TypeVar("T", bound=BaseModel)


def parse(kind: type[T], value: Any, path: Path) -> T:
    """``value`` of the file ``path`` as ``kind``; raises ConfigError naming the key."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {where or 'file'}: {first['msg']}", remedy="correct the file") from error


def place(root: Path, template: str, path: Path, **values: object) -> Path:
    """The file that a path template of ``path`` (an info.json) names.

    Raises:
        ConfigError: the template asks for something else than ``values``, or leads out of the dataset.
    """
    try:
        asked = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
        if asked - set(values):
            raise ValueError(f"unknown {sorted(asked - set(values))}")
        made = root / template.format(**values)
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{path}: path {template!r}: {error}", expected=", ".join(values)) from error
    if not made.resolve().is_relative_to(root.resolve()):
        raise ConfigError(f"{path}: path {template!r} leads out of the dataset", expected="files below its folder")
    return made
