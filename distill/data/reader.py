"""One reader for LeRobot datasets of versions 2.0, 2.1 and 3.0, with or without GEAR's modality file.

``open_dataset`` reads ``meta`` alone and checks it; tables and videos are opened when somebody asks. Whatever does not
fit is refused with the dataset, the episode, the file and what to do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.data import lerobot_v2, lerobot_v3
from distill.data.files import content_hash
from distill.data.gear import Modality
from distill.data.info import NUMBERS, Entry, Index, Info, parse, read_json
from distill.data.video import read_frames, read_image
from edge_wam.contracts import U8
from edge_wam.errors import ConfigError

INDEXES: dict[str, Callable[[Path, Info, Modality | None], Index]] = {
    "v3.0": lerobot_v3.read_index, "v2.1": lerobot_v2.read_index, "v2.0": lerobot_v2.read_index,
}  # fmt: skip
ON_TIME_S = 1e-3
"""How far a row's time stamp may lie from its number divided by the rate: LeRobot writes float32."""
TABLES_KEPT = 2
"""Tables of data that stay in memory: version 3 has many episodes in one."""


@dataclass(frozen=True, slots=True)
class Episode:
    """One episode as read back: vectors [T, n] by feature, frames [T, h, w, 3] by camera, and what was to be done."""

    index: int
    task: str
    vectors: dict[str, NDArray[np.float32]]
    frames: dict[str, U8]


class Dataset:
    """An opened dataset. ``index`` is what ``meta`` says."""

    def __init__(self, index: Index) -> None:
        self.index = index
        self.root, self.fps, self.episodes = index.root, index.info.fps, index.episodes
        self._tables: OrderedDict[Path, pa.Table] = OrderedDict()

    def vectors(self, entry: Entry, names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Features as float32 [T, n], yes and no as 1 and 0.

        Raises:
            ConfigError: no such feature, file or column, another width than info.json says, a number that is missing
                or not finite, rows that are not this episode's or not at its rate.
        """
        table = self._rows(entry)
        return {name: self._vector(entry, table, name) for name in names}

    def tasks(self, entry: Entry, column: str = "task_index") -> list[str]:
        """What was to be done at every frame; the entry's own task where the column is missing.

        Raises:
            ConfigError: a number that meta/tasks does not have.
        """
        table = self._rows(entry)
        if column not in table.column_names:
            if column == "task_index" and entry.tasks:
                return [entry.tasks[0]] * entry.length
            raise self._refuse(entry, f"no column {column!r}", expected=", ".join(table.column_names))
        numbers = table[column].to_pylist()
        if unknown := sorted({str(n) for n in numbers if n not in self.index.tasks}):
            raise self._refuse(entry, f"{column} {unknown[0]} is no task", expected="a number of meta/tasks")
        return [self.index.tasks[int(n)] for n in numbers]

    def frames(self, entry: Entry, video_key: str, wanted: Sequence[int]) -> U8:
        """Pictures uint8 [len(wanted), h, w, 3] of one camera, by rising frame numbers of the episode.

        They come from its video, or from the table where the dataset keeps pictures there.

        Raises:
            ConfigError: no such camera, or the video does not hold what was asked for.
        """
        feature = self.index.info.features.get(video_key)
        if feature is not None and feature.dtype == "image":
            return self._stored(entry, video_key, wanted)
        if video_key not in entry.videos:
            raise ConfigError(
                f"{self._name(entry)} has no video {video_key!r}", expected=", ".join(entry.videos) or "a camera"
            )
        part = entry.videos[video_key]
        return read_frames(part.file, wanted, fps=self.fps, start_s=part.start_s, what=self._name(entry))

    def _stored(self, entry: Entry, key: str, wanted: Sequence[int]) -> U8:
        """Pictures that lie in the table as PNG or JPEG bytes."""
        table = self._rows(entry)
        if key not in table.column_names:
            raise self._refuse(entry, f"no column {key!r}", expected=", ".join(table.column_names))
        cells = table[key].take(pa.array(wanted, pa.int64())).to_pylist()
        images = []
        for frame, cell in zip(wanted, cells, strict=True):
            data = cell.get("bytes") if isinstance(cell, dict) else None
            if not isinstance(data, bytes):
                raise self._refuse(entry, f"{key} has no picture in frame {frame}", expected="PNG or JPEG bytes")
            images.append(read_image(data, f"{self._name(entry)}: {entry.data}: {key} in frame {frame}"))
            if images[-1].shape != images[0].shape:
                raise self._refuse(entry, f"{key} grows from {images[0].shape} to {images[-1].shape}")
        return np.stack(images)

    def files(self, episodes: Sequence[Entry], video_keys: Sequence[str]) -> set[Path]:
        """Every file that holds the metadata, and the tables and the videos of these episodes and cameras."""
        videos = {e.videos[key].file for e in episodes for key in video_keys if key in e.videos}
        return {*self.index.meta, *(e.data for e in episodes), *videos}

    def content_hash(
        self, episodes: Sequence[Entry], video_keys: Sequence[str],
        report: Callable[[int, int], None] = lambda done, total: None,
    ) -> str:  # fmt: skip
        """SHA-256 over the contents of :meth:`files`."""
        return content_hash(self.root, self.files(episodes, video_keys), report)

    def _name(self, entry: Entry) -> str:
        return f"{self.root} episode {entry.index}"

    def _refuse(self, entry: Entry, what: str, expected: str = "", remedy: str = "") -> ConfigError:
        return ConfigError(
            f"{self._name(entry)}: {entry.data}: {what}", expected=expected,
            remedy=remedy or "copy the file again, or leave the episode out",
        )  # fmt: skip

    def _rows(self, entry: Entry) -> pa.Table:
        """The episode's rows, checked to be its own, in order and at the dataset's rate."""
        whole = self._table(entry)
        table = whole.slice(entry.first_row, entry.length)
        if table.num_rows != entry.length:
            raise self._refuse(entry, f"{whole.num_rows} rows", expected=f"{entry.first_row + entry.length} at least")
        expected = {
            "episode_index": np.full(entry.length, entry.index), "frame_index": np.arange(entry.length),
        }  # fmt: skip
        for name, numbers in expected.items():
            if name in table.column_names and table[name].to_pylist() != numbers.tolist():
                wanted = f"{numbers[0]} to {numbers[-1]}"
                raise self._refuse(entry, f"{name} is not that of the episode", expected=wanted)
        if "timestamp" in table.column_names:
            late = np.abs(self._flat(entry, table, "timestamp") - np.arange(entry.length) / self.fps)
            if (worst := int(late.argmax())) >= 0 and late[worst] > ON_TIME_S:
                raise self._refuse(
                    entry, f"frame {worst} is {late[worst] * 1e3:.1f} ms off the rate", expected=f"{self.fps:g} Hz",
                    remedy="resample the episode, or correct fps in meta/info.json",
                )  # fmt: skip
        return table

    def _table(self, entry: Entry) -> pa.Table:
        if entry.data not in self._tables:
            try:
                self._tables[entry.data] = pq.read_table(entry.data)
            except (OSError, pa.ArrowException) as error:
                raise self._refuse(entry, f"cannot be read: {error}", expected="a parquet file") from error
            while len(self._tables) > TABLES_KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(entry.data)
        return self._tables[entry.data]

    def _flat(self, entry: Entry, table: pa.Table, name: str) -> NDArray[np.float64]:
        """One column of numbers, rows after each other, finite."""
        column = table[name].combine_chunks()
        kind = column.type
        if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind):
            if column.null_count:
                raise self._refuse(entry, f"{name} is missing in {column.null_count} frames")
            lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
            width = self.index.feature(name).width
            if (wrong := np.flatnonzero(lengths != width)).size:
                raise self._refuse(
                    entry, f"{name} has {lengths[wrong[0]]} numbers in frame {wrong[0]}",
                    expected=f"{width}, as meta/info.json says",
                )  # fmt: skip
            column = column.flatten()
        if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or column.type == pa.bool_()):
            raise self._refuse(entry, f"{name} holds {column.type}", expected="numbers")
        if column.null_count:
            raise self._refuse(entry, f"{name} is missing in {column.null_count} places")
        values = np.asarray(column.to_numpy(zero_copy_only=False), np.float64)
        if not np.isfinite(values).all():
            bad = int(np.flatnonzero(~np.isfinite(values))[0])
            frame = bad * table.num_rows // max(1, len(values))
            raise self._refuse(entry, f"{name} is {values[bad]} in frame {frame}", expected="finite numbers")
        return values

    def _vector(self, entry: Entry, table: pa.Table, name: str) -> NDArray[np.float32]:
        feature = self.index.feature(name)
        if feature.dtype not in NUMBERS:
            raise self._refuse(entry, f"{name} holds {feature.dtype}", expected="a feature of numbers")
        if name not in table.column_names:
            raise self._refuse(entry, f"no column {name!r}", expected=", ".join(table.column_names))
        flat = self._flat(entry, table, name)
        if len(flat) != entry.length * feature.width:
            raise self._refuse(
                entry, f"{name} has {len(flat) // max(1, entry.length)} numbers a frame",
                expected=f"{feature.width}, as meta/info.json says",
            )  # fmt: skip
        return flat.astype(np.float32).reshape(entry.length, feature.width)


def open_dataset(root: Path) -> Dataset:
    """Read and check a dataset's ``meta``.

    Raises:
        ConfigError: no dataset, a version that nobody here can read, missing statistics, or metadata that contradicts
            itself.
    """
    path = root / "meta" / "info.json"
    if not path.exists():
        raise ConfigError(f"{root} is no LeRobot dataset", expected="meta/info.json", remedy="generate it first")
    info = parse(Info, read_json(path), path)
    if info.codebase_version not in INDEXES:
        raise ConfigError(
            f"{root} has version {info.codebase_version!r}", expected=", ".join(INDEXES),
            remedy="convert it with the lerobot release that wrote it",
        )  # fmt: skip
    modality_file = root / "meta" / "modality.json"
    modality = parse(Modality, read_json(modality_file), modality_file) if modality_file.exists() else None
    index = INDEXES[info.codebase_version](root, info, modality)
    if modality is not None:
        _check_modality(index, modality, modality_file)
    if len(index.episodes) != info.total_episodes:
        raise ConfigError(
            f"{root} lists {len(index.episodes)} episodes", expected=f"{info.total_episodes}, as meta/info.json says",
            remedy="copy the dataset's meta folder again",
        )  # fmt: skip
    return Dataset(index)


def _check_modality(index: Index, modality: Modality, path: Path) -> None:
    """Every name must stand for something that the dataset has."""
    for kind, table in (("state", modality.state), ("action", modality.action)):
        for key in table:
            column, part = modality.vector(f"{kind}.{key}") or ("", table[key])
            if part.end > index.feature(column).width:
                raise ConfigError(
                    f"{path}: {kind}.{key} ends at {part.end}", expected=f"at most the width of {column!r}, "
                    f"{index.feature(column).width}", remedy="correct the file",
                )  # fmt: skip
    for key in modality.video:
        column = modality.video_column(key) or ""
        if column not in index.camera_keys:
            raise ConfigError(f"{path}: video.{key} is {column!r}", expected=", ".join(index.camera_keys))


def read_episodes(root: Path, cameras: tuple[str, ...] | None = None) -> Iterator[Episode]:
    """Every episode of a dataset, whole, in order; cameras by the names after ``observation.images.`` (None: all).

    Raises:
        ConfigError: whatever :func:`open_dataset` and :class:`Dataset` refuse.
    """
    dataset = open_dataset(root)
    prefix = "observation.images."
    keys = dataset.index.camera_keys if cameras is None else tuple(prefix + name for name in cameras)
    for entry in dataset.episodes:
        vectors = dataset.vectors(entry, dataset.index.vector_keys)
        frames = {k.removeprefix(prefix): dataset.frames(entry, k, range(entry.length)) for k in keys}
        yield Episode(entry.index, dataset.tasks(entry)[0], vectors, frames)
