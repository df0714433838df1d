"""Datasets of several robots as one run's samples, as a recipe names them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from distill.data.frames import Frames, load_frames
from distill.data.sources import Source, sources_hash
from distill.data.windows import Samples, Windows, join, make_windows
from distill.models.config import StudentConfig
from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.errors import ConfigError


class Part(Source):
    """A source, and the robot file it is of (None: the run's own)."""

    robot: Path | None = None


Encode = Callable[[Frames, Sequence[Source], Embodiment], Samples]
"""Latents [N, Nv, C] of the frames that these sources of a robot give."""


def placed(data: Sequence[Path | Part], work: Path, recipe: Path) -> tuple[Part, ...]:
    """The parts of a recipe: datasets are relative to the work folder, robot files to the recipe."""
    parts = [entry if isinstance(entry, Part) else Part(root=entry) for entry in data]
    return tuple(
        p.model_copy(update={"root": work / p.root, "robot": None if p.robot is None else recipe / p.robot})
        for p in parts
    )


def of_one_robot(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The parts, for stages that see pictures of the run's own robot alone.

    Raises:
        ConfigError: one is of another robot.
    """
    for part in parts:
        if part.robot is not None:
            raise ConfigError(
                f"{part.root} is of another robot, {part.robot}", expected="datasets of the recipe's own robot",
                remedy="leave it out of this stage",
            )  # fmt: skip
    return tuple(parts)


def mixture_hash(parts: Sequence[Part], own: Embodiment) -> str:
    """SHA-256 over all that the samples are made from; see :func:`sources_hash`.

    Raises:
        ConfigError: a dataset is damaged or does not fit its robot.
    """
    digest = hashlib.sha256()
    for part in parts:
        robot = own if part.robot is None else load_embodiment(part.robot)
        digest.update(sources_hash([_source(part)], robot).encode())
    return digest.hexdigest()


def _source(part: Part) -> Source:
    return Source.model_validate(part.model_dump(exclude={"robot"}))


def _groups(parts: Sequence[Part], own: Embodiment) -> Iterator[tuple[Embodiment, int, list[Source]]]:
    """The sources of each robot that are counted equally often."""
    groups: dict[tuple[Path | None, int], list[Source]] = {}
    for part in parts:
        groups.setdefault((part.robot, part.repeat), []).append(_source(part))
    for (file, repeat), sources in groups.items():
        yield own if file is None else load_embodiment(file), repeat, sources


def load_mixture(
    parts: Sequence[Part], own: Embodiment, config: StudentConfig, encode: Encode
) -> Windows:
    """Samples of all parts; those of one robot share their frames, and a part that repeats is counted so many times.

    Args:
        own: the run's robot, whose canvas all others must have.
        encode: called once for each robot, and for each number of repetitions.

    Raises:
        ConfigError: no part, a robot with another canvas, or whatever its source refuses.
    """
    if not parts:
        raise ConfigError("no dataset given", expected="at least one")
    windows: list[Windows] = []
    for robot, repeat, sources in _groups(parts, own):
        size, wanted = (robot.canvas_width, robot.canvas_height), (own.canvas_width, own.canvas_height)
        if size != wanted:
            raise ConfigError(
                f"{sources[0].root}: robot {robot.name!r} has a canvas of {size[0]}x{size[1]}",
                expected=f"{wanted[0]}x{wanted[1]}, that of {own.name!r}",
                remedy="place its cameras on a canvas of that size",
            )  # fmt: skip
        frames = load_frames(sources, robot)
        windows += [make_windows(frames, encode(frames, sources, robot), config, robot)] * repeat
    return windows[0] if len(windows) == 1 else join(windows)
