"""On-policy relabelling: the student acts, the expert says what it would have done in every state that is reached.

Meta-World's experts are functions of the full state, so a second world that is put into the student's state can run the
expert for a whole chunk: that is the label. It costs less than anything else that raises success.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.expert import Expert, Follower, advance
from distill.data.generate import KNOTS, Recording, dataset_writer, physics_steps
from edge_wam.contracts import F64, Frame, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.sim.lockstep import Planner
from edge_wam.sim.world import PHYSICS_STEP_NS, TASKS, TRAIN_SEED_LIMIT, World

EPISODE_CAP_NS = 4_500_000_000
TAIL_FRAMES = 3
LATEST_KNOTS = 2
"""How late a chunk may take effect."""


class Tracker:
    """Follows knots by linear interpolation within velocity and acceleration limits (a stand-in for the MCU)."""

    def __init__(self, embodiment: Embodiment, start: F64) -> None:
        self.motion = Follower(embodiment, start)
        self.v_max, self.a_max = embodiment.vector("velocity_max"), embodiment.vector("acceleration_max")

    def towards(self, world: World, knot: F64, steps: int) -> None:
        """Reach ``knot`` in ``steps`` physics steps."""
        dt_s = PHYSICS_STEP_NS * 1e-9
        m = self.motion
        start = m.position.copy()
        for k in range(1, steps + 1):
            wanted = (start + (knot - start) * (k / steps) - m.position) / dt_s
            wanted = np.clip(wanted, m.velocity - self.a_max * dt_s, m.velocity + self.a_max * dt_s)
            m.velocity = np.clip(wanted, -self.v_max, self.v_max)
            m.position = np.clip(m.position + m.velocity * dt_s, m.low, m.high)
            world.step_setpoint(m.position)


def expert_chunk(
    branch: World, world: World, motion: Follower, embodiment: Embodiment, steps: int, rng: np.random.Generator
) -> F64:
    """What the expert would do from ``world``'s present state: setpoints [16, D] at the next knots."""
    branch.set_dynamic_state(world.dynamic_state())
    expert = Expert(branch, embodiment, rng)
    expert.follower.copy_from(motion)
    out = []
    branch.steps = 0
    for _ in range(KNOTS):
        advance(branch, expert, steps)
        out.append(expert.follower.position.copy())
    return np.array(out)


def roll_out(
    planner: Planner, world: World, branch: World, embodiment: Embodiment, rng: np.random.Generator, *,
    calls: Iterator[int], replan_knots: int = 1,
) -> tuple[Recording, NDArray[np.float32]]:  # fmt: skip
    """One episode of the student; returns what happened and the expert's chunk at every frame [T, 16, D].

    Some episodes act late (a chunk takes effect up to LATEST_KNOTS after it was asked for): the states that inference
    delay leads to must be among those that are labelled.

    Args:
        calls: a number for each call of the planner; with it comes its noise.
        replan_knots: knots between two calls.
    """
    steps = physics_steps(embodiment)
    dt_ns = embodiment.chunk_dt_ms * 1_000_000
    out = Recording.empty(tuple(c.name for c in embodiment.cameras))
    tracker = Tracker(embodiment, world.position())
    task = world.task
    instruction = [task.instruction, *task.paraphrases][int(rng.integers(0, 1 + len(task.paraphrases)))]
    planner.reset()
    delay = int(rng.choice([0, *range(LATEST_KNOTS + 1)]))
    plans: list[tuple[int, F64]] = []
    labels: list[F64] = []
    tail = TAIL_FRAMES
    while tail > 0 and world.time_ns < EPISODE_CAP_NS:
        now = len(out.action)
        setpoint = tracker.motion.position.copy()
        out.observe(world, setpoint)
        if now % replan_knots == 0:
            frames = {camera: Frame(images[-1], now * dt_ns, now) for camera, images in out.frames.items()}
            seen = Observation(frames, world.position(), setpoint, now * dt_ns, instruction)
            plans.append((now, planner.infer(seen, np.zeros((0, embodiment.dof)), next(calls))[0].q))
        labels.append(expert_chunk(branch, world, tracker.motion, embodiment, steps, rng))
        begun, chunk = next((plan for plan in reversed(plans) if plan[0] + delay <= now), plans[0])
        tracker.towards(world, chunk[now - begun], steps)
        out.action.append(tracker.motion.position.copy())
        out.expert.append(0.0)
        out.success.append(float(world.succeeded))
        tail -= world.succeeded
    return out, np.asarray(labels, np.float32)


def collect(
    root: Path, planner: Planner, embodiment: Embodiment, *, episodes: int, first_seed: int,
    weights: dict[str, float], worlds: dict[str, tuple[World, World]], report: Callable[[str, bool, int], None],
    replan_knots: int = 1,
) -> None:  # fmt: skip
    """Write one dataset of ``episodes`` relabelled student episodes; tasks drawn by ``weights``.

    Raises:
        ConfigError: the seeds reach into those that are kept for evaluation, or chunks are shorter than asked for.
    """
    if first_seed < 0 or first_seed + episodes > TRAIN_SEED_LIMIT:
        raise ConfigError(
            f"seeds {first_seed}..{first_seed + episodes - 1}", expected=f"0 to {TRAIN_SEED_LIMIT - 1}",
            remedy="evaluation seeds are never trained on",
        )
    if not 1 <= replan_knots <= KNOTS - LATEST_KNOTS:
        raise ConfigError(f"replan_knots is {replan_knots}", expected=f"1 to {KNOTS - LATEST_KNOTS}")
    writer = dataset_writer(root, embodiment)
    rng = np.random.default_rng(first_seed)
    names = list(weights)
    calls = itertools.count(1000 * writer.episodes)  # a round that is gone on with meets no noise twice
    p = np.array([weights[n] for n in names])
    for number in range(writer.episodes, episodes):
        name = names[int(rng.choice(len(names), p=p / p.sum()))]
        if name not in worlds:
            worlds[name] = (World(name, 0), World(name, 0))
        world, branch = worlds[name]
        world.reset(first_seed + number)
        branch.reset(first_seed + number)
        out, labels = roll_out(planner, world, branch, embodiment, rng, calls=calls, replan_knots=replan_knots)
        mask = np.ones(labels.shape[:2], np.float32)
        writer.add(TASKS[name].instruction, out.vectors(labels, mask), {k: np.stack(v) for k, v in out.frames.items()})
        report(name, world.succeeded, len(labels))
    writer.finalize()
