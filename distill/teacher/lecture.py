"""DreamZero as a teacher of smaller networks: its window is remembered once a batch, its chunk looked at many times.

Its context is more than a student's batch holds (umT5's and CLIP's features, the first frame, its own VAE's latents of
the past): a provider gives it, from a cache or from the encoders. Guidance is baked into the video's velocity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from distill.batch import Batch, Noise
from distill.models.codec import grid_from_tokens, tokens_from_grid
from distill.models.config import StudentConfig
from distill.teacher.dit import Chunk, DreamZero
from distill.teacher.memory import Memory
from distill.teacher.sampler import GUIDANCE
from distill.teaching import Look, Noisy, noisy_chunk, tapped, weights_digest
from edge_wam.errors import ConfigError, ContractError

PATCH = 2
TIME_SCALE = 1000.0
"""DreamZero's time is 1000 sigma."""


@dataclass(frozen=True, slots=True)
class Window:
    """What DreamZero is told of a batch besides noise.

    Attributes:
        text, negative: instruction and negative instruction [B, text_length, text_width].
        image: CLIP's features of the first frame [B, 257, clip_width].
        clean: latents seen so far, the newest last [B, C, 1 + n * frames_per_block, h, w].
        states: the state now [B, states_per_block, state_width].
        first_frame: of all window frames [B, 4 + C, F, h, w]; None for a teacher that takes none.
        video, noise: the chunk's latents and noise in the teacher's own VAE, as tokens [B, frames_per_block, N, 4 C];
            needed where its latents are not the student's.
    """

    text: Tensor
    negative: Tensor
    image: Tensor
    clean: Tensor
    states: Tensor
    first_frame: Tensor | None = None
    video: Tensor | None = None
    noise: Tensor | None = None


class DreamZeroTeacher:
    """A DreamZero that teaches.

    Args:
        model: stays as it is; it is put into evaluation mode and asks for no gradients.
        student: whose batches it will be shown.
        windows: the context of a batch.
        guidance: of the video; 1 leaves the second pass out.

    Raises:
        ConfigError: another number of frames or actions in a chunk than the student's.
    """

    def __init__(
        self, model: DreamZero, student: StudentConfig, windows: Callable[[Batch], Window], guidance: float = GUIDANCE
    ) -> None:
        config = model.config
        pairs = {
            "frames of a chunk": (config.frames_per_block, len(student.future_knots)),
            "actions of a chunk": (config.actions_per_block, student.horizon),
            "action numbers": (config.action_width, student.action_width),
        }
        for what, (mine, theirs) in pairs.items():
            if mine != theirs:
                raise ConfigError(f"{what}: {mine} in {config.name}", expected=f"{theirs}, the student's")
        self.same_latents = (
            config.latent_grid == student.grid and config.latent_channels == student.latent_channels
            and student.patch == PATCH
        )  # fmt: skip
        self.pool = _pool(config.latent_grid, student)
        self.model = model.eval().requires_grad_(False)
        self.student, self.windows, self.guidance = student, windows, guidance
        self.digest = weights_digest(model)
        self.depth, self.width = config.depth, config.width

    def open(self, batch: Batch) -> DreamZeroLecture:
        return DreamZeroLecture(self, batch)


def _pool(grid: tuple[int, int], student: StudentConfig) -> int:
    """Side of the square of the teacher's tokens that covers one of the student's imagined tokens."""
    rows, columns = (side // student.future_patch for side in student.grid)
    pool = grid[0] // PATCH // rows
    if pool < 1 or grid != (pool * rows * PATCH, pool * columns * PATCH):
        raise ConfigError(
            f"a teacher's grid of {grid[0] // PATCH} x {grid[1] // PATCH} tokens",
            expected=f"a multiple of {rows} x {columns}, the student's",
            remedy="choose the teacher's frame size so that its tokens cover the student's",
        )
    return pool


class DreamZeroLecture:
    """See :class:`distill.teaching.Lecture`."""

    def __init__(self, teacher: DreamZeroTeacher, batch: Batch) -> None:
        self.teacher, self.batch, self.same_latents = teacher, batch, teacher.same_latents
        self.window = window = teacher.windows(batch)
        model = self.model = teacher.model
        if not self.same_latents and (window.video is None or window.noise is None):
            raise ContractError(
                "no chunk in the teacher's latents", expected="Window.video and Window.noise: its VAE is another one"
            )
        weight = model.patch_embedding.weight
        branches = 2 if teacher.guidance != 1.0 else 1
        self._memories = [Memory(model.config, len(batch), weight.device, weight.dtype) for _ in range(branches)]
        self._contexts = [model.context(text, window.image) for text in (window.text, window.negative)[:branches]]
        frames = window.clean.shape[2]
        for context, memory in zip(self._contexts, self._memories, strict=True):
            model.remember(window.clean, context, memory, self._first_frame(0, frames))

    def noisy(self, noise: Noise) -> Noisy:
        if self.same_latents:
            return noisy_chunk(self.batch, noise)
        assert self.window.video is not None and self.window.noise is not None  # seen to on opening
        return noisy_chunk(replace(self.batch, video=self.window.video), replace(noise, video=self.window.noise))

    @torch.no_grad()
    def look(self, chunk: Noisy, depths: Sequence[int] = ()) -> Look:
        config = self.model.config
        frames, grid = config.frames_per_block, config.latent_grid
        latents = grid_from_tokens(chunk.video.flatten(0, 1), grid, PATCH).unflatten(0, (-1, frames)).transpose(1, 2)
        action_time = TIME_SCALE * chunk.sigma_action[:, None] * (1.0 - chunk.committed)
        told = Chunk(
            latents, TIME_SCALE * chunk.sigma_video[:, None].expand(-1, frames), chunk.action, action_time,
            self.window.states, self._first_frame(self._memories[0].frames, frames),
        )  # fmt: skip
        with tapped(self.model.blocks, depths) as found:
            video, action = self.model.denoise(told, self._contexts[0], self._memories[0])
        hidden = tuple(self._hidden(found[depth]) for depth in depths)
        if len(self._memories) == 2:
            without = self.model.denoise(told, self._contexts[1], self._memories[1])[0]
            video = without + self.teacher.guidance * (video - without)
        tokens = tokens_from_grid(video.transpose(1, 2).flatten(0, 1), PATCH).unflatten(0, (-1, frames))
        return Look(tokens.float(), action.float(), hidden)

    def _hidden(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, N, d] -> of the student's imagined tokens (the mean of those that cover each) and of the actions."""
        config, pool = self.model.config, self.teacher.pool
        count = config.frames_per_block * config.frame_tokens
        rows, columns = (side // PATCH for side in config.latent_grid)
        video = x[:, :count].reshape(
            len(x), config.frames_per_block, rows // pool, pool, columns // pool, pool, x.shape[-1]
        )
        return video.mean((3, 5)).flatten(2, 3), x[:, count : count + config.actions_per_block]

    def _first_frame(self, begin: int, count: int) -> Tensor | None:
        known = self.window.first_frame
        if known is None:
            return None
        begin = min(begin, known.shape[2] - count)  # behind the last frame all are black alike
        return known[:, :, begin : begin + count]
