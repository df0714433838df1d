"""LeRobotDataset v2.0 and v2.1 on disk: one table and one video per camera for each episode, lists of JSON lines.

Version 2.1 replaced the statistics of the whole dataset by those of each episode; GEAR's datasets keep the former.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from distill.data.files import write_json, write_jsonl
from distill.data.gear import Modality
from distill.data.info import Entry, Foreign, Index, Info, VideoPart, parse, place, read_json, read_jsonl
from distill.data.writer import FILES_PER_CHUNK, EpisodeWriter, Written, statistics, values_of
from edge_wam.errors import ConfigError

CODEBASE_VERSION = "v2.1"
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


class DatasetWriter(EpisodeWriter):
    """Writes version 2.1. See :class:`EpisodeWriter`."""

    def data_file(self, episode: int) -> Path:
        return self.root / DATA_PATH.format(episode_chunk=episode // FILES_PER_CHUNK, episode_index=episode)

    def video_file(self, episode: int, key: str) -> Path:
        chunk = episode // FILES_PER_CHUNK
        return self.root / VIDEO_PATH.format(video_key=key, episode_chunk=chunk, episode_index=episode)

    def write_meta(self, episodes: list[Written], tasks: list[str]) -> None:
        meta = self.root / "meta"
        write_jsonl(meta / "tasks.jsonl", ({"task_index": k, "task": task} for k, task in enumerate(tasks)))
        write_jsonl(
            meta / "episodes.jsonl",
            ({"episode_index": e.index, "tasks": [e.task], "length": e.length} for e in episodes),
        )
        rows = []
        for e in episodes:
            stats = {name: statistics(values_of(e.table, name)) for name in self.features}
            for camera in self.cameras:
                stats[f"observation.images.{camera}"] = self.image_statistics(camera, [e.index])
            rows.append({"episode_index": e.index, "stats": stats})
        write_jsonl(meta / "episodes_stats.jsonl", rows)
        chunks = (len(episodes) - 1) // FILES_PER_CHUNK + 1
        info = self.info(CODEBASE_VERSION, sum(e.length for e in episodes), len(tasks))
        counts = {"total_videos": len(episodes) * len(self.cameras), "total_chunks": chunks}
        write_json(meta / "info.json", info | counts | {"data_path": DATA_PATH, "video_path": VIDEO_PATH})


class _Task(Foreign):
    task_index: int
    task: str


class _Episode(Foreign):
    episode_index: Annotated[int, Field(ge=0)]
    length: Annotated[int, Field(ge=1)]
    tasks: tuple[str, ...] = ()


class _EpisodeStatistics(Foreign):
    episode_index: int
    stats: dict[str, object]


def read_index(root: Path, info: Info, modality: Modality | None) -> Index:
    """The episodes of a v2.0 or v2.1 dataset.

    Raises:
        ConfigError: a file of ``meta`` is missing or damaged, or an episode without statistics.
    """
    meta = root / "meta"
    tasks_file, episodes_file = meta / "tasks.jsonl", meta / "episodes.jsonl"
    tasks = {t.task_index: t.task for t in (parse(_Task, row, tasks_file) for row in read_jsonl(tasks_file))}
    episodes = sorted(
        (parse(_Episode, row, episodes_file) for row in read_jsonl(episodes_file)), key=lambda e: e.episode_index
    )
    stats = _statistics_file(meta, info.codebase_version, {e.episode_index for e in episodes})
    keys = [name for name, f in info.features.items() if f.dtype == "video"]
    if keys and info.video_path is None:
        raise ConfigError(f"{meta / 'info.json'}: no video_path", expected=f"one, because of {keys[0]!r}")
    entries = []
    for e in episodes:
        at = {"episode_chunk": e.episode_index // info.chunks_size, "episode_index": e.episode_index}
        videos = {
            key: VideoPart(place(root, info.video_path or "", meta / "info.json", video_key=key, **at)) for key in keys
        }
        data = place(root, info.data_path, meta / "info.json", **at)
        entries.append(Entry(e.episode_index, e.length, e.tasks, data, 0, videos))
    modality_file = (meta / "modality.json",) if modality is not None else ()
    files = (meta / "info.json", tasks_file, episodes_file, stats, *modality_file)
    return Index(root, info, tasks, tuple(entries), files, modality)


def _statistics_file(meta: Path, version: str, episodes: set[int]) -> Path:
    """The file that holds the statistics, checked to be there and to know every episode."""
    each, whole = meta / "episodes_stats.jsonl", meta / "stats.json"
    if version == "v2.0" or not each.exists():
        if not whole.exists():
            raise ConfigError(
                f"{meta.parent} has no statistics", expected=f"{whole.name if version == 'v2.0' else each.name}",
                remedy="copy the dataset's meta folder again, or compute them with lerobot",
            )  # fmt: skip
        read_json(whole)
        return whole
    known = {parse(_EpisodeStatistics, row, each).episode_index for row in read_jsonl(each)}
    if missing := sorted(episodes - known):
        raise ConfigError(f"{each} lacks episode {missing[0]}", expected=f"all {len(episodes)} episodes",
                          remedy="compute the statistics again with lerobot")  # fmt: skip
    return each
