"""Frames to training samples: which frames are the past and the future, and normalised targets, made when asked for.

Robots differ in their axes, rates and cameras; samples do not: state padded to 64 numbers, actions to 32 with a mask,
times in knots. Windows of several robots can be joined and drawn from as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.data.canvases import canvas_of
from distill.data.frames import Frames, Pictures, load_frames
from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig
from edge_wam.contracts import U8
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError

__all__ = ["Frames", "Windows", "canvas_of", "encode_frames", "join", "load_frames", "make_windows", "normalise_canvas"]
VIDEO_AGREES = {"m": 0.02, "rad": 0.04}
"""By the axis' unit: video is a target only where what was done stays this close to the label."""


def normalise_canvas(canvas: U8 | Tensor) -> Tensor:
    """uint8 -> float32 in [-1, 1], the kernel's own map."""
    return torch.as_tensor(canvas).float() / 127.5 - 1.0


@torch.no_grad()
def encode_frames(codec: FrameCodec, canvas: Pictures, batch: int = 256) -> Tensor:
    """Latent tokens float16 [N, Nv, C] of all canvases."""
    codec.eval()
    parts = [codec.encode(normalise_canvas(canvas[i : i + batch])).half() for i in range(0, len(canvas), batch)]
    return torch.cat(parts)


class Samples(Protocol):
    """A tensor, or something that makes its rows when they are asked for, by an index tensor of any shape."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Tensor) -> Tensor: ...


class Rows:
    """``length`` rows that ``make`` gives for an array of their numbers."""

    def __init__(self, length: int, make: Callable[[NDArray[np.int64]], Tensor]) -> None:
        self._length, self._make = length, make

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Tensor) -> Tensor:
        rows = self._make(index.reshape(-1).numpy())
        return rows.reshape(*index.shape, *rows.shape[1:])


@dataclass
class Windows:
    """Training samples by frame index.

    Attributes:
        latent: tokens of every frame [N, Nv, C]. ``state``: [N, 64].
        action, action_mask: [N, H, 32]; the mask is 0 in padding, and everywhere where only video is trained.
        past, future: frame indices [N, P] and [N, F]; their masks say which there are, and which are targets.
        task: [N] index into ``tasks``.
    """

    latent: Samples
    state: Samples
    action: Samples
    action_mask: Samples
    past: Samples
    past_mask: Samples
    future: Samples
    future_mask: Samples
    task: Samples
    tasks: list[str]

    def __len__(self) -> int:
        return len(self.latent)


def make_windows(frames: Frames, latents: Samples, config: StudentConfig, embodiment: Embodiment) -> Windows:
    """One sample per frame.

    Raises:
        ConfigError: labels with fewer knots than the student's chunk.
    """
    n, dof, horizon = len(frames), embodiment.dof, config.horizon
    if frames.label.size and frames.label.shape[1] < horizon:
        raise ConfigError(
            f"labels of {frames.label.shape[1]} knots", expected=f"{horizon}, the chunk of {config.name!r}",
            remedy="generate the dataset again, or choose another student",
        )  # fmt: skip
    steps = np.arange(config.past_frames, 0, -1) * config.past_stride
    ahead = np.array(config.future_knots)
    low, high = embodiment.vector("action_q01"), embodiment.vector("action_q99")
    near = np.array([VIDEO_AGREES.get(axis.unit, np.inf) for axis in embodiment.axes])

    def at(i: NDArray[np.int64], knots: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.rint(i[:, None] + knots * frames.per_knot[i][:, None]).astype(np.int64)

    def past(i: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.maximum(at(i, -steps), frames.first[i][:, None]))

    def past_mask(i: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy((at(i, -steps) >= frames.first[i][:, None]).astype(np.float32))

    def future(i: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.minimum(at(i, ahead), frames.last[i][:, None]))

    def future_mask(i: NDArray[np.int64]) -> Tensor:
        """The imagined video belongs to the actions: where the arm then did something else, it is no target."""
        there = at(i, ahead) <= frames.last[i][:, None]
        chunk, mask = frames.chunks(i, horizon)
        done, _ = frames.executed(i, horizon)
        same = (np.abs(done - chunk) < near).all(-1) & (mask > 0)
        agrees = np.stack([same[:, : min(knot, horizon)].all(1) for knot in config.future_knots], 1)
        without = ~frames.trusted[i] & (frames.label_row[i] < 0)  # nobody says what should have been done
        return torch.from_numpy((there & (agrees | without[:, None])).astype(np.float32))

    def state(i: NDArray[np.int64]) -> Tensor:
        """Zeros where no state was recorded."""
        normal = embodiment.normalise_state(frames.position[i].astype(float), frames.setpoint[i].astype(float))
        return torch.from_numpy(np.where(np.isnan(normal), np.float32(0.0), normal))

    def action(i: NDArray[np.int64]) -> Tensor:
        chunk, mask = frames.chunks(i, horizon)
        raw = chunk - np.where(embodiment.relative, frames.position[i], 0.0)[:, None]
        out = np.zeros((len(i), horizon, config.action_width), np.float32)
        out[..., :dof] = np.where(mask[..., None] > 0, 2.0 * (raw - low) / (high - low) - 1.0, 0.0)
        return torch.from_numpy(out)

    def action_mask(i: NDArray[np.int64]) -> Tensor:
        out = np.zeros((len(i), horizon, config.action_width), np.float32)
        out[..., :dof] = frames.chunks(i, horizon)[1][..., None]
        return torch.from_numpy(out)

    made = {f.__name__: Rows(n, f) for f in (state, action, action_mask, past, past_mask, future, future_mask)}
    return Windows(latent=latents, **made, task=torch.from_numpy(frames.task), tasks=frames.tasks)


def join(parts: Sequence[Windows]) -> Windows:
    """Several windows as one, the samples of each after those of the one before. A part may stand in it twice."""
    ends = np.cumsum([len(w) for w in parts])
    starts = np.concatenate([[0], ends[:-1]])
    tasks = list(dict.fromkeys(text for w in parts for text in w.tasks))

    def rows(name: str) -> Rows:
        def make(i: NDArray[np.int64]) -> Tensor:
            part = np.searchsorted(ends, i, side="right")
            out: Tensor | None = None
            for k in np.unique(part):
                places = torch.from_numpy(np.flatnonzero(part == k))
                own = getattr(parts[k], name)[torch.from_numpy(i[part == k] - starts[k])]
                if name in {"past", "future"}:
                    own = own + int(starts[k])
                if name == "task":
                    own = torch.tensor([tasks.index(text) for text in parts[k].tasks])[own]
                if out is None:
                    out = torch.zeros(len(i), *own.shape[1:], dtype=own.dtype)
                out[places] = own
            assert out is not None, "an index of no rows"
            return out

        return Rows(int(ends[-1]), make)

    return Windows(**{f.name: rows(f.name) for f in fields(Windows) if f.name != "tasks"}, tasks=tasks)
