"""All frames of some datasets of one robot: vectors in memory, pictures when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from distill.data.canvases import CACHE_BYTES, Canvases, Clip
from distill.data.sources import OpenSource, Source, Take
from edge_wam.contracts import U8
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
TINY = 1e-6
"""Of a frame: rates are whole numbers of hertz and knots whole milliseconds, the rest is rounding."""


class Pictures(Protocol):
    """An array, or something that makes its rows when they are asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, which: slice | NDArray[np.integer]) -> U8: ...


@dataclass
class Frames:
    """Episodes one after the other (N frames).

    Attributes:
        canvas: uint8 [N, 3, Hc, Wc]: what the kernel makes of the cameras, before the affine map to [-1, 1].
        position, setpoint: [N, D] axis units; action: [N, D] setpoint one frame later. NaN where not recorded.
        environment: the simulator's privileged state [N, E]; E = 0 unless all datasets have the same.
        trusted: [N] what was done from here may be learned (not: failed episodes, videos without actions).
        label, label_mask: an expert's chunks [M, K, D] and which of their knots count [M, K].
        label_row: [N] which of them belongs to the frame; -1: what was done is the label.
        per_knot: [N] frames from one knot to the next, 1 or more.
        first, last: [N] index of the first and last frame of the frame's episode. ``task``: [N] index into ``tasks``.
        success: [N] did the frame's episode succeed.
    """

    canvas: Pictures
    position: F32
    setpoint: F32
    action: F32
    environment: F32
    trusted: NDArray[np.bool_]
    label: F32
    label_mask: F32
    label_row: I64
    per_knot: NDArray[np.float64]
    first: I64
    last: I64
    task: I64
    success: NDArray[np.bool_]
    tasks: list[str]

    def __post_init__(self) -> None:
        n = len(self.first)
        bad = np.flatnonzero(~self.trusted)
        after = np.searchsorted(bad, np.arange(n))
        self._untrusted_from = np.concatenate([bad, [n]])[after]

    def __len__(self) -> int:
        return len(self.first)

    def executed(self, index: I64, horizon: int) -> tuple[F32, F32]:
        """Setpoints at the next ``horizon`` knots [B, H, D] and which of them may be learned [B, H].

        Between two frames the setpoint is interpolated, and nothing is extrapolated: knots after the episode's end and
        from the first frame on that is not trusted do not count.
        """
        # Row j of ``action`` is the setpoint at frame time j + 1.
        at = index[:, None] + np.arange(1, horizon + 1) * self.per_knot[index][:, None] - 1.0
        last = self.last[index][:, None]
        low = np.minimum(np.floor(at + TINY).astype(np.int64), last)
        share = np.clip(at - low, 0.0, 1.0)
        share[share < TINY] = 0.0
        high = np.minimum(low + (share > 0.0), last)
        counts = (at <= last + TINY) & (high < self._untrusted_from[index][:, None])
        chunk = self.action[low] + share[..., None].astype(np.float32) * (self.action[high] - self.action[low])
        return np.where(np.isnan(chunk), np.float32(0.0), chunk), counts.astype(np.float32)

    def chunks(self, index: I64, horizon: int) -> tuple[F32, F32]:
        """What is to be done from each frame on [B, H, D] and which knots are a target [B, H]."""
        chunk, mask = self.executed(index, horizon)
        row = self.label_row[index]
        if (told := row >= 0).any():
            chunk[told], mask[told] = self.label[row[told], :horizon], self.label_mask[row[told], :horizon]
        return chunk, mask


def load_frames(sources: Sequence[Path | Source], embodiment: Embodiment, cache_bytes: int = CACHE_BYTES) -> Frames:
    """Read the vectors of datasets (v2 or v3, see :class:`Source`) and where their pictures are.

    Raises:
        ConfigError: no dataset, one that is damaged, or one that does not fit the robot.
    """
    if not sources:
        raise ConfigError("no dataset given", expected="at least one folder")
    tasks: dict[str, int] = {}
    takes: list[tuple[OpenSource, Take]] = []
    for source in sources:
        opened = OpenSource(source if isinstance(source, Source) else Source(root=source), embodiment)
        takes += ((opened, take) for take in opened.takes())
    if not takes:
        raise ConfigError(f"{sources[0]}: every episode failed and is dropped", expected="some that succeed")
    knots = {t.label.shape[1] for _, t in takes if t.label is not None}
    if len(knots) > 1:
        raise ConfigError(f"datasets with labels of {sorted(knots)} knots", expected="as many in all of one run")
    known = {t.environment.shape[1] for _, t in takes}
    clips, starts, rows, told = [], [], [], 0
    start = 0
    labels: list[F32] = []
    masks: list[F32] = []
    for opened, take in takes:
        n = take.entry.length
        clips.append(Clip(opened.dataset, take.entry, opened.videos, embodiment))
        starts.append(start)
        rows.append(np.full(n, -1) if take.label is None else np.arange(told, told + n))
        if take.label is not None and take.label_mask is not None:
            labels.append(take.label)
            masks.append(take.label_mask)
            told += n
        start += n
    lengths = [t.entry.length for _, t in takes]
    first = np.repeat(starts, lengths)
    dof = embodiment.dof
    return Frames(
        canvas=Canvases(clips, cache_bytes),
        position=np.concatenate([t.position for _, t in takes]),
        setpoint=np.concatenate([t.setpoint for _, t in takes]),
        action=np.concatenate([t.action for _, t in takes]),
        environment=(
            np.concatenate([t.environment for _, t in takes]) if len(known) == 1 else np.zeros((start, 0), np.float32)
        ),
        trusted=np.repeat([t.trusted for _, t in takes], lengths),
        label=np.concatenate(labels) if labels else np.zeros((0, 0, dof), np.float32),
        label_mask=np.concatenate(masks) if masks else np.zeros((0, 0), np.float32),
        label_row=np.concatenate(rows), per_knot=np.repeat([o.per_knot for o, _ in takes], lengths),
        first=first, last=first + np.repeat(lengths, lengths) - 1,
        task=np.array([tasks.setdefault(text, len(tasks)) for _, t in takes for text in t.tasks]),
        success=np.repeat([t.success for _, t in takes], lengths), tasks=list(tasks),
    )  # fmt: skip
