"""INT8 that is let out only when it drives as well as the float student: release, gate, and if need be distil again.

The bundle appears in the work folder once the gate lets it pass; one that does not stays in the run's directory, with
the scores of both.
"""

from __future__ import annotations

import copy
import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from distill.checkpoint import load_checkpoint
from distill.data.files import sha256_of
from distill.data.mixture import Part, load_mixture, mixture_hash, placed
from distill.data.sources import Source
from distill.data.windows import Frames, Samples, Windows, encode_frames
from distill.export import Way
from distill.feed import Sampling, WindowFeed, instruction_tokens
from distill.models.codec import FrameCodec
from distill.models.config import config_named
from distill.models.wam import WorldActionTransformer
from distill.quantise.aware import AwareWeights, QuantisationAware
from distill.quantise.fake import quantise_in_place
from distill.quantise.gate import GateSettings, Verdict, drive
from distill.quantise.keep import edge_blocks
from distill.quantise.saturation import ALLOWED
from distill.quantise.student import Quantisation
from distill.release import Calibration, Released, make_release
from distill.run import Run, write_whole
from distill.stages.frame import Context, StageConfig
from distill.student import CODEC_FILE, WAM_FILE, load_codec, load_wam
from distill.trainer import Artefact, Trainer, Training
from edge_wam.bundle import TrustStore, demo_private_key, key_id, load_private_key, open_bundle
from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.errors import ContractError
from edge_wam.sim.world import SHIPPED_TASKS, task_named

AWARE = Artefact("aware.pt", "wam")
VERDICT = "verdict.json"


class Aware(StageConfig):
    """Distillation that knows of INT8, when the gate has said no.

    Attributes:
        data: datasets of that robot, relative to the work folder; the student's own rounds are the best of them.
        training: float32: what stands for integers must not be rounded again.
    """

    data: tuple[Path | Part, ...]
    training: Training = Training(
        steps=1500, batch=32, learning_rate=1e-5, warmup=50, weight_decay=0.0, precision="float32"
    )
    sampling: Sampling = Sampling()
    loss: AwareWeights = AwareWeights()


class Config(StageConfig):
    """Attributes:
    size, robot: the student's size; the robot file, relative to the recipe. It becomes part of the bundle.
    student: run directory with ``codec.pt`` and ``wam.pt``, relative to the work folder.
    name: the bundle is ``NAME.wam`` in the work folder.
    passes, video: as :class:`distill.export.Way`.
    tasks: to calibrate and to judge on; all that are shipped when empty.
    episodes, feeds: episodes of each task to calibrate on, and model inputs kept of all.
    """

    size: str = "nano"
    robot: Path
    student: Path = Path("pretrain")
    name: str = Field(default="student", pattern=r"^[a-z0-9][a-z0-9.-]*$")
    passes: Literal[1, 2] = 1
    video: Literal["imagined", "noise", "absent"] = "imagined"
    tasks: tuple[str, ...] = ()
    episodes: int = Field(default=4, ge=1)
    feeds: int = Field(default=256, ge=16)
    quantisation: Quantisation = Quantisation()
    gate: GateSettings = GateSettings()
    aware: Aware | None = None


def run(config: Config, context: Context) -> None:
    """Quantise, judge, perhaps distil, and let the bundle out.

    Raises:
        ContractError: INT8 costs more than it may, also after distillation; nothing was let out.
        ConfigError: weights or datasets are missing, or the run directory belongs to another configuration.
    """
    if not context.place.leads:
        return
    tasks = tuple(task_named(name).name for name in config.tasks) or SHIPPED_TASKS
    student, work = config_named(config.size), context.work
    source = work / config.student
    codec, (wam, steps) = load_codec(source, student), load_wam(source, student)
    run = Run(work / "quantise")
    robot = context.recipe / config.robot
    facts: dict[str, Any] = {
        "codec": sha256_of(source / CODEC_FILE), "student": sha256_of(source / WAM_FILE), "robot": sha256_of(robot),
    }  # fmt: skip
    if config.aware is not None:
        data = placed(config.aware.data, work, context.recipe)
        facts |= {"data": mixture_hash(data, load_embodiment(robot)), "seed": config.aware.training.seed}
    try:
        run.begin("quantise", config, facts)
        if run.notes("let out"):
            return
        report = context.named("quantise")
        made = _release(config, context, run.folder, codec, wam, tasks, {"training_steps": steps}, report)
        verdict = _judge(config, context, run, tasks, 0, report)
        if not verdict.passed and config.aware is not None:
            trained = _distil(config, config.aware, context, run, codec, made)
            plain = config.quantisation.model_copy(update={"alphas": ()})
            settled = config.model_copy(update={"quantisation": plain})  # smoothed it is already
            facts = {"training_steps": steps, "aware_steps": config.aware.training.steps}
            made = _release(settled, context, run.folder, codec, trained, tasks, facts, report, twin="aware-fp32.wam")
            verdict = _judge(config, context, run, tasks, config.aware.training.steps, report)
        write_whole(run.folder / VERDICT, json.dumps(asdict(verdict), indent=2) + "\n")
        made.quantised.write(run.folder, config.name)
        _write_saturation(run.folder / "saturation.csv", made)
        for row in made.saturated:
            if row.share > ALLOWED:
                run.note("saturated", steps, activation=row.activation, share=row.share, allowed=ALLOWED)
        if not verdict.passed:
            raise ContractError(
                f"INT8 of {config.student} is not let out: {'; '.join(verdict.reasons)}",
                expected=f"over {verdict.pairs} pairs of episodes at most what quantise.gate allows",
                remedy=f"see {run.folder / 'sensitivity.csv'}; lower quantise.quantisation.action_error, or give "
                "quantise.aware data to distil on",
            )
        _let_out(run.folder / f"{config.name}.wam", work / f"{config.name}.wam")
        run.note("let out", steps, model=made.model_hash)
    finally:
        run.end()


def _key(context: Context) -> Any:
    return demo_private_key() if context.key is None else load_private_key(context.key)


def _release(
    config: Config, context: Context, folder: Path, codec: FrameCodec, wam: WorldActionTransformer,
    tasks: Sequence[str], card: dict[str, Any], report: Callable[[int, int, str], None], twin: str = "fp32.wam",
) -> Released:  # fmt: skip
    return make_release(
        codec, wam, folder / f"{config.name}.wam", robot_file=context.recipe / config.robot, key=_key(context),
        calibration=Calibration(config.episodes, config.feeds, tasks), report=report, float_out=folder / twin,
        quantisation=config.quantisation, way=Way(config.passes, config.video),
        card={
            "command": "edge-wam distill quantise", "release": config.model_dump(mode="json", exclude_none=True),
            "success": "not measured yet: edge-wam eval measures it", **card,
        },
    )  # fmt: skip


def _judge(
    config: Config, context: Context, run: Run, tasks: Sequence[str], step: int, report: Callable[[int, int, str], None]
) -> Verdict:
    """Against the student that came in, whatever was trained since."""
    public = _key(context).public_key()
    trust = TrustStore({key_id(public): ("this run", public)}, allow_demo_key=True)
    floating, int8 = (open_bundle(run.folder / name, trust=trust) for name in ("fp32.wam", f"{config.name}.wam"))
    verdict = drive(floating, int8, tasks, run.folder, config.gate, report)
    run.note("judged", step, passed=verdict.passed, **asdict(verdict))
    return verdict


def _distil(
    config: Config, aware: Aware, context: Context, run: Run, codec: FrameCodec, made: Released
) -> WorldActionTransformer:
    """The smoothed student after distillation, its layers float again."""
    embodiment = load_embodiment(context.recipe / config.robot)
    teacher = made.quantised.smoothed.wam
    model = copy.deepcopy(teacher).requires_grad_(True)
    quantise_in_place(model, made.quantised.scales)
    depth = teacher.config.depth
    edge = edge_blocks(depth) if config.quantisation.edge is None else config.quantisation.edge
    objective = QuantisationAware(teacher, range(edge, depth - edge), aware.loss)

    def encode(frames: Frames, _sources: Sequence[Source], _robot: Embodiment) -> Samples:
        return encode_frames(codec, frames.canvas)

    def windows(parts: Sequence[Part]) -> Windows:
        return load_mixture(parts, embodiment, teacher.config, encode)

    feed = WindowFeed(
        run, windows(placed(aware.data, context.work, context.recipe)), lambda path: windows([Part(root=path)]), None,
        instruction_tokens(teacher.config.text_length), aware.sampling, aware.training.batch, aware.training.seed,
        context.place,
    )  # fmt: skip
    trainer = Trainer(run, model, objective, aware.training, AWARE, context.place)
    trainer.fit(feed, context.named("quantise"), context.stop)
    trained = copy.deepcopy(teacher)
    load_checkpoint(run.folder / AWARE.file, {AWARE.name: trained})
    return trained.eval()


def _write_saturation(path: Path, made: Released) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("activation", "values", "saturated", "share"))
        rows.writerows((s.activation, s.values, s.saturated, f"{s.share:.3g}") for s in made.saturated)


def _let_out(bundle: Path, out: Path) -> None:
    """Copy whole, then rename: the work folder never shows half a bundle."""
    fresh, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    for left in (fresh, old):
        shutil.rmtree(left, ignore_errors=True)
    shutil.copytree(bundle, fresh)
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
