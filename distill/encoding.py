"""The frame encoder is distilled, too: latents of a teacher's encoder by regression, nothing to decode.

A teacher is the project's own codec, whose latents a smaller or faster encoder is to give, or Wan's VAE, whose encoder
would cost a Jetson more than the transformer (reference: roofline, 34 ms against 1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from distill.batch import masked_mean
from distill.models.codec import FrameCodec
from distill.models.frame_encoder import FrameEncoder
from distill.teacher.encoders import Encoders
from edge_wam.errors import ContractError


class LatentTeacher(Protocol):
    """Clips from their beginning [B, T, 3, H, W] in [-1, 1] -> normalised latents [B, n, C, h, w]."""

    frames: int

    def latents(self, clips: Tensor) -> Tensor: ...


class CodecTeacher:
    """The project's frame codec: one latent for every frame."""

    frames = 1

    def __init__(self, codec: FrameCodec) -> None:
        self._codec = codec.eval().requires_grad_(False)

    @torch.no_grad()
    def latents(self, clips: Tensor) -> Tensor:
        """See :class:`LatentTeacher`."""
        return self._codec.grid(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])


class WanTeacher:
    """Wan's VAE: a latent for the first frame and one for every four after it."""

    frames = 4

    def __init__(self, encoders: Encoders) -> None:
        self._encoders = encoders

    def latents(self, clips: Tensor) -> Tensor:
        """See :class:`LatentTeacher`."""
        return self._encoders.encode_video(clips.transpose(1, 2)).transpose(1, 2).to(clips.dtype)


@dataclass(frozen=True, slots=True)
class Clips:
    """Canvases in [-1, 1]: [B, T, 3, H, W], each from the beginning of what the teacher is to encode."""

    frames: Tensor


class LatentRegression:
    """The objective. ``total``: mean square error of latents, whose channels have about unit variance; ``explained``:
    the share of the teacher's variance over the batch that the student gives back."""

    def __init__(self, teacher: LatentTeacher) -> None:
        self._teacher = teacher

    def loss(self, model: FrameEncoder, batch: Clips, noise: object, step: int) -> dict[str, Tensor]:
        """As every objective; regression draws no noise.

        Raises:
            ContractError: student and teacher give latents of different shapes.
        """
        if model.shape.frames != self._teacher.frames:
            raise ContractError(
                f"an encoder of {model.shape.frames} frames to a latent",
                expected=f"{self._teacher.frames} as the teacher",
            )
        wanted = self._teacher.latents(batch.frames)
        made = model.clip(batch.frames)
        if made.shape != wanted.shape:
            raise ContractError(f"latents {tuple(made.shape)}", expected=f"{tuple(wanted.shape)} as the teacher")
        squares = (made.float() - wanted.float()).square()
        error = masked_mean(squares, torch.ones_like(squares))
        spread = (wanted - wanted.mean((0, 1, 3, 4), keepdim=True)).float().square()
        return {
            "total": error,
            "explained": 1.0 - error.detach() / masked_mean(spread, torch.ones_like(spread)).clamp_min(1e-9),
        }
