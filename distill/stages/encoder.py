"""Distil the frame encoder: a small causal one learns a teacher's latents.

Teachers are the project's codec (a smaller encoder for the same decoder and transformer) and the VAE of a public
checkpoint, whose latents the datacentre sizes of the transformer read.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from distill.batch import generator
from distill.data.files import sha256_of
from distill.data.mixture import Part, mixture_hash, of_one_robot, placed
from distill.data.windows import Frames, load_frames, normalise_canvas
from distill.encoding import Clips, CodecTeacher, LatentRegression, LatentTeacher, WanTeacher
from distill.models.config import config_named
from distill.models.frame_encoder import EncoderShape, FrameEncoder
from distill.parallel import Place
from distill.run import Run
from distill.stages.frame import Context, StageConfig
from distill.student import CODEC_FILE, load_codec
from distill.teacher.checkpoint import open_checkpoint
from distill.teacher.encoders import load_encoders
from distill.trainer import Artefact, Trainer, Training
from edge_wam.embodiment import load_embodiment
from edge_wam.errors import ConfigError

ENCODER = Artefact("encoder.pt", "encoder")


class Config(StageConfig):
    """Attributes:
    size, robot: the codec's size; the robot file, relative to the recipe.
    data: datasets of that robot, relative to the work folder.
    codec: run directory of the codec that teaches, relative to the work folder; or
    checkpoint: folder of a public checkpoint whose VAE teaches, relative to the work folder. One of them.
    groups: latents of a clip behind the first one (a VAE's have four frames each).
    """

    size: str = "nano"
    robot: Path
    data: tuple[Path | Part, ...]
    codec: Path | None = None
    checkpoint: Path | None = None
    groups: int = Field(default=2, ge=0, le=32)
    shape: EncoderShape = EncoderShape()
    training: Training = Training(steps=3000, batch=16, learning_rate=2e-3, warmup=100, cooldown=0.5)

    @model_validator(mode="after")
    def _one_teacher(self) -> Config:
        if (self.codec is None) == (self.checkpoint is None):
            raise ValueError("name one teacher: codec or checkpoint")
        return self


@dataclass
class ClipFeed:
    """Clips of consecutive frames, none across the border of an episode."""

    frames: Frames
    starts: NDArray[np.int64]
    length: int
    training: Training
    place: Place

    def draw(self, step: int) -> tuple[Clips, None]:
        """This process' clips of a step."""
        rows = self.place.rows(self.training.batch)
        start = self.starts[generator(self.training.seed, step).integers(0, len(self.starts), self.training.batch)]
        index = start[rows][:, None] + np.arange(self.length)
        flat = normalise_canvas(self.frames.canvas[index.reshape(-1)])
        clips: Tensor = flat.reshape(*index.shape, *flat.shape[1:])
        return Clips(clips.to(self.place.device)), None


def clip_starts(frames: Frames, length: int) -> NDArray[np.int64]:
    """First frames of all clips of ``length`` frames that end within their episode.

    Raises:
        ConfigError: no episode is that long.
    """
    number = np.arange(len(frames))
    starts = number[number + length - 1 <= np.asarray(frames.last)]
    if not len(starts):
        raise ConfigError(f"no episode of {length} frames", expected="clips that fit", remedy="fewer encoder.groups")
    return starts


def run(config: Config, context: Context) -> None:
    """Train, and write ``encoder.pt`` into the stage's run directory.

    Raises:
        ConfigError: a dataset or the teacher is missing, or the run directory belongs to another configuration.
        ContractError: teacher and student give latents of different shapes.
    """
    place, work = context.place, context.work
    robot = context.recipe / config.robot
    embodiment = load_embodiment(robot)
    data = of_one_robot(placed(config.data, work, context.recipe))
    run = Run(work / "encoder", leads=place.leads)
    facts: dict[str, Any] = {
        "data": mixture_hash(data, embodiment), "robot": sha256_of(robot), "seed": config.training.seed
    }  # fmt: skip
    teacher: LatentTeacher
    if config.codec is not None:
        facts["teacher"] = sha256_of(work / config.codec / CODEC_FILE)
        codec = load_codec(work / config.codec, config_named(config.size))
        teacher = CodecTeacher(codec.to(place.device))  # type: ignore[arg-type]
    else:
        assert config.checkpoint is not None
        checkpoint = open_checkpoint(work / config.checkpoint)
        files = sorted((work / config.checkpoint).glob("*.safetensors"))
        facts["teacher"] = hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()
        encoders = load_encoders(checkpoint)
        encoders.video.to(place.device)
        teacher = WanTeacher(encoders)
    try:
        run.begin("encoder", config, facts)
        place.wait()
        if run.finished:
            return
        frames = load_frames(data, embodiment)
        length = 1 + config.groups * config.shape.frames
        torch.manual_seed(config.training.seed)
        model = FrameEncoder(config.shape).to(place.device)
        trainer = Trainer(run, model, LatentRegression(teacher), config.training, ENCODER, place)
        feed = ClipFeed(frames, clip_starts(frames, length), length, config.training, place)
        trainer.fit(feed, context.named("encoder"), context.stop)
    finally:
        run.end()
