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
  v = e - x0);
* with ``target_time`` a token class is told how far it is to jump besides where it stands, and the velocity is the mean
  one of that jump: ``x_r = x_s - (s - r) u``. Its last layer begins at zero: the network is then the old one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.models.config import StudentConfig
from distill.models.layers import Block, Levels, TextEncoder, rotary_angles, sinusoid, temporal_angles
from edge_wam.errors import ConfigError

TIME_UNIT_KNOTS = 4.0
"""One unit of temporal RoPE position is this many knots (0.2 s)."""


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
        self.time_embed = nn.Sequential(nn.Linear(c.frequencies, d), nn.SiLU(), nn.Linear(d, d))
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
        if c.target_time:
            self.time_jump = nn.Sequential(nn.Linear(c.frequencies, d), nn.SiLU(), nn.Linear(d, d))
            nn.init.zeros_(self.time_jump[2].weight)
            nn.init.zeros_(self.time_jump[2].bias)

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
        wan = c.positions == "wan"
        knots, cells = (float(c.future_knots[0]), float(c.patch)) if wan else (TIME_UNIT_KNOTS, 1.0)

        def frame(knot: float, patch: int) -> Tensor:
            middle = (patch - 1) / 2 - ((c.patch - 1) / 2 if wan else 0.0)  # Wan's first token stands at 0
            y, x = torch.meshgrid(
                *((torch.arange(side // patch) * patch + middle) / cells for side in c.grid), indexing="ij"
            )
            t = torch.full_like(y, knot / knots)
            return rotary_angles(torch.stack([t, y, x], -1).reshape(-1, 3).float(), c.head_dim)

        def line(at: list[float]) -> Tensor:
            return temporal_angles(torch.tensor(at), c.head_dim)

        def state(knot: float) -> float:
            return knot / (c.horizon if wan else TIME_UNIT_KNOTS)

        def action(number: int) -> float:
            return float(number) if wan else (number + 1) / TIME_UNIT_KNOTS

        parts: list[Tensor] = []
        for p in range(c.past_frames, -1, -1):
            parts += [frame(-p * c.past_stride, c.patch), line([state(-p * c.past_stride)])]
        parts += [frame(knot, c.future_patch) for knot in c.future_knots]
        parts.append(line([action(k) for k in range(c.horizon)]))
        return torch.cat(parts)

    def _bias(self) -> Tensor:
        """Block-causal attention bias [all, all]: clean frames see themselves, the chunk sees everything."""
        frames, block, chunk = self.config.past_frames + 1, self.block_tokens, self.chunk_tokens
        bias = torch.full((frames * block + chunk,) * 2, -1e4)
        for f in range(frames):
            bias[f * block : (f + 1) * block, f * block : (f + 1) * block] = 0.0
        bias[frames * block :, :] = 0.0
        return bias

    def _tables(self, imagined: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Rotary cosines and sines and the attention bias; without video its rows are cut out."""
        if imagined:
            return self.rope_cos, self.rope_sin, self.clean_bias
        horizon, clean = self.config.horizon, len(self.rope_cos) - self.chunk_tokens
        cos, sin, bias = (
            torch.cat([t[:clean], t[-horizon:]]) for t in (self.rope_cos, self.rope_sin, self.clean_bias)
        )
        return cos, sin, torch.cat([bias[:, :clean], bias[:, -horizon:]], 1)

    # ---- pieces -------------------------------------------------------------------------------------------------

    def text_kv(self, tokens: Tensor) -> Tensor:
        """Token numbers [B, Lt] -> cross-attention K/V of every block [L, B, 2, Lt, d]."""
        text = self.text(tokens)
        return torch.stack([block.text_kv(text) for block in self.blocks])  # type: ignore[operator]

    def modulation(self, sigma: Tensor, jump: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """AdaLN of noise levels [...]: (block modulation [..., 6, d], time embedding [..., d]).

        ``jump`` [...]: how far down from there the step goes; none is 0, the velocity of the moment.

        Raises:
            ConfigError: a jump for a network that was not made for it.
        """
        e = self.time_embed(sinusoid(sigma, self.config.frequencies))
        if self.config.target_time:
            far = torch.zeros_like(sigma) if jump is None else jump
            e = e + self.time_jump(sinusoid(far, self.config.frequencies))
        elif jump is not None:
            raise ConfigError(
                f"{self.config.name} knows no target time", expected="target_time in its configuration",
                remedy="distil it to few steps first",
            )  # fmt: skip
        return self.time_project(functional.silu(e)).unflatten(-1, (6, -1)), e

    def embed_frame(self, latent: Tensor, state: Tensor) -> Tensor:
        """Clean tokens [B, Nv, C] and state [B, 64] -> [B, Nv + 1, d]."""
        x = torch.cat([self.patch_embed(latent), self.state_encoder(state)[:, None]], 1)
        return x + self.frame_position

    def embed_chunk(self, video: Tensor, action: Tensor) -> Tensor:
        """Noisy future latents [B, F, Nv, C] (F 0: no video) and actions [B, H, 32] -> [B, chunk tokens, d]."""
        actions = self.action_encoder(action) + self.action_position
        if not video.shape[1]:
            return actions
        future = self.future_embed(self._coarser(video)) + self.future_position
        return torch.cat([future.flatten(1, 2), actions], 1)

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
        split = video.shape[1] * c.future_tokens
        future = self._finer(self.video_head(y[:, :split]).unflatten(1, (video.shape[1], -1))) if split else video
        told = self.action_head(y[:, split:])
        return (future, told) if c.predicts == "velocity" else (video - future, action - told)

    # ---- forward passes -----------------------------------------------------------------------------------------

    def forward(
        self, latents: Tensor, states: Tensor, past_mask: Tensor, video: Tensor, action: Tensor, sigma_video: Tensor,
        sigma_action: Tensor, committed: Tensor, cross: Tensor, jump_video: Tensor | None = None,
        jump_action: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Teacher-forced pass over context and chunk, nothing cached (training and the oracle of the cached pass).

        Args:
            latents: clean frames, oldest first [B, P + 1, Nv, C], or only the newest of them; states: [B, P + 1, 64].
            past_mask: 1 where a past frame exists [B, P].
            video, action: noisy chunk [B, F, Nv, C], [B, H, 32]; committed actions are already clean in it. F is 0 for
                a chunk without video (everywhere in this class): actions alone, as an action-only export runs it.
            sigma_video, sigma_action: noise levels [B]; committed: 1 where an action is committed [B, H].
            cross: K/V of the instruction [L, B, 2, Lt, d].
            jump_video, jump_action: how far down each is to jump [B], both or neither.

        Returns:
            Velocities of video and action: of the moment, or the mean ones of the jump.
        """
        b, frames = latents.shape[:2]
        clean = self.embed_frame(latents.flatten(0, 1), states.flatten(0, 1)).unflatten(0, (b, frames)).flatten(1, 2)
        x = torch.cat([clean, self.embed_chunk(video, action)], 1)
        imagined = video.shape[1] > 0
        e, time = self._levels(
            clean.shape[1], sigma_video, sigma_action, committed, jump_video, jump_action, imagined
        )  # fmt: skip
        seen = torch.cat([past_mask, past_mask.new_ones(b, 1)], 1).repeat_interleave(self.block_tokens, 1)
        hidden = torch.cat([(seen - 1.0) * 1e4, seen.new_zeros(b, x.shape[1] - clean.shape[1])], 1)
        n = x.shape[1]  # fewer past frames than the configuration has: the oldest are left out of the tables
        cos, sin, table = self._tables(imagined)
        bias = table[-n:, -n:] + hidden[:, None, None]
        rope = (cos[-n:], sin[-n:])
        for block, kv in zip(self.blocks, cross, strict=True):
            x, _ = block(x, e, rope, None, bias, kv)
        return self.heads(x[:, clean.shape[1] :], time, video, action)

    def _levels(
        self, clean_tokens: int, sigma_video: Tensor, sigma_action: Tensor, committed: Tensor,
        jump_video: Tensor | None = None, jump_action: Tensor | None = None, imagined: bool = True,
    ) -> tuple[Levels, Tensor]:  # fmt: skip
        """AdaLN by token class and, for the chunk, the time embedding [B, chunk, d] of every token."""
        none = torch.zeros_like(sigma_video)
        jump = None
        if jump_video is not None and jump_action is not None:
            jump = torch.stack([none, jump_video, jump_action], 1)
        elif jump_video is not jump_action:
            raise ConfigError("a jump of video or action alone", expected="both or neither")
        levels = torch.stack([none, sigma_video, sigma_action], 1)
        return self._by_class(clean_tokens, *self.modulation(levels, jump), committed, imagined)

    def _by_class(
        self, clean_tokens: int, e: Tensor, time: Tensor, committed: Tensor, imagined: bool = True
    ) -> tuple[Levels, Tensor]:
        """Spread e [B, 3, 6, d] and time [B, 3, d] (rows: clean, video, action) over the token classes."""
        c = self.config
        future = len(c.future_knots) * c.future_tokens if imagined else 0
        is_clean = committed[:, :, None]
        action_e = e[:, 2:3] + is_clean[..., None] * (e[:, 0:1] - e[:, 2:3])
        action_t = time[:, 2:3] + is_clean * (time[:, 0:1] - time[:, 2:3])
        table = Levels(e[:, 0:1], e[:, 1:2], action_e, (clean_tokens, future, c.horizon))
        return table, torch.cat([time[:, 1:2].expand(-1, future, -1), action_t], 1)

    def fixed_levels(self, level: float = 1.0, target: float = 0.0) -> tuple[Tensor, Tensor]:
        """AdaLN of a runtime pass from ``level`` to ``target``, constants there: e [1, 3, 6, d], time [1, 3, d]."""
        sigma = self.rope_cos.new_tensor([[0.0, level, level]])
        jump = self.rope_cos.new_tensor([[0.0, level - target, level - target]])
        return self.modulation(sigma, jump if self.config.target_time else None)

    def step(
        self, latent: Tensor, state: Tensor, noise_video: Tensor, noise_action: Tensor, prefix_action: Tensor,
        prefix_mask: Tensor, past_kv: Tensor, past_mask: Tensor, cross_kv: Tensor,
        noise_level: tuple[Tensor, Tensor] | None = None, target: float = 0.0,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """The runtime's one call: newest frame into the cache and the chunk brought from noise level 1 to ``target``.

        Args (batch 1): latent [1, Nv, C], state [1, 64], noise_video [1, F, Nv, C], noise_action and prefix_action
            [1, H, 32], prefix_mask [1, H], past_kv [L, 2, P (Nv + 1), d], past_mask [1, P], cross_kv [L, 2, Lt, d].
            noise_level: :meth:`fixed_levels` of 1 and ``target``, computed beforehand: at run time they are constants.
            target: 0 gives the chunk itself; above, :meth:`refine` finishes what comes out.

        Returns:
            Action [1, H, 32] (committed knots unchanged), future latents, new K/V [L, 2, Nv + 1, d].
        """
        level = self.fixed_levels(1.0, target) if noise_level is None else noise_level
        action = self._committed(noise_action, prefix_action, prefix_mask)
        x = torch.cat([self.embed_frame(latent, state), self.embed_chunk(noise_video, action)], 1)
        e, time = self._by_class(self.block_tokens, *level, prefix_mask, noise_video.shape[1] > 0)
        seen = torch.cat([past_mask, past_mask.new_ones(1, 1)], 1)
        x, new_kv = self._cached(x, e, past_kv, seen, cross_kv)
        v_video, v_action = self.heads(x[:, self.block_tokens :], time, noise_video, action)
        action = self._committed(action - (1.0 - target) * v_action, prefix_action, prefix_mask)
        return action, noise_video - (1.0 - target) * v_video, new_kv[:, :, : self.block_tokens]

    def refine(
        self, video: Tensor, action: Tensor, prefix_action: Tensor, prefix_mask: Tensor, past_kv: Tensor,
        past_mask: Tensor, new_kv: Tensor, cross_kv: Tensor, noise_level: tuple[Tensor, Tensor] | None = None,
        level: float = 0.5, target: float = 0.0,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """A later pass over the chunk alone, from noise ``level`` to ``target``; clean frames come from the cache.

        Args: as :meth:`step`; video and action are what it gave at ``level``, new_kv its K/V of the newest frame.
            Together with :meth:`prefill` it is also what :meth:`step` does in one pass (at level 1).

        Returns:
            Action and future latents at ``target``.
        """
        told = self.fixed_levels(level, target) if noise_level is None else noise_level
        action = self._committed(action, prefix_action, prefix_mask)
        e, time = self._by_class(0, *told, prefix_mask, video.shape[1] > 0)
        seen = torch.cat([past_mask, past_mask.new_ones(1, 1)], 1)
        past = torch.cat([past_kv, new_kv], 2)
        x, _ = self._cached(self.embed_chunk(video, action), e, past, seen, cross_kv)
        v_video, v_action = self.heads(x, time, video, action)
        action = self._committed(action - (level - target) * v_action, prefix_action, prefix_mask)
        return action, video - (level - target) * v_video

    def prefill(self, latent: Tensor, state: Tensor, cross_kv: Tensor) -> Tensor:
        """K/V [L, 2, Nv + 1, d] of a frame alone: it sees nothing but itself."""
        levels = self.fixed_levels()
        e, _ = self._by_class(self.block_tokens, *levels, state.new_zeros(1, self.config.horizon))
        begin = self.config.past_frames * self.block_tokens
        rope = tuple(table[begin : begin + self.block_tokens] for table in (self.rope_cos, self.rope_sin))
        x, bias = self.embed_frame(latent, state), state.new_zeros(1, 1, 1, 1)
        new = []
        e = Levels(e.clean, e.video, e.action, (self.block_tokens, 0, 0))
        for block, cross in zip(self.blocks, cross_kv.split(1), strict=True):
            x, kv = block(x, e, rope, None, bias, cross)
            new.append(kv)
        return torch.cat(new)

    def _cached(
        self, x: Tensor, e: Levels, past_kv: Tensor, seen: Tensor, cross_kv: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Blocks over the newest tokens [1, N, d] behind a cache [L, 2, S, d]; ``seen`` [1, P + 1] by clean frame."""
        past, n = past_kv.shape[2], x.shape[1]
        cos, sin, table = self._tables(e.sizes[1] > 0)
        visible = seen.repeat_interleave(self.block_tokens, 1)
        hidden = torch.cat([(visible - 1.0) * 1e4, seen.new_zeros(1, n - e.sizes[0])], 1)
        bias = table[-n:, -(past + n) :] + hidden[:, None, None]
        new_kv = []
        for index, block in enumerate(self.blocks):
            x, kv = block(x, e, (cos, sin), past_kv[index : index + 1], bias, cross_kv[index : index + 1])
            new_kv.append(kv)
        return x, torch.cat(new_kv)

    @staticmethod
    def _committed(action: Tensor, known: Tensor, mask: Tensor) -> Tensor:
        """``action`` with the committed knots [1, H] of ``known``."""
        return known * mask[..., None] + action * (1.0 - mask[..., None])
