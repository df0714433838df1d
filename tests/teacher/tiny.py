"""A teacher small enough for a test, with weights and inputs that any NumPy draws alike."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from distill.teacher.config import TeacherConfig
from distill.teacher.dit import DreamZero

TINY_14B = TeacherConfig(
    name="tiny", width=96, depth=3, heads=4, ffn=192, latent_channels=16, first_frame_latent=True, latent_grid=(4, 8),
    text_length=24, text_width=64, hidden=64,
)  # fmt: skip
"""The 14B's layout: first-frame latent concatenated."""

TINY_5B = TeacherConfig(
    name="tiny5", width=72, depth=2, heads=3, ffn=144, latent_channels=48, first_frame_latent=False, latent_grid=(4, 6),
    text_length=24, text_width=64, hidden=64, actions_per_block=12, blocks=3,
)  # fmt: skip
"""The 5B's: the first frame through CLIP alone."""

CONFIGS = {"14b": TINY_14B, "5b": TINY_5B}


def draw(seed: int, *shape: int) -> Tensor:
    """Standard normal numbers of NumPy's PCG64, which do not change between versions (NEP 19)."""
    return torch.from_numpy(np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32))


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Weights by name: of a size at which every part of the network matters to its output."""
    out = {}
    for index, (name, shape) in enumerate(sorted(shapes.items())):
        value = draw(1000 + index, *shape)
        matrix = len(shape) > 1 and "modulation" not in name
        scale = (int(np.prod(shape[1:])) if name.endswith("weight") else shape[-2]) ** -0.5 if matrix else 0.2
        norm = name.endswith("weight") and len(shape) == 1
        out[name] = 1.0 + 0.2 * value if norm else scale * value
    return out


def tiny(config: TeacherConfig = TINY_14B) -> DreamZero:
    """In evaluation mode."""
    model = DreamZero(config)
    model.load_state_dict(weights({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model.eval()


def inputs(config: TeacherConfig, blocks: int, seed: int = 0) -> dict[str, Tensor]:
    """Everything a clip of so many blocks needs, by the names of :class:`distill.teacher.dit.Clip`."""
    frames = 1 + blocks * config.frames_per_block
    grid = config.latent_grid
    levels = np.random.Generator(np.random.PCG64(seed + 7)).integers(0, 1000, blocks + 1)
    video = np.concatenate([levels[:1], np.repeat(levels[1:], config.frames_per_block)])
    actions = blocks * config.actions_per_block
    out = {
        "noisy": draw(seed + 1, 1, config.latent_channels, frames, *grid),
        "clean": draw(seed + 2, 1, config.latent_channels, frames, *grid),
        "video_time": torch.from_numpy(video[None].astype(np.float32)),
        "text": draw(seed + 3, 1, config.text_length, config.text_width),
        "image": draw(seed + 4, 1, 257, config.clip_width),
        "actions": draw(seed + 5, 1, actions, config.action_width),
        "action_time": torch.from_numpy(np.repeat(levels[1:], config.actions_per_block)[None].astype(np.float32)),
        "states": draw(seed + 6, 1, blocks * config.states_per_block, config.state_width),
    }
    if config.first_frame_latent:
        first = torch.zeros(1, 4 + config.latent_channels, frames, *grid)
        first[:, :4, :1] = 1.0
        first[:, 4:] = draw(seed + 8, 1, config.latent_channels, frames, *grid)
        out["first_frame"] = first
    return out
