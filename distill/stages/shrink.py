"""Shrink: a smaller student inherits its teacher's weights and learns to say what it says.

Whether the teacher is worth it is a question of keys: ``inherit = false`` begins at random, ``teaches = false`` leaves
flow matching on the data alone, and each loss has a weight.
"""

from __future__ import annotations

import torch
from pydantic import Field

from distill.batch import Batch, Noise, NoiseLevels, draw_noise, generator
from distill.feed import Sampling
from distill.lessons import WAM, WHOLE_WAY, LessonConfig, Lessons, copy_codec, facts, open_lessons, open_teacher
from distill.losses.features import Basis, FeatureMatching, Moments
from distill.losses.shrinking import Shrinking, ShrinkWeights
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from distill.run import Run
from distill.shape import Shape, write_shape
from distill.shrink.importance import WAM_PATHS, Importance, measuring
from distill.shrink.inherit import inherit
from distill.shrink.sources import WamSource
from distill.stages.frame import Context
from distill.teaching import WamTeacher, at_depths
from distill.trainer import Trainer, Training

REPORT = "inheritance.json"


class Config(LessonConfig):
    """Attributes:
    student: what it is shrunk to.
    blocks: the teacher's blocks to keep; none: the first and last two and the others spread between them.
    inherit, teaches: take the teacher's weights; ask it.
    depths: shares of the depth at which hidden states are compared; components: how many principal components of them.
    """

    student: Shape = Shape()
    blocks: tuple[int, ...] | None = None
    inherit: bool = True
    teaches: bool = True
    depths: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    components: int = Field(default=256, ge=1)
    sampling: Sampling = Sampling(noise=WHOLE_WAY)
    training: Training = Training(steps=8000, learning_rate=5e-4, warmup=300, weight_decay=1e-3)
    loss: ShrinkWeights = ShrinkWeights()


def run(config: Config, context: Context) -> None:
    """Inherit, train, and write ``wam.pt`` (with ``codec.pt`` and ``student.json``) into the stage's run directory.

    Raises:
        ConfigError: a dataset or the teacher is missing or does not fit, or the directory belongs to another run.
    """
    place, student = context.place, config.student.config()
    run = Run(context.work / "shrink", leads=place.leads)
    try:
        run.begin("shrink", config, facts(config, context, config.training.seed))
        place.wait()
        if run.finished:
            return
        copy_codec(config.teacher, context, run)
        lessons = open_lessons(config, context, student)
        teacher = open_teacher(config.teacher, context, student)
        model, kept = _student(config, lessons, teacher, student, run, context)
        objective = Shrinking(
            teacher if config.teaches else None, config.loss, config.training.steps,
            _features(config, lessons, teacher, kept, context) if kept is not None else None,
            at_depths(student.depth, config.depths), at_depths(teacher.depth, config.depths), lessons.axes,
        ).to(place.device)  # fmt: skip
        if place.leads:
            write_shape(run.folder, student)
        trainer = Trainer(run, model.to(place.device), objective, config.training, WAM, place)
        feed = lessons.feed(run, config.sampling, config.training, context)
        trainer.fit(feed, context.named("shrink"), context.stop)
    finally:
        run.end()


def _student(
    config: Config, lessons: Lessons, teacher: WamTeacher, student: StudentConfig, run: Run, context: Context
) -> tuple[WorldActionTransformer, tuple[int, ...] | None]:
    """The student as it begins, and the teacher's residual channels that it kept; None when it inherits nothing."""
    seed = config.training.seed
    if not config.inherit:
        torch.manual_seed(seed)
        return WorldActionTransformer(student), None
    source = WamSource(teacher.model.state_dict(), teacher.model.config, student)
    importance = _measure(config, lessons, teacher, context)
    model, report = inherit(source, student, importance, config.blocks, seed)
    if context.place.leads:
        report.write(run.folder / REPORT)
    context.report("shrink", 0, config.training.steps, report.summary())
    return model, report.residual


def _calibration(config: Config, lessons: Lessons, context: Context) -> list[tuple[Batch, Noise]]:
    """Batches at the noise levels of the training, the same whenever the stage is started."""
    levels: NoiseLevels = config.sampling.noise
    out = []
    for number, batch in enumerate(lessons.some(config.calibration)):
        noise = draw_noise(batch, generator(config.training.seed, number), levels)
        out.append((batch.to(context.place.device), noise.to(context.place.device)))
    return out


def _measure(config: Config, lessons: Lessons, teacher: WamTeacher, context: Context) -> Importance:
    with measuring(teacher.model.blocks, teacher.model.config.heads, WAM_PATHS) as meter:
        for batch, noise in _calibration(config, lessons, context):
            lecture = teacher.open(batch)
            lecture.look(lecture.noisy(noise))
    return meter.result()


def _features(
    config: Config, lessons: Lessons, teacher: WamTeacher, kept: tuple[int, ...], context: Context
) -> FeatureMatching | None:
    """Fixed bases of the teacher's hidden states; None where no loss needs them."""
    if not config.teaches or not (config.loss.feature or config.loss.motion):
        return None
    depths = at_depths(teacher.depth, config.depths)
    moments = [Moments(teacher.width) for _ in depths]
    for batch, noise in _calibration(config, lessons, context):
        lecture = teacher.open(batch)
        for moment, (frames, knots) in zip(moments, lecture.look(lecture.noisy(noise), depths).hidden, strict=True):
            moment.add(frames)
            moment.add(knots)
    components = min(config.components, teacher.width)
    bases: list[Basis] = [moment.basis(kept, components) for moment in moments]
    return FeatureMatching(bases)
