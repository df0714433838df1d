"""LeRobotDataset v3.0 on disk, written and read without lerobot itself (layout: huggingface/lerobot, version v3.0).

One data file and one video file per camera for each episode: the format allows it, an interrupted generation resumes
at the next episode, and nothing half-written counts (an episode exists once its parquet has been renamed into place,
which happens last). Metadata (info, stats, tasks, episodes) is rebuilt from the data files by ``finalize``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from edge_wam.contracts import U8
from edge_wam.errors import ConfigError

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
VIDEO_OPTIONS = {"crf": "12", "preset": "veryfast", "g": "2"}
"""CRF 12 and full chroma: a goal of three red pixels must survive the codec; GOP 2 as in LeRobot, for random access."""
PIXEL_FORMAT = "yuv444p"
_QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
_SCALARS = ("timestamp", "frame_index", "episode_index", "index", "task_index")


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
class Episode:
    """One episode as read back: vectors [T, n] by feature, frames [T, h, w, 3] by camera, and what was to be done."""

    index: int
    task: str
    vectors: dict[str, NDArray[np.float32]]
    frames: dict[str, U8]


def _file(root: Path, kind: str, key: str, episode: int) -> Path:
    chunk, number = divmod(episode, FILES_PER_CHUNK)
    suffix = "parquet" if kind == "data" else "mp4"
    return root / kind / key / f"chunk-{chunk:03d}" / f"file-{number:03d}.{suffix}"


class DatasetWriter:
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
        while _file(root, "data", "", self.episodes).exists():
            self.episodes += 1

    def add(self, task: str, vectors: Mapping[str, NDArray[np.float32]], frames: Mapping[str, U8]) -> None:
        """Append one episode: vectors [T, n] for each feature and frames [T, h, w, 3] for each camera.

        Raises:
            ConfigError: a feature or camera is missing, unknown or of another length.
        """
        if set(vectors) != set(self.features) or set(frames) != set(self.cameras):
            raise ConfigError(
                f"episode has {sorted(vectors)} and cameras {sorted(frames)}",
                expected=f"{sorted(self.features)} and {sorted(self.cameras)}",
            )
        length = len(next(iter(vectors.values())))
        for name, feature in self.features.items():
            if vectors[name].shape != (length, feature.length):
                raise ConfigError(f"{name} is {vectors[name].shape}", expected=f"({length}, {feature.length})")
        for camera in self.cameras:
            if len(frames[camera]) != length:
                raise ConfigError(f"camera {camera}: {len(frames[camera])} frames", expected=str(length))
            path = _file(self.root, "videos", f"observation.images.{camera}", self.episodes)
            _encode(path, frames[camera], self.fps)
        columns = {name: _column(vectors[name], feature) for name, feature in self.features.items()}
        columns["timestamp"] = pa.array(np.arange(length, dtype=np.float32) / self.fps)
        columns["frame_index"] = pa.array(np.arange(length))
        columns["episode_index"] = pa.array(np.full(length, self.episodes))
        table = pa.table(columns).replace_schema_metadata({"task": task})
        _write_parquet(table, _file(self.root, "data", "", self.episodes))
        self.episodes += 1

    def finalize(self) -> None:
        """Fill in global indices and write ``meta/``. May be called again after more episodes.

        Raises:
            ConfigError: there is no episode.
        """
        if not self.episodes:
            raise ConfigError(f"{self.root} has no episode", expected="at least one", remedy="add episodes first")
        tables = [pq.read_table(_file(self.root, "data", "", e)) for e in range(self.episodes)]
        tasks: list[str] = []
        start = 0
        episode_rows: list[dict[str, Any]] = []
        for e, table in enumerate(tables):
            task = (table.schema.metadata or {})[b"task"].decode()
            if task not in tasks:
                tasks.append(task)
            length = table.num_rows
            base = table.drop_columns([c for c in ("index", "task_index") if c in table.column_names])
            base = base.append_column("index", pa.array(np.arange(start, start + length)))
            base = base.append_column("task_index", pa.array(np.full(length, tasks.index(task))))
            base = base.replace_schema_metadata({"task": task, "huggingface": self._huggingface_schema()})
            _write_parquet(base, _file(self.root, "data", "", e))
            tables[e] = base
            chunk, number = divmod(e, FILES_PER_CHUNK)
            row: dict[str, Any] = {
                "episode_index": e, "tasks": [task], "length": length,
                "data/chunk_index": chunk, "data/file_index": number,
                "dataset_from_index": start, "dataset_to_index": start + length,
                "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
            }  # fmt: skip
            for camera in self.cameras:
                prefix = f"videos/observation.images.{camera}"
                row |= {f"{prefix}/chunk_index": chunk, f"{prefix}/file_index": number}
                row |= {f"{prefix}/from_timestamp": 0.0, f"{prefix}/to_timestamp": length / self.fps}
            for name in self.features:
                for statistic, value in _statistics(_vectors(base, name)).items():
                    row[f"stats/{name}/{statistic}"] = value
            episode_rows.append(row)
            start += length
        meta = self.root / "meta"
        _write_parquet(pa.Table.from_pylist(episode_rows), meta / "episodes" / "chunk-000" / "file-000.parquet")
        _write_parquet(_task_table(tasks), meta / "tasks.parquet")
        whole = pa.concat_tables(tables, promote_options="default")
        stats = {name: _statistics(_vectors(whole, name)) for name in self.features}
        for camera in self.cameras:
            stats[f"observation.images.{camera}"] = self._image_statistics(camera)
        _write_json(meta / "stats.json", stats)
        _write_json(meta / "info.json", self._info(start, len(tasks)))

    def _image_statistics(self, camera: str) -> dict[str, Any]:
        """Per-channel statistics in [0, 1], shape [3, 1, 1] as LeRobot has them, over up to 100 episodes."""
        pixels = []
        for e in np.unique(np.linspace(0, self.episodes - 1, min(100, self.episodes)).astype(int)):
            frames = _decode(_file(self.root, "videos", f"observation.images.{camera}", int(e)))
            pixels.append(frames[:: max(1, len(frames) // 4), ::4, ::4].reshape(-1, 3) / 255.0)
        flat = _statistics(np.concatenate(pixels))
        return {k: v if k == "count" else np.reshape(v, (3, 1, 1)).tolist() for k, v in flat.items()}

    def _image_shape(self, camera: str) -> tuple[int, int, int]:
        with av.open(str(_file(self.root, "videos", f"observation.images.{camera}", 0))) as container:
            stream = container.streams.video[0]
            return stream.height, stream.width, 3

    def _info(self, frames: int, tasks: int) -> dict[str, Any]:
        features: dict[str, Any] = {
            name: {"dtype": f.dtype, "shape": [f.length], "names": list(f.names)} for name, f in self.features.items()
        }
        for camera in self.cameras:
            height, width, channels = self._image_shape(camera)
            features[f"observation.images.{camera}"] = {
                "dtype": "video", "shape": [height, width, channels], "names": ["height", "width", "channels"],
                "info": {
                    "video.height": height, "video.width": width, "video.codec": "h264", "video.pix_fmt": PIXEL_FORMAT,
                    "video.fps": self.fps, "video.channels": channels, "video.is_depth_map": False, "has_audio": False,
                },
            }  # fmt: skip
        for name in _SCALARS:
            dtype = "float32" if name == "timestamp" else "int64"
            features[name] = {"dtype": dtype, "shape": [1], "names": None}
        return {
            "codebase_version": CODEBASE_VERSION, "robot_type": self.robot_type, "fps": self.fps,
            "total_episodes": self.episodes, "total_frames": frames, "total_tasks": tasks,
            "chunks_size": FILES_PER_CHUNK, "data_files_size_in_mb": 100, "video_files_size_in_mb": 200,
            "splits": {"train": f"0:{self.episodes}"},
            "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": features,
        }  # fmt: skip

    def _huggingface_schema(self) -> str:
        """The ``datasets`` feature description that LeRobot's reader looks for in the parquet schema."""
        out: dict[str, Any] = {}
        for name, f in self.features.items():
            value = {"dtype": f.dtype, "_type": "Value"}
            out[name] = value if f.length == 1 else {"feature": value, "length": f.length, "_type": "Sequence"}
        for name in _SCALARS:
            out[name] = {"dtype": "float32" if name == "timestamp" else "int64", "_type": "Value"}
        return json.dumps({"info": {"features": out}})


def read_episodes(root: Path, cameras: tuple[str, ...] | None = None) -> Iterator[Episode]:
    """Every episode of a dataset written as above, in order.

    Raises:
        ConfigError: no dataset there, or of another version.
    """
    info_path = root / "meta" / "info.json"
    if not info_path.exists():
        raise ConfigError(f"{root} is no LeRobot dataset", expected="meta/info.json", remedy="generate it first")
    info = json.loads(info_path.read_text())
    if info["codebase_version"] != CODEBASE_VERSION:
        raise ConfigError(f"{root} has version {info['codebase_version']}", expected=CODEBASE_VERSION)
    names = [k for k, v in info["features"].items() if v["dtype"] in {"float32", "bool"} and k not in _SCALARS]
    videos = [k.removeprefix("observation.images.") for k, v in info["features"].items() if v["dtype"] == "video"]
    for e in range(info["total_episodes"]):
        table = pq.read_table(_file(root, "data", "", e))
        vectors = {name: _vectors(table, name) for name in names}
        frames = {
            camera: _decode(_file(root, "videos", f"observation.images.{camera}", e))
            for camera in (cameras if cameras is not None else videos)
        }
        yield Episode(e, (table.schema.metadata or {})[b"task"].decode(), vectors, frames)


def _column(values: NDArray[np.float32], feature: Feature) -> pa.Array:
    flat = pa.array(values.ravel() > 0.5 if feature.dtype == "bool" else values.astype(np.float32).ravel())
    return flat if feature.length == 1 else pa.FixedSizeListArray.from_arrays(flat, feature.length)


def _vectors(table: pa.Table, name: str) -> NDArray[np.float32]:
    column = table[name].combine_chunks()
    listed = pa.types.is_fixed_size_list(column.type)
    width = column.type.list_size if listed else 1
    flat = column.flatten() if listed else column
    return np.asarray(flat.to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)


def _statistics(values: NDArray[Any]) -> dict[str, list[float]]:
    out = {
        "min": values.min(0), "max": values.max(0), "mean": values.mean(0), "std": values.std(0),
        "count": np.array([len(values)]),
    }  # fmt: skip
    out |= {name: np.quantile(values, q, axis=0) for name, q in _QUANTILES.items()}
    return {k: np.asarray(v).tolist() for k, v in out.items()}


def _task_table(tasks: list[str]) -> pa.Table:
    """task_index with the task string as pandas index column, which is how LeRobot stores it."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "__index_level_0__": pa.array(tasks)})
    column = {"metadata": None, "field_name": "task_index", "name": "task_index",
              "numpy_type": "int64", "pandas_type": "int64"}  # fmt: skip
    index = {"metadata": None, "field_name": "__index_level_0__", "name": None,
             "numpy_type": "object", "pandas_type": "unicode"}  # fmt: skip
    pandas = {"index_columns": ["__index_level_0__"], "column_indexes": [], "columns": [column, index],
              "creator": {"library": "pyarrow", "version": pa.__version__}, "pandas_version": "2.0.0"}  # fmt: skip
    return table.replace_schema_metadata({"pandas": json.dumps(pandas)})


def _encode(path: Path, frames: U8, fps: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps), options=VIDEO_OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = PIXEL_FORMAT
        stream.thread_count = 1
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    partial.rename(path)


def _decode(path: Path) -> U8:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _write_parquet(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(table, partial)
    partial.rename(path)


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2) + "\n")
    partial.rename(path)
