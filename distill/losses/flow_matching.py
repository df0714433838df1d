"""Flow matching on demonstrations: x_s = (1 - s) data + s noise, the velocity noise - data is what is predicted."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from distill.batch import Batch, Noise, masked_mean
from distill.models.wam import WorldActionTransformer


class FlowMatchingWeights(BaseModel):
    """What counts how much.

    Attributes:
        video: of the video loss beside the action loss.
        near: of the first knot beside the last; it falls by e every three knots, because the first are executed.
        action: ``charbonnier`` (scale 0.02: half a centimetre) draws the one pass of a student to the median of what
            its label might be; ``squared`` is flow matching to the letter, for a teacher of many passes.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    video: float = Field(default=0.4, ge=0, allow_inf_nan=False)
    near: float = Field(default=3.0, ge=1, allow_inf_nan=False)
    action: Literal["charbonnier", "squared"] = "charbonnier"


def noisy(batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
    """Video and actions at the noise levels of ``noise``; committed knots stay clean."""
    sa = noise.sigma_action[:, None, None] * (1.0 - noise.committed[..., None])
    sv = noise.sigma_video[:, None, None, None]
    return (1.0 - sv) * batch.video + sv * noise.video, (1.0 - sa) * batch.action + sa * noise.action


def predict(model: WorldActionTransformer, batch: Batch, noise: Noise) -> tuple[Tensor, Tensor]:
    """Velocities of video and actions, float32."""
    video, action = noisy(batch, noise)
    v_video, v_action = model(
        batch.latents, batch.states, batch.past_mask, video, action, noise.sigma_video, noise.sigma_action,
        noise.committed, model.text_kv(batch.tokens),
    )  # fmt: skip
    return v_video.float(), v_action.float()


def knot_weights(batch: Batch, noise: Noise, near: float) -> Tensor:
    """Weight of every action number [B, H, 32]: labels that are not committed, the near ones more."""
    horizon = torch.arange(batch.action.shape[1], device=batch.action.device)
    knots = 1.0 + (near - 1.0) * torch.exp(-horizon / 3.0)
    return batch.action_mask * (1.0 - noise.committed[..., None]) * knots[:, None]


class FlowMatching:
    """Masked velocity losses of actions and video (squares).

    Args:
        half_range_mm: half of what the first axes' normalised range [-1, 1] stands for, for the curve in millimetres.
    """

    def __init__(self, weights: FlowMatchingWeights, half_range_mm: float) -> None:
        self.weights, self.half_range_mm = weights, half_range_mm

    def loss(self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int) -> dict[str, Tensor]:
        """``total``, its parts, what copying the newest frame would score, and the first knot's error at noise."""
        v_video, v_action = predict(model, batch, noise)
        weight = knot_weights(batch, noise, self.weights.near)
        error = v_action - (noise.action - batch.action)
        mask = batch.video_mask[..., None, None]
        charge = error.pow(2) if self.weights.action == "squared" else (error.pow(2) + 4e-4).sqrt() - 0.02
        action = masked_mean(charge, weight)
        video = masked_mean((v_video - (noise.video - batch.video)).pow(2), mask)
        at_one = (noise.sigma_action >= 0.9).float()[:, None] * weight[:, 0, :3]
        return {
            "total": action + self.weights.video * video, "action": action, "video": video,
            "copy_last": masked_mean((batch.latents[:, -1:] - batch.video).pow(2), mask),
            "first_knot_mm": masked_mean(error[:, 0, :3].abs(), at_one) * self.half_range_mm,
        }  # fmt: skip
