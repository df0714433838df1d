"""What writing a LeRobot dataset takes in any version: episodes one by one, metadata rebuilt from them at the end.

One data file and one video file per camera for each episode. Version 2 demands it and version 3 allows it, an
interrupted generation resumes at the next episode, and nothing half-written counts: an episode exists once its parquet
has been renamed into place, which happens last.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.data import video
from distill.data.files import write_parquet
from distill.data.info import SCALARS
from edge_wam.contracts import U8
from edge_wam.errors import ConfigError

FILES_PER_CHUNK = 1000
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


@dataclass(frozen=True, slots=True)
class Feature:
    """A vector feature of every frame: its length and the names of its entries.

    One entry alone is stored as a plain column: LeRobot reads shape [1] as a scalar and refuses a list there. Yes and
    no are stored as ``bool``, as LeRobot's own ``next.done`` is; in memory everything is float32 [T, n].
    """

    length: int
    names: tuple[str, ...]
    dtype: Literal["float32", "bool"] = "float32"


@dataclass(frozen=True, slots=True)
class Written:
    """One episode as ``meta`` has to name it. ``start``: its first frame's number in the whole dataset."""

    index: int
    task: str
    start: int
    table: pa.Table

    @property
    def length(self) -> int:
        return int(self.table.num_rows)


class EpisodeWriter(ABC):
    """Writes episodes one by one.

    Args:
        root: the dataset's folder; existing episodes in it are kept and counted.
        fps: frames per second of every feature and video.
        robot_type: name of the embodiment.
        features: vector features by name.
        cameras: camera names; the video key is ``observation.images.NAME``.
    """

    def __init__(
        self, root: Path, *, fps: int, robot_type: str, features: Mapping[str, Feature], cameras: tuple[str, ...]
    ) -> None:
        self.root, self.fps, self.robot_type = root, fps, robot_type
        self.features, self.cameras = dict(features), cameras
        self.episodes = 0
        while self.data_file(self.episodes).exists():
            self.episodes += 1

    @abstractmethod
    def data_file(self, episode: int) -> Path:
        """The table of an episode."""

    @abstractmethod
    def video_file(self, episode: int, key: str) -> Path:
        """The video of an episode; ``key``: ``observation.images.NAME``."""

    @abstractmethod
    def write_meta(self, episodes: list[Written], tasks: list[str]) -> None:
        """Write ``meta/`` for these episodes; ``info.json`` last, because it is what makes the dataset one."""

    def add(self, task: str, vectors: Mapping[str, NDArray[np.float32]], frames: Mapping[str, U8]) -> None:
        """Append one episode: vectors [T, n] for each feature and frames [T, h, w, 3] for each camera.

        Raises:
            ConfigError: no frame; a feature or camera is missing, unknown or of another length; a number is not finite.
        """
        if set(vectors) != set(self.features) or set(frames) != set(self.cameras):
            raise ConfigError(
                f"episode has {sorted(vectors)} and cameras {sorted(frames)}",
                expected=f"{sorted(self.features)} and {sorted(self.cameras)}",
            )
        length = max((len(values) for values in (*vectors.values(), *frames.values())), default=0)
        if not length:
            raise ConfigError(f"episode {self.episodes} has no frame", expected="at least one")
        for name, feature in self.features.items():
            if vectors[name].shape != (length, feature.length):
                raise ConfigError(f"{name} is {vectors[name].shape}", expected=f"({length}, {feature.length})")
            if not np.isfinite(vectors[name]).all():
                raise ConfigError(f"{name} of episode {self.episodes}", expected="finite numbers")
        for camera in self.cameras:
            if len(frames[camera]) != length:
                raise ConfigError(f"camera {camera}: {len(frames[camera])} frames", expected=str(length))
            video.encode(self.video_file(self.episodes, f"observation.images.{camera}"), frames[camera], self.fps)
        columns = {name: _column(vectors[name], feature) for name, feature in self.features.items()}
        columns["timestamp"] = pa.array(np.arange(length, dtype=np.float32) / self.fps)
        columns["frame_index"] = pa.array(np.arange(length))
        columns["episode_index"] = pa.array(np.full(length, self.episodes))
        table = pa.table(columns).replace_schema_metadata({"task": task})
        write_parquet(table, self.data_file(self.episodes))
        self.episodes += 1

    def finalize(self) -> None:
        """Fill in global indices and write ``meta/``. May be called again after more episodes.

        Raises:
            ConfigError: there is no episode.
        """
        if not self.episodes:
            raise ConfigError(f"{self.root} has no episode", expected="at least one", remedy="add episodes first")
        tasks: list[str] = []
        episodes: list[Written] = []
        start = 0
        for e in range(self.episodes):
            table = pq.read_table(self.data_file(e))
            task = (table.schema.metadata or {})[b"task"].decode()
            if task not in tasks:
                tasks.append(task)
            length = table.num_rows
            table = table.drop_columns([c for c in ("index", "task_index") if c in table.column_names])
            table = table.append_column("index", pa.array(np.arange(start, start + length)))
            table = table.append_column("task_index", pa.array(np.full(length, tasks.index(task))))
            table = table.replace_schema_metadata({"task": task, "huggingface": self._huggingface_schema()})
            write_parquet(table, self.data_file(e))
            episodes.append(Written(e, task, start, table))
            start += length
        self.write_meta(episodes, tasks)

    def image_statistics(self, camera: str, episodes: list[int]) -> dict[str, Any]:
        """Per-channel statistics in [0, 1], shape [3, 1, 1] as LeRobot has them, of some frames of these episodes."""
        pixels = []
        for e in episodes:
            count = pq.read_metadata(self.data_file(e)).num_rows
            wanted = range(0, count, max(1, count // 4))
            file = self.video_file(e, f"observation.images.{camera}")
            frames = video.read_frames(file, wanted, fps=self.fps, start_s=0.0, what=f"{self.root} episode {e}")
            pixels.append(frames[:, ::4, ::4].reshape(-1, 3) / 255.0)
        flat = statistics(np.concatenate(pixels))
        return {k: v if k == "count" else np.reshape(v, (3, 1, 1)).tolist() for k, v in flat.items()}

    def info(self, version: str, frames: int, tasks: int) -> dict[str, Any]:
        """What ``info.json`` says in every version."""
        features: dict[str, Any] = {
            name: {"dtype": f.dtype, "shape": [f.length], "names": list(f.names)} for name, f in self.features.items()
        }
        for camera in self.cameras:
            height, width, channels = video.shape_of(self.video_file(0, f"observation.images.{camera}"))
            features[f"observation.images.{camera}"] = {
                "dtype": "video", "shape": [height, width, channels], "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height, "video.width": width, "video.codec": "h264",
                    "video.pix_fmt": video.PIXEL_FORMAT, "video.fps": self.fps, "video.channels": channels,
                    "video.is_depth_map": False, "has_audio": False,
                },
            }  # fmt: skip
        for name in SCALARS:
            dtype = "float32" if name == "timestamp" else "int64"
            features[name] = {"dtype": dtype, "shape": [1], "names": None}
        return {
            "codebase_version": version, "robot_type": self.robot_type, "fps": self.fps,
            "total_episodes": self.episodes, "total_frames": frames, "total_tasks": tasks,
            "chunks_size": FILES_PER_CHUNK, "splits": {"train": f"0:{self.episodes}"}, "features": features,
        }  # fmt: skip

    def _huggingface_schema(self) -> str:
        """The ``datasets`` feature description that LeRobot's reader looks for in the parquet schema."""
        out: dict[str, Any] = {}
        for name, f in self.features.items():
            value = {"dtype": f.dtype, "_type": "Value"}
            out[name] = value if f.length == 1 else {"feature": value, "length": f.length, "_type": "Sequence"}
        for name in SCALARS:
            out[name] = {"dtype": "float32" if name == "timestamp" else "int64", "_type": "Value"}
        return json.dumps({"info": {"features": out}})


def values_of(table: pa.Table, name: str) -> NDArray[np.float32]:
    """A feature's column of a table written here, as [T, n]."""
    column = table[name].combine_chunks()
    listed = pa.types.is_fixed_size_list(column.type)
    width = column.type.list_size if listed else 1
    flat = column.flatten() if listed else column
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)


def statistics(values: NDArray[Any]) -> dict[str, list[float]]:
    """LeRobot's statistics over the rows of [N, n]."""
    out = {
        "min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0),
        "count": np.array([len(values)]),
    }  # fmt: skip
    out |= {name: np.quantile(values, q, axis=0) for name, q in _QUANTILES.items()}
    return {k: np.asarray(v).tolist() for k, v in out.items()}


def _column(values: NDArray[np.float32], feature: Feature) -> pa.Array:
    flat = pa.array(values.ravel() > 0.5 if feature.dtype == "bool" else values.astype(np.float32).ravel())
    return flat if feature.length == 1 else pa.FixedSizeListArray.from_arrays(flat, feature.length)
