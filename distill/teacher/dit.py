"""DreamZero's transformer: forward over whole clips for training, forward over a cache for inference.

Two changes that alter no number: what only depends on the instruction and the first image is computed once and kept
(:meth:`DreamZero.context`), and noise levels are embedded once per frame and not once per token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from distill.teacher.config import CLIP_TOKENS, TeacherConfig
from distill.teacher.layers import (
    ActionEncoder,
    Block,
    CategoryMLP,
    Context,
    Head,
    ImageProjection,
    Level,
    masked,
)
from distill.teacher.layout import TokenLayout
from distill.teacher.memory import Memory
from distill.teacher.rope import Rotation, register_angles, video_angles
from edge_wam.errors import ContractError


@dataclass(frozen=True, slots=True)
class Clip:
    """A training clip of n blocks, F = n * frames_per_block + 1 latent frames.

    Attributes:
        noisy, clean: latents [B, C, F, h, w].
        video_time: noise level of each frame [B, F] in 0..1000.
        text: [B, text_length, text_width], rows of padding zero.
        image: CLIP's features of the first frame [B, 257, clip_width].
        first_frame: mask and first-frame latent [B, 4 + C, F, h, w]; None where the teacher does not take one.
        actions: noisy actions [B, n * actions_per_block, action_width]; None for video alone.
        action_time: [B, n * actions_per_block] in 0..1000.
        states: [B, n * states_per_block, state_width].
    """

    noisy: Tensor
    clean: Tensor
    video_time: Tensor
    text: Tensor
    image: Tensor
    first_frame: Tensor | None = None
    actions: Tensor | None = None
    action_time: Tensor | None = None
    states: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """What is denoised at inference: [B, C, frames_per_block, h, w] latents and the chunk's actions."""

    video: Tensor
    video_time: Tensor
    actions: Tensor
    action_time: Tensor
    states: Tensor
    first_frame: Tensor | None = None


class DreamZero(nn.Module):
    """The transformer. Velocity is noise - data; time is 1000 sigma."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        d = config.width
        self.state_encoder = CategoryMLP(config.state_width, config.hidden, d)
        self.action_encoder = ActionEncoder(config.action_width, d)
        self.action_decoder = CategoryMLP(d, config.hidden, config.action_width)
        self.patch_embedding = nn.Conv3d(config.input_channels, d, (1, 2, 2), stride=(1, 2, 2))
        gelu = nn.GELU(approximate="tanh")
        self.text_embedding = nn.Sequential(nn.Linear(config.text_width, d), gelu, nn.Linear(d, d))
        self.time_embedding = nn.Sequential(nn.Linear(config.frequency_width, d), nn.SiLU(), nn.Linear(d, d))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head = Head(config)
        self.img_emb = ImageProjection(config)
        self.checkpoint_activations = True

    def forward(self, clip: Clip, *, state_sees_block: bool = False) -> tuple[Tensor, Tensor | None]:
        """Teacher forcing: velocities of the noisy latents [B, C, F, h, w] and of the actions, if there are any.

        ``state_sees_block``: let the state tokens look at their block, as they do at inference.

        Raises:
            ContractError: shapes that do not belong together.
        """
        layout = self._layout(clip, state_sees_block)
        clean, grid = self._patches(clip.clean, clip.first_frame)
        noisy, _ = self._patches(clip.noisy, clip.first_frame)
        parts, times = [clean, noisy], [torch.zeros_like(clip.video_time), clip.video_time]
        repeats = [torch.full((layout.frames,), layout.frame_tokens)] * 2
        angles = [video_angles(grid, 0, self.config.head_width, noisy.device)] * 2
        if clip.actions is not None:
            assert clip.action_time is not None and clip.states is not None  # _layout has seen to it
            registers, register_times, register_places = self._registers(
                clip.actions, clip.action_time, clip.states, layout.blocks, 0
            )
            parts += registers
            times += register_times
            repeats += [torch.ones(part.shape[1], dtype=torch.int64) for part in registers]
            angles += register_places
        x = torch.cat(parts, 1)
        level = self._level(torch.cat(times, 1), torch.cat(repeats), x)
        rotation = Rotation(torch.cat(angles), x.dtype)
        mask = layout.block_mask(x.device) if x.is_cuda else layout.dense_mask(x.device)
        context, attend = self._context_tokens(clip.text, clip.image), masked(mask)
        for block in self.blocks:
            if self.checkpoint_activations and torch.is_grad_enabled():
                x = checkpoint(block, x, level, rotation, attend, context, use_reentrant=False)
            else:
                x = block(x, level, rotation, attend, context)
        n = layout.video_tokens
        video = self._latents(x[:, n : 2 * n], level._replace(row=level.row[n : 2 * n]), grid)
        if clip.actions is None:
            return video, None
        return video, self.action_decoder(x[:, 2 * n : 2 * n + clip.actions.shape[1]])

    @torch.no_grad()
    def context(self, text: Tensor, image: Tensor) -> list[Context]:
        """Keys and values of every block for an instruction and a first image: they serve the whole window."""
        tokens = self._context_tokens(text, image)
        return [block.cross_attn.context(tokens) for block in self.blocks]

    @torch.no_grad()
    def remember(self, latents: Tensor, context: list[Context], memory: Memory, first_frame: Tensor | None) -> None:
        """Put observed latents [B, C, f, h, w] behind what ``memory`` holds.

        Raises:
            ContractError: shapes that do not belong together, or a memory that is full.
        """
        x, grid = self._patches(latents, first_frame)
        memory.expect(grid)
        time = torch.zeros(len(x), grid[0], device=x.device)
        level = self._level(time, torch.full((grid[0],), self.config.frame_tokens), x)
        rotation = Rotation(video_angles(grid, memory.frames, self.config.head_width, x.device), x.dtype)
        for index, block in enumerate(self.blocks):
            x = block(x, level, rotation, memory.writer(index, x.shape[1]), context[index])
        memory.advance(grid[0])

    @torch.no_grad()
    def denoise(
        self, chunk: Chunk, context: list[Context], memory: Memory, *, state_sees_block: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Velocities of the chunk's latents and actions behind what ``memory`` holds, which stays as it is.

        ``state_sees_block``: True is what the reference's server computes, though its training masks it (which moves
        video velocities by about 1e-3 in a small random model); False agrees with :meth:`forward`.

        Raises:
            ContractError: shapes that do not belong together, or a memory that is empty or full.
        """
        x, grid = self._patches(chunk.video, chunk.first_frame)
        memory.expect(grid, at_least=1)
        index = (memory.frames - 1) // self.config.frames_per_block
        registers, times, places = self._registers(chunk.actions, chunk.action_time, chunk.states, 1, index)
        video_tokens, states = x.shape[1], registers[1].shape[1]
        x = torch.cat([x, *registers], 1)
        repeats = torch.cat(
            [torch.full((grid[0],), self.config.frame_tokens), torch.ones(x.shape[1] - video_tokens, dtype=torch.int64)]
        )
        level = self._level(torch.cat([chunk.video_time, *times], 1), repeats, x)
        first = video_angles(grid, memory.frames, self.config.head_width, x.device)
        rotation = Rotation(torch.cat([first, *places]), x.dtype)
        for number, block in enumerate(self.blocks):
            attend = memory.reader(number, video_tokens, 0 if state_sees_block else states)
            x = block(x, level, rotation, attend, context[number])
        video = self._latents(x[:, :video_tokens], level._replace(row=level.row[:video_tokens]), grid)
        return video, self.action_decoder(x[:, video_tokens : video_tokens + chunk.actions.shape[1]])

    # --- parts ---

    def _layout(self, clip: Clip, state_sees_block: bool) -> TokenLayout:
        config = self.config
        frames = clip.noisy.shape[2]
        if clip.clean.shape != clip.noisy.shape:
            raise ContractError(f"clean latents {tuple(clip.clean.shape)}", expected=f"{tuple(clip.noisy.shape)}")
        if frames < 1 + config.frames_per_block or (frames - 1) % config.frames_per_block:
            raise ContractError(
                f"a clip of {frames} latent frames", expected=f"1 + a multiple of {config.frames_per_block}"
            )
        blocks = (frames - 1) // config.frames_per_block
        present = [part is not None for part in (clip.actions, clip.action_time, clip.states)]
        if any(present) and not all(present):
            raise ContractError("actions without their times or states", expected="all three, or none of them")
        if clip.actions is not None:
            _expect("actions", clip.actions, (blocks * config.actions_per_block, config.action_width))
        if clip.states is not None:
            _expect("states", clip.states, (blocks * config.states_per_block, config.state_width))
        counts = (config.actions_per_block, config.states_per_block) if all(present) else (0, 0)
        return TokenLayout(
            frames, config.frame_tokens, config.frames_per_block, *counts, config.window_frames, state_sees_block
        )

    def _patches(self, latents: Tensor, first_frame: Tensor | None) -> tuple[Tensor, tuple[int, int, int]]:
        """Tokens [B, N, width] and their grid (frames, rows, columns)."""
        config = self.config
        if config.first_frame_latent:
            if first_frame is None:
                raise ContractError("no first-frame latent", expected="mask and latent of the window's first frame")
            latents = torch.cat([latents, first_frame.to(latents.dtype)], 1)
        if latents.ndim != 5 or latents.shape[1] != config.input_channels:
            raise ContractError(
                f"latents {tuple(latents.shape)}", expected=f"[B, {config.input_channels}, frames, rows, columns]"
            )
        tokens = (latents.shape[3] // 2) * (latents.shape[4] // 2)
        if latents.shape[3] % 2 or latents.shape[4] % 2 or tokens != config.frame_tokens:
            raise ContractError(
                f"latents of {latents.shape[3]} x {latents.shape[4]}",
                expected=f"{config.frame_tokens} patches of 2 x 2",
            )
        x = self.patch_embedding(latents)
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3], x.shape[4])

    def _registers(
        self, actions: Tensor, time: Tensor, states: Tensor, blocks: int, first_block: int
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Tokens, times and angles of actions and states."""
        config = self.config
        _expect("actions", actions, (blocks * config.actions_per_block, config.action_width))
        _expect("states", states, (blocks * config.states_per_block, config.state_width))
        _expect("action times", time, (blocks * config.actions_per_block,))
        tokens = [self.action_encoder(actions, time), self.state_encoder(states)]
        counts = (config.actions_per_block, config.states_per_block)
        angles = [
            register_angles(first_block * each, blocks * each, config.head_width, actions.device) for each in counts
        ]
        return tokens, [time, time[:, :: config.actions_per_block // config.states_per_block]], angles

    def _level(self, time: Tensor, repeats: Tensor, like: Tensor) -> Level:
        """time [B, rows] in 0..1000; each row stands for ``repeats`` tokens."""
        half = self.config.frequency_width // 2
        steps = torch.arange(half, dtype=torch.float64, device=time.device)
        angle = time.to(torch.float64)[..., None] * 10000.0 ** (-steps / half)
        embedding = self.time_embedding(torch.cat([angle.cos(), angle.sin()], -1).to(like.dtype))
        modulation = self.time_projection(embedding).unflatten(-1, (6, self.config.width))
        rows = torch.arange(len(repeats), device=like.device)
        return Level(embedding, modulation, rows.repeat_interleave(repeats.to(like.device)))

    def _context_tokens(self, text: Tensor, image: Tensor) -> Tensor:
        """[B, 257 + text_length, width]: image first."""
        _expect("text", text, (self.config.text_length, self.config.text_width))
        _expect("image features", image, (CLIP_TOKENS, self.config.clip_width))
        return torch.cat([self.img_emb(image), self.text_embedding(text)], 1)

    def _latents(self, x: Tensor, level: Level, grid: tuple[int, int, int]) -> Tensor:
        """Tokens to velocities [B, C, frames, h, w]."""
        patch = (2, 2, self.config.latent_channels)
        y = self.head(x, level.embedding, level.row).unflatten(1, grid).unflatten(-1, patch)
        # b f h w p q c -> b c f (h p) (w q)
        return y.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def _expect(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(tensor.shape[1:]) != shape:
        raise ContractError(f"{what} {tuple(tensor.shape)}", expected=f"[B, {', '.join(map(str, shape))}]")
