"""Datasets of several robots as one run's samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from distill.data.frames import Frames, load_frames
from distill.data.sources import Source
from distill.data.windows import Samples, Windows, join, make_windows
from distill.models.config import StudentConfig
from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.errors import ConfigError


class Part(Source):
    """A source, and the robot file it is of (None: the run's own)."""

    robot: Path | None = None


def load_mixture(
    parts: Sequence[Part], own: Embodiment, config: StudentConfig, encode: Callable[[Frames], Samples]
) -> Windows:
    """Samples of all parts; those of one robot share their frames, and a part that repeats is counted so many times.

    Args:
        own: the run's robot, whose canvas all others must have.
        encode: latents [N, Nv, C] of some frames.

    Raises:
        ConfigError: no part, a robot with another canvas, or whatever its source refuses.
    """
    if not parts:
        raise ConfigError("no dataset given", expected="at least one")
    groups: dict[tuple[Path | None, int], list[Source]] = {}
    for part in parts:
        groups.setdefault((part.robot, part.repeat), []).append(part)
    windows: list[Windows] = []
    for (file, repeat), sources in groups.items():
        robot = own if file is None else load_embodiment(file)
        size, wanted = (robot.canvas_width, robot.canvas_height), (own.canvas_width, own.canvas_height)
        if size != wanted:
            raise ConfigError(
                f"{sources[0].root}: robot {robot.name!r} has a canvas of {size[0]}x{size[1]}",
                expected=f"{wanted[0]}x{wanted[1]}, that of {own.name!r}",
                remedy="place its cameras on a canvas of that size",
            )  # fmt: skip
        frames = load_frames(sources, robot)
        windows += [make_windows(frames, encode(frames), config, robot)] * repeat
    return windows[0] if len(windows) == 1 else join(windows)
