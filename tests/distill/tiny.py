"""A student small enough for tests, and episodes that nobody had to simulate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from distill.data.generate import features
from distill.data.lerobot_v3 import DatasetWriter
from distill.export import step_inputs
from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from edge_wam.embodiment import Embodiment, load_embodiment

ROBOT_FILE = Path(__file__).parents[2] / "robots" / "metaworld_sawyer.toml"
ROBOT: Embodiment = load_embodiment(ROBOT_FILE)
TINY = StudentConfig(
    name="tiny", depth=2, width=32, ffn=64, heads=4, grid=(4, 8), latent_channels=4, patch=2, future_patch=4,
    past_frames=2, past_stride=2, future_knots=(4, 8), horizon=16, text_length=10, text_depth=1,
)  # fmt: skip
WHOLE = replace(TINY, grid=(8, 16))
"""The tiny student on the robot's own canvas of 64x128."""
EXPORTED = replace(WHOLE, depth=3, past_frames=1)
"""Three blocks: the first and the last stay float, the one between becomes INT8."""


def make_student(config: StudentConfig, seed: int = 0) -> tuple[FrameCodec, WorldActionTransformer]:
    """Random weights in which every path is alive (a fresh transformer ignores the noise level)."""
    torch.manual_seed(seed)
    codec, wam = FrameCodec(config), WorldActionTransformer(config)
    torch.nn.init.normal_(wam.time_project.weight, std=0.1)
    torch.nn.init.normal_(wam.time_project.bias, std=0.1)
    return codec.eval(), wam.eval()


def episode_vectors(length: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Random vectors of every feature of a generated dataset."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, feature in features(ROBOT).items():
        values = rng.standard_normal((length, feature.length)).astype(np.float32)
        out[name] = (values > 0).astype(np.float32) if feature.dtype == "bool" else values
    return out


def smooth_video(length: int, seed: int, size: int = 32) -> NDArray[np.uint8]:
    """Moving waves [T, size, size, 3]: something that a video codec can hold."""
    t, y, x = np.meshgrid(np.arange(length), np.arange(size), np.arange(size), indexing="ij")
    waves = [np.sin((x + 2 * y + 3 * t) / (5.0 + seed + c)) for c in range(3)]
    return np.rint(127.5 + 120.0 * np.stack(waves, -1)).astype(np.uint8)


def writer(root: Path) -> DatasetWriter:
    """A writer with the features of generated datasets, two cameras and 20 Hz."""
    return DatasetWriter(root, fps=20, robot_type="test", features=features(ROBOT), cameras=("corner2", "topview"))


def add_episode(to: DatasetWriter, length: int, seed: int, task: str = "open the drawer") -> None:
    to.add(task, episode_vectors(length, seed), {"corner2": smooth_video(length, seed),
                                                 "topview": smooth_video(length, seed + 7)})  # fmt: skip


@dataclass(frozen=True)
class Exported:
    """A student and its graphs."""

    codec: FrameCodec
    wam: WorldActionTransformer
    graphs: dict[str, onnx.ModelProto]
    quantised: onnx.ModelProto


def step_feed(seed: int) -> dict[str, NDArray[np.generic]]:
    """Inputs of the step graph as a running policy has them: unit-variance latents, real K/V."""
    rng = np.random.default_rng(seed)
    shapes = {name: tuple(value.shape) for name, value in step_inputs(EXPORTED).items()}
    out: dict[str, NDArray[np.generic]] = {
        name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    d = seed % 5
    out["prefix_mask"] = (np.arange(16) < d).astype(np.float32)[None]
    out["prefix_action"] = (out["prefix_action"] * out["prefix_mask"][..., None]).astype(np.float32)
    out["past_mask"] = np.full((1, EXPORTED.past_frames), float(seed % 2), np.float32)
    return out
