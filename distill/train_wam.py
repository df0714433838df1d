"""Train the world action transformer on windows: flow matching of video and actions with decoupled noise levels.

On-policy datasets may arrive while it runs (a collector writes them from this run's own weights): they are taken in
between two steps and make up half of every batch from then on.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from distill.batch import Batch, Noise, draw_noise, gather, masked_mean, normal
from distill.checkpoint import load_checkpoint, save_checkpoint
from distill.curves import Curves
from distill.data.windows import Windows, encode_frames, load_frames, make_windows
from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from edge_wam.embodiment import Embodiment
from edge_wam.sim.world import TASKS
from edge_wam.text import encode_text

CURVE_COLUMNS = ("step", "seconds", "action", "video", "copy_last", "first_knot_mm", "samples", "on_policy_frames")


@dataclass(frozen=True, slots=True)
class WamTraining:
    """Hyperparameters.

    ``cooldown``: the last share of the steps, over which the learning rate falls to 2 %.
    ``memoryless``: share of the batches without past frames: the first 0.2 s of an episode have none, and a batch
    without them costs a third less.
    """

    steps: int = 8000
    batch: int = 32
    learning_rate: float = 1e-3
    warmup: int = 300
    cooldown: float = 0.3
    weight_decay: float = 0.02
    ema: float = 0.999
    video_weight: float = 0.4
    near_weight: float = 3.0
    latent_noise: float = 0.05
    memoryless: float = 0.4
    seed: int = 0

    def rate(self, step: int) -> float:
        """Learning rate: warm-up, constant, linear cooldown."""
        up = min(1.0, (step + 1) / self.warmup)
        left = (self.steps - step) / (self.cooldown * self.steps)
        return self.learning_rate * up * max(0.02, min(1.0, left))


class Sampler:
    """Draws batches from demonstrations and, half and half, from on-policy windows once there are some."""

    def __init__(self, demonstrations: Windows, seed: int) -> None:
        self.sources = [demonstrations]
        self.rng = np.random.default_rng(seed)

    def draw(self, batch: int) -> list[tuple[int, Windows, Tensor]]:
        """(number of the source, windows, indices) whose sizes add up to ``batch``."""
        later = self.sources[1:]
        if not later:
            return [(0, self.sources[0], torch.from_numpy(self.rng.integers(0, len(self.sources[0]), batch)))]
        share = np.array([len(w) for w in later], float)
        counts = self.rng.multinomial(batch // 2, share / share.sum())
        sizes = [batch - int(counts.sum()), *counts.tolist()]
        triples = zip(range(len(sizes)), self.sources, sizes, strict=True)
        return [(k, w, torch.from_numpy(self.rng.integers(0, len(w), n))) for k, w, n in triples if n]


def instruction_tokens(length: int) -> dict[str, Tensor]:
    """All ways of saying each task, as tokens [variants, length], by the task's first instruction."""
    return {
        task.instruction: torch.from_numpy(
            np.stack([encode_text(text, length) for text in (task.instruction, *task.paraphrases)])
        )
        for task in TASKS.values()
    }


def losses(model: WorldActionTransformer, batch: Batch, noise: Noise, near_weight: float) -> dict[str, Tensor]:
    """Masked velocity losses. Charbonnier for actions (scale 0.02: half a centimetre), squares for video."""
    sa = noise.sigma_action[:, None, None] * (1.0 - noise.committed[..., None])
    sv = noise.sigma_video[:, None, None, None]
    action = (1.0 - sa) * batch.action + sa * noise.action
    video = (1.0 - sv) * batch.video + sv * noise.video
    with torch.autocast("cpu", torch.bfloat16):
        v_video, v_action = model(
            batch.latents, batch.states, batch.past_mask, video, action, noise.sigma_video, noise.sigma_action,
            noise.committed, model.text_kv(batch.tokens),
        )  # fmt: skip
    horizon = action.shape[1]
    knots = 1.0 + (near_weight - 1.0) * torch.exp(-torch.arange(horizon) / 3.0)  # the first knots are the executed ones
    weight = batch.action_mask * (1.0 - noise.committed[..., None]) * knots[:, None]
    error = v_action.float() - (noise.action - batch.action)
    mask = batch.video_mask[..., None, None]
    at_one = (noise.sigma_action == 1.0).float()[:, None] * weight[:, 0, :3]
    return {
        "action": masked_mean((error.pow(2) + 4e-4).sqrt() - 0.02, weight),
        "video": masked_mean((v_video.float() - (noise.video - batch.video)).pow(2), mask),
        "copy_last": masked_mean((batch.latents[:, -1:] - batch.video).pow(2), mask),
        "first_knot": masked_mean(error[:, 0, :3].abs(), at_one),
    }  # fmt: skip


class Ema:
    """Exponential moving average of a model's parameters."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        decay = min(self.decay, (1.0 + step) / (10.0 + step))
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs, 1.0 - decay)


def train_wam(
    demonstrations: list[Path], on_policy: Path, codec: FrameCodec, config: StudentConfig, embodiment: Embodiment,
    settings: WamTraining, out: Path, report: Callable[[int, int, str], None],
) -> WorldActionTransformer:  # fmt: skip
    """Train (or resume); writes ``wam.pt`` (EMA weights) and ``wam-training.pt`` every 250 steps, and ``wam.csv``."""
    torch.manual_seed(settings.seed)
    model = WorldActionTransformer(config)
    ema = Ema(model, settings.ema)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay
    )
    state = {"model": model, "ema": ema.model, "optimiser": optimiser}
    start = load_checkpoint(out / "wam-training.pt", state)
    torch.manual_seed(settings.seed + start)

    def windows(roots: list[Path]) -> Windows:
        frames = load_frames(roots, embodiment)
        return make_windows(frames, encode_frames(codec, frames.canvas), config, embodiment)

    sampler = Sampler(windows(demonstrations), settings.seed + start)
    taken: set[Path] = set()
    tokens = instruction_tokens(config.text_length)
    curves = Curves(out / "wam.csv", CURVE_COLUMNS)
    half_range_mm = 500.0 * float(embodiment.vector("action_q99")[0] - embodiment.vector("action_q01")[0])
    began = time.monotonic()
    sums: dict[str, float] = {}
    for step in range(start, settings.steps):
        if step % 50 == 0 or step == start:
            for info in sorted(on_policy.glob("*/meta/info.json")):
                if info.parent.parent not in taken:
                    taken.add(info.parent.parent)
                    sampler.sources.append(windows([info.parent.parent]))
        batch = gather(sampler.draw(settings.batch), tokens, sampler.rng)
        if sampler.rng.random() < settings.memoryless:
            batch = batch.without_past()
        batch = replace(batch, latents=batch.latents + settings.latent_noise * normal(batch.latents, sampler.rng))
        parts = losses(model, batch, draw_noise(batch, sampler.rng), settings.near_weight)
        loss = parts["action"] + settings.video_weight * parts["video"]
        for group in optimiser.param_groups:
            group["lr"] = settings.rate(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        ema.update(model, step)
        for key, value in parts.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        if step % 25 == 24:
            mean = {key: value / 25 for key, value in sums.items()}
            sums = {}
            near_mm = mean["first_knot"] * half_range_mm
            extra = sum(len(w) for w in sampler.sources[1:])
            curves.add(step + 1, time.monotonic() - began, mean["action"], mean["video"], mean["copy_last"], near_mm,
                       (step + 1) * settings.batch, extra)  # fmt: skip
            report(step + 1, settings.steps, f"action {mean['action']:.4f}  video {mean['video']:.3f} (copying "
                   f"{mean['copy_last']:.3f})  first knot {near_mm:.1f} mm  on-policy frames {extra}")  # fmt: skip
        if step % 250 == 249 or step == settings.steps - 1:
            save_checkpoint(out / "wam-training.pt", state, step + 1)
            save_checkpoint(out / "wam.pt", {"wam": ema.model}, step + 1)
    return ema.model  # type: ignore[return-value]
