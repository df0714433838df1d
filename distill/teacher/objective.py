"""What DreamZero is trained on: weighted flow matching of video and actions, under teacher forcing.

x = (1 - sigma) data + sigma noise; the target is noise - data. Levels are drawn as indices of a schedule of 1000 and
shifted towards noise afterwards. Three ways of drawing them (:class:`Levels`), all of the reference's configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from distill.teacher.config import TeacherConfig
from distill.teacher.dit import Clip, DreamZero
from edge_wam.errors import ContractError

TRAIN_LEVELS = 1000
TRAIN_SHIFT = 5.0


class Levels(Enum):
    """How noise levels are drawn, frame 0 always on its own.

    COUPLED: uniform, one for the video and the actions of a block.
    HIGH: the same, from Beta(alpha, 1), which favours noise.
    DECOUPLED: video of a block from Beta(alpha, 1), each action step uniform by itself (DreamZero-Flash: alpha 7).
    """

    COUPLED = "coupled"
    HIGH = "high"
    DECOUPLED = "decoupled"


@dataclass(frozen=True, slots=True)
class Schedule:
    """sigma, and the weight of its loss, by index [1000]; index 0 is pure noise."""

    sigmas: Tensor
    weights: Tensor

    @classmethod
    def shifted(cls, shift: float = TRAIN_SHIFT) -> Schedule:
        """The weight is a bell around the middle, 0 at its lowest, 1 on average."""
        s = torch.linspace(1.0, 0.0, TRAIN_LEVELS + 1)[:-1]
        sigmas = shift * s / (1 + (shift - 1) * s)
        bell = torch.exp(-2 * (sigmas - 0.5) ** 2)
        bell = bell - bell.min()
        return cls(sigmas, bell * (TRAIN_LEVELS / bell.sum()))


@dataclass(frozen=True, slots=True)
class TrainingClip:
    """Clean data of a batch, in the model's units.

    Attributes:
        latents: [B, C, F, h, w].
        text, image, first_frame: as in :class:`distill.teacher.dit.Clip`.
        actions: [B, n * actions_per_block, action_width] in [-1, 1]; None for a batch of video alone.
        action_mask: like ``actions``, False where an entry is padding.
        has_action: [B], False for a clip whose actions are made up (video of another embodiment).
        states: [B, n * states_per_block, state_width].
    """

    latents: Tensor
    text: Tensor
    image: Tensor
    first_frame: Tensor | None = None
    actions: Tensor | None = None
    action_mask: Tensor | None = None
    has_action: Tensor | None = None
    states: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Losses:
    """Scalars; ``action`` is 0 for video alone."""

    total: Tensor
    video: Tensor
    action: Tensor


def draw_levels(
    config: TeacherConfig, batch: int, blocks: int, levels: Levels, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Indices into the schedule: of frames [B, 1 + blocks * frames_per_block], of actions [B, blocks * actions]."""
    shape = (batch, 1 + blocks)
    drawn = torch.rand(shape, generator=generator)
    if levels is not Levels.COUPLED:
        drawn = 1.0 - drawn ** (1.0 / alpha)  # 1 - Beta(alpha, 1), by its inverse distribution function
    index = (drawn * TRAIN_LEVELS).long().clamp(0, TRAIN_LEVELS - 1)
    video = torch.cat([index[:, :1], index[:, 1:].repeat_interleave(config.frames_per_block, 1)], 1)
    if levels is Levels.DECOUPLED:
        action = torch.randint(TRAIN_LEVELS, (batch, blocks * config.actions_per_block), generator=generator)
    else:
        action = index[:, 1:].repeat_interleave(config.actions_per_block, 1)
    return video, action


def flow_matching(
    model: DreamZero,
    clip: TrainingClip,
    schedule: Schedule,
    generator: torch.Generator,
    levels: Levels = Levels.COUPLED,
    alpha: float = 3.0,
) -> Losses:
    """The training loss of a batch. Levels and noise are drawn on the CPU, so that a run repeats on any device.

    Raises:
        ContractError: an action outside [-1, 1] or no number, or shapes that do not belong together.
    """
    config, latents = model.config, clip.latents
    batch, frames = latents.shape[0], latents.shape[2]
    blocks = (frames - 1) // config.frames_per_block
    video_index, action_index = draw_levels(config, batch, blocks, levels, alpha, generator)
    device = latents.device
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    video_sigma = schedule.sigmas[video_index].to(device)
    sigma = video_sigma[:, None, :, None, None].to(latents.dtype)
    noisy = (1 - sigma) * latents + sigma * noise
    actions, action_noise, action_sigma = clip.actions, None, None
    noisy_actions = None
    if actions is not None:
        if not bool((actions.abs() <= 1.0).all()):  # false with a NaN
            raise ContractError("actions outside [-1, 1]", expected="normalised by q01 and q99, and clipped")
        action_noise = torch.randn(actions.shape, generator=generator).to(actions)
        action_sigma = schedule.sigmas[action_index].to(device)
        level = action_sigma[..., None].to(actions.dtype)
        noisy_actions = (1 - level) * actions + level * action_noise
    video_velocity, action_velocity = model(
        Clip(
            noisy, latents, TRAIN_LEVELS * video_sigma, clip.text, clip.image, clip.first_frame, noisy_actions,
            None if action_sigma is None else TRAIN_LEVELS * action_sigma, clip.states,
        )
    )  # fmt: skip
    error = (video_velocity.float() - (noise - latents).float()).square().mean((1, 3, 4))
    video = (error * schedule.weights[video_index].to(device)).mean()
    action = torch.zeros((), device=device)
    if actions is not None:
        assert action_noise is not None and action_velocity is not None
        error = (action_velocity.float() - (action_noise - actions).float()).square()
        if clip.action_mask is not None:
            error = error * clip.action_mask
        if clip.has_action is not None:
            error = error * clip.has_action[:, None, None]
        action = (error.mean(2) * schedule.weights[action_index].to(device)).mean()
    return Losses(video + action, video, action)
