"""What a dataset holds, before anything is trained on it: every file opened, every frame decoded, every number counted.

The quantiles are what a robot file wants as its statistics: a dataset of a new robot begins here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distill.data.frames import load_frames
from distill.data.sources import OpenSource, Source
from edge_wam.embodiment import Embodiment

SAMPLED = 100_000
"""Frames that the quantiles are taken over, evenly spread: enough for three digits of a 1st percentile."""


@dataclass(frozen=True, slots=True)
class AxisStatistics:
    """1st and 99th percentiles of an axis, in its unit, as a robot file has them; None: not recorded."""

    action: tuple[float, float] | None
    state: tuple[float, float] | None
    offset: tuple[float, float] | None


@dataclass(frozen=True, slots=True)
class Survey:
    """What was found.

    Attributes:
        episodes, frames, seconds, failures: how many of each; ``failures`` counts episodes.
        learned: frames whose actions are a target. ``tasks``: frames by instruction.
        axes: statistics by the axis' name.
        decoded: frames of each camera that were decoded.
    """

    episodes: int
    frames: int
    seconds: float
    failures: int
    learned: int
    tasks: dict[str, int]
    axes: dict[str, AxisStatistics]
    decoded: int


def survey(
    source: Source, embodiment: Embodiment, horizon: int, *, decode: bool = True,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Survey:  # fmt: skip
    """Read a dataset as training would.

    Args:
        horizon: knots of a chunk: what an axis' action statistics are taken over.
        decode: every picture, too.
        report: called with the frames decoded and their number.

    Raises:
        ConfigError: whatever is wrong with the dataset.
    """
    frames = load_frames([source], embodiment, cache_bytes=0)
    n = len(frames)
    done = 0
    if decode:
        for first in range(0, n, 64):
            done += len(frames.canvas[first : first + 64])
            report(done, n)
    some = np.unique(np.linspace(0, n - 1, min(n, SAMPLED)).astype(np.int64))
    chunk, mask = frames.chunks(some, horizon)
    raw = chunk - np.where(embodiment.relative, frames.position[some], 0.0)[:, None]
    values = {
        "action": raw[mask > 0], "state": frames.position[some],
        "offset": frames.setpoint[some] - frames.position[some],
    }  # fmt: skip

    def quantiles(name: str, axis: int) -> tuple[float, float] | None:
        column = values[name][:, axis]
        if not column.size or np.isnan(column).any():
            return None
        low, high = np.quantile(column, [0.01, 0.99])
        return float(low), float(high)

    starts = np.unique(frames.first)
    counted = Counter(frames.task.tolist())
    return Survey(
        episodes=len(starts), frames=n, seconds=n / OpenSource(source, embodiment).dataset.fps,
        failures=int((~frames.success[starts]).sum()),
        learned=int(sum((frames.chunks(np.arange(k, min(k + 4096, n)), 1)[1] > 0).sum() for k in range(0, n, 4096))),
        tasks={frames.tasks[k]: count for k, count in sorted(counted.items())},
        axes={
            axis.name: AxisStatistics(quantiles("action", k), quantiles("state", k), quantiles("offset", k))
            for k, axis in enumerate(embodiment.axes)
        },
        decoded=done,
    )  # fmt: skip
