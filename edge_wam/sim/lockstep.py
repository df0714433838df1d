"""Closed loop in simulated time: deterministic, as fast as the CPU allows, through the microcontroller's own code.

The world, the MCU (its C core as a library) and the policy take turns: inference costs no simulated time, and every
``replan_knots`` knots a new chunk replaces the plan. This is the published evaluation protocol of Meta-World (held-out
seeds, success at any time within 500 environment steps), with the real wire, limiter and state machine in the path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

import edge_wam
from edge_wam.config import GuardConfig
from edge_wam.contracts import F64, ActionChunk, Frame, Imagination, Observation
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.faults import Refused
from edge_wam.guard import Guard
from edge_wam.limit_table import limit_table
from edge_wam.sim.plant import TICK_NS, Plant
from edge_wam.sim.world import MAX_EPISODE_NS, World
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import Degrade

HEARTBEAT_TICKS = 10
"""The host loop's 100 Hz."""


class Planner(Protocol):
    """What a policy must offer here; :class:`edge_wam.policy.Policy` does."""

    def reset(self) -> None: ...

    def infer(
        self, observation: Observation, prefix: F64, sequence: int
    ) -> tuple[ActionChunk, Imagination, object]: ...


@dataclass
class Episode:
    """What happened.

    Attributes:
        task, seed, success: of the episode; ``time_s``: simulated time until success or the end.
        position, setpoint: measured and commanded axes [T, D] every control tick of the host (10 ms).
        refused: why chunks were not used, in words, by count.
        latency_ns: wall time of each inference.
        jerk: mean |third difference| of the commanded Cartesian setpoint over 10 ms, m/s^3.
    """

    task: str
    seed: int
    success: bool
    time_s: float
    position: F64
    setpoint: F64
    latency_ns: list[int]
    refused: dict[str, int] = field(default_factory=dict)

    @property
    def jerk(self) -> float:
        cartesian = self.setpoint[:, :3]
        if len(cartesian) < 4:
            return 0.0
        return float(np.abs(np.diff(cartesian, 3, axis=0)).mean() / 0.01**3)


def mcu_library() -> Path:
    """The microcontroller's C core as a library, built when its sources have changed.

    Raises:
        ConfigError: it cannot be built here.
    """
    from firmware_bridge.errors import FirmwareError
    from firmware_bridge.mcu.build import build

    try:
        return build("lib", Path(edge_wam.__file__).resolve().parents[1] / "build" / "firmware")
    except FirmwareError as error:
        raise ConfigError(error.what, expected=error.expected, remedy=error.remedy) from error


def run_episode(
    planner: Planner, world: World, embodiment: Embodiment, library: Path, *, replan_knots: int = 1,
    instruction: str | None = None, clock_ns: Callable[[], int],
    watch: Callable[[Observation, ActionChunk, Imagination, object], None] | None = None,
) -> Episode:  # fmt: skip
    """Run ``world`` (freshly reset) to success or to the protocol's 6.25 s.

    Args:
        planner: already holding its bundle; it is reset here.
        library: ``libedgewam_mcu.so``.
        replan_knots: knots executed of each chunk before the next one.
        instruction: other words than the task's own.
        clock_ns: wall clock for the latency figures.
        watch: called with what went in and came out of every inference.
    """
    planner.reset()
    plant = Plant(world)
    transport = LibraryTransport(library, seed=world.seed + 1)

    def tick() -> None:
        plant.order(transport.setpoint())
        plant.advance(TICK_NS)
        transport.encoder(np.clip(plant.position(), -50.0, 50.0))

    transport.on_tick = tick
    link = Link(transport, limit_table(embodiment), clock=transport.now_ns)
    try:
        link.connect()
        link.configure()
        link.arm()
        plant.paused = False
        return _loop(planner, plant, link, transport, embodiment, replan_knots, instruction or world.instruction,
                     clock_ns, watch)  # fmt: skip
    finally:
        transport.close()


def _loop(
    planner: Planner, plant: Plant, link: Link, transport: LibraryTransport, embodiment: Embodiment, replan_knots: int,
    instruction: str, clock_ns: Callable[[], int],
    watch: Callable[[Observation, ActionChunk, Imagination, object], None] | None,
) -> Episode:  # fmt: skip
    world = plant.world
    guard = Guard(embodiment, GuardConfig())
    dt_ns = embodiment.chunk_dt_ms * 1_000_000
    refused: dict[str, int] = {}
    latency: list[int] = []
    positions, setpoints = [plant.position()], [link.state.setpoint]
    sequence = 0
    while not world.succeeded and world.time_ns < MAX_EPISODE_NS:
        state = link.state
        sequence += 1
        now_ns = transport.now_ns()
        frames = {c.name: Frame(world.render(c.name), now_ns, sequence) for c in embodiment.cameras}
        observation = Observation(frames, plant.position(), state.setpoint, now_ns, instruction)
        began = clock_ns()
        chunk, imagination, latents = planner.infer(observation, np.zeros((0, embodiment.dof)), sequence)
        latency.append(clock_ns() - began)
        if watch is not None:
            watch(observation, chunk, imagination, latents)
        try:
            # Knot 0 lies one knot ahead of now: what the guard judges begins with where the arm is commanded to be.
            shaped = guard.shape(np.vstack([state.setpoint, chunk.q]), state.velocity, dt_ns / 1e9)
            link.send_chunk(chunk.t0_ns, dt_ns, shaped.q[1:], sequence)
        except Refused as refusal:
            name = refusal.fault.name
            refused[name] = refused.get(name, 0) + 1
        for _ in range(replan_knots * dt_ns // TICK_NS // HEARTBEAT_TICKS):
            link.heartbeat(sequence, Degrade.NOMINAL)
            for _ in range(HEARTBEAT_TICKS):
                transport.tick()
                link.poll()
            positions.append(plant.position())
            setpoints.append(link.state.setpoint)
            if plant.world.succeeded:
                break
    return Episode(
        world.task.name, world.seed, world.succeeded, world.time_ns / 1e9, np.array(positions), np.array(setpoints),
        latency, refused,
    )  # fmt: skip
