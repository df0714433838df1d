"""On-policy relabelling: the student acts, the expert says what it would have done in every state that is reached.

Meta-World's experts are functions of the full state, so a second world that is put into the student's state can run the
expert for a whole chunk: that is the label. It costs less than anything else that raises success.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from distill.data.expert import Expert, Follower, advance
from distill.data.generate import KNOTS, Recording, dataset_writer, physics_steps
from distill.data.windows import canvas_of, normalise_canvas
from distill.models.codec import FrameCodec
from distill.models.wam import WorldActionTransformer
from edge_wam.contracts import F64
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from edge_wam.kernels import decode_chunk
from edge_wam.sim.world import PHYSICS_STEP_NS, TASKS, TRAIN_SEED_LIMIT, World
from edge_wam.text import encode_text

EPISODE_CAP_NS = 4_500_000_000
TAIL_FRAMES = 3


class TorchStudent:
    """The student in float32 for one episode after another: canvas and axes in, chunk out."""

    def __init__(self, codec: FrameCodec, wam: WorldActionTransformer, embodiment: Embodiment, seed: int) -> None:
        self.codec, self.wam, self.embodiment = codec.eval(), wam.eval(), embodiment
        self.generator = torch.Generator().manual_seed(seed)
        self.q01, self.q99 = embodiment.vector("action_q01"), embodiment.vector("action_q99")

    @torch.no_grad()
    def begin(self, instruction: str) -> None:
        """Forget the past and take an instruction."""
        tokens = torch.from_numpy(encode_text(instruction, self.wam.config.text_length))[None]
        self.cross = self.wam.text_kv(tokens)[:, 0]
        self.history: list[torch.Tensor] = []

    @torch.no_grad()
    def plan(self, images: dict[str, NDArray[np.uint8]], position: F64, setpoint: F64) -> F64:
        """One chunk [H, D] of absolute knots; to be called once per knot."""
        c = self.wam.config
        latent = self.codec.encode(normalise_canvas(canvas_of(images, self.embodiment))[None])
        state = torch.from_numpy(self.embodiment.normalise_state(position, setpoint))[None]
        empty = torch.zeros(c.depth, 2, c.tokens + 1, c.width)
        ages = range(c.past_frames * c.past_stride, 0, -c.past_stride)
        past = [self.history[-age] if age <= len(self.history) else empty for age in ages]
        known = torch.tensor([[float(age <= len(self.history)) for age in ages]])
        noise = torch.randn(1, len(c.future_knots), c.tokens, c.token_channels, generator=self.generator)
        noise_action = torch.randn(1, c.horizon, c.action_width, generator=self.generator)
        action, _, new_kv = self.wam.step(
            latent, state, noise, noise_action, torch.zeros_like(noise_action), torch.zeros(1, c.horizon),
            torch.cat(past, 2), known, self.cross,
        )  # fmt: skip
        self.history = [*self.history, new_kv][-c.past_frames * c.past_stride :]
        return decode_chunk(action[0].numpy(), position, self.q01, self.q99, self.embodiment.relative)


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
    student: TorchStudent, world: World, branch: World, embodiment: Embodiment, rng: np.random.Generator
) -> tuple[Recording, NDArray[np.float32]]:
    """One episode of the student; returns what happened and the expert's chunk at every frame [T, 16, D].

    Some episodes act late (0-2 knots of the previous chunk are still executed): the states that inference delay
    leads to must be among those that are labelled.
    """
    steps = physics_steps(embodiment)
    out = Recording.empty(tuple(c.name for c in embodiment.cameras))
    tracker = Tracker(embodiment, world.position())
    task = world.task
    student.begin([task.instruction, *task.paraphrases][int(rng.integers(0, 1 + len(task.paraphrases)))])
    delay = int(rng.choice([0, 0, 1, 2]))
    plans: list[F64] = []
    labels: list[F64] = []
    tail = TAIL_FRAMES
    while tail > 0 and world.time_ns < EPISODE_CAP_NS:
        setpoint = tracker.motion.position.copy()
        out.observe(world, setpoint)
        images = {camera: frames[-1] for camera, frames in out.frames.items()}
        plans.append(student.plan(images, world.position(), setpoint))
        labels.append(expert_chunk(branch, world, tracker.motion, embodiment, steps, rng))
        late = min(delay, len(plans) - 1)
        tracker.towards(world, plans[-1 - late][late], steps)
        out.action.append(tracker.motion.position.copy())
        out.expert.append(0.0)
        out.success.append(float(world.succeeded))
        tail -= world.succeeded
    return out, np.asarray(labels, np.float32)


def collect(
    root: Path, student: TorchStudent, embodiment: Embodiment, *, episodes: int, first_seed: int,
    weights: dict[str, float], worlds: dict[str, tuple[World, World]], report: Callable[[str, bool, int], None],
) -> None:  # fmt: skip
    """Write one dataset of ``episodes`` relabelled student episodes; tasks drawn by ``weights``.

    Raises:
        ConfigError: the seeds reach into those that are kept for evaluation.
    """
    if first_seed < 0 or first_seed + episodes > TRAIN_SEED_LIMIT:
        raise ConfigError(
            f"seeds {first_seed}..{first_seed + episodes - 1}", expected=f"0 to {TRAIN_SEED_LIMIT - 1}",
            remedy="evaluation seeds are never trained on",
        )
    writer = dataset_writer(root, embodiment)
    rng = np.random.default_rng(first_seed)
    names = list(weights)
    p = np.array([weights[n] for n in names])
    for number in range(writer.episodes, episodes):
        name = names[int(rng.choice(len(names), p=p / p.sum()))]
        if name not in worlds:
            worlds[name] = (World(name, 0), World(name, 0))
        world, branch = worlds[name]
        world.reset(first_seed + number)
        branch.reset(first_seed + number)
        out, labels = roll_out(student, world, branch, embodiment, rng)
        mask = np.ones(labels.shape[:2], np.float32)
        writer.add(TASKS[name].instruction, out.vectors(labels, mask), {k: np.stack(v) for k, v in out.frames.items()})
        report(name, world.succeeded, len(labels))
    writer.finalize()
