"""Datasets to training arrays: canvases made by the robot's own kernel, then latents, then windows.

Everything a training step needs lies in memory: for the nano student a frame is 24 kB as a canvas and 4 kB as latents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.reader import read_episodes
from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig
from edge_wam.contracts import U8
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.kernels import camera_to_canvas


@dataclass
class Frames:
    """All frames of some datasets, episodes one after the other (N frames).

    Attributes:
        canvas: uint8 [N, 3, Hc, Wc]: what the kernel makes of the cameras, before the affine map to [-1, 1].
        position, setpoint: [N, D] axis units; environment: [N, 39]; action: [N, D] setpoint one knot later.
        chunk, chunk_mask: [N, 16, D], [N, 16]: what the expert does from here.
        first, last: [N] index of the first and last frame of the frame's episode. ``task``: [N] index into ``tasks``.
    """

    canvas: U8
    position: NDArray[np.float32]
    setpoint: NDArray[np.float32]
    environment: NDArray[np.float32]
    action: NDArray[np.float32]
    chunk: NDArray[np.float32]
    chunk_mask: NDArray[np.float32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    task: NDArray[np.int64]
    tasks: list[str]


def canvas_of(images: dict[str, U8], embodiment: Embodiment) -> U8:
    """One canvas uint8 [3, Hc, Wc] from one image per camera, by the kernel that runs on the robot."""
    out = np.zeros((3, embodiment.canvas_height, embodiment.canvas_width), np.float32)
    for c in embodiment.cameras:
        crop = (c.crop_x, c.crop_y, c.crop_width, c.crop_height)
        at = (c.canvas_x, c.canvas_y, c.canvas_width, c.canvas_height)
        camera_to_canvas(images[c.name], crop, out, at)
    return np.rint((out + 1.0) * 127.5).astype(np.uint8)


def normalise_canvas(canvas: U8 | Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], the kernel's own map."""
    return torch.as_tensor(canvas).float() / 127.5 - 1.0


def load_frames(roots: list[Path], embodiment: Embodiment) -> Frames:
    """Read LeRobot v3 datasets and preprocess every frame.

    Raises:
        ConfigError: no dataset, or cameras that the embodiment does not have.
    """
    if not roots:
        raise ConfigError("no dataset given", expected="at least one folder")
    tasks: list[str] = []
    columns: dict[str, list[NDArray[np.generic]]] = {k: [] for k in Frames.__dataclass_fields__ if k != "tasks"}
    start = 0
    dof = embodiment.dof
    for root in roots:
        for episode in read_episodes(root, tuple(c.name for c in embodiment.cameras)):
            v = episode.vectors
            n = len(v["action"])
            if episode.task not in tasks:
                tasks.append(episode.task)
            columns["canvas"].append(
                np.stack([canvas_of({k: f[t] for k, f in episode.frames.items()}, embodiment) for t in range(n)])
            )
            columns["position"].append(v["observation.state"][:, :dof])
            columns["setpoint"].append(v["observation.state"][:, dof:])
            columns["environment"].append(v["observation.environment_state"])
            columns["action"].append(v["action"])
            columns["chunk"].append(v["expert_chunk"].reshape(n, -1, dof))
            columns["chunk_mask"].append(v["expert_chunk_mask"])
            columns["first"].append(np.full(n, start))
            columns["last"].append(np.full(n, start + n - 1))
            columns["task"].append(np.full(n, tasks.index(episode.task)))
            start += n
    return Frames(**{k: np.concatenate(v) for k, v in columns.items()}, tasks=tasks)  # type: ignore[arg-type]


@torch.no_grad()
def encode_frames(codec: FrameCodec, canvas: U8, batch: int = 256) -> Tensor:
    """Latent tokens float16 [N, Nv, C] of all canvases."""
    codec.eval()
    parts = [codec.encode(normalise_canvas(canvas[i : i + batch])).half() for i in range(0, len(canvas), batch)]
    return torch.cat(parts)


@dataclass
class Windows:
    """Training samples by frame index; built once, sampled by index."""

    latent: Tensor
    state: Tensor
    action: Tensor
    action_mask: Tensor
    past: Tensor
    past_mask: Tensor
    future: Tensor
    future_mask: Tensor
    task: Tensor
    tasks: list[str]

    def __len__(self) -> int:
        return len(self.latent)


VIDEO_AGREES_M = 0.02
"""On-policy frames teach video only where what was executed stays this close to what the expert would have done."""


def make_windows(frames: Frames, latents: Tensor, config: StudentConfig, embodiment: Embodiment) -> Windows:
    """Indices and normalised targets of one sample per frame."""
    n, dof = len(frames.first), embodiment.dof
    index = np.arange(n)
    steps = np.arange(config.past_frames, 0, -1) * config.past_stride
    past = index[:, None] - steps
    future = index[:, None] + np.array(config.future_knots)
    future_ok = future <= frames.last[:, None]
    # The imagined video belongs to the actions: where the arm then did something else, it is no target.
    knots = np.minimum(index[:, None] + np.arange(config.horizon), frames.last[:, None])
    executed = frames.action[knots]
    apart = np.abs(executed[..., :3] - frames.chunk[..., :3]).max(-1) * frames.chunk_mask
    for f, knot in enumerate(config.future_knots):
        agrees = (apart[:, :knot].max(1) < VIDEO_AGREES_M) & (frames.chunk_mask[:, :knot].min(1) > 0)
        future_ok[:, f] &= agrees
    state = np.stack([embodiment.normalise_state(p, s) for p, s in zip(frames.position, frames.setpoint, strict=True)])
    raw = frames.chunk - np.where(embodiment.relative, frames.position, 0.0)[:, None]
    low, high = embodiment.vector("action_q01"), embodiment.vector("action_q99")
    action = np.zeros((n, config.horizon, config.action_width), np.float32)
    action[..., :dof] = 2.0 * (raw - low) / (high - low) - 1.0
    mask = np.zeros((n, config.horizon, config.action_width), np.float32)
    mask[..., :dof] = frames.chunk_mask[..., None]
    return Windows(
        latent=latents, state=torch.from_numpy(state), action=torch.from_numpy(action),
        action_mask=torch.from_numpy(mask),
        past=torch.from_numpy(np.maximum(past, frames.first[:, None])),
        past_mask=torch.from_numpy((past >= frames.first[:, None]).astype(np.float32)),
        future=torch.from_numpy(np.minimum(future, frames.last[:, None])),
        future_mask=torch.from_numpy(future_ok.astype(np.float32)),
        task=torch.from_numpy(frames.task), tasks=frames.tasks,
    )  # fmt: skip
