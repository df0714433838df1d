"""A problem with two answers and a teacher that knows both exactly, and batches that nobody had to record.

The expert goes left or right and nothing in the observation says which. The teacher's velocity is the one of that
mixture in closed form: x_0 = +-PATH + SPREAD n gives, at level s, E[x_0 | x] by Bayes, and v = (x - E[x_0 | x]) / s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from distill.batch import Batch, Noise
from distill.fewstep.endpoints import SolvedEndpoints
from distill.fewstep.objective import FewStep, few_passes
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from distill.teaching import Look, Noisy, noisy_chunk
from tests.distill.tiny import TINY

TOY = replace(
    TINY, name="toy", depth=2, width=32, ffn=64, heads=2, past_frames=0, future_knots=(2,), horizon=4, target_time=True,
)  # fmt: skip
AXES = 2
SPREAD = 0.1


def batch_of(config: StudentConfig, size: int, seed: int, past: int | None = None) -> Batch:
    """Random clean samples; all axes labelled."""
    g = torch.Generator().manual_seed(seed)
    c, p = config, config.past_frames if past is None else past
    return Batch(
        latents=torch.randn(size, p + 1, c.tokens, c.token_channels, generator=g),
        states=torch.randn(size, p + 1, c.state_width, generator=g), past_mask=torch.ones(size, p),
        action=torch.randn(size, c.horizon, c.action_width, generator=g),
        action_mask=torch.ones(size, c.horizon, c.action_width),
        video=torch.randn(size, len(c.future_knots), c.tokens, c.token_channels, generator=g),
        video_mask=torch.ones(size, len(c.future_knots)),
        tokens=torch.randint(1, 50, (size, c.text_length), generator=g),
        source=torch.zeros(size, dtype=torch.int64), index=torch.arange(size),
    )  # fmt: skip


def noise_of(batch: Batch, seed: int, level: float | None = None) -> Noise:
    """Noise at drawn levels, or all at one."""
    g = torch.Generator().manual_seed(1000 + seed)
    size = len(batch)
    drawn = [torch.rand(size, generator=g) for _ in range(2)]
    if level is not None:
        drawn = [torch.full((size,), level)] * 2
    return Noise(
        drawn[0], drawn[1], torch.randn(batch.video.shape, generator=g), torch.randn(batch.action.shape, generator=g),
        torch.zeros(batch.action.shape[:2]),
    )  # fmt: skip


def fork(size: int, rng: np.random.Generator, left: float = 0.5) -> Batch:
    """The problem's samples: nothing but the action says which way; the imagined frame shows it, too."""
    side = torch.from_numpy(np.where(rng.random(size) < left, -1.0, 1.0).astype(np.float32))
    clean = batch_of(TOY, size, int(rng.integers(1 << 30)))
    spread = torch.from_numpy(rng.standard_normal((size, TOY.horizon, TOY.action_width), np.float32))
    action = side[:, None, None] * path()[None] + SPREAD * spread
    mask = torch.zeros_like(action)
    mask[..., :AXES] = 1.0
    video = side[:, None, None, None] * torch.ones_like(clean.video) * 0.5
    still = torch.zeros_like
    return replace(clean, action=action * mask, action_mask=mask, video=video, latents=still(clean.latents),
                   states=still(clean.states), tokens=torch.ones_like(clean.tokens))  # fmt: skip


def path() -> Tensor:
    """Way of the first two axes to the right [H, 32]."""
    out = torch.zeros(TOY.horizon, TOY.action_width)
    out[:, 0] = torch.linspace(0.5, 1.0, TOY.horizon)
    out[:, 1] = 0.3
    return out


class ForkTeacher:
    """The exact velocity of the fork. ``left``: how often the expert goes left."""

    depth, width = 1, 1

    def __init__(self, left: float = 0.5) -> None:
        self.left, self.digest, self.opened = left, f"fork {left}", 0

    def open(self, batch: Batch) -> ForkLecture:
        self.opened += 1
        return ForkLecture(self.left, batch)


class ForkLecture:
    """Video says the same as the actions: the side is read from both."""

    same_latents = True

    def __init__(self, left: float, batch: Batch) -> None:
        self.left, self.batch = left, batch

    def noisy(self, noise: Noise) -> Noisy:
        return noisy_chunk(self.batch, noise)

    def look(self, chunk: Noisy, depths: Sequence[int] = ()) -> Look:
        s = chunk.sigma_action.clamp_min(1e-3)[:, None, None]
        x, way = chunk.action, path()
        variance = (1 - s).square() * SPREAD**2 + s.square()
        mask = torch.zeros_like(way)
        mask[:, :AXES] = 1.0
        evidence = (2.0 * (1 - s) * (x * way * mask) / variance).sum((1, 2))
        prior = float(np.log(max(1 - self.left, 1e-9)) - np.log(max(self.left, 1e-9)))
        side = torch.tanh((evidence + prior) / 2.0)[:, None, None]
        # E[x_0 | x] = side * way + the part of the spread that explains the rest
        share = (1 - s) * SPREAD**2 / variance
        clean = (side * way + share * (x - (1 - s) * side * way)) * mask
        v = chunk.sigma_video.clamp_min(1e-3)[:, None, None, None]
        seen = side[..., None] * 0.5 * torch.ones_like(chunk.video)
        return Look((chunk.video - seen) / v, (x - clean) / s)


def distil(objective_of: Callable[[WorldActionTransformer], Objective], steps: int, left: float = 0.5) -> Answers:
    """Train a student of the fork from nothing for so many steps, 64 samples each; the same for the same arguments."""
    torch.manual_seed(0)
    model = WorldActionTransformer(TOY)
    objective = objective_of(model)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    rng = np.random.default_rng(0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * min(1.0, (step + 1) / 30) * min(1.0, (steps - step) / (0.4 * steps))
        batch = fork(64, rng, left)
        total = objective.loss(model, batch, noise_of(batch, step), step)["total"]
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if isinstance(objective, FewStep):
            objective.after_step(model, step)
    return Answers(model.eval(), left)


class Objective(Protocol):
    def loss(self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int) -> dict[str, Tensor]: ...


class Answers:
    """What a student and the exact teacher say to the same 256 noises: way of the first axis, mean over knots."""

    def __init__(self, model: WorldActionTransformer, left: float) -> None:
        self.model = model
        self.batch = fork(256, np.random.default_rng(9))
        self.noise = noise_of(self.batch, 9)
        end = SolvedEndpoints(ForkTeacher(left), 8).endpoints(self.batch, self.noise).end
        self.teacher = end.action[:, :, 0].mean(1)

    def student(self, passes: int) -> Tensor:
        """[256]."""
        with torch.no_grad():
            return few_passes(self.model, self.batch, self.noise, passes)[1][:, :, 0].mean(1)

    def left(self, passes: int) -> float:
        """How often the student goes left."""
        return float((self.student(passes) < 0).float().mean())

    def agreement(self, passes: int) -> float:
        """How often it goes where the teacher goes from the same noise."""
        return float((self.student(passes).sign() == self.teacher.sign()).float().mean())

    def spread(self, passes: int) -> float:
        """Standard deviation over noises in units of the teacher's."""
        return float(self.student(passes).std() / self.teacher.std())
