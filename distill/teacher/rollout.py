"""DreamZero's closed loop: real frames go into the memory, a chunk of video and actions is denoised behind them.

In the words of the reference's server: a window holds 9 latent frames; when no further chunk fits, it begins anew with
the newest frame. What was imagined never enters the memory: the next observation takes its place. Guidance runs the
transformer a second time on the negative instruction and applies to the video alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.teacher.dit import Chunk, DreamZero
from distill.teacher.layers import Context
from distill.teacher.memory import Memory
from distill.teacher.sampler import (
    GUIDANCE,
    NOISE_SEED,
    SHIFT,
    STEPS,
    StepSkip,
    UniPC,
    flow_sigmas,
    flow_times,
    start_noise,
    unipc_table,
)
from edge_wam.errors import ContractError


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a chunk is sampled. The defaults are the reference's.

    Attributes:
        run: steps that run the transformer, or "dynamic".
        guidance: 1 leaves the second pass out.
        video_last: noise level at which the video stops (0.8 for a teacher trained with decoupled noise).
        state_sees_block: see :meth:`DreamZero.denoise`.
    """

    steps: int = STEPS
    shift: float = SHIFT
    run: int | str = 8
    guidance: float = GUIDANCE
    video_last: float = 0.0
    seed: int = NOISE_SEED
    state_sees_block: bool = True


@dataclass(frozen=True, slots=True)
class Scene:
    """What a window begins with.

    Attributes:
        text, negative: instruction and negative instruction [1, text_length, text_width].
        image: CLIP's features of the first frame [1, 257, clip_width].
        first_frame: mask and latents [1, 4 + C, window frames, h, w] of the first frame followed by black ones; None
            for a teacher that takes none.
        latent: the first frame's latent [1, C, 1, h, w].
    """

    text: Tensor
    negative: Tensor
    image: Tensor
    first_frame: Tensor | None
    latent: Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """A chunk: actions [1, H, action_width] and latents [1, C, frames_per_block, h, w]; ``passes``: how often the
    transformer ran for them, guidance included."""

    actions: Tensor
    video: Tensor
    passes: int


class Rollout:
    """One robot's window.

    Args:
        model: in evaluation mode, on its device.
    """

    def __init__(self, model: DreamZero, sampling: Sampling | None = None) -> None:
        self.model = model
        self.sampling = sampling or Sampling()
        weight = model.patch_embedding.weight
        self._device, self._dtype = weight.device, weight.dtype
        branches = 2 if self.sampling.guidance != 1.0 else 1
        self._memories = [Memory(model.config, 1, self._device, self._dtype) for _ in range(branches)]
        self._contexts: list[list[Context]] = []
        self._first_frame: Tensor | None = None

    @property
    def needs_scene(self) -> bool:
        """No window has begun, or no further chunk fits into it: :meth:`begin` comes next."""
        return not self._contexts or self._memories[0].full

    def begin(self, scene: Scene) -> None:
        """Forget everything; a new window begins with this frame and instruction."""
        for memory in self._memories:
            memory.clear()
        texts = (scene.text, scene.negative)[: len(self._memories)]
        self._contexts = [self.model.context(self._here(text), self._here(scene.image)) for text in texts]
        self._first_frame = None if scene.first_frame is None else self._here(scene.first_frame)
        self._remember(self._here(scene.latent))

    def observe(self, latents: Tensor) -> None:
        """The frames [1, C, frames_per_block, h, w] that were really seen while the last chunk ran.

        Raises:
            ContractError: no window has begun, or it is full.
        """
        self._begun()
        self._remember(self._here(latents))

    def sample(self, state: Tensor) -> Sample:
        """Denoise the next chunk for a normalised state [1, states_per_block, state_width].

        Raises:
            ContractError: no window has begun, or it is full, or an answer holds a number that is none.
        """
        self._begun()
        config, how = self.model.config, self.sampling
        video_sigmas = flow_sigmas(how.steps, how.shift, how.video_last)
        action_sigmas = flow_sigmas(how.steps, how.shift)
        video_walk, action_walk = UniPC(unipc_table(video_sigmas)), UniPC(unipc_table(action_sigmas))
        shape = (1, config.latent_channels, config.frames_per_block, *config.latent_grid)
        video = start_noise(shape, self._device, self._dtype, how.seed)
        actions = start_noise((1, config.actions_per_block, config.action_width), self._device, self._dtype, how.seed)
        skip, passes = StepSkip(how.run, how.steps), 0
        velocity: tuple[Tensor, Tensor] | None = None
        times = zip(flow_times(video_sigmas), flow_times(action_sigmas), strict=True)
        for index, (video_time, action_time) in enumerate(times):
            if skip.runs(index):
                chunk = Chunk(
                    video,
                    torch.full((1, config.frames_per_block), float(video_time), device=self._device),
                    actions,
                    torch.full((1, config.actions_per_block), float(action_time), device=self._device),
                    self._here(state),
                    self._condition(self._memories[0].frames),
                )
                velocity = self._velocity(chunk)
                passes += len(self._memories)
                skip.saw(velocity[0])
            assert velocity is not None  # the first step always runs
            video, actions = video_walk.step(velocity[0], video), action_walk.step(velocity[1], actions)
        if not (torch.isfinite(video).all() and torch.isfinite(actions).all()):
            raise ContractError("the teacher answered with a number that is none", remedy="check its weights and dtype")
        return Sample(actions, video, passes)

    def _velocity(self, chunk: Chunk) -> tuple[Tensor, Tensor]:
        answers = [
            self.model.denoise(chunk, context, memory, state_sees_block=self.sampling.state_sees_block)
            for context, memory in zip(self._contexts, self._memories, strict=True)
        ]
        video, action = answers[0]
        if len(answers) == 2:
            without = answers[1][0]
            video = without + self.sampling.guidance * (video - without)
        return video, action

    def _remember(self, latents: Tensor) -> None:
        first = self._condition(self._memories[0].frames, latents.shape[2])
        for context, memory in zip(self._contexts, self._memories, strict=True):
            self.model.remember(latents, context, memory, first)

    def _condition(self, frame: int, frames: int | None = None) -> Tensor | None:
        if self._first_frame is None:
            return None
        count = frames or self.model.config.frames_per_block
        known = self._first_frame.shape[2]
        begin = min(frame, known - count)  # behind the last frame all are black alike
        return self._first_frame[:, :, begin : begin + count]

    def _begun(self) -> None:
        if self.needs_scene:
            raise ContractError("no window that has room", expected="begin() with the newest frame")

    def _here(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device, self._dtype)
