"""What a dataset's columns mean for a robot: one ``Source`` per dataset, and its episodes in the robot's units.

Datasets name things freely and robots differ. A source says which columns are the measured position, the setpoint and
the action of the robot's axes, which video is which camera, and what shows success; every name has a default that fits
datasets written here, plain LeRobot ones of the robot's width, and GEAR's.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distill.data.info import Entry
from distill.data.reader import Dataset, open_dataset
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError, nearest

F32 = NDArray[np.float32]
NO_VIEW = ""
"""In ``cameras``: the dataset has no such view, its part of the canvas stays empty."""
LABEL, LABEL_MASK = "expert_chunk", "expert_chunk_mask"
"""Columns of datasets written here: what an expert would have done from this frame on, and which knots of it count."""
OUTSIDE, FAR = 0.01, 0.25
"""More than this share of the frames further outside an axis' limits than this share of their range: other units."""


class Source(BaseModel):
    """A dataset and how it is read. Columns: a feature, ``feature[2:5]``, or GEAR's ``state.KEY`` and ``action.KEY``.

    Attributes:
        root: the dataset's folder.
        position, setpoint, action: columns of the measured position, the setpoint and the action, together as many
            numbers as the robot has axes. No setpoint: the action of the frame before. ``video_only``: none of them.
        scale, shift: axis units = scale * dataset's + shift, for each axis.
        cameras: the dataset's video for each of the robot's cameras; "" leaves a camera out.
        task: column or GEAR annotation with the task's number.
        success: yes-or-no feature that is true once in an episode that succeeds; missing: all count as successful.
        failures: what failed episodes teach: ``video`` alone, actions too (``learn``), or nothing (``drop``). An
            expert's labels, where a dataset has them, are always learned: they are not what failed.
        leave_out: episodes, by their numbers, that are not read.
        repeat: how many times its frames are counted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path
    position: tuple[str, ...] = ()
    setpoint: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    video_only: bool = False
    scale: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()
    shift: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()
    cameras: dict[str, str] = {}
    task: str = "task_index"
    success: str = "next.success"
    failures: Literal["video", "learn", "drop"] = "video"
    leave_out: tuple[Annotated[int, Field(ge=0)], ...] = ()
    repeat: Annotated[int, Field(ge=1, le=1000)] = 1


@dataclass(frozen=True, slots=True)
class Columns:
    """(feature, first, end) of every part of a vector, in the robot's order of axes."""

    parts: tuple[tuple[str, int, int], ...]

    @property
    def width(self) -> int:
        return sum(end - first for _, first, end in self.parts)

    def of(self, vectors: dict[str, F32]) -> F32:
        """[T, width]."""
        return np.concatenate([vectors[name][:, first:end] for name, first, end in self.parts], 1)


@dataclass(frozen=True, slots=True)
class Take:
    """An episode in the robot's units. Vectors are [T, D]; NaN where the dataset does not have them.

    Attributes:
        action: setpoint one frame later.
        trusted: what was done may be learned.
        label, label_mask: an expert's chunk at every frame [T, H, D] and which knots count [T, H]; None: no expert.
        environment: the simulator's privileged state [T, E]; E = 0 outside simulation.
        tasks: the instruction at every frame.
    """

    entry: Entry
    position: F32
    setpoint: F32
    action: F32
    trusted: bool
    success: bool
    label: F32 | None
    label_mask: F32 | None
    environment: F32
    tasks: list[str]


class OpenSource:
    """A source whose names have been looked up in its dataset, for one robot.

    Raises:
        ConfigError: a name that the dataset does not have, a width that is not the robot's, a dataset that is slower
            than the robot's knots, a picture of another size than the robot's camera.
    """

    def __init__(self, source: Source, embodiment: Embodiment) -> None:
        self.source, self.embodiment = source, embodiment
        self.dataset: Dataset = open_dataset(source.root)
        self.per_knot = self.dataset.fps * embodiment.chunk_dt_ms * 1e-3
        """Frames from one knot to the next."""
        if self.per_knot < 1.0 - 1e-6:
            raise self._refuse(
                f"{self.dataset.fps:g} frames per second", f"at least one a knot of {embodiment.chunk_dt_ms} ms",
                "use a robot file with longer knots",
            )  # fmt: skip
        features = self.dataset.index.info.features
        self._learns = not source.video_only and (bool(source.action) or "action" in features)
        self._position = self._setpoint = self._action = None
        if self._learns:
            self._action = self._columns("action", source.action or self._default_action())
            self._position = self._columns("position", source.position or self._default_position())
            setpoint = source.setpoint or self._default_setpoint()
            self._setpoint = self._columns("setpoint", setpoint) if setpoint else None
        elif source.position:
            self._position = self._columns("position", source.position)
        for name, values in (("scale", source.scale), ("shift", source.shift)):
            if values and len(values) != embodiment.dof:
                raise self._refuse(f"{name} has {len(values)} numbers", f"{embodiment.dof}, one for each axis")
        self._scale = np.array(source.scale or [1.0] * embodiment.dof)
        self._shift = np.array(source.shift or [0.0] * embodiment.dof)
        self._labelled = self._learns and LABEL in features and LABEL_MASK in features
        if self._labelled and abs(self.per_knot - 1.0) > 1e-6:
            raise self._refuse(f"{LABEL} at {self.dataset.fps:g} Hz", f"a frame a knot of {embodiment.chunk_dt_ms} ms")
        there = {entry.index for entry in self.dataset.episodes}
        if unknown := sorted(set(source.leave_out) - there):
            raise self._refuse(f"no episode {unknown[0]} to leave out", f"one of {min(there)} to {max(there)}")
        self.episodes = tuple(e for e in self.dataset.episodes if e.index not in source.leave_out)
        if not self.episodes:
            raise self._refuse("every episode is left out", "some that are read")
        self.videos = self._videos()

    def takes(self) -> Iterator[Take]:
        """Every episode; those that failed and are to be dropped are left out.

        Raises:
            ConfigError: whatever the reader refuses, or numbers far outside the robot's limits.
        """
        features = self.dataset.index.info.features
        parts = [c for c in (self._position, self._setpoint, self._action) if c is not None]
        names = {name for c in parts for name, _, _ in c.parts}
        labels = (LABEL, LABEL_MASK) if self._labelled else ()
        extra = [n for n in (self.source.success, "observation.environment_state", *labels) if n in features]
        outside = np.zeros(self.embodiment.dof)
        frames = 0
        for entry in self.episodes:
            vectors = self.dataset.vectors(entry, sorted({*names, *extra}))
            done = vectors.get(self.source.success)
            success = done is None or bool((done > 0.5).any())
            if not success and self.source.failures == "drop":
                continue
            take = self._take(entry, vectors, success)
            if self._learns:
                frames += entry.length
                outside += self._outside(take.action)
            yield take
        if frames and (bad := np.flatnonzero(outside > OUTSIDE * frames)).size:
            axis = self.embodiment.axes[bad[0]]
            raise self._refuse(
                f"action of axis {axis.name!r} lies far outside its limits in {outside[bad[0]] / frames:.0%} of the "
                "frames", f"{axis.position_min:g} to {axis.position_max:g} {axis.unit}",
                "give scale and shift from the dataset's units to the axis', or choose the right robot file",
            )  # fmt: skip

    def _take(self, entry: Entry, vectors: dict[str, F32], success: bool) -> Take:
        shape = (entry.length, self.embodiment.dof)
        nothing = np.full(shape, np.nan, np.float32)

        def units(columns: Columns | None) -> F32:
            if columns is None:
                return nothing
            return np.asarray(columns.of(vectors) * self._scale + self._shift, np.float32)

        position, action = units(self._position), units(self._action)
        setpoint = units(self._setpoint)
        if self._setpoint is None and self._learns:
            setpoint = np.concatenate([position[:1], action[:-1]])
        label = label_mask = None
        if self._labelled:
            label = vectors[LABEL].reshape(entry.length, -1, self.embodiment.dof)
            label_mask = vectors[LABEL_MASK]
            if label.shape[:2] != label_mask.shape:
                raise self._refuse(f"{LABEL} has {label.shape[1]} knots", f"{label_mask.shape[1]}, as its mask has")
        none = np.zeros((entry.length, 0), np.float32)
        modality = self.dataset.index.modality
        column = (modality.annotation_column(self.source.task) if modality else None) or self.source.task
        return Take(
            entry, position, setpoint, action, self._learns and (success or self.source.failures == "learn"), success,
            label, label_mask, vectors.get("observation.environment_state", none), self.dataset.tasks(entry, column),
        )  # fmt: skip

    def _outside(self, action: F32) -> NDArray[np.float64]:
        """Frames of each axis that lie far outside its limits."""
        low, high = self.embodiment.vector("position_min"), self.embodiment.vector("position_max")
        far = FAR * (high - low)
        return np.asarray(((action < low - far) | (action > high + far)).sum(0), np.float64)

    def _columns(self, what: str, names: tuple[str, ...]) -> Columns:
        columns = Columns(tuple(self._column(name) for name in names))
        if columns.width != self.embodiment.dof:
            raise self._refuse(
                f"{what} {', '.join(names)} has {columns.width} numbers",
                f"{self.embodiment.dof}, the axes of {self.embodiment.name!r}", f"name its columns: {what} = [...]",
            )  # fmt: skip
        return columns

    def _column(self, name: str) -> tuple[str, int, int]:
        index = self.dataset.index
        named = index.modality.vector(name) if index.modality is not None else None
        if named is not None:
            column, part = named
            if name.startswith("action.") and not part.absolute:
                raise self._refuse(f"{name} is relative", "absolute actions: relative ones are made from them here")
            return column, part.start, part.end
        cut = re.fullmatch(r"(.+)\[(\d+):(\d+)\]", name)
        if cut is None:
            return name, 0, index.feature(name).width
        feature, first, end = cut[1], int(cut[2]), int(cut[3])
        if not first < end <= index.feature(feature).width:
            raise self._refuse(f"{name} leaves the column", f"0 to {index.feature(feature).width}")
        return feature, first, end

    def _default_action(self) -> tuple[str, ...]:
        modality = self.dataset.index.modality
        return tuple(f"action.{key}" for key in modality.action) if modality and modality.action else ("action",)

    def _default_position(self) -> tuple[str, ...]:
        """GEAR: the state of each action key. Else the state, or its first half where the setpoint follows it."""
        modality = self.dataset.index.modality
        if modality is not None and modality.action and not self.source.action:
            return tuple(f"state.{key}" for key in modality.action)
        width = self.dataset.index.feature("observation.state").width
        return (f"observation.state[0:{self.embodiment.dof}]",) if self._doubled(width) else ("observation.state",)

    def _default_setpoint(self) -> tuple[str, ...]:
        features, dof = self.dataset.index.info.features, self.embodiment.dof
        if self.source.position or "observation.state" not in features:
            return ()
        doubled = self._doubled(features["observation.state"].width)
        return (f"observation.state[{dof}:{2 * dof}]",) if doubled else ()

    def _doubled(self, width: int) -> bool:
        """Is the state the position and then the setpoint, as datasets written here say by their names?"""
        names = self.dataset.index.feature("observation.state").names
        dof = self.embodiment.dof
        return width == 2 * dof and isinstance(names, list) and all(str(n).endswith(".setpoint") for n in names[dof:])

    def _videos(self) -> dict[str, str]:
        """The dataset's video key of every camera that is not left out, each opened once to see its size."""
        index, robot = self.dataset.index, {c.name: c for c in self.embodiment.cameras}
        if unknown := [name for name in self.source.cameras if name not in robot]:
            raise self._refuse(f"camera {unknown[0]!r}{nearest(unknown[0], robot)}", ", ".join(robot))
        out = {}
        for name, camera in robot.items():
            wanted = self.source.cameras.get(name, name)
            if wanted == NO_VIEW:
                continue
            gear = index.modality.video_column(wanted) if index.modality is not None else None
            key = gear or (wanted if wanted in index.camera_keys else f"observation.images.{wanted}")
            if key not in index.camera_keys:
                raise self._refuse(
                    f"no video {wanted!r} for camera {name!r}", ", ".join(index.camera_keys) or "a dataset with videos",
                    f'name it: cameras = {{ {name} = "..." }}, or "" to leave it out',
                )  # fmt: skip
            shape = self.dataset.frames(self.episodes[0], key, [0]).shape[1:3]
            if shape != (camera.height, camera.width):
                raise self._refuse(
                    f"{key} is {shape[1]}x{shape[0]}", f"{camera.width}x{camera.height}, camera {name!r} of "
                    f"{self.embodiment.name!r}", "use a robot file whose cameras are those of the dataset",
                )  # fmt: skip
            out[name] = key
        if not out:
            raise self._refuse("no camera is read", "at least one of " + ", ".join(robot))
        return out

    def _refuse(self, what: str, expected: str, remedy: str = "") -> ConfigError:
        return ConfigError(f"{self.source.root}: {what}", expected=expected, remedy=remedy)


def source_from(root: Path, file: Path | None) -> Source:
    """A dataset, and the TOML file that says how it is read (None: by the defaults).

    Raises:
        ConfigError: no such file, not TOML, an unknown key or a value of another kind.
    """
    if file is None:
        return Source(root=root)
    try:
        return Source.model_validate(tomllib.loads(file.read_text(encoding="utf-8")) | {"root": root})
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}", expected="TOML: what columns mean") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{file}: {key}: {first['msg']}{nearest(key, Source.model_fields)}") from error


def sources_hash(
    sources: Sequence[Source], embodiment: Embodiment, report: Callable[[int, int], None] = lambda done, total: None
) -> str:
    """SHA-256 over all that frames are made from: the contents of the datasets, how they are read, and the robot.

    Where the datasets lie does not matter; their order does, because samples are numbered by it.

    Args:
        report: called with the files read and how many the dataset at hand has.

    Raises:
        ConfigError: a dataset is damaged or does not fit the robot, or a file of it cannot be read.
    """
    digest = hashlib.sha256(embodiment.model_dump_json().encode())
    for source in sources:
        opened = OpenSource(source, embodiment)
        how = source.model_dump(mode="json", exclude={"root"})
        digest.update(json.dumps(how, sort_keys=True).encode())
        digest.update(opened.dataset.content_hash(opened.episodes, tuple(opened.videos.values()), report).encode())
    return digest.hexdigest()
