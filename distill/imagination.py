"""Is the imagined video any good? What a bundle foresaw in closed loop, beside what the camera then showed.

The baseline is copying the newest frame: a student that has learnt nothing about motion cannot beat it. Errors are
mean squares in the codec's latents, whose channels have unit variance.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_wam.contracts import F32, ActionChunk, Imagination, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.policy import Latents, Policy
from edge_wam.sim.lockstep import run_episode
from edge_wam.sim.world import SHIPPED_TASKS, TRAIN_SEED_LIMIT, World


@dataclass(frozen=True, slots=True)
class Foresight:
    """Mean square errors over ``frames`` foreseen frames of one task at one outlook."""

    task: str
    outlook_s: float
    frames: int
    imagined: float
    copied: float


class _Episode:
    """What was seen and foreseen in one episode."""

    def __init__(self) -> None:
        self.seen: dict[int, F32] = {}
        self.foreseen: list[tuple[int, int, F32]] = []  # made at, for, latents

    def watch(self, _seen: Observation, _chunk: ActionChunk, imagined: Imagination, latents: object) -> None:
        assert isinstance(latents, Latents)
        self.seen[latents.captured_at_ns] = latents.values
        for for_ns, values in zip(imagined.for_ns, imagined.latents, strict=True):
            self.foreseen.append((latents.captured_at_ns, for_ns, values))

    def errors(self) -> list[tuple[int, float, float]]:
        """(outlook in ns, error of the imagined frame, error of copying) for every moment that came."""
        return [
            (for_ns - at_ns, _mse(values, self.seen[for_ns]), _mse(self.seen[at_ns], self.seen[for_ns]))
            for at_ns, for_ns, values in self.foreseen if for_ns in self.seen
        ]  # fmt: skip


def _mse(a: F32, b: F32) -> float:
    return float(np.square(a - b, dtype=np.float64).mean())


def measure_foresight(
    policy: Policy, embodiment: Embodiment, library: Path, *, episodes: int, first_seed: int,
    report: Callable[[str, int], None],
) -> list[Foresight]:  # fmt: skip
    """Drive ``episodes`` held-out scenes of every task and compare; one row per task and outlook.

    Raises:
        ConfigError: seeds that were for training.
    """
    if first_seed < TRAIN_SEED_LIMIT:
        raise ConfigError(f"seed {first_seed} belongs to training", expected=f"{TRAIN_SEED_LIMIT} or above")
    out: list[Foresight] = []
    for task in SHIPPED_TASKS:
        world = World(task, first_seed)
        rows: list[tuple[int, float, float]] = []
        try:
            for seed in range(first_seed, first_seed + episodes):
                world.reset(seed)
                episode = _Episode()
                run_episode(policy, world, embodiment, library, clock_ns=time.perf_counter_ns, watch=episode.watch)
                rows += episode.errors()
                report(task, seed)
        finally:
            world.close()
        for outlook_ns in sorted({row[0] for row in rows}):
            chosen = [row for row in rows if row[0] == outlook_ns]
            imagined, copied = (float(np.mean([row[k] for row in chosen])) for k in (1, 2))
            out.append(Foresight(task, outlook_ns / 1e9, len(chosen), imagined, copied))
    return out
