"""Train the frame codec: reconstruction, with the foreground weighted up, and a probe that keeps objects readable.

A goal is a handful of pixels among 8192: a plain reconstruction loss forgets it at no cost. Two things prevent that:
pixels that differ from the scene's mean weigh more, and a linear probe must read the simulator's object and goal
positions out of the latents (privileged information of the datacentre; the probe is thrown away afterwards).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from distill.batch import generator, masked_mean, normal
from distill.checkpoint import load_checkpoint, save_checkpoint
from distill.data.files import sha256_of
from distill.data.mixture import Part, mixture_hash, of_one_robot, placed
from distill.data.windows import Frames, load_frames, normalise_canvas
from distill.models.codec import FrameCodec
from distill.models.config import config_named
from distill.parallel import Place
from distill.run import Run
from distill.stages.frame import Context, StageConfig
from distill.student import CODEC_FILE
from distill.trainer import Artefact, Trainer, Training
from edge_wam.embodiment import load_embodiment
from edge_wam.errors import ConfigError

PROBED = [0, 1, 2, 4, 5, 6, 36, 37, 38]
"""Meta-World's observation: hand, first object, goal (metres)."""
FOREGROUND_WEIGHT = 6.0
PROBE_WEIGHT = 0.3
RAW = Artefact("codec-raw.pt", "codec")
"""Weights before their latents are made standard."""


class CodecTraining(Training):
    """A codec's own numbers; what it hands on is not averaged."""

    steps: int = Field(default=2600, ge=1)
    batch: int = Field(default=48, ge=1)
    learning_rate: float = Field(default=1.5e-3, gt=0, le=1)
    warmup: int = Field(default=130, ge=0)
    cooldown: float = Field(default=0.95, ge=0, le=1)
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    curve_every: int = Field(default=50, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)


class Config(StageConfig):
    """Attributes:
    size, robot: the student's size; the robot file, relative to the recipe.
    data: datasets of that robot, relative to the work folder.
    """

    size: str = "nano"
    robot: Path
    data: tuple[Path | Part, ...]
    training: CodecTraining = CodecTraining()


@dataclass(frozen=True, slots=True)
class Scenes:
    """Canvases uint8 [B, 3, H, W] and what the probe must read [B, 9], standardised."""

    canvas: Tensor
    read: Tensor


class Reconstruction(nn.Module):
    """Image and probe loss. ``mean``: the mean canvas in [-1, 1]; ``metres``: what 1 stands for in each read number."""

    mean: Tensor
    metres: Tensor

    def __init__(self, cells: int, mean: Tensor, metres: Tensor) -> None:
        super().__init__()
        self.probe = nn.Sequential(nn.Linear(cells, 128), nn.ReLU(), nn.Linear(128, len(PROBED)))
        self.register_buffer("mean", mean)
        self.register_buffer("metres", metres)

    def loss(self, model: FrameCodec, batch: Scenes, noise: Tensor, step: int) -> dict[str, Tensor]:
        """``noise`` [B, c, h, w]: a little of it on what the probe sees keeps positions readable from latents that were
        quantised."""
        image = normalise_canvas(batch.canvas)
        made, grid = model.reconstruct(image)
        wrong = self.probe((grid + 0.05 * noise).flatten(1)).float() - batch.read
        weight = 1.0 + (FOREGROUND_WEIGHT - 1.0) * ((image - self.mean).abs().amax(1, keepdim=True) > 0.2).float()
        error = made.float() - image
        picture = masked_mean(error.abs() + error.pow(2), weight)
        probe = wrong.pow(2).mean()
        return {
            "total": picture + PROBE_WEIGHT * probe + 1e-4 * grid.float().pow(2).mean(), "image": picture,
            "probe": probe, "objects_mm": (wrong.detach().abs().mean(0) * self.metres)[3:].mean() * 1e3,
        }  # fmt: skip


@dataclass
class SceneFeed:
    """Frames drawn at random."""

    frames: Frames
    read: Tensor
    grid: tuple[int, int, int]
    training: Training
    place: Place

    def draw(self, step: int) -> tuple[Scenes, Tensor]:
        """This process' samples of a step."""
        rng = generator(self.training.seed, step)
        rows = self.place.rows(self.training.batch)
        index = rng.integers(0, len(self.frames.canvas), self.training.batch)
        like = torch.empty(rows.stop - rows.start, *self.grid)
        noise = normal(like, rng, rows, self.training.batch)
        own = index[rows]
        scenes = Scenes(torch.from_numpy(self.frames.canvas[own]).to(self.place.device),
                        self.read[own].to(self.place.device))  # fmt: skip
        return scenes, noise.to(self.place.device)


def run(config: Config, context: Context) -> None:
    """Train, calibrate to latents of unit variance, and write ``codec.pt`` into the stage's run directory."""
    place = context.place
    student, robot = config_named(config.size), context.recipe / config.robot
    embodiment = load_embodiment(robot)
    data = of_one_robot(placed(config.data, context.work, context.recipe))
    run = Run(context.work / "codec", leads=place.leads)
    facts = {"data": mixture_hash(data, embodiment), "robot": sha256_of(robot), "seed": config.training.seed}
    run.begin("codec", config, facts)
    try:
        place.wait()
        if (run.folder / CODEC_FILE).exists():
            return
        frames = load_frames(data, embodiment)
        some = frames.canvas[:: max(1, len(frames.canvas) // 500)]
        if frames.environment.shape[1] <= max(PROBED):
            raise ConfigError(
                f"the datasets hold {frames.environment.shape[1]} numbers of a simulator's state a frame",
                expected="Meta-World's 39: the codec is trained to keep its objects readable",
                remedy="train it on datasets that were generated here",
            )  # fmt: skip
        positions = torch.from_numpy(frames.environment[:, PROBED])
        metres = positions.std(0)
        read = (positions - positions.mean(0)) / metres.clamp_min(1e-3)
        grid = (student.latent_channels, *student.grid)
        torch.manual_seed(config.training.seed)
        codec = FrameCodec(student).to(place.device)
        mean = torch.from_numpy(some.mean(0).astype(np.float32)) / 127.5 - 1
        objective = Reconstruction(int(np.prod(grid)), mean, metres).to(place.device)
        trainer = Trainer(run, codec, objective, config.training, RAW, place)
        trainer.fit(SceneFeed(frames, read, grid, config.training, place), context.named("codec"), context.stop)
        if place.leads:
            result = FrameCodec(student).eval()
            load_checkpoint(run.folder / RAW.file, {RAW.name: result})
            rng = generator(config.training.seed, config.training.steps)
            result.calibrate(normalise_canvas(frames.canvas[rng.integers(0, len(frames.canvas), 512)]))
            save_checkpoint(run.folder / CODEC_FILE, {"codec": result}, config.training.steps)
        place.wait()
    finally:
        run.end()
