"""LeRobotDataset v3.0 on disk, written and indexed without lerobot itself (layout: huggingface/lerobot, version v3.0).

Written: one data file and one video file per camera for each episode, which the format allows. Read: whatever the
table of episodes says, with many episodes in one file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distill.data.files import write_json, write_parquet
from distill.data.gear import Modality
from distill.data.info import Entry, Index, Info, VideoPart, place, read_json
from distill.data.writer import FILES_PER_CHUNK, EpisodeWriter, Feature, Written, statistics, values_of
from edge_wam.errors import ConfigError

__all__ = ["DatasetWriter", "Feature", "read_index"]
CODEBASE_VERSION = "v3.0"
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"


class DatasetWriter(EpisodeWriter):
    """See :class:`EpisodeWriter`."""

    def data_file(self, episode: int) -> Path:
        chunk, number = divmod(episode, FILES_PER_CHUNK)
        return self.root / DATA_PATH.format(chunk_index=chunk, file_index=number)

    def video_file(self, episode: int, key: str) -> Path:
        chunk, number = divmod(episode, FILES_PER_CHUNK)
        return self.root / VIDEO_PATH.format(video_key=key, chunk_index=chunk, file_index=number)

    def write_meta(self, episodes: list[Written], tasks: list[str]) -> None:
        meta = self.root / "meta"
        rows = pa.Table.from_pylist([self._row(e) for e in episodes])
        write_parquet(rows, meta / "episodes" / "chunk-000" / "file-000.parquet")
        write_parquet(_task_table(tasks), meta / "tasks.parquet")
        whole = pa.concat_tables([e.table for e in episodes], promote_options="default")
        stats = {name: statistics(values_of(whole, name)) for name in self.features}
        some = np.unique(np.linspace(0, len(episodes) - 1, min(100, len(episodes))).astype(int)).tolist()
        for camera in self.cameras:
            stats[f"observation.images.{camera}"] = self.image_statistics(camera, some)
        write_json(meta / "stats.json", stats)
        info = self.info(CODEBASE_VERSION, whole.num_rows, len(tasks))
        sizes = {"data_files_size_in_mb": 100, "video_files_size_in_mb": 200}
        write_json(meta / "info.json", info | sizes | {"data_path": DATA_PATH, "video_path": VIDEO_PATH})

    def _row(self, episode: Written) -> dict[str, Any]:
        chunk, number = divmod(episode.index, FILES_PER_CHUNK)
        row: dict[str, Any] = {
            "episode_index": episode.index, "tasks": [episode.task], "length": episode.length,
            "data/chunk_index": chunk, "data/file_index": number,
            "dataset_from_index": episode.start, "dataset_to_index": episode.start + episode.length,
            "meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0,
        }  # fmt: skip
        for camera in self.cameras:
            prefix = f"videos/observation.images.{camera}"
            row |= {f"{prefix}/chunk_index": chunk, f"{prefix}/file_index": number}
            row |= {f"{prefix}/from_timestamp": 0.0, f"{prefix}/to_timestamp": episode.length / self.fps}
        for name in self.features:
            for statistic, value in statistics(values_of(episode.table, name)).items():
                row[f"stats/{name}/{statistic}"] = value
        return row


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


def read_index(root: Path, info: Info, modality: Modality | None) -> Index:
    """The episodes of a v3.0 dataset.

    Raises:
        ConfigError: a file of ``meta`` is missing or damaged, or a column in it.
    """
    meta = root / "meta"
    stats, tasks_file = meta / "stats.json", meta / "tasks.parquet"
    files = sorted((meta / "episodes").glob("*/*.parquet"))
    if not files:
        raise ConfigError(f"{meta / 'episodes'} has no table", expected="chunk-000/file-000.parquet",
                          remedy="finalize the dataset, or copy its meta folder again")  # fmt: skip
    read_json(stats)
    tables = [_table(path) for path in files]
    text = next((c for c in _table(tasks_file).column_names if c != "task_index"), "")
    tasks = {int(row["task_index"]): str(row[text]) for row in _table(tasks_file).to_pylist()}
    keys = [name for name, f in info.features.items() if f.dtype == "video"]
    rows = sorted((row for table in tables for row in table.to_pylist()), key=lambda row: row["episode_index"])
    first: dict[tuple[int, int], int] = {}
    entries = []
    try:
        for row in rows:
            at = (row["data/chunk_index"], row["data/file_index"])
            first[at] = min(first.get(at, row["dataset_from_index"]), row["dataset_from_index"])
        for row in rows:
            at = (row["data/chunk_index"], row["data/file_index"])
            entries.append(
                Entry(
                    int(row["episode_index"]), int(row["length"]), tuple(row.get("tasks") or ()),
                    place(root, info.data_path, meta / "info.json", chunk_index=at[0], file_index=at[1]),
                    int(row["dataset_from_index"] - first[at]), {key: _part(root, info, row, key) for key in keys},
                )
            )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{files[0]}: column {error} is missing", remedy="copy the meta folder again") from error
    return Index(root, info, tasks, tuple(entries), (meta / "info.json", stats, tasks_file, *files), modality)


def _part(root: Path, info: Info, row: dict[str, Any], key: str) -> VideoPart:
    if info.video_path is None:
        raise ConfigError(f"{root / 'meta' / 'info.json'}: no video_path", expected=f"one, because of {key!r}")
    at = {"chunk_index": row[f"videos/{key}/chunk_index"], "file_index": row[f"videos/{key}/file_index"]}
    file = place(root, info.video_path, root / "meta" / "info.json", video_key=key, **at)
    return VideoPart(file, float(row[f"videos/{key}/from_timestamp"]))


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(f"{path} cannot be read: {error}", remedy="copy the dataset's meta folder again") from error
