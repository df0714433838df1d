"""Small datasets of both versions, and ways of damaging them."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.data import lerobot_v2, lerobot_v3
from distill.data.writer import EpisodeWriter, Feature
from tests.distill.tiny import ROBOT_FILE, smooth_video

FPS = 20
AXES = ("x", "y", "z", "gripper")
FEATURES = {
    "observation.state": Feature(4, AXES),
    "action": Feature(4, AXES),
    "next.success": Feature(1, ("success",), "bool"),
}
CAMERAS = ("corner2", "topview")
LENGTHS = (6, 9, 5)
TASKS = ("open the drawer", "close the door", "open the drawer")
WRITERS: dict[str, type[EpisodeWriter]] = {"v2.1": lerobot_v2.DatasetWriter, "v3.0": lerobot_v3.DatasetWriter}
MODALITY = {
    "state": {"hand": {"start": 0, "end": 3}, "gripper": {"start": 3, "end": 4, "absolute": True}},
    "action": {"hand": {"start": 0, "end": 3, "original_key": "action"}, "gripper": {"start": 3, "end": 4}},
    "video": {"front": {"original_key": "observation.images.corner2"}},
    "annotation": {"human.task_description": {"original_key": "task_index"}},
}


def vectors(length: int, seed: int, success: bool = True) -> dict[str, NDArray[np.float32]]:
    """A smooth motion inside the Sawyer's limits, followed 10 mm behind."""
    t = np.arange(length)[:, None] / FPS
    action = np.array([0.0, 0.6, 0.2, 0.0]) + 0.1 * np.sin(t + np.arange(4) + seed)
    done = np.zeros((length, 1), np.float32)
    done[-1] = float(success)
    return {"observation.state": (action - 0.01).astype(np.float32), "action": action.astype(np.float32),
            "next.success": done}  # fmt: skip


def pictures(length: int, seed: int, size: int = 32) -> dict[str, NDArray[np.uint8]]:
    return {camera: smooth_video(length, seed + 7 * k, size) for k, camera in enumerate(CAMERAS)}


def write(root: Path, version: str, *, gear: bool = False, size: int = 32) -> Path:
    """Three episodes of two tasks; the second one fails."""
    writer = WRITERS[version](root, fps=FPS, robot_type="test", features=FEATURES, cameras=CAMERAS)
    for seed, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
        writer.add(task, vectors(length, seed, success=seed != 1), pictures(length, seed, size))
    writer.finalize()
    if gear:
        (root / "meta" / "modality.json").write_text(json.dumps(MODALITY))
    return root


def robot_file(path: Path, *, axes: int = 4, pixels: int = 32, **changes: Any) -> Path:
    """The Sawyer with fewer axes and cameras of ``pixels`` squared, as a file."""
    data = tomllib.loads(ROBOT_FILE.read_text()) | changes
    lines = [f"{k} = {json.dumps(v)}" for k, v in data.items() if not isinstance(v, list)]
    size = {"width": pixels, "height": pixels, "crop_x": 4, "crop_y": 2, "crop_width": 24, "crop_height": 24}
    for table, rows in (("axes", data["axes"][:axes]), ("cameras", [c | size for c in data["cameras"]])):
        for row in rows:
            lines += [f"[[{table}]]", *(f"{k} = {json.dumps(v)}" for k, v in row.items())]
    path.write_text("\n".join(lines))
    return path


def data_file(root: Path, episode: int) -> Path:
    """The table of an episode in a dataset written here."""
    (path,) = [p for p in sorted((root / "data").rglob("*.parquet")) if p.stem.endswith(f"{episode:03d}")]
    return path


def video_file(root: Path, episode: int, camera: str = "corner2") -> Path:
    (path,) = [p for p in sorted((root / "videos").rglob("*.mp4"))
               if p.stem.endswith(f"{episode:03d}") and camera in str(p)]  # fmt: skip
    return path


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_column(
    path: Path, name: str, change: Callable[[NDArray[np.float64]], NDArray[np.float64] | list[Any]]
) -> None:
    """Replace a column of a table by what ``change`` makes of it (rows [T, n] or [T])."""
    table = pq.read_table(path)
    values = change(np.array(table[name].to_pylist()))
    column = pa.array(values.tolist() if isinstance(values, np.ndarray) else values)
    pq.write_table(table.set_column(table.column_names.index(name), name, column), path)
