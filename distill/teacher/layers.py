"""Layers of DreamZero, named as in its checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from distill.teacher.config import CLIP_TOKENS, TeacherConfig
from distill.teacher.rope import Rotation

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k, v [B, N, heads, head_width] -> [B, N, heads, head_width]."""


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax attention; ``mask`` bool, True where allowed."""
    parts = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(*parts, attn_mask=mask).transpose(1, 2)


def masked(mask: Tensor | BlockMask) -> Attend:
    """Attention under a rule of :class:`distill.teacher.layout.TokenLayout`."""

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if isinstance(mask, Tensor):
            return dense(q, k, v, mask)
        out = _fused_flex()(*(t.transpose(1, 2) for t in (q, k, v)), block_mask=mask)
        assert isinstance(out, Tensor)
        return out.transpose(1, 2)

    return attend


@cache
def _fused_flex() -> Callable[..., Any]:
    """Compiled once: uncompiled, FlexAttention would hold all scores (15,840 squared at 14B)."""
    compiled: Callable[..., Any] = torch.compile(flex_attention)
    return compiled


class CategoryLinear(nn.Module):
    """x @ W[0] + b[0]. The leading dimension is for embodiments; every published checkpoint has one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.W = nn.Parameter(0.02 * torch.randn(1, inputs, outputs))
        self.b = nn.Parameter(torch.zeros(1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.W[0] + self.b[0]


class CategoryMLP(nn.Module):
    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layer1 = CategoryLinear(inputs, hidden)
        self.layer2 = CategoryLinear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer2(F.relu(self.layer1(x)))
        return out


class ActionEncoder(nn.Module):
    """Actions and their noise levels to tokens."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.W1 = CategoryLinear(inputs, width)
        self.W2 = CategoryLinear(2 * width, width)
        self.W3 = CategoryLinear(width, width)
        self.width = width

    def forward(self, actions: Tensor, time: Tensor) -> Tensor:
        """actions [B, H, inputs], time [B, H] in 0..1000 -> [B, H, width]."""
        half = self.width // 2
        rates = torch.exp(-torch.arange(half, dtype=torch.float32, device=time.device) * (math.log(10000.0) / half))
        angle = time.float()[..., None] * rates
        level = torch.cat([angle.sin(), angle.cos()], -1).to(actions.dtype)
        out: Tensor = self.W3(F.silu(self.W2(torch.cat([self.W1(actions), level], -1))))
        return out


class RMSNorm(nn.Module):
    """Over the whole width (all heads jointly), in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.eps)
        return y.to(x.dtype) * self.weight


class SelfAttention(nn.Module):
    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        d = config.width
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d, config.eps), RMSNorm(d, config.eps)

    def project(self, x: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor, Tensor]:
        """Rotated q and k, and v: each [B, N, heads, head_width]."""
        shape = (self.heads, -1)
        q, k = self.norm_q(self.q(x)).unflatten(-1, shape), self.norm_k(self.k(x)).unflatten(-1, shape)
        return rotation(q), rotation(k), self.v(x).unflatten(-1, shape)


class Context(NamedTuple):
    """Keys and values of the instruction and of the first image, for one block: [B, N, heads, head_width]."""

    text_k: Tensor
    text_v: Tensor
    image_k: Tensor
    image_v: Tensor


class CrossAttention(nn.Module):
    """To text and to CLIP's image tokens, each with its own softmax; the two answers are added."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        d = config.width
        self.heads = config.heads
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d, config.eps), RMSNorm(d, config.eps)
        self.k_img, self.v_img = nn.Linear(d, d), nn.Linear(d, d)
        self.norm_k_img = RMSNorm(d, config.eps)

    def context(self, tokens: Tensor) -> Context:
        """tokens [B, 257 + text, width], image first."""
        image, text = tokens[:, :CLIP_TOKENS], tokens[:, CLIP_TOKENS:]
        shape = (self.heads, -1)
        return Context(
            self.norm_k(self.k(text)).unflatten(-1, shape),
            self.v(text).unflatten(-1, shape),
            self.norm_k_img(self.k_img(image)).unflatten(-1, shape),
            self.v_img(image).unflatten(-1, shape),
        )

    def forward(self, x: Tensor, context: Context) -> Tensor:
        q = self.norm_q(self.q(x)).unflatten(-1, (self.heads, -1))
        both = dense(q, context.text_k, context.text_v) + dense(q, context.image_k, context.image_v)
        out: Tensor = self.o(both.flatten(2))
        return out


class Level(NamedTuple):
    """Noise levels of a sequence. Tokens of one frame share a row, so that nothing is computed per token.

    Attributes:
        embedding: [B, rows, width].
        modulation: [B, rows, 6, width].
        row: [N], the row of each token.
    """

    embedding: Tensor
    modulation: Tensor
    row: Tensor


class Block(nn.Module):
    """One Wan block with AdaLN from the noise level of each token."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        d = config.width
        self.norm1 = nn.LayerNorm(d, config.eps, elementwise_affine=False)
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(d, config.eps)
        self.cross_attn = CrossAttention(config)
        self.norm2 = nn.LayerNorm(d, config.eps, elementwise_affine=False)
        self.ffn = nn.Sequential(nn.Linear(d, config.ffn), nn.GELU(approximate="tanh"), nn.Linear(config.ffn, d))
        self.modulation = nn.Parameter(torch.randn(1, 6, d) / d**0.5)

    def forward(self, x: Tensor, level: Level, rotation: Rotation, attend: Attend, context: Context | Tensor) -> Tensor:
        """``context``: its tokens (training) or its keys and values (kept between passes)."""
        # The six vectors of a row, added up before they are spread over the row's tokens.
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation[:, None] + level.modulation).unbind(2)

        def spread(part: Tensor) -> Tensor:
            return part[:, level.row]

        q, k, v = self.self_attn.project(self.norm1(x) * (1 + spread(scale1)) + spread(shift1), rotation)
        x = x + self.self_attn.o(attend(q, k, v).flatten(2)) * spread(gate1)
        if isinstance(context, Tensor):
            context = self.cross_attn.context(context)
        x = x + self.cross_attn(self.norm3(x), context)
        return x + self.ffn(self.norm2(x) * (1 + spread(scale2)) + spread(shift2)) * spread(gate2)


class Head(nn.Module):
    """To the velocity of the latents of a token: [B, N, 4 * latent_channels]."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.width, 4 * config.latent_channels)
        self.modulation = nn.Parameter(torch.randn(1, 2, config.width) / config.width**0.5)

    def forward(self, x: Tensor, embedding: Tensor, row: Tensor) -> Tensor:
        shift, scale = (self.modulation[:, None] + embedding[:, :, None]).unbind(2)
        out: Tensor = self.head(self.norm(x) * (1 + scale[:, row]) + shift[:, row])
        return out


class ImageProjection(nn.Module):
    """CLIP's penultimate features [B, 257, 1280] to context tokens."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        c = config.clip_width
        self.proj = nn.Sequential(
            nn.LayerNorm(c), nn.Linear(c, c), nn.GELU(), nn.Linear(c, config.width), nn.LayerNorm(config.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x)
        return out
