"""The golden run of a Meta-World bundle: real pictures of an arm in motion, with committed knots of every small count.

What is recorded over it by :func:`edge_wam.policy.golden_recorder` must be reproduced by every robot before it may arm.
"""

from __future__ import annotations

import numpy as np

from edge_wam.contracts import Frame, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.golden import GoldenStep
from edge_wam.sim.world import PHYSICS_STEP_NS, World

STEPS = 6
START_NS = 1_000_000_000
CREEP_M = 0.0005
"""Movement in y of each physics step (2.5 ms): 0.2 m/s, so that no two pictures are alike."""


def golden_steps(embodiment: Embodiment, task: str = "reach", seed: int = 5) -> list[GoldenStep]:
    """One observation a knot apart, the arm creeping along y; 0, 1 and 2 committed knots in turn."""
    dt_ns = embodiment.chunk_dt_ms * 1_000_000
    world = World(task, seed)
    out: list[GoldenStep] = []
    try:
        for k in range(STEPS):
            now_ns = START_NS + k * dt_ns
            frames = {c.name: Frame(world.render(c.name), now_ns, k) for c in embodiment.cameras}
            setpoint = world.setpoint()
            observation = Observation(frames, world.position(), setpoint, now_ns, world.instruction)
            out.append(GoldenStep(observation, np.tile(setpoint, (k % 3, 1)), k + 1))
            for _ in range(dt_ns // PHYSICS_STEP_NS):
                setpoint[1] += CREEP_M
                world.step_setpoint(setpoint)
    finally:
        world.close()
    return out
