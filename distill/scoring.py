"""Closed-loop scores of anything that plans: a teacher of many passes, a student, a bundle; one protocol for all.

Lockstep through the microcontroller's own code (:func:`edge_wam.sim.lockstep.run_episode`). Beside success: how smooth
the motion is, how far a new chunk departs from the one that it replaces, whether what was foreseen came, and how often
the transformer really ran.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edge_wam.app.row_file import RowFile
from edge_wam.contracts import F32, ActionChunk, Imagination, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError, ContractError, PolicyError
from edge_wam.policy import Latents
from edge_wam.sim.lockstep import Planner, mcu_library, run_episode
from edge_wam.sim.world import TRAIN_SEED_LIMIT, World, task_named


class ScoredPlanner(Planner, Protocol):
    """What plans, shows what it foresees, and counts its passes."""

    executed: int

    def pixels(self, latents: F32) -> F32: ...


@dataclass(frozen=True, slots=True)
class Score:
    """One episode.

    Attributes:
        time_s: simulated, until success or the end of the episode.
        jerk: mean |third difference| of the Cartesian setpoint at 100 Hz, m/s^3.
        border_mm: mean distance between a chunk's first knot and where the one before would then have been.
        plans, passes: chunks asked for, and runs of the transformer for them.
        foreseen, imagined_mse, copied_mse: frames foreseen that came, and the mean square error of their pixels in
            [-1, 1], as imagined and by copying the newest frame.
        refused: chunks that the guard did not let through.
    """

    task: str
    seed: int
    success: bool
    time_s: float
    jerk: float
    border_mm: float
    plans: int
    passes: int
    foreseen: int
    imagined_mse: float
    copied_mse: float
    refused: int


class _Watch:
    """What is gathered while an episode runs."""

    def __init__(self, planner: ScoredPlanner) -> None:
        self._planner = planner
        self._before: ActionChunk | None = None
        self._seen: dict[int, F32] = {}
        self._foreseen: list[tuple[int, int, F32]] = []
        self.borders_mm: list[float] = []
        self.plans = 0

    def __call__(self, _seen: Observation, chunk: ActionChunk, imagined: Imagination, latents: object) -> None:
        assert isinstance(latents, Latents)
        self.plans += 1
        if (old := self._before) is not None:
            knot = (chunk.t0_ns - old.t0_ns) // chunk.dt_ns
            if knot < len(old.q):
                self.borders_mm.append(1e3 * float(np.linalg.norm(chunk.q[0, :3] - old.q[knot, :3])))
        self._before = chunk
        at_ns = latents.captured_at_ns
        self._seen[at_ns] = self._planner.pixels(latents.values)
        for for_ns, values in zip(imagined.for_ns, imagined.latents, strict=True):
            self._foreseen.append((at_ns, for_ns, values))

    def foresight(self) -> tuple[int, float, float]:
        """Frames that came, and mean square errors: imagined, copied. Against what the codec shows of them: what the
        codec loses is no fault of the imagination."""
        came = [(at, due, values) for at, due, values in self._foreseen if due in self._seen]
        if not came:
            return 0, 0.0, 0.0
        imagined = [_mse(self._planner.pixels(values), self._seen[due]) for _, due, values in came]
        copied = [_mse(self._seen[at], self._seen[due]) for at, due, _ in came]
        return len(came), float(np.mean(imagined)), float(np.mean(copied))


def _mse(a: F32, b: F32) -> float:
    return float(np.square(a - b, dtype=np.float64).mean())


def open_scores(path: Path, settings: dict[str, Any]) -> RowFile[Score]:
    """A file of scores, gone on with if it was written with these settings.

    Raises:
        ContractError: it was written with others, or is something else.
    """
    return RowFile(path, settings, lambda value: Score(**value))


def read_scores(path: Path) -> list[Score]:
    """The episodes in a file of scores.

    Raises:
        ContractError: there is none, or it is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        if "settings" not in json.loads(lines[0]):
            raise ValueError("no line of settings")
        return [Score(**json.loads(line)) for line in lines[1:]]
    except (OSError, ValueError, IndexError, TypeError) as error:
        raise ContractError(f"{path}: no scores: {error}", remedy="edge-wam distill score writes them") from error


def check_scenes(tasks: Sequence[str], first_seed: int) -> None:
    """Raises ConfigError for an unknown task, or seeds that belong to training."""
    if first_seed < TRAIN_SEED_LIMIT:
        raise ConfigError(
            f"seed {first_seed} belongs to training", expected=f"{TRAIN_SEED_LIMIT} or above",
            remedy="score on seeds that no training run has seen",
        )
    for task in tasks:
        task_named(task)


def score(
    planner: ScoredPlanner, embodiment: Embodiment, results: RowFile[Score], tasks: Sequence[str], *, episodes: int,
    first_seed: int, replan_knots: int, report: Callable[[int, int, str], None],
) -> None:  # fmt: skip
    """Run every episode that ``results`` lacks.

    Raises:
        ConfigError: an unknown task, or seeds that belong to training.
    """
    check_scenes(tasks, first_seed)
    library = mcu_library()
    done = {(row.task, row.seed) for row in results.rows}
    total, finished = len(tasks) * episodes, 0
    for task in tasks:
        seeds = range(first_seed, first_seed + episodes)
        todo = [seed for seed in seeds if (task, seed) not in done]
        finished += episodes - len(todo)
        if not todo:
            continue
        world = World(task, todo[0])
        try:
            for seed in todo:
                world.reset(seed)
                row = _episode(planner, world, embodiment, library, replan_knots)
                results.add(row)
                finished += 1
                report(finished, total, f"{task} seed {seed}: {'done' if row.success else 'not done'}")
        finally:
            world.close()


def _episode(
    planner: ScoredPlanner, world: World, embodiment: Embodiment, library: Path, replan_knots: int
) -> Score:
    watch, before = _Watch(planner), planner.executed
    task, seed = world.task.name, world.seed
    try:
        episode = run_episode(
            planner, world, embodiment, library, replan_knots=replan_knots, clock_ns=time.perf_counter_ns, watch=watch
        )
    except PolicyError:  # a number that is none: the arm would have stopped
        return Score(task, seed, False, world.time_ns / 1e9, 0.0, 0.0, watch.plans, planner.executed - before, 0, 0.0,
                     0.0, 0)  # fmt: skip
    foreseen, imagined, copied = watch.foresight()
    return Score(
        task=task, seed=seed, success=episode.success, time_s=episode.time_s, jerk=episode.jerk,
        border_mm=float(np.mean(watch.borders_mm)) if watch.borders_mm else 0.0, plans=watch.plans,
        passes=planner.executed - before, foreseen=foreseen, imagined_mse=imagined, copied_mse=copied,
        refused=sum(episode.refused.values()),
    )  # fmt: skip
