"""The shipped student from nothing: demonstrations, codec, transformer with a collector beside it, INT8 bundle.

Every step goes on where an earlier run stopped: finished episodes, checkpoints and rounds are kept.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from distill.data.generate import generate
from distill.data.windows import load_frames
from distill.models.config import config_named
from distill.release import Calibration, release
from distill.student import CODEC_FILE, load_codec
from distill.train_codec import CodecTraining, train_codec
from distill.train_wam import WamTraining, train_wam
from edge_wam.embodiment import load_embodiment

Report = Callable[[str, int, int, str], None]
"""Called with the stage, how much is done, of how much, and a remark."""


@dataclass(frozen=True, slots=True)
class NanoRecipe:
    """What the shipped bundle was made with.

    Attributes:
        first_seeds: one dataset of demonstrations from each of these seeds on; ``per_task`` episodes of every task.
        extra: (task, episodes, first seed) of more demonstrations that join the on-policy half of the batches: reach
            needs many different goals, because where the goal is must be seen and cannot be guessed.
        collect_from_step: the training step at which the student is worth watching.
        collect_seed, collect_episodes, collect_rounds: seeds of the on-policy rounds and their size.
    """

    size: str = "nano"
    first_seeds: tuple[int, ...] = (0, 20_000)
    per_task: int = 110
    extra: tuple[tuple[str, int, int], ...] = (
        ("reach", 100, 40_000), ("reach", 100, 41_000), ("reach", 100, 42_000)
    )  # fmt: skip
    codec: CodecTraining = field(default_factory=lambda: CodecTraining(steps=2600))
    wam: WamTraining = field(default_factory=WamTraining)
    collect_from_step: int = 750
    collect_seed: int = 30_000
    collect_episodes: int = 18
    collect_rounds: int = 1_000
    calibration: Calibration = field(default_factory=Calibration)


class Collector:
    """The collector's process: started once the student is worth watching, ended with the training."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self._arguments, self._log = arguments, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, or start it again when it has died (its finished rounds count)."""
        if self._process is None or self._process.poll() is not None:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "distill", "collect", "--attended", *self._arguments], stdout=log, stderr=log
                )

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


def make_nano(
    work: Path, out: Path, *, robot_file: Path, key: Ed25519PrivateKey, recipe: NanoRecipe, report: Report
) -> str:
    """Run the whole chain in ``work`` and write the bundle ``out``; returns its model hash.

    Raises:
        EdgeWamError: a stage refuses; run again after the remedy and it goes on from there.
    """
    embodiment, config = load_embodiment(robot_file), config_named(recipe.size)
    run, on_policy = work / "run", work / "on-policy"
    run.mkdir(parents=True, exist_ok=True)
    on_policy.mkdir(exist_ok=True)

    def stage(name: str) -> Callable[[int, int, str], None]:
        return lambda done, total, remark: report(name, done, total, remark)

    demonstrations = [work / f"demonstrations-{seed}" for seed in recipe.first_seeds]
    for root, seed in zip(demonstrations, recipe.first_seeds, strict=True):
        generate(root, embodiment, per_task=recipe.per_task, seed=seed, report=stage(root.name))
    for task, episodes, seed in recipe.extra:
        name = f"{task}-{seed}"
        unfinished, finished = work / f"unfinished-{name}", on_policy / name
        if not finished.exists():
            generate(unfinished, embodiment, per_task=episodes, seed=seed, tasks=(task,), report=stage(name))
            unfinished.rename(finished)
    if (run / CODEC_FILE).exists():
        codec = load_codec(run, config)
    else:
        codec = train_codec(load_frames(demonstrations, embodiment), config, recipe.codec, run, stage("codec"))
    collector = Collector(
        ["--run", str(run), "--out", str(on_policy), "--robot", str(robot_file), "--size", recipe.size,
         "--seed", str(recipe.collect_seed), "--episodes", str(recipe.collect_episodes),
         "--rounds", str(recipe.collect_rounds)],
        work / "collector.log",
    )  # fmt: skip

    def trained(done: int, total: int, remark: str) -> None:
        if done >= recipe.collect_from_step:
            collector.start()
        report("transformer", done, total, remark)

    try:
        train_wam(demonstrations, on_policy, codec, config, embodiment, recipe.wam, run, trained)
    finally:
        collector.stop()
    return release(
        run, out, robot_file=robot_file, config=config, key=key, calibration=recipe.calibration,
        card=card_of(recipe), report=stage("calibration"),
    )  # fmt: skip


def card_of(recipe: NanoRecipe) -> dict[str, Any]:
    """What the card says of the training; success is measured afterwards and is not claimed here."""
    return {
        "command": "python -m distill nano", "recipe": asdict(recipe),
        "success": "not measured yet: edge-wam eval measures it",
    }  # fmt: skip
