"""WorldActionTransformer: one causal, chunk-wise transformer over video latents and actions.

Blocks are Wan's, as DreamZero uses them (RMS-normed q and k over the full width, AdaLN from the noise level,
cross-attention to text, GELU-tanh FFN, 3-D RoPE for video and 1-D for actions), so that a teacher's weights can be
sliced into a student. What the edge needs is different:

* one fused forward ``[clean newest frame | noisy chunk]``, the past coming from the KV cache;
* the noise level is per token class: clean (0), video, action; committed actions are clean tokens among noisy ones;
* clean tokens attend within their own frame only, the chunk attends to everything: cached K/V never depend on a frame
  that has left the window, so cached and recomputed are the same numbers for any window;
* learned position tables beside RoPE: with attention over 32 tokens, *where* something is must be readable from the
  values, not only from who attends to whom;
* the head predicts what remains after ``v = x_sigma - output``: at noise level 1 the output is the clean sample itself,
  and no capacity is spent on copying noise through the residual stream (flow matching: x_s = (1-s) x0 + s e,
  v = e - x0).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.models.config import StudentConfig
from edge_wam.text import PAD, VOCABULARY

TIME_UNIT_KNOTS = 4.0
"""One unit of temporal RoPE position is this many knots (0.2 s)."""


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

    Kept by class and never spread over all tokens: six copies of the residual stream are what a small model on a
    CPU would spend most of its time on.
    """

    clean: Tensor
    video: Tensor
    action: Tensor
    sizes: tuple[int, int, int]

    def __add__(self, table: Tensor) -> Levels:
        return Levels(self.clean + table, self.video + table, self.action + table, self.sizes)

    def modulate(self, x: Tensor, shift: int, scale: int) -> Tensor:
        """x (1 + scale) + shift, each token by its class: [B, N, d]."""
        parts = zip(x.split(self.sizes, 1), (self.clean, self.video, self.action), strict=True)
        return torch.cat([y * (1.0 + m[:, :, scale]) + m[:, :, shift] for y, m in parts], 1)

    def gate(self, x: Tensor, row: int) -> Tensor:
        """x times the gate of its class: [B, N, d]."""
        parts = zip(x.split(self.sizes, 1), (self.clean, self.video, self.action), strict=True)
        return torch.cat([y * m[:, :, row] for y, m in parts], 1)


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
    """One Wan block."""

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
        m = levels + self.modulation
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


class WorldActionTransformer(nn.Module):
    """See the module's text. Tensors are batched; token order is [frame tokens, state | future tokens, actions]."""

    rope_cos: Tensor
    rope_sin: Tensor
    clean_bias: Tensor

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = c = config
        d = c.width
        self.patch_embed = nn.Linear(c.token_channels, d)
        self.future_embed = nn.Linear(c.latent_channels * c.future_patch**2, d)
        self.state_encoder = nn.Linear(c.state_width, d)
        self.action_encoder = nn.Linear(c.action_width, d)
        self.frame_position = nn.Parameter(torch.randn(c.tokens + 1, d) * 0.02)
        self.future_position = nn.Parameter(torch.randn(len(c.future_knots), c.future_tokens, d) * 0.02)
        self.action_position = nn.Parameter(torch.randn(c.horizon, d) * 0.02)
        self.text = TextEncoder(c)
        self.time_embed = nn.Sequential(nn.Linear(d, d), nn.SiLU(), nn.Linear(d, d))
        self.time_project = nn.Linear(d, 6 * d)
        self.blocks = nn.ModuleList([Block(c) for _ in range(c.depth)])
        self.head_norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.head_modulation = nn.Parameter(torch.randn(2, d) / d**0.5)
        self.video_head = nn.Linear(d, c.latent_channels * c.future_patch**2)
        self.action_head = nn.Sequential(nn.Linear(d, d), nn.GELU(approximate="tanh"), nn.Linear(d, c.action_width))
        angles = self._angles()
        self.register_buffer("rope_cos", angles.cos()[:, None], persistent=False)
        self.register_buffer("rope_sin", angles.sin()[:, None], persistent=False)
        self.register_buffer("clean_bias", self._bias(), persistent=False)
        nn.init.zeros_(self.time_project.weight)
        nn.init.zeros_(self.time_project.bias)

    # ---- token layout -------------------------------------------------------------------------------------------

    @property
    def block_tokens(self) -> int:
        """Tokens of one clean frame with its state."""
        return self.config.tokens + 1

    @property
    def chunk_tokens(self) -> int:
        c = self.config
        return len(c.future_knots) * c.future_tokens + c.horizon

    def _angles(self) -> Tensor:
        c = self.config

        def frame(knot: float, patch: int) -> Tensor:
            rows, columns = c.grid[0] // patch, c.grid[1] // patch
            y, x = torch.meshgrid(torch.arange(rows) * patch, torch.arange(columns) * patch, indexing="ij")
            t = torch.full_like(y, 0, dtype=torch.float32) + knot / TIME_UNIT_KNOTS
            centre = (patch - 1) / 2
            return rotary_angles(torch.stack([t, y + centre, x + centre], -1).reshape(-1, 3).float(), c.head_dim)

        def line(knots: list[float]) -> Tensor:
            return temporal_angles(torch.tensor(knots) / TIME_UNIT_KNOTS, c.head_dim)

        parts: list[Tensor] = []
        for p in range(c.past_frames, -1, -1):
            parts += [frame(-p * c.past_stride, c.patch), line([-float(p * c.past_stride)])]
        parts += [frame(knot, c.future_patch) for knot in c.future_knots]
        parts.append(line([float(k + 1) for k in range(c.horizon)]))
        return torch.cat(parts)

    def _bias(self) -> Tensor:
        """Block-causal attention bias [all, all]: clean frames see themselves, the chunk sees everything."""
        frames, block, chunk = self.config.past_frames + 1, self.block_tokens, self.chunk_tokens
        bias = torch.full((frames * block + chunk,) * 2, -1e4)
        for f in range(frames):
            bias[f * block : (f + 1) * block, f * block : (f + 1) * block] = 0.0
        bias[frames * block :, :] = 0.0
        return bias

    # ---- pieces -------------------------------------------------------------------------------------------------

    def text_kv(self, tokens: Tensor) -> Tensor:
        """Token numbers [B, Lt] -> cross-attention K/V of every block [L, B, 2, Lt, d]."""
        text = self.text(tokens)
        return torch.stack([block.text_kv(text) for block in self.blocks])  # type: ignore[operator]

    def modulation(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """AdaLN of noise levels [...]: (block modulation [..., 6, d], time embedding [..., d])."""
        e = self.time_embed(sinusoid(sigma, self.config.width))
        return self.time_project(functional.silu(e)).unflatten(-1, (6, -1)), e

    def embed_frame(self, latent: Tensor, state: Tensor) -> Tensor:
        """Clean tokens [B, Nv, C] and state [B, 64] -> [B, Nv + 1, d]."""
        x = torch.cat([self.patch_embed(latent), self.state_encoder(state)[:, None]], 1)
        return x + self.frame_position

    def embed_chunk(self, video: Tensor, action: Tensor) -> Tensor:
        """Noisy future latents [B, F, Nv, C] and actions [B, H, 32] -> [B, chunk tokens, d]."""
        future = self.future_embed(self._coarser(video)) + self.future_position
        return torch.cat([future.flatten(1, 2), self.action_encoder(action) + self.action_position], 1)

    def _coarser(self, video: Tensor) -> Tensor:
        """Regroup latent tokens [B, F, Nv, C] of ``patch`` into tokens of ``future_patch``; no number is lost."""
        c = self.config
        ratio = c.future_patch // c.patch
        rows, columns = c.grid[0] // c.patch, c.grid[1] // c.patch
        x = video.reshape(*video.shape[:2], rows // ratio, ratio, columns // ratio, ratio, -1)
        return x.transpose(3, 4).reshape(*video.shape[:2], c.future_tokens, -1)

    def _finer(self, tokens: Tensor) -> Tensor:
        """The inverse of :meth:`_coarser`."""
        c = self.config
        ratio = c.future_patch // c.patch
        rows, columns = c.grid[0] // c.future_patch, c.grid[1] // c.future_patch
        x = tokens.reshape(*tokens.shape[:2], rows, columns, ratio, ratio, -1)
        return x.transpose(3, 4).reshape(*tokens.shape[:2], c.tokens, -1)

    def heads(self, chunk: Tensor, e: Tensor, video: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Velocities (video like ``video``, action like ``action``) from the chunk's residual stream."""
        c = self.config
        shift, scale = (self.head_modulation + e[:, :, None]).unbind(2)
        y = self.head_norm(chunk) * (1 + scale) + shift
        split = len(c.future_knots) * c.future_tokens
        future = self._finer(self.video_head(y[:, :split]).unflatten(1, (len(c.future_knots), -1)))
        return video - future, action - self.action_head(y[:, split:])

    # ---- forward passes -----------------------------------------------------------------------------------------

    def forward(
        self, latents: Tensor, states: Tensor, past_mask: Tensor, video: Tensor, action: Tensor, sigma_video: Tensor,
        sigma_action: Tensor, committed: Tensor, cross: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Teacher-forced pass over context and chunk, nothing cached (training and the oracle of the cached pass).

        Args:
            latents: clean frames, oldest first [B, P + 1, Nv, C], or only the newest of them; states: [B, P + 1, 64].
            past_mask: 1 where a past frame exists [B, P].
            video, action: noisy chunk [B, F, Nv, C], [B, H, 32]; committed actions are already clean in it.
            sigma_video, sigma_action: noise levels [B]; committed: 1 where an action is committed [B, H].
            cross: K/V of the instruction [L, B, 2, Lt, d].

        Returns:
            Velocities of video and action.
        """
        b, frames = latents.shape[:2]
        clean = self.embed_frame(latents.flatten(0, 1), states.flatten(0, 1)).unflatten(0, (b, frames)).flatten(1, 2)
        x = torch.cat([clean, self.embed_chunk(video, action)], 1)
        e, time = self._levels(clean.shape[1], sigma_video, sigma_action, committed)
        seen = torch.cat([past_mask, past_mask.new_ones(b, 1)], 1).repeat_interleave(self.block_tokens, 1)
        hidden = torch.cat([(seen - 1.0) * 1e4, seen.new_zeros(b, self.chunk_tokens)], 1)
        n = x.shape[1]  # fewer past frames than the configuration has: the oldest are left out of the tables
        bias = self.clean_bias[-n:, -n:] + hidden[:, None, None]
        rope = (self.rope_cos[-n:], self.rope_sin[-n:])
        for block, kv in zip(self.blocks, cross, strict=True):
            x, _ = block(x, e, rope, None, bias, kv)
        return self.heads(x[:, clean.shape[1] :], time, video, action)

    def _levels(
        self, clean_tokens: int, sigma_video: Tensor, sigma_action: Tensor, committed: Tensor
    ) -> tuple[Levels, Tensor]:
        """AdaLN by token class and, for the chunk, the time embedding [B, chunk, d] of every token."""
        levels = torch.stack([torch.zeros_like(sigma_video), sigma_video, sigma_action], 1)
        return self._by_class(clean_tokens, *self.modulation(levels), committed)

    def _by_class(self, clean_tokens: int, e: Tensor, time: Tensor, committed: Tensor) -> tuple[Levels, Tensor]:
        """Spread e [B, 3, 6, d] and time [B, 3, d] (rows: clean, video, action) over the token classes."""
        c = self.config
        future = len(c.future_knots) * c.future_tokens
        is_clean = committed[:, :, None]
        action_e = e[:, 2:3] + is_clean[..., None] * (e[:, 0:1] - e[:, 2:3])
        action_t = time[:, 2:3] + is_clean * (time[:, 0:1] - time[:, 2:3])
        table = Levels(e[:, 0:1], e[:, 1:2], action_e, (clean_tokens, future, c.horizon))
        return table, torch.cat([time[:, 1:2].expand(-1, future, -1), action_t], 1)

    def fixed_levels(self) -> tuple[Tensor, Tensor]:
        """AdaLN of the runtime's only noise levels, 0 (clean) and 1 (noise): e [1, 3, 6, d], time [1, 3, d]."""
        return self.modulation(torch.tensor([[0.0, 1.0, 1.0]]))

    def step(
        self, latent: Tensor, state: Tensor, noise_video: Tensor, noise_action: Tensor, prefix_action: Tensor,
        prefix_mask: Tensor, past_kv: Tensor, past_mask: Tensor, cross_kv: Tensor,
        noise_level: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The runtime's one call: newest frame into the cache and the chunk denoised from noise level 1 in one pass.

        Args (batch 1): latent [1, Nv, C], state [1, 64], noise_video [1, F, Nv, C], noise_action and prefix_action
            [1, H, 32], prefix_mask [1, H], past_kv [L, 2, P (Nv + 1), d], past_mask [1, P], cross_kv [L, 2, Lt, d].
            noise_level: :meth:`fixed_levels`, computed beforehand: at run time they are constants.

        Returns:
            Clean action [1, H, 32] (committed knots unchanged), clean future latents, new K/V [L, 2, Nv + 1, d].
        """
        level = self.fixed_levels() if noise_level is None else noise_level
        mask = prefix_mask[..., None]
        action = prefix_action * mask + noise_action * (1.0 - mask)
        x = torch.cat([self.embed_frame(latent, state), self.embed_chunk(noise_video, action)], 1)
        e, time = self._by_class(self.block_tokens, *level, prefix_mask)
        past = past_kv.shape[2]
        seen = past_mask.repeat_interleave(self.block_tokens, 1)
        hidden = torch.cat([(seen - 1.0) * 1e4, seen.new_zeros(1, self.block_tokens + self.chunk_tokens)], 1)
        bias = self.clean_bias[past:] + hidden[:, None, None]
        new_kv = []
        for index, block in enumerate(self.blocks):
            x, kv = block(
                x, e, (self.rope_cos, self.rope_sin), past_kv[index : index + 1], bias, cross_kv[index : index + 1]
            )
            new_kv.append(kv[:, :, : self.block_tokens])
        v_video, v_action = self.heads(x[:, self.block_tokens :], time, noise_video, action)
        clean_action = prefix_action * mask + (action - v_action) * (1.0 - mask)
        return clean_action, noise_video - v_video, torch.cat(new_kv)
