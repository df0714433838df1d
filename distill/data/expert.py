"""Meta-World's scripted experts behind the robot's own motion limits.

An expert speaks in Meta-World's units: a proportional step of the mocap body every 12.5 ms, which saturates, and which
oscillates once an acceleration limit stands between it and the arm. What is wanted of it is where to go next (the
waypoint); a follower with 3/4 of the embodiment's limits goes there. The *followed* setpoint is executed and recorded,
so that the student learns only motion that the microcontroller will pass unchanged.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from distill.data.detours import WALLS
from edge_wam.contracts import F64
from edge_wam.embodiment import Embodiment
from edge_wam.sim.world import PHYSICS_STEP_NS, REFEREE_EVERY, World

EFFORT = 0.75
"""Share of the embodiment's velocity and acceleration limits that the expert uses."""


class Follower:
    """Velocity- and acceleration-limited pursuit of a target that never overshoots a target at rest."""

    def __init__(self, embodiment: Embodiment, start: F64) -> None:
        self.low = embodiment.vector("position_min")
        self.high = embodiment.vector("position_max")
        self.v_max = EFFORT * embodiment.vector("velocity_max")
        self.a_max = EFFORT * embodiment.vector("acceleration_max")
        self.position = np.clip(start, self.low, self.high)
        self.velocity = np.zeros_like(self.position)

    def step(self, target: F64, dt_s: float) -> F64:
        """One step of ``dt_s`` towards ``target`` [D]; returns the new setpoint [D]."""
        d = np.clip(target, self.low, self.high) - self.position
        a_dt = self.a_max * dt_s
        # The rest of the way in n steps, each slower than the last by a_dt, the last of at most a_dt: it stops exactly
        # there. The formula of continuous time would overshoot by up to a dt^2 / 8 (6 um; 0.02 % of the gripper).
        way = np.abs(d) / (a_dt * dt_s)
        n = np.maximum(np.ceil((np.sqrt(1.0 + 8.0 * way) - 1.0) / 2.0), 1.0)
        wanted = np.sign(d) * np.minimum(a_dt * (way / n + (n - 1.0) / 2.0), self.v_max)
        self.velocity = np.clip(wanted, self.velocity - a_dt, self.velocity + a_dt)
        self.position = np.clip(self.position + self.velocity * dt_s, self.low, self.high)
        return self.position

    def copy_from(self, other: Follower) -> None:
        self.position, self.velocity = other.position.copy(), other.velocity.copy()


def _whole_way(from_xyz: F64, to_xyz: F64, p: float) -> F64:
    """Takes the place of Meta-World's ``move``: the whole way to the waypoint instead of ``p`` times it."""
    del p
    return np.asarray(to_xyz - from_xyz)


class Expert:
    """The scripted policy of a world's task, giving waypoints, and the follower that goes there.

    ``rng`` decides what the expert is free to decide: on which side it passes a wall.
    """

    def __init__(self, world: World, embodiment: Embodiment, rng: np.random.Generator) -> None:
        from metaworld import policies

        self._policy: Any = getattr(policies, world.task.policy)()
        sys.modules[type(self._policy).__module__].move = _whole_way  # type: ignore[attr-defined]
        self.follower = Follower(embodiment, world.position())
        self.target = self.follower.position.copy()
        self._wall = WALLS.get(world.task.name)
        self._rng = rng
        self._side = 0

    def look(self, world: World) -> None:
        """Take the waypoint from the full state; every 12.5 ms, as Meta-World does."""
        seen = world.full_observation
        way = self._policy.get_action(seen)
        hand, goal = seen[:3], seen[-3:]
        self.target = np.append(hand + way[:3], way[3])
        if self._wall is not None:
            self._side = self._side or self._wall.side(hand[0], self.follower.velocity[0], self._rng)
            if (first := self._wall.waypoint(hand, goal, self._side)) is not None:
                self.target[:3] = first


def advance(world: World, expert: Expert, steps: int, push: F64 | None = None) -> None:
    """Run ``steps`` physics steps under the expert, or pushed by a Cartesian velocity ``push`` [3] (m/s) instead."""
    dt_s = PHYSICS_STEP_NS * 1e-9
    follower = expert.follower
    for _ in range(steps):
        if push is not None:
            # v^2 / 2a ahead of the setpoint holds the speed v.
            ahead = np.sign(push) * push**2 / (2.0 * follower.a_max[:3])
            expert.target[:3] = np.clip(follower.position[:3] + ahead, follower.low[:3], follower.high[:3])
        elif world.steps % REFEREE_EVERY == 0:
            expert.look(world)
        world.step_setpoint(follower.step(expert.target, dt_s))
