"""What the stages that learn from a teacher share: their data, samples by number, and the teacher itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from distill.batch import Batch, Drawn, NoiseLevels, gather
from distill.data.files import sha256_of
from distill.data.frames import Frames
from distill.data.mixture import Part, load_mixture, mixture_hash, placed
from distill.data.sources import Source
from distill.data.windows import Samples, Windows, encode_frames
from distill.feed import FINISHED, Sampling, WindowFeed, instruction_tokens
from distill.models.config import StudentConfig
from distill.run import Run
from distill.shape import Shape
from distill.stages.frame import Context, StageConfig
from distill.student import CODEC_FILE, WAM_FILE, load_codec, load_wam
from distill.teaching import WamTeacher
from distill.trainer import Artefact, Training
from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.errors import ConfigError

WAM = Artefact(WAM_FILE, "wam")
WHOLE_WAY = NoiseLevels(action_at_one=0.0, video_at_one=0.0, coupled=0.5)
"""Levels of a network that follows an ODE from noise to data: half of the time video and actions together."""


class TeacherConfig(StageConfig):
    """Attributes:
    run: run directory with ``wam.pt`` and ``codec.pt``, relative to the work folder; the student gets the same codec.
    shape: its size, where the directory does not say.
    """

    run: Path = Path("pretrain")
    shape: Shape = Shape(size="10m")


class LessonConfig(StageConfig):
    """What such a stage is told.

    Attributes:
        robot: robot file, relative to the recipe.
        teacher: who teaches.
        data: datasets, of one robot or several, relative to the work folder.
        on_policy: folder of finished datasets of states that a student visited, relative to the work folder. They are
            taken as they are when the run begins.
    """

    robot: Path
    teacher: TeacherConfig = TeacherConfig()
    data: tuple[Path | Part, ...]
    on_policy: Path | None = None
    sampling: Sampling = Sampling()
    calibration: int = Field(default=8, ge=1)
    """Batches of 32 on which a teacher is measured."""


@dataclass(frozen=True, slots=True)
class Lessons:
    """The samples of a stage.

    Attributes:
        windows: demonstrations and on-policy datasets, one behind the other. tokens: all ways of saying each task.
        axes: action axes of the robot.
    """

    windows: Windows
    tokens: dict[str, Tensor]
    axes: int

    def batch(self, numbers: NDArray[np.int64]) -> Batch:
        """Samples by number [n], as they were recorded; instructions said the first way."""
        nothing = np.zeros(len(numbers))
        return gather(Drawn(nothing.astype(np.int64), numbers, nothing), (self.windows,), self.tokens)

    def some(self, batches: int, size: int = 32) -> list[Batch]:
        """So many batches, each from everywhere."""
        numbers = np.linspace(0, len(self.windows) - 1, batches * size).astype(np.int64)
        return [self.batch(numbers[k::batches]) for k in range(batches)]

    def feed(self, run: Run, sampling: Sampling, training: Training, context: Context) -> WindowFeed:
        """Batches for training."""
        return WindowFeed(
            run, self.windows, _nothing_arrives, None, self.tokens, sampling, training.batch, training.seed,
            context.place,
        )  # fmt: skip


def _nothing_arrives(path: Path) -> Windows:
    raise ConfigError(f"{path} arrived during a stage with fixed data", expected="another run directory")


def parts(config: LessonConfig, context: Context) -> tuple[Part, ...]:
    """The datasets, and those on-policy ones that are finished."""
    later: list[Path] = []
    if config.on_policy is not None:
        later = sorted(path.parent.parent for path in (context.work / config.on_policy).glob(f"*/{FINISHED}"))
    return (*placed(config.data, context.work, context.recipe), *(Part(root=path) for path in later))


def facts(config: LessonConfig, context: Context, seed: int) -> dict[str, object]:
    """What makes the run what it is, besides its configuration."""
    robot, teacher = context.recipe / config.robot, context.work / config.teacher.run
    for name in (WAM_FILE, CODEC_FILE):
        if not (teacher / name).exists():
            raise ConfigError(f"{teacher / name} does not exist", remedy="train the teacher first")
    return {
        "data": mixture_hash(parts(config, context), load_embodiment(robot)), "robot": sha256_of(robot),
        "codec": sha256_of(teacher / CODEC_FILE), "teacher": sha256_of(teacher / WAM_FILE), "seed": seed,
    }  # fmt: skip


def open_lessons(config: LessonConfig, context: Context, student: StudentConfig) -> Lessons:
    """Read and encode the datasets.

    Raises:
        ConfigError: no dataset, or one that is damaged.
    """
    embodiment = load_embodiment(context.recipe / config.robot)
    codec = load_codec(context.work / config.teacher.run, student)

    def encode(frames: Frames, _sources: Sequence[Source], _robot: Embodiment) -> Samples:
        return encode_frames(codec, frames.canvas)

    windows = load_mixture(parts(config, context), embodiment, student, encode)
    return Lessons(windows, instruction_tokens(student.text_length), embodiment.dof)


def open_teacher(config: TeacherConfig, context: Context, student: StudentConfig) -> WamTeacher:
    """The teacher on this process' device.

    Raises:
        ConfigError: none was trained, or it sees other tokens than the student.
    """
    folder = context.work / config.run
    model, _ = load_wam(folder, config.shape.config())
    return WamTeacher(model.to(context.place.device), student)


def copy_codec(config: TeacherConfig, context: Context, run: Run) -> None:
    """The student reads the same latents as its teacher: the codec lies beside it."""
    if context.place.leads:
        shutil.copyfile(context.work / config.run / CODEC_FILE, run.folder / CODEC_FILE)


