"""What INT8 scales are calibrated on: the step graph's inputs while the float student itself drives, in lockstep.

Demonstrations would not do: the states that a student reaches, its memory of them and what it was about to do are other
numbers, and those are the ones that the INT8 graph will see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_wam.contracts import ActionChunk, Imagination, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.policy import Policy
from edge_wam.sim.lockstep import run_episode
from edge_wam.sim.world import SHIPPED_TASKS, TRAIN_SEED_LIMIT, World

Feed = dict[str, NDArray[np.generic]]
FIRST_SEED = 70_000
COMMITTED = 5
"""Every feed has 0..4 committed knots in turn: those that the runtime hands in are the policy's own of before."""


class Reservoir:
    """A uniform sample of a stream whose length is not known beforehand (algorithm R)."""

    def __init__(self, size: int, rng: np.random.Generator) -> None:
        self.size, self.kept, self._seen, self._rng = size, list[Feed](), 0, rng

    def wants(self) -> int | None:
        """The place that the next item of the stream takes; None when it is passed over."""
        self._seen += 1
        if len(self.kept) < self.size:
            self.kept.append({})
            return len(self.kept) - 1
        place = int(self._rng.integers(self._seen))
        return place if place < self.size else None


def closed_loop_feeds(
    policy: Policy, embodiment: Embodiment, library: Path, *, tasks: Sequence[str] = SHIPPED_TASKS, episodes: int,
    feeds: int, clock_ns: Callable[[], int], report: Callable[[str, int, bool], None], seed: int = FIRST_SEED,
) -> list[Feed]:  # fmt: skip
    """Inputs of the step graph from ``episodes`` episodes of every task, the same number of feeds from each task.

    Args:
        policy: of the float bundle.
        library: the microcontroller's C core (:func:`edge_wam.sim.lockstep.mcu_library`).
        clock_ns: wall clock for the episode's latency figures.
        report: called with task, seed and success after every episode.

    Raises:
        ConfigError: the seeds reach into those that are kept for evaluation, or fewer feeds than tasks.
    """
    if seed < 0 or seed + episodes > TRAIN_SEED_LIMIT:
        raise ConfigError(f"calibration seeds {seed}..{seed + episodes - 1}", expected=f"below {TRAIN_SEED_LIMIT}")
    if episodes < 1 or feeds < len(tasks):
        raise ConfigError(f"{feeds} feeds from {episodes} episodes", expected="at least 1 of each task")
    rng = np.random.default_rng(seed)
    out: list[Feed] = []
    for task in tasks:
        sample = Reservoir(feeds // len(tasks), rng)

        def keep(
            seen: Observation, chunk: ActionChunk, imagined: Imagination, latents: object, sample: Reservoir = sample
        ) -> None:
            if (place := sample.wants()) is None:
                return
            feed = policy.step_inputs()
            committed = place % COMMITTED
            knots = embodiment.normalise_action(chunk.q[:committed], seen.joint_position)
            feed["prefix_action"][0, :committed] = knots
            feed["prefix_mask"][0, :committed] = 1.0
            sample.kept[place] = dict(feed)

        world = World(task, seed)
        try:
            for number in range(seed, seed + episodes):
                world.reset(number)
                episode = run_episode(policy, world, embodiment, library, clock_ns=clock_ns, watch=keep)
                report(task, number, episode.success)
        finally:
            world.close()
        out += sample.kept
    return out
