"""Does a student keep its teacher's choices? How its answers to one and the same moment differ from noise to noise.

Success cannot tell: a student that answers every noise with the mean of its teacher's answers may succeed wherever the
mean is as good as the answers. Its spread gives it away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from distill.data.expert import Expert, advance
from distill.data.generate import physics_steps
from edge_wam.contracts import F64, Frame, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.sim.lockstep import Planner
from edge_wam.sim.world import TRAIN_SEED_LIMIT, World


@dataclass(frozen=True, slots=True)
class Spread:
    """One task.

    Attributes:
        moments, noises: in how many moments it was asked, and how often in each.
        spread_mm: root mean square distance of a chunk's knots from the mean of all noises' chunks.
        left: share of the chunks that end to the left of where they begin (smaller x); of a policy that has to choose a
            side, the share of its choices.
    """

    task: str
    moments: int
    noises: int
    spread_mm: float
    left: float


def moments(task: str, embodiment: Embodiment, seeds: Sequence[int], knots: int) -> list[list[Observation]]:
    """What the expert saw in its first ``knots`` + 1 knots of each scene, for a policy to be asked about the last."""
    steps, out = physics_steps(embodiment), []
    dt_ns = embodiment.chunk_dt_ms * 1_000_000
    world = World(task, seeds[0])
    try:
        for seed in seeds:
            world.reset(seed)
            expert = Expert(world, embodiment, np.random.default_rng(seed))
            seen: list[Observation] = []
            for k in range(knots + 1):
                frames = {c.name: Frame(world.render(c.name), k * dt_ns, k) for c in embodiment.cameras}
                setpoint = expert.follower.position.copy()
                seen.append(Observation(frames, world.position(), setpoint, k * dt_ns, world.instruction))
                if k < knots:
                    advance(world, expert, steps)
            out.append(seen)
    finally:
        world.close()
    return out


def spread(planner: Planner, task: str, asked: Sequence[Sequence[Observation]], noises: int) -> Spread:
    """Ask ``planner`` about the last observation of each of ``asked`` under so many noises, after it saw the others."""
    chunks: list[F64] = []
    for seen in asked:
        planner.reset()
        none = np.zeros((0, len(seen[0].joint_position)))
        for sequence, observation in enumerate(seen[:-1]):
            planner.infer(observation, none, sequence)
        first = len(seen)
        answers = [planner.infer(seen[-1], none, first + k)[0].q[:, :3] for k in range(noises)]
        chunks.append(np.asarray(answers))
    answers_m = np.asarray(chunks)  # [moments, noises, H, 3]
    off = answers_m - answers_m.mean(1, keepdims=True)
    return Spread(
        task=task, moments=len(asked), noises=noises,
        spread_mm=float(1e3 * np.sqrt(np.square(off).sum(-1).mean())),
        left=float((answers_m[:, :, -1, 0] < answers_m[:, :, 0, 0]).mean()),
    )  # fmt: skip


def measure_spread(
    planner: Planner, embodiment: Embodiment, tasks: Sequence[str], *, first_seed: int, scenes: int, noises: int,
    knots: int, report: Callable[[int, int, str], None],
) -> list[Spread]:  # fmt: skip
    """The spread in every task, ``knots`` knots into each of so many held-out scenes.

    Raises:
        ConfigError: seeds that belong to training.
    """
    if first_seed < TRAIN_SEED_LIMIT:
        raise ConfigError(f"seed {first_seed} belongs to training", expected=f"{TRAIN_SEED_LIMIT} or above")
    out = []
    for number, task in enumerate(tasks):
        asked = moments(task, embodiment, range(first_seed, first_seed + scenes), knots)
        out.append(spread(planner, task, asked, noises))
        report(number + 1, len(tasks), f"{task}: {out[-1].spread_mm:.1f} mm")
    return out
