"""Few-step: the shrunk student learns to arrive in one or two passes where its teacher arrives in many.

A round on states that the student visited itself is this stage again, with ``on_policy`` and the first round as
``student``, in another work folder: teacher endpoints are labels that any state can get.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from pydantic import Field

from distill.data.endpoints import cached_endpoints
from distill.data.files import sha256_of
from distill.feed import Sampling
from distill.fewstep.endpoints import EndpointSource, KeptEndpoints, SolvedEndpoints, shuffled
from distill.fewstep.objective import FewStep, FewStepWeights
from distill.lessons import WAM, WHOLE_WAY, LessonConfig, Lessons, copy_codec, facts, open_lessons, open_teacher
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from distill.run import Run
from distill.shape import Shape, write_shape
from distill.stages.frame import Context
from distill.student import WAM_FILE, load_wam
from distill.teaching import WamTeacher
from distill.trainer import Trainer, Training
from edge_wam.errors import ConfigError

ENDPOINTS = "endpoints"


class Config(LessonConfig):
    """Attributes:
    student: run directory of the student that begins, relative to the work folder; shape: where it does not say.
    steps: of the teacher's ODE, even. draws: noises of each sample whose endpoints are kept on disk; 0: they are solved
        anew in every step, for the very states and noise of the batch.
    shuffled: every sample gets another's endpoint (the control that must fail).
    """

    student: Path = Path("shrink")
    shape: Shape = Shape()
    steps: int = Field(default=8, ge=2)
    draws: int = Field(default=2, ge=0)
    shuffled: bool = False
    sampling: Sampling = Sampling(noise=WHOLE_WAY)
    training: Training = Training(steps=3000, learning_rate=3e-4, warmup=100, weight_decay=0.0, clip=2.0, ema=0.995)
    loss: FewStepWeights = FewStepWeights()


def run(config: Config, context: Context) -> None:
    """Train, and write ``wam.pt`` (with ``codec.pt`` and ``student.json``) into the stage's run directory.

    Raises:
        ConfigError: a dataset, the teacher or the student is missing or does not fit, or the directory belongs to
            another run, or an averaged student is wanted of several processes.
    """
    place, folder = context.place, context.work / config.student
    if place.world > 1 and config.loss.consistency and config.loss.average:
        raise ConfigError(
            f"loss.average {config.loss.average} on {place.world} processes", expected="0",
            remedy="set it: the consistency loss then follows the student itself",
        )  # fmt: skip
    run = Run(context.work / "fewstep", leads=place.leads)
    if not (folder / WAM_FILE).exists():
        raise ConfigError(f"{folder / WAM_FILE} does not exist", remedy="shrink a student first")
    begins = {"student": sha256_of(folder / WAM_FILE)}
    known = facts(config, context, config.training.seed)
    try:
        run.begin("fewstep", config, known | begins)
        place.wait()
        if run.finished:
            return
        copy_codec(config.teacher, context, run)
        model = with_target_time(folder, config.shape.config(), config.training.seed).to(place.device)
        student = model.config
        lessons = open_lessons(config, context, student)
        teacher = open_teacher(config.teacher, context, student)
        source: EndpointSource | None = None
        if config.loss.endpoint:
            source = _endpoints(config, lessons, teacher, str(known["data"]), run, context)
        if place.leads:
            write_shape(run.folder, student)
        objective = FewStep(model, config.loss, source, teacher, lessons.axes).to(place.device)
        trainer = Trainer(run, model, objective, config.training, WAM, place)
        feed = lessons.feed(run, config.sampling, config.training, context)
        trainer.fit(feed, context.named("fewstep"), context.stop)
    finally:
        run.end()


def with_target_time(folder: Path, otherwise: StudentConfig, seed: int) -> WorldActionTransformer:
    """The student of a run directory as a network that knows target times; at first it says what it said.

    Raises:
        ConfigError: there is none, or it has another size.
    """
    old, _ = load_wam(folder, otherwise)
    torch.manual_seed(seed)
    new = WorldActionTransformer(replace(old.config, target_time=True))
    left = new.load_state_dict(old.state_dict(), strict=False)
    assert not left.unexpected_keys and all(name.startswith("time_jump.") for name in left.missing_keys)
    return new


def _endpoints(
    config: Config, lessons: Lessons, teacher: WamTeacher, data: str, run: Run, context: Context
) -> EndpointSource:
    source: EndpointSource = SolvedEndpoints(teacher, config.steps)
    if config.draws:
        place, report = context.place, context.named("endpoints")

        def kept() -> KeptEndpoints:
            return KeptEndpoints(
                cached_endpoints(
                    run.folder / ENDPOINTS, len(lessons.windows), lessons.batch, teacher,
                    data_hash=data, draws=config.draws, steps=config.steps, seed=config.training.seed,
                    device=place.device,
                    report=lambda done, total: report(done, total, ""),
                )
            )  # fmt: skip

        if place.leads:
            source = kept()
        place.wait()
        if not place.leads:
            source = kept()
    return shuffled(source) if config.shuffled else source
