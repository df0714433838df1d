"""The collector: round after round, the newest weights of a training run act and the experts relabel what happened.

A process of its own beside the trainer; they share nothing but a folder of finished datasets, so that either may be
killed and started again. Tasks at which the student fails are visited more often.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from distill.data.on_policy import collect
from distill.models.config import StudentConfig
from distill.planner import TorchPlanner
from distill.student import load_codec, load_wam
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.sim.world import TRAIN_SEED_LIMIT, World

SMOOTHING = 0.15
"""Weight of the newest episode in the running success rate of its task."""
FLOOR = 0.15
"""A task that always succeeds is still visited with this weight (one that always fails: 1 + FLOOR)."""


class SuccessRates:
    """Running success rate by task, kept beside the datasets so that a restarted collector goes on with it."""

    def __init__(self, path: Path, tasks: Sequence[str]) -> None:
        self._path = path
        self.rates = dict.fromkeys(tasks, 0.5)
        if path.exists():
            saved = json.loads(path.read_text())
            self.rates |= {task: float(rate) for task, rate in saved.items() if task in self.rates}

    def add(self, task: str, succeeded: bool) -> None:
        self.rates[task] += SMOOTHING * (float(succeeded) - self.rates[task])

    @property
    def weights(self) -> dict[str, float]:
        """How often to visit each task, not normalised."""
        return {task: 1.0 + FLOOR - rate for task, rate in self.rates.items()}

    def save(self) -> None:
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self.rates, indent=2) + "\n")
        partial.rename(self._path)


def next_round(out: Path, tag: str) -> int:
    """Number of the first round that is not finished (a dataset is finished once its ``info.json`` is there)."""
    number = 0
    while (out / f"{tag}-{number:03d}" / "meta" / "info.json").exists():
        number += 1
    return number


def collect_rounds(
    run: Path, out: Path, config: StudentConfig, embodiment: Embodiment, *, tag: str, first_seed: int, episodes: int,
    rounds: int, tasks: Sequence[str], report: Callable[[int, int, str], None],
    going: Callable[[], bool] = lambda: True, passes: int = 1, replan_knots: int = 1,
) -> None:  # fmt: skip
    """Write datasets ``out/TAG-NNN`` until there are ``rounds`` of them; each takes the weights that are newest then.

    Args:
        run: the training run's folder with ``codec.pt`` and ``wam.pt``.
        first_seed: round k takes the seeds from ``first_seed + k * episodes`` on.
        report: called after every round with its number, ``rounds`` and what came of it.
        going: asked before every round; False ends it.
        passes, replan_knots: how the student acts: passes over the transformer for a chunk, knots between two chunks.

    Raises:
        ConfigError: no weights yet, or seeds that belong to the evaluation.
    """
    if first_seed < 0 or first_seed + rounds * episodes > TRAIN_SEED_LIMIT:
        raise ConfigError(
            f"{rounds} rounds of {episodes} from seed {first_seed}", expected=f"seeds below {TRAIN_SEED_LIMIT}",
            remedy="fewer rounds, or a lower first seed",
        )
    codec = load_codec(run, config)
    out.mkdir(parents=True, exist_ok=True)
    success = SuccessRates(out / f"{tag}-success.json", tasks)
    worlds: dict[str, tuple[World, World]] = {}
    try:
        for number in range(next_round(out, tag), rounds):
            if not going():
                break
            wam, step = load_wam(run, config)
            planner = TorchPlanner(codec, wam, embodiment, passes=passes, noise_seed=first_seed + number)
            frames: list[int] = []

            def episode(task: str, succeeded: bool, length: int, frames: list[int] = frames) -> None:
                success.add(task, succeeded)
                frames.append(length)

            collect(
                out / f"{tag}-{number:03d}", planner, embodiment, episodes=episodes, replan_knots=replan_knots,
                first_seed=first_seed + number * episodes, weights=success.weights, worlds=worlds, report=episode,
            )  # fmt: skip
            success.save()
            rates = "  ".join(f"{task} {rate:.2f}" for task, rate in success.rates.items())
            report(number + 1, rounds, f"weights of step {step}, {sum(frames)} frames, success {rates}")
    finally:
        for pair in worlds.values():
            for world in pair:
                world.close()
