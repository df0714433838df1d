"""Train the frame codec: reconstruction, with the foreground weighted up, and a probe that keeps objects readable.

A goal is a handful of pixels among 8192: a plain reconstruction loss forgets it at no cost. Two things prevent that:
pixels that differ from the scene's mean weigh more, and a linear probe must read the simulator's object and goal
positions out of the latents (privileged information of the datacentre; the probe is thrown away afterwards).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from distill.checkpoint import load_checkpoint, save_checkpoint
from distill.curves import Curves
from distill.data.windows import Frames, normalise_canvas
from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig

PROBED = [0, 1, 2, 4, 5, 6, 36, 37, 38]
"""Meta-World's observation: hand, first object, goal (metres)."""
FOREGROUND_WEIGHT = 6.0
PROBE_WEIGHT = 0.3


@dataclass(frozen=True, slots=True)
class CodecTraining:
    steps: int = 3000
    batch: int = 48
    learning_rate: float = 1.5e-3
    seed: int = 0


def train_codec(
    frames: Frames, config: StudentConfig, settings: CodecTraining, out: Path, report: Callable[[int, int, str], None]
) -> FrameCodec:
    """Train (or resume) and return the codec, calibrated to unit-variance latents. Writes ``codec.pt`` and curves."""
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    codec = FrameCodec(config)
    cells = config.grid[0] * config.grid[1] * config.latent_channels
    probe = nn.Sequential(nn.Linear(cells, 128), nn.ReLU(), nn.Linear(128, len(PROBED)))
    parameters = [*codec.parameters(), *probe.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.steps, pct_start=0.05
    )
    state = {"codec": codec, "probe": probe, "optimiser": optimiser, "schedule": schedule}
    start = load_checkpoint(out / "codec-training.pt", state)
    mean = torch.from_numpy(frames.canvas[:: max(1, len(frames.canvas) // 500)].mean(0).astype(np.float32)) / 127.5 - 1
    target = torch.from_numpy(frames.environment[:, PROBED])
    target = (target - target.mean(0)) / target.std(0).clamp_min(1e-3)
    metres = torch.from_numpy(frames.environment[:, PROBED]).std(0)
    curves = Curves(out / "codec.csv", ("step", "image", "probe", "probe_mm"))
    for step in range(start, settings.steps):
        index = rng.integers(0, len(frames.canvas), settings.batch)
        image = normalise_canvas(frames.canvas[index])
        with torch.autocast("cpu", torch.bfloat16):
            made, grid = codec.reconstruct(image)
            # A little noise on what the probe sees keeps positions readable from latents that were quantised.
            read = probe((grid + 0.05 * torch.randn_like(grid)).flatten(1))
        image_loss = _weighted(made.float(), image, mean)
        wrong = read.float() - target[index]
        probe_loss = wrong.pow(2).mean()
        loss = image_loss + PROBE_WEIGHT * probe_loss + 1e-4 * grid.float().pow(2).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 0 or step == settings.steps - 1:
            error_mm = float((wrong.detach().abs().mean(0) * metres)[3:].mean() * 1e3)
            image_now = float(image_loss.detach())
            curves.add(step, image_now, float(probe_loss.detach()), error_mm)
            report(step + 1, settings.steps, f"image {image_now:.4f}  objects read to {error_mm:.0f} mm")
        if step % 500 == 499:
            save_checkpoint(out / "codec-training.pt", state, step + 1)
    codec.eval()
    index = rng.integers(0, len(frames.canvas), 512)
    codec.calibrate(normalise_canvas(frames.canvas[index]))
    save_checkpoint(out / "codec.pt", {"codec": codec}, settings.steps)
    return codec


def _weighted(made: Tensor, image: Tensor, mean: Tensor) -> Tensor:
    weight = 1.0 + (FOREGROUND_WEIGHT - 1.0) * ((image - mean).abs().amax(1, keepdim=True) > 0.2).float()
    error = made - image
    return ((error.abs() + error.pow(2)) * weight).sum() / (weight.sum() * 3)
