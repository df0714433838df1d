"""Layers of the world action transformer: noise levels, rotary positions, AdaLN by token class, Wan's block."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.models.config import StudentConfig
from edge_wam.text import PAD, VOCABULARY


def sinusoid(sigma: Tensor, width: int) -> Tensor:
    """Wan's timestep embedding of a noise level in [0, 1] (scaled to 0..1000): [...] -> [..., width]."""
    half = width // 2
    frequencies = torch.exp(-math.log(10000.0) * torch.arange(half, device=sigma.device) / half)
    angle = sigma[..., None] * 1000.0 * frequencies
    return torch.cat([angle.cos(), angle.sin()], -1)


def rotary_angles(positions: Tensor, head_dim: int) -> Tensor:
    """Angles [N, head_dim / 2] for positions [N, 3] (t, y, x): pairs shared out as Wan does (t gets the rest)."""
    pairs = head_dim // 2
    spatial = pairs // 3
    parts = []
    for axis, count in enumerate((pairs - 2 * spatial, spatial, spatial)):
        frequencies = 1.0 / (10000.0 ** (torch.arange(count) / count))
        parts.append(positions[:, axis, None] * frequencies)
    return torch.cat(parts, -1)


def temporal_angles(times: Tensor, head_dim: int) -> Tensor:
    """1-D RoPE angles [N, head_dim / 2] for actions and states at ``times`` [N]."""
    pairs = head_dim // 2
    return times[:, None] / (10000.0 ** (torch.arange(pairs) / pairs))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply RoPE to [B, N, h, head_dim] with cos, sin [N, 1, head_dim / 2]."""
    a, b = x.chunk(2, -1)  # the halves form the pairs: a strided pairing costs a CPU twice the time
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


@dataclass(frozen=True)
class Levels:
    """AdaLN by token class: ``clean`` and ``video`` [B, 1, 6, d], ``action`` [B, H, 6, d] (committed ones are clean).

    ``sizes`` counts the tokens of each class, 0 where a pass has none. Kept by class and never spread over all tokens:
    six copies of the residual stream are what a small model on a CPU would spend most of its time on.
    """

    clean: Tensor
    video: Tensor
    action: Tensor
    sizes: tuple[int, int, int]

    def __mul__(self, table: Tensor) -> Levels:
        return Levels(self.clean * table, self.video * table, self.action * table, self.sizes)

    def __add__(self, table: Tensor) -> Levels:
        return Levels(self.clean + table, self.video + table, self.action + table, self.sizes)

    def modulate(self, x: Tensor, shift: int, scale: int) -> Tensor:
        """x (1 + scale) + shift, each token by its class: [B, N, d]."""
        return torch.cat([y * (1.0 + m[:, :, scale]) + m[:, :, shift] for y, m in self._by_class(x)], 1)

    def gate(self, x: Tensor, row: int) -> Tensor:
        """x times the gate of its class: [B, N, d]."""
        return torch.cat([y * m[:, :, row] for y, m in self._by_class(x)], 1)

    def _by_class(self, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        present = [(n, m) for n, m in zip(self.sizes, (self.clean, self.video, self.action), strict=True) if n]
        return zip(x.split([n for n, _ in present], 1), (m for _, m in present), strict=True)


class RMSNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        # Written as a quotient because ONNX Runtime fuses that into one operator (6-10 % of the nano step).
        y: Tensor = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        return y


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None) -> Tensor:
    """Plain softmax attention on [B, N, h, e]; plain matmuls are faster than SDPA's backward on a CPU."""
    scores = torch.matmul(q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1)) * q.shape[-1] ** -0.5
    if bias is not None:
        scores = scores + bias
    out = torch.matmul(scores.softmax(-1), v.permute(0, 2, 1, 3))
    return out.permute(0, 2, 1, 3).flatten(2)


class Block(nn.Module):
    """One Wan block.

    ``level_gain`` [6, d] multiplies the noise level's part of AdaLN; None, as in training, is 1. It is there for
    outlier channels that were divided out before quantisation (:mod:`distill.quantise.smooth`).
    """

    level_gain: Tensor | None

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        d = config.width
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.norm3 = nn.LayerNorm(d, eps=1e-6)
        self.q, self.k, self.v, self.o = (nn.Linear(d, d) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(d), RMSNorm(d)
        self.cross_q, self.cross_k, self.cross_v, self.cross_o = (nn.Linear(d, d) for _ in range(4))
        self.cross_norm_q, self.cross_norm_k = RMSNorm(d), RMSNorm(d)
        self.ffn_in, self.ffn_out = nn.Linear(d, config.ffn), nn.Linear(config.ffn, d)
        self.modulation = nn.Parameter(torch.randn(6, d) / d**0.5)
        self.register_buffer("level_gain", None)

    def heads_of(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))

    def text_kv(self, text: Tensor) -> Tensor:
        """Cross-attention keys and values of an instruction: [B, Lt, d] -> [B, 2, Lt, d]; once per instruction."""
        return torch.stack([self.cross_norm_k(self.cross_k(text)), self.cross_v(text)], 1)

    def forward(
        self, x: Tensor, levels: Levels, rope: tuple[Tensor, Tensor], past: Tensor | None, bias: Tensor, cross: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """x [B, N, d], past [B, 2, S, d] (K before RoPE, V), bias [B, 1, N, S + N].

        Returns the new x and this call's K (before RoPE) and V: [B, 2, N, d].
        """
        m = (levels if self.level_gain is None else levels * self.level_gain) + self.modulation
        y = m.modulate(self.norm1(x), 0, 1)
        q, k, v = self.norm_q(self.q(y)), self.norm_k(self.k(y)), self.v(y)
        kv = torch.stack([k, v], 1)
        if past is not None:
            k, v = torch.cat([past[:, 0], k], 1), torch.cat([past[:, 1], v], 1)
        cos, sin = rope
        n = q.shape[1]
        q_rot, k_rot = rotate(self.heads_of(q), cos[-n:], sin[-n:]), rotate(self.heads_of(k), cos, sin)
        x = x + m.gate(self.o(attend(q_rot, k_rot, self.heads_of(v), bias)), 2)
        q = self.heads_of(self.cross_norm_q(self.cross_q(self.norm3(x))))
        x = x + self.cross_o(attend(q, self.heads_of(cross[:, 0]), self.heads_of(cross[:, 1]), None))
        y = m.modulate(self.norm2(x), 3, 4)
        x = x + m.gate(self.ffn_out(functional.gelu(self.ffn_in(y), approximate="tanh")), 5)
        return x, kv


class TextEncoder(nn.Module):
    """Hashed word tokens -> text features (padding gives zeros: a constant place to look at).

    Trained with the student: a robot without network has no T5 of its own.
    """

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        d = config.width
        self.embedding = nn.Embedding(VOCABULARY, d, padding_idx=PAD)
        self.position = nn.Parameter(torch.randn(config.text_length, d) * 0.02)
        self.mix = nn.ModuleList([nn.Linear(d, d) for _ in range(config.text_depth)])
        self.norm = nn.LayerNorm(d)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) * 16.0 + self.position
        real = (tokens != PAD).to(x.dtype)[..., None]
        for layer in self.mix:
            mean = (x * real).sum(1, keepdim=True) / real.sum(1, keepdim=True).clamp_min(1.0)
            x = x + functional.gelu(layer(x + mean))
        out: Tensor = self.norm(x) * real
        return out
