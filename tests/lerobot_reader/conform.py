"""Runs inside the environment that has LeRobot: ``python -m tests.lerobot_reader.conform v3.0|v2.1 FOLDER``.

Ours read by LeRobot: every number and every pixel of every frame, with a chunk of actions and an earlier picture asked
for as a policy does. LeRobot's read by ours: the same, from files in which its own writer has put several episodes.
"""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset, LeRobotDatasetMetadata
from numpy.typing import NDArray

from distill.data.reader import Episode, open_dataset, read_episodes
from tests.distill.datasets import CAMERAS, FEATURES, FPS, LENGTHS, TASKS, pictures, vectors, write

SIZE = 64
HORIZON = 4


def _same(what: str, got: Any, wanted: NDArray[Any]) -> None:
    got = np.asarray(got)
    if got.shape != wanted.shape or not np.array_equal(got, wanted):
        worst = np.abs(got.astype(float) - wanted).max() if got.shape == wanted.shape else "of another shape"
        raise SystemExit(f"{what}: {got.shape} instead of {wanted.shape}, worst difference {worst}")


def _pixels(image: torch.Tensor) -> NDArray[np.uint8]:
    """LeRobot's [.., 3, h, w] in [0, 1] as [.., h, w, 3] bytes."""
    return (image * 255.0).round().to(torch.uint8).movedim(-3, -1).numpy()


def _compare(dataset: LeRobotDataset, episodes: list[Episode]) -> int:
    """Every sample of LeRobot's against what we read; returns how many there were."""
    count = 0
    for e in episodes:
        length = len(e.vectors["action"])
        for t in range(length):
            what = f"episode {e.index} frame {t}"
            sample = dataset[count]
            _same(what, int(sample["episode_index"]), np.array(e.index))
            _same(what, int(sample["frame_index"]), np.array(t))
            if sample["task"] != e.task:
                raise SystemExit(f"{what}: task {sample['task']!r} instead of {e.task!r}")
            ahead = np.minimum(t + np.arange(HORIZON), length - 1)
            _same(f"{what} action", sample["action"], e.vectors["action"][ahead])
            _same(f"{what} padding", sample["action_is_pad"], t + np.arange(HORIZON) >= length)
            _same(f"{what} state", sample["observation.state"], e.vectors["observation.state"][t])
            if "next.success" in e.vectors:
                _same(f"{what} success", bool(sample["next.success"]), e.vectors["next.success"][t, 0] > 0.5)
            _same(f"{what} corner2", _pixels(sample["observation.images.corner2"]),
                  e.frames["corner2"][[max(0, t - 2), t]])  # fmt: skip
            _same(f"{what} topview", _pixels(sample["observation.images.topview"]), e.frames["topview"][t])
            count += 1
    if count != len(dataset):
        raise SystemExit(f"{len(dataset)} samples instead of {count}")
    return count


def _open(root: Path) -> LeRobotDataset:
    times = {"observation.images.corner2": [-2 / FPS, 0.0], "action": [k / FPS for k in range(HORIZON)]}
    return LeRobotDataset("local/test", root=root, delta_timestamps=times, video_backend="pyav")


def ours(root: Path, version: str) -> int:
    """Written here, read by LeRobot."""
    write(root, version, size=SIZE)
    meta = LeRobotDatasetMetadata("local/test", root=root)
    _same("totals", [meta.total_episodes, meta.total_frames, meta.total_tasks], np.array([3, sum(LENGTHS), 2]))
    for name in ("action", "observation.state"):
        everything = np.concatenate([vectors(n, seed)[name] for seed, n in enumerate(LENGTHS)])
        for statistic, value in (("min", everything.min(0)), ("max", everything.max(0)), ("mean", everything.mean(0))):
            if not np.allclose(meta.stats[name][statistic], value, atol=1e-6):
                raise SystemExit(f"{name} {statistic}: {meta.stats[name][statistic]} instead of {value}")
    dataset = _open(root)
    batch = next(iter(torch.utils.data.DataLoader(dataset, batch_size=4)))
    _same("a batch", batch["action"].shape, np.array([4, HORIZON, 4]))
    return _compare(dataset, list(read_episodes(root)))


def theirs(root: Path, version: str) -> int:
    """Written by LeRobot's own writer, read here."""
    features: dict[str, Any] = {
        name: {"dtype": f.dtype, "shape": (f.length,), "names": list(f.names)}
        for name, f in FEATURES.items() if f.length > 1
    }  # fmt: skip
    for camera in CAMERAS:
        features[f"observation.images.{camera}"] = {
            "dtype": "video", "shape": (SIZE, SIZE, 3), "names": ["height", "width", "channels"],
        }  # fmt: skip
    dataset = LeRobotDataset.create("local/test", FPS, features, root=root, use_videos=True, video_backend="pyav")
    for seed, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        values, images = vectors(length, seed), pictures(length, seed, SIZE)
        for t in range(length):
            frame = {name: values[name][t] for name in features if name in values}
            frame |= {f"observation.images.{camera}": images[camera][t] for camera in CAMERAS}
            if version == "v3.0":
                dataset.add_frame(frame | {"task": task})
            else:
                dataset.add_frame(frame, task=task)
        dataset.save_episode()
    if hasattr(dataset, "finalize"):
        dataset.finalize()
    opened = open_dataset(root)
    if opened.index.info.codebase_version != version:
        raise SystemExit(f"LeRobot wrote {opened.index.info.codebase_version} instead of {version}")
    episodes = list(read_episodes(root))
    for seed, (e, length) in enumerate(zip(episodes, LENGTHS, strict=True)):
        for name, values in vectors(length, seed).items():
            if name in e.vectors:
                _same(f"episode {seed} {name}", e.vectors[name], values)
    files = {part.file for entry in opened.episodes for part in entry.videos.values()}
    print(f"LeRobot put {len(opened.episodes)} episodes into {len({e.data for e in opened.episodes})} tables and "
          f"{len(files)} videos")  # fmt: skip
    return _compare(_open(root), episodes)


def main(version: str, folder: Path) -> None:
    torch.set_num_threads(1)
    print(f"lerobot {installed('lerobot')}, datasets {installed('datasets')}, av {installed('av')}")
    print(f"{version} written here, read by LeRobot: {ours(folder / 'ours', version)} frames equal")
    print(f"{version} written by LeRobot, read here: {theirs(folder / 'theirs', version)} frames equal")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
