"""Train a transformer from nothing: flow matching on demonstrations and on what its own collector brings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field

from distill.data.files import sha256_of
from distill.data.frames import Frames
from distill.data.latents import cached_latents
from distill.data.mixture import Encode, Part, load_mixture, mixture_hash, placed
from distill.data.sources import Source, sources_hash
from distill.data.windows import Samples, Windows, encode_frames
from distill.feed import Sampling, WindowFeed, instruction_tokens
from distill.losses.flow_matching import FlowMatching, FlowMatchingWeights
from distill.models.config import config_named
from distill.models.wam import WorldActionTransformer
from distill.run import Run
from distill.stages.frame import Context, StageConfig
from distill.student import CODEC_FILE, WAM_FILE, load_codec
from distill.trainer import Artefact, Trainer, Training
from edge_wam.embodiment import Embodiment, load_embodiment

WAM = Artefact(WAM_FILE, "wam")


class Collecting(StageConfig):
    """The collector beside the training.

    Attributes:
        from_step: the step at which the student is worth watching.
        seed: first seed of its first round; every round takes the next ones.
        episodes, rounds: of a round; how many at most.
        tasks: those of the shipped student when empty.
        passes, replan_knots: how it acts: passes over the transformer for a chunk, knots between two chunks.
    """

    from_step: int = Field(default=750, ge=0)
    seed: int = Field(default=30_000, ge=0)
    episodes: int = Field(default=18, ge=1)
    rounds: int = Field(default=1_000, ge=1)
    tasks: tuple[str, ...] = ()
    passes: int = Field(default=1, ge=1, le=64)
    replan_knots: int = Field(default=1, ge=1, le=14)


class Config(StageConfig):
    """Attributes:
    size, robot: the student's size; the robot file, relative to the recipe.
    data: datasets of demonstrations, of one robot or several, relative to the work folder: a name, or a table that
        says how it is read (docs/data.md).
    keep_latents: those of ``data`` on the disk, in the run directory: for more frames than fit into memory.
    codec: run directory of the codec, relative to the work folder.
    on_policy: folder of datasets that are taken in as they are finished, relative to the work folder.
    collect: start a collector that writes there.
    """

    size: str = "nano"
    robot: Path
    data: tuple[Path | Part, ...]
    keep_latents: bool = False
    codec: Path = Path("codec")
    on_policy: Path | None = None
    collect: Collecting | None = None
    training: Training = Training(steps=8000)
    sampling: Sampling = Sampling()
    loss: FlowMatchingWeights = FlowMatchingWeights()


class Collector:
    """The collector's process: started once the student is worth watching, ended with the training."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._arguments, self._log = arguments, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again when it has died (its finished rounds count)."""
        if self._process is None or self._process.poll() is not None:
            # A torchrun above must not make the collector one of its processes.
            alone = {key: value for key, value in os.environ.items() if not key.startswith("TORCHELASTIC")}
            program = "from distill.commands import main; main()"
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", program, "collect", "--attended", *self._arguments],
                    stdout=log, stderr=log, env=alone,
                )  # fmt: skip

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def run(config: Config, context: Context) -> None:
    """Train, and write ``wam.pt`` (and ``codec.pt`` beside it) into the stage's run directory.

    Raises:
        ConfigError: a dataset or the codec is missing, or the run directory belongs to another configuration.
    """
    place, work = context.place, context.work
    student, robot = config_named(config.size), context.recipe / config.robot
    embodiment = load_embodiment(robot)
    codec = load_codec(work / config.codec, student)
    data = placed(config.data, context.work, context.recipe)
    run = Run(work / "pretrain", leads=place.leads)
    facts = {
        "data": mixture_hash(data, embodiment), "robot": sha256_of(robot),
        "codec": sha256_of(work / config.codec / CODEC_FILE), "seed": config.training.seed,
    }  # fmt: skip
    run.begin("pretrain", config, facts)
    collector: Collector | None = None
    try:
        place.wait()
        if run.finished:
            return
        if place.leads:
            shutil.copyfile(work / config.codec / CODEC_FILE, run.folder / CODEC_FILE)

        def encode(frames: Frames, _sources: Sequence[Source], _robot: Embodiment) -> Samples:
            return encode_frames(codec, frames.canvas)

        def kept(frames: Frames, sources: Sequence[Source], robot: Embodiment) -> Samples:
            """Written by the leading process, opened by all."""
            of = sources_hash(sources, robot)

            def column() -> Samples:
                return cached_latents(
                    run.folder / f"latents-{of[:12]}", frames, codec, codec_hash=str(facts["codec"]), data_hash=of,
                    report=lambda done, total: context.report("latents", done, total, ""),
                )  # fmt: skip

            if place.leads:
                column()
            place.wait()
            return column()

        def windows(parts: Sequence[Part], encode: Encode = encode) -> Windows:
            return load_mixture(parts, embodiment, student, encode)

        torch.manual_seed(config.training.seed)
        model = WorldActionTransformer(student).to(place.device)
        half_range_mm = 500.0 * float(embodiment.vector("action_q99")[0] - embodiment.vector("action_q01")[0])
        objective = FlowMatching(config.loss, half_range_mm)
        trainer = Trainer(run, model, objective, config.training, WAM, place)
        arriving = None if config.on_policy is None else work / config.on_policy
        if arriving is not None:
            arriving.mkdir(exist_ok=True)
        feed = WindowFeed(
            run, windows(data, kept if config.keep_latents else encode), lambda path: windows([Part(root=path)]),
            arriving, instruction_tokens(student.text_length), config.sampling, config.training.batch,
            config.training.seed, place,
        )  # fmt: skip
        if config.collect is not None and place.leads:
            c = config.collect
            collector = Collector(
                ["--run", str(run.folder), "--out", str(arriving), "--robot", str(robot), "--size", config.size,
                 "--seed", str(c.seed), "--episodes", str(c.episodes), "--rounds", str(c.rounds),
                 "--passes", str(c.passes), "--replan-knots", str(c.replan_knots),
                 *(word for task in c.tasks for word in ("--task", task))],
                work / "collector.log",
            )  # fmt: skip

        def trained(done: int, total: int, remark: str) -> None:
            if collector is not None and config.collect is not None and done >= config.collect.from_step:
                collector.start()
            extra = sum(len(w) for w in feed.sources[1:])
            context.report("pretrain", done, total, f"{remark}  on-policy frames {extra}")

        trainer.fit(feed, trained, context.stop)
    finally:
        if collector is not None:
            collector.stop()
        run.end()
