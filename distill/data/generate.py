"""Demonstrations with injected noise and recovery, from Meta-World's scripted experts, as a LeRobot v3 dataset.

Pushes (a random Cartesian velocity for 50-500 ms) take the arm off the expert's way; what the expert then does is the
recovery. A pushed interval is marked (``expert`` = 0) and never becomes a target; what follows it does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distill.data.expert import Expert, advance
from distill.data.lerobot_v3 import DatasetWriter, Feature
from edge_wam.contracts import F64, U8
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.sim.world import MAX_EPISODE_NS, PHYSICS_STEP_NS, SHIPPED_TASKS, TRAIN_SEED_LIMIT, World

KNOTS = 16
"""Knots in an action chunk (0.8 s at 50 ms)."""
TAIL_FRAMES = 8
"""Frames kept after success, so that the student learns to stay."""
PUSH_SPEED_M_S = 0.6


def features(embodiment: Embodiment) -> dict[str, Feature]:
    """The vector features of every frame; positions in axis units."""
    axes = tuple(a.name for a in embodiment.axes)
    state = (*axes, *(f"{a}.setpoint" for a in axes))
    chunk = tuple(f"{a}.{k}" for k in range(KNOTS) for a in axes)
    return {
        "observation.state": Feature(2 * len(axes), state),
        "observation.environment_state": Feature(39, tuple(f"metaworld.{i}" for i in range(39))),
        "action": Feature(len(axes), axes),
        "expert": Feature(1, ("expert",), "bool"),
        "expert_chunk": Feature(KNOTS * len(axes), chunk),
        "expert_chunk_mask": Feature(KNOTS, tuple(str(k) for k in range(KNOTS))),
        "next.success": Feature(1, ("success",), "bool"),
    }


def dataset_writer(root: Path, embodiment: Embodiment) -> DatasetWriter:
    """Where episodes of this robot go: one frame a knot."""
    return DatasetWriter(
        root, fps=1000 // embodiment.chunk_dt_ms, robot_type=embodiment.name, features=features(embodiment),
        cameras=tuple(c.name for c in embodiment.cameras),
    )  # fmt: skip


def physics_steps(embodiment: Embodiment) -> int:
    """Physics steps from one knot to the next."""
    return embodiment.chunk_dt_ms * 1_000_000 // PHYSICS_STEP_NS


@dataclass
class Recording:
    """What is gathered frame by frame, one list per feature."""

    state: list[F64]
    environment: list[F64]
    action: list[F64]
    expert: list[float]
    success: list[float]
    frames: dict[str, list[U8]]

    @classmethod
    def empty(cls, cameras: tuple[str, ...]) -> Recording:
        return cls([], [], [], [], [], {c: [] for c in cameras})

    def observe(self, world: World, setpoint: F64) -> None:
        self.state.append(np.concatenate([world.position(), setpoint]))
        self.environment.append(world.full_observation)
        for camera, images in self.frames.items():
            images.append(world.render(camera))

    def vectors(self, chunk: NDArray[np.float32], mask: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        def column(values: list[float]) -> NDArray[np.float32]:
            return np.asarray(values, np.float32)[:, None]

        return {
            "observation.state": np.asarray(self.state, np.float32),
            "observation.environment_state": np.asarray(self.environment, np.float32),
            "action": np.asarray(self.action, np.float32),
            "expert": column(self.expert),
            "expert_chunk": chunk.reshape(len(chunk), -1),
            "expert_chunk_mask": mask,
            "next.success": column(self.success),
        }


def hindsight_chunks(action: F64, expert: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The chunk that followed each frame [T, 16, D]; its mask [T, 16] is 0 from the first pushed or missing knot on."""
    length, dof = action.shape
    chunk = np.zeros((length, KNOTS, dof), np.float32)
    mask = np.zeros((length, KNOTS), np.float32)
    for t in range(length):
        for k in range(min(KNOTS, length - t)):
            if not expert[t + k]:
                break
            chunk[t, k], mask[t, k] = action[t + k], 1.0
    return chunk, mask


def demonstrate(world: World, embodiment: Embodiment, rng: np.random.Generator) -> Recording:
    """One episode of the expert, pushed now and then."""
    steps = physics_steps(embodiment)
    out = Recording.empty(tuple(c.name for c in embodiment.cameras))
    expert = Expert(world, embodiment, rng)
    push: F64 | None = None
    left = 0
    if rng.random() < 0.6:  # start from elsewhere
        push, left = rng.uniform(-1, 1, 3) * PUSH_SPEED_M_S, int(rng.integers(2, 11))
    tail = TAIL_FRAMES
    while tail > 0 and world.time_ns < MAX_EPISODE_NS:
        if left == 0:
            push = None
            if rng.random() < 0.05:
                push, left = rng.uniform(-1, 1, 3) * PUSH_SPEED_M_S, int(rng.integers(1, 5))
        left = max(0, left - 1)
        out.observe(world, expert.follower.position)
        advance(world, expert, steps, push)
        out.action.append(expert.follower.position.copy())
        out.expert.append(float(push is None))
        out.success.append(float(world.succeeded))
        tail -= world.succeeded
    return out


def generate(
    root: Path, embodiment: Embodiment, *, per_task: int, seed: int, tasks: tuple[str, ...] = SHIPPED_TASKS,
    report: Callable[[int, int, str], None] = lambda done, total, remark: None,
) -> DatasetWriter:  # fmt: skip
    """Write ``per_task`` successful demonstrations of each task; resumes where an interrupted run stopped.

    Seeds run upwards from ``seed`` and must stay below TRAIN_SEED_LIMIT: evaluation seeds are never seen.
    """
    if seed < 0 or seed + per_task > TRAIN_SEED_LIMIT:
        raise ConfigError(
            f"seeds {seed}..{seed + per_task - 1}", expected=f"0 to {TRAIN_SEED_LIMIT - 1}",
            remedy="evaluation seeds are never trained on",
        )
    writer = dataset_writer(root, embodiment)
    worlds = {task: World(task, seed) for task in tasks}
    total = per_task * len(tasks)
    for number in range(writer.episodes, total):
        task = tasks[number % len(tasks)]
        episode_seed = seed + number // len(tasks)
        for attempt in range(20):  # a pushed expert may fail: draw other pushes for the same seed
            world = worlds[task]
            world.reset(episode_seed)
            recording = demonstrate(world, embodiment, np.random.default_rng([episode_seed, number, attempt]))
            if world.succeeded:
                break
        else:
            raise ConfigError(f"{task} seed {episode_seed}: the expert failed 20 times")
        chunk, mask = hindsight_chunks(np.asarray(recording.action), np.asarray(recording.expert))
        frames = {camera: np.stack(images) for camera, images in recording.frames.items()}
        writer.add(world.instruction, recording.vectors(chunk, mask), frames)
        report(number + 1, total, f"{task} seed {episode_seed}, {len(chunk)} frames, attempt {attempt + 1}")
    for world in worlds.values():
        world.close()
    writer.finalize()
    return writer
