"""One training batch, its noise, and the mean over it: what every objective is given.

Everything random of step s is drawn from a generator of (seed, s) over the *global* batch and then cut into the parts
of the processes. One process, several, and a run that was interrupted therefore see the same numbers, without any state
of a generator in a checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Annotated, Self

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from distill.data.windows import Windows


class _Rows:
    """Tensors with one row for each sample: cut and moved together."""

    def rows(self, which: slice) -> Self:
        """The samples ``which`` names."""
        return replace(self, **{f.name: getattr(self, f.name)[which] for f in fields(self)})  # type: ignore[type-var]

    def to(self, device: torch.device | str) -> Self:
        """The same on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})  # type: ignore[type-var]


@dataclass(frozen=True, slots=True)
class Batch(_Rows):
    """Clean samples.

    Attributes:
        latents: frames oldest first, the newest last [B, P + 1, Nv, C]; ``states``: [B, P + 1, 64].
        past_mask: 1 where a past frame exists [B, P].
        action, action_mask: chunk and what of it is a label [B, H, 32]. Without any label: video alone is trained.
        video, video_mask: future latents [B, F, Nv, C] and which are a target [B, F].
        tokens: the instruction [B, Lt].
        source, index: which dataset of the run and which sample of it [B]: the key of cached teacher targets.
    """

    latents: Tensor
    states: Tensor
    past_mask: Tensor
    action: Tensor
    action_mask: Tensor
    video: Tensor
    video_mask: Tensor
    tokens: Tensor
    source: Tensor
    index: Tensor

    def __len__(self) -> int:
        return len(self.action)

    def without_past(self) -> Batch:
        """The newest frame alone, as in the first 0.2 s of an episode."""
        return replace(
            self, latents=self.latents[:, -1:], states=self.states[:, -1:], past_mask=self.past_mask[:, :0]
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Noise(_Rows):
    """Noise levels [B], noise like the batch's video and action, and which knots [B, H] are committed (given clean)."""

    sigma_video: Tensor
    sigma_action: Tensor
    video: Tensor
    action: Tensor
    committed: Tensor


class NoiseLevels(BaseModel):
    """How noise levels are drawn, video and action apart.

    As they stand here, for a student of one pass: half of the time the level that the runtime uses (1.0); else uniform
    for actions and high for video. A teacher of many passes follows the whole way, video and actions together
    (``action_at_one`` 0, ``video_at_one`` 0, ``coupled`` 0.5 to 1). The first 1..4 actions of some samples are
    committed (training-time real-time chunking).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    action_at_one: Annotated[float, Field(ge=0, le=1)] = 0.6
    video_at_one: Annotated[float, Field(ge=0, le=1)] = 0.5
    coupled: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the samples whose video has the level of their actions."""
    video_beta: Annotated[float, Field(gt=0, le=100)] = 7.0
    """Otherwise Beta(this, 1)."""
    committed: Annotated[float, Field(ge=0, le=1)] = 0.4
    committed_most: Annotated[int, Field(ge=1, le=15)] = 4


def generator(seed: int, step: int) -> np.random.Generator:
    """What every random number of a step comes from."""
    return np.random.default_rng([seed, step])


@dataclass(frozen=True, slots=True)
class Drawn:
    """Which samples: number of the source, index in it, and in which way its instruction is said (0..1). Each [B]."""

    source: NDArray[np.int64]
    index: NDArray[np.int64]
    way: NDArray[np.float64]

    def rows(self, which: slice) -> Drawn:
        return Drawn(self.source[which], self.index[which], self.way[which])


def gather(drawn: Drawn, sources: Sequence[Windows], tokens: Mapping[str, Tensor]) -> Batch:
    """The samples ``drawn``, in their order.

    Args:
        tokens: all ways of saying each task [ways, Lt], by the task's name in the windows.
    """
    parts: dict[str, list[Tensor]] = {}
    order = []
    for source in np.unique(drawn.source):
        w, at = sources[source], np.flatnonzero(drawn.source == source)
        order.append(at)
        i = torch.from_numpy(drawn.index[at])
        context = torch.cat([w.past[i], i[:, None]], 1)
        ways = [tokens[w.tasks[int(k)]] for k in w.task[i]]
        rows = {
            "latents": w.latent[context].float(), "states": w.state[context], "past_mask": w.past_mask[i],
            "action": w.action[i], "action_mask": w.action_mask[i], "video": w.latent[w.future[i]].float(),
            "video_mask": w.future_mask[i], "source": torch.full_like(i, int(source)), "index": i,
            "tokens": torch.stack([t[int(u * len(t))] for t, u in zip(ways, drawn.way[at], strict=True)]),
        }  # fmt: skip
        for key, value in rows.items():
            parts.setdefault(key, []).append(value)
    back = torch.from_numpy(np.argsort(np.concatenate(order)))
    return Batch(**{key: torch.cat(values)[back] for key, values in parts.items()})


def normal(like: Tensor, rng: np.random.Generator, rows: slice | None = None, batch: int | None = None) -> Tensor:
    """Standard normal numbers, float32, of the shape of ``like``, one stream for each sample of the global batch.

    Args:
        rows, batch: ``like`` is this part of a global batch of that size; a process makes its own numbers alone.
    """
    keys = rng.integers(0, 2**63, len(like) if batch is None else batch)
    shape = tuple(like.shape[1:])
    own = [np.random.default_rng(key).standard_normal(shape, np.float32) for key in keys[rows or slice(None)]]
    return torch.from_numpy(np.stack(own))


def draw_noise(
    batch: Batch, rng: np.random.Generator, levels: NoiseLevels | None = None, rows: slice | None = None,
    size: int | None = None,
) -> Noise:  # fmt: skip
    """Noise and levels for a batch, on the CPU. A knot without label is never committed.

    Args:
        rows, size: ``batch`` is this part of a global batch of that size.
    """
    drawn, part = levels or NoiseLevels(), rows or slice(None)
    b, horizon = len(batch) if size is None else size, batch.action.shape[1]
    sigma_action = np.where(rng.random(b) < drawn.action_at_one, 1.0, rng.random(b))
    sigma_video = np.where(rng.random(b) < drawn.video_at_one, 1.0, rng.beta(drawn.video_beta, 1.0, b))
    count = np.where(rng.random(b) < drawn.committed, rng.integers(1, drawn.committed_most + 1, b), 0)[part]
    if drawn.coupled:
        sigma_video = np.where(rng.random(b) < drawn.coupled, sigma_action, sigma_video)
    sigma_action, sigma_video = sigma_action[part], sigma_video[part]
    committed = torch.from_numpy((np.arange(horizon) < count[:, None]).astype(np.float32))
    return Noise(
        torch.from_numpy(sigma_video.astype(np.float32)), torch.from_numpy(sigma_action.astype(np.float32)),
        normal(batch.video, rng, part, b), normal(batch.action, rng, part, b), committed * batch.action_mask[..., 0],
    )  # fmt: skip


def masked_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of ``values`` under ``weight`` (of a shape that broadcasts to theirs); 0 where nothing is weighted.

    With several processes every one gets a number whose mean over the processes is the mean over the global batch: the
    weights are added up over all of them. A mean of the processes' own means would weigh a sample by its neighbours.
    Every process must call it, in the same order.
    """
    spread = weight.expand_as(values)
    total, processes = spread.sum().detach(), 1
    if dist.is_available() and dist.is_initialized():
        processes = dist.get_world_size()
        dist.all_reduce(total)
    return (values * spread).sum() * processes / total.clamp_min(torch.finfo(total.dtype).tiny)
