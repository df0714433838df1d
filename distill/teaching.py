"""What a student asks of a teacher: velocities of a noisy chunk, hidden states, and where an ODE ends.

A teacher is opened on a batch (its context is read once) and then asked as often as wanted. Hidden states are those of
the chunk's tokens in the student's order [future frames, actions]: context tokens differ from teacher to teacher.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor, nn

from distill.batch import Batch, Noise
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from edge_wam.errors import ConfigError, ContractError


@dataclass(frozen=True, slots=True)
class Noisy:
    """A noisy chunk in a teacher's own latents.

    Attributes:
        video: [B, F, Nv, C]; action: [B, H, 32], committed knots clean.
        sigma_video, sigma_action: noise levels [B]. committed: [B, H].
    """

    video: Tensor
    action: Tensor
    sigma_video: Tensor
    sigma_action: Tensor
    committed: Tensor

    def moved(self, video: Tensor, action: Tensor, sigma_video: Tensor, sigma_action: Tensor) -> Noisy:
        """Along velocities to other levels; committed knots stay."""
        by_video = (sigma_video - self.sigma_video)[:, None, None, None]
        by_action = (sigma_action - self.sigma_action)[:, None, None] * (1.0 - self.committed[..., None])
        return Noisy(
            self.video + by_video * video, self.action + by_action * action, sigma_video, sigma_action, self.committed
        )


@dataclass(frozen=True, slots=True)
class Look:
    """A teacher's answer: velocities like the chunk's video and actions, and hidden states.

    ``hidden``: for each depth asked for, (of the future frames [B, F, Nt, d], of the actions [B, H, d]).
    """

    video: Tensor
    action: Tensor
    hidden: tuple[tuple[Tensor, Tensor], ...] = ()


class Lecture(Protocol):
    """A teacher that has read a batch's context.

    Attributes:
        same_latents: its video is in the student's latents, so that velocities and endpoints of video compare.
    """

    same_latents: bool

    def noisy(self, noise: Noise) -> Noisy:
        """The batch's chunk at these levels, in the teacher's own latents."""
        ...

    def look(self, chunk: Noisy, depths: Sequence[int] = ()) -> Look:
        """Velocities, guidance included, and hidden states after the blocks ``depths``; no gradients."""
        ...


class Teacher(Protocol):
    """Attributes: ``digest``: SHA-256 of its weights; ``depth``, ``width``: of its residual stream."""

    digest: str
    depth: int
    width: int

    def open(self, batch: Batch) -> Lecture:
        """Read the context of a batch."""
        ...


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over names, shapes, dtypes and bytes of a module's state."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


@contextmanager
def tapped(blocks: nn.ModuleList, depths: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """What the blocks of these numbers put into the residual stream in the pass that runs inside the ``with``."""
    found: dict[int, Tensor] = {}

    def keep(number: int) -> object:
        def hook(_module: nn.Module, _given: object, out: object) -> None:
            found[number] = out[0] if isinstance(out, tuple) else out  # type: ignore[assignment]

        return blocks[number].register_forward_hook(hook)

    hooks = [keep(number) for number in dict.fromkeys(depths)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()  # type: ignore[attr-defined]


def at_depths(depth: int, shares: Sequence[float]) -> tuple[int, ...]:
    """Numbers of the blocks that end nearest to these shares of a network: 1 is the last."""
    return tuple(min(depth - 1, max(0, round(share * depth) - 1)) for share in shares)


def chunk_hidden(config: StudentConfig, x: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden states of a WorldActionTransformer's chunk out of its residual stream [B, N, d]."""
    frames = len(config.future_knots)
    video, action = x[:, -(frames * config.future_tokens + config.horizon) :].split(
        [frames * config.future_tokens, config.horizon], 1
    )
    return video.unflatten(1, (frames, config.future_tokens)), action


class WamTeacher:
    """A larger WorldActionTransformer over the same latents and tokens.

    Args:
        model: stays as it is; it is put into evaluation mode and asks for no gradients.
        student: whose batches it will be shown.

    Raises:
        ConfigError: another layout of tokens or other latents than the student's.
    """

    def __init__(self, model: WorldActionTransformer, student: StudentConfig) -> None:
        mine = model.config
        for name in ("grid", "latent_channels", "patch", "future_patch", "future_knots", "horizon", "past_stride",
                     "text_length", "state_width", "action_width"):  # fmt: skip
            theirs = getattr(student, name)
            if getattr(mine, name) != theirs:
                raise ConfigError(
                    f"the teacher's {name} is {getattr(mine, name)!r}", expected=f"{theirs!r}, the student's",
                    remedy="teacher and student see the same tokens: train the teacher with the student's layout",
                )
        self.model = model.eval().requires_grad_(False)
        self.digest = weights_digest(model)
        self.depth, self.width = mine.depth, mine.width

    def open(self, batch: Batch) -> WamLecture:
        return WamLecture(self.model, batch)


class WamLecture:
    """See :class:`Lecture`."""

    same_latents = True

    def __init__(self, model: WorldActionTransformer, batch: Batch) -> None:
        self.model, self.batch = model, batch
        past = min(batch.past_mask.shape[1], model.config.past_frames)  # a teacher with less memory: the newest
        self._latents, self._states = batch.latents[:, -1 - past :], batch.states[:, -1 - past :]
        self._past = batch.past_mask[:, batch.past_mask.shape[1] - past :]
        with torch.no_grad():
            self._cross = model.text_kv(batch.tokens)

    def noisy(self, noise: Noise) -> Noisy:
        return noisy_chunk(self.batch, noise)

    @torch.no_grad()
    def look(self, chunk: Noisy, depths: Sequence[int] = ()) -> Look:
        with tapped(self.model.blocks, depths) as found:
            video, action = self.model(
                self._latents, self._states, self._past, chunk.video, chunk.action, chunk.sigma_video,
                chunk.sigma_action, chunk.committed, self._cross,
            )  # fmt: skip
        hidden = tuple(chunk_hidden(self.model.config, found[depth]) for depth in depths)
        return Look(video.float(), action.float(), hidden)


def noisy_chunk(batch: Batch, noise: Noise) -> Noisy:
    """x_s = (1 - s) data + s noise; committed knots stay clean."""
    sa = noise.sigma_action[:, None, None] * (1.0 - noise.committed[..., None])
    sv = noise.sigma_video[:, None, None, None]
    return Noisy(
        (1.0 - sv) * batch.video + sv * noise.video, (1.0 - sa) * batch.action + sa * noise.action,
        noise.sigma_video, noise.sigma_action, noise.committed,
    )  # fmt: skip


def levels(steps: int, shift: float = 1.0) -> tuple[float, ...]:
    """Noise levels of an ODE, from 1 to 0 [steps + 1]; a shift above 1 spends more of them near the noise."""
    if steps < 1:
        raise ConfigError(f"an ODE of {steps} steps", expected="at least 1")
    s = [1.0 - k / steps for k in range(steps + 1)]
    return tuple(shift * x / (1.0 + (shift - 1.0) * x) for x in s)


def solve(lecture: Lecture, noise: Noise, schedule: Sequence[float]) -> list[Noisy]:
    """Euler's method from pure noise along ``schedule``: the chunk at each of its levels, the first included.

    Raises:
        ContractError: the teacher said a number that is none.
    """
    full = torch.full_like(noise.sigma_video, schedule[0])
    states = [lecture.noisy(replace(noise, sigma_video=full, sigma_action=full))]
    for level in schedule[1:]:
        now = states[-1]
        said = lecture.look(now)
        to = torch.full_like(full, level)
        states.append(now.moved(said.video, said.action, to, to))
    end = states[-1]
    if not (bool(torch.isfinite(end.video).all()) and bool(torch.isfinite(end.action).all())):
        raise ContractError("the teacher's endpoint is not finite", remedy="check its weights, dtype and guidance")
    return states
