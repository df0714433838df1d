"""Sizes and inputs of small frozen encoders, in the words of the public reference's constructors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tests.teacher.tiny import draw

TINY_TEXT: dict[str, Any] = {"vocab": 40, "dim": 32, "dim_attn": 32, "dim_ffn": 48, "num_heads": 4, "num_layers": 2,
                             "num_buckets": 32}  # fmt: skip
TINY_IMAGE: dict[str, Any] = {"image_size": 28, "patch_size": 14, "dim": 32, "mlp_ratio": 4, "out_dim": 16,
                              "num_heads": 2, "num_layers": 3, "pool_type": "token", "pre_norm": True,
                              "post_norm": False, "activation": "gelu"}  # fmt: skip
TINY_VIDEO: dict[str, Any] = {"dim": 8, "z_dim": 4}
TINY_VIDEO38: dict[str, Any] = {"dim": 8, "z_dim": 4, "dec_dim": 8}


def text_input() -> tuple[Tensor, Tensor]:
    """Two instructions of 9 and 140 tokens: the farthest positions share a bucket from 128 on."""
    mask = (torch.arange(150)[None] < torch.tensor([[9], [140]])).long()
    return torch.arange(300).reshape(2, 150) * 7 % 40 * mask, mask


def image_input() -> Tensor:
    """Already of the encoder's size, and normalised."""
    return draw(21, 1, 3, 28, 28)


def video_input() -> Tensor:
    """Nine frames: three latent frames."""
    return draw(22, 1, 3, 9, 32, 32).clamp(-1, 1)
