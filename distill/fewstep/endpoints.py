"""Where a teacher's ODE goes from the very noise a student is given: what few-step students are anchored to.

Endpoints need no labels. States that a student visited by itself are relabelled by the same call: that is the on-policy
round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from distill.batch import Batch, Noise
from distill.data.endpoints import StoredEndpoints
from distill.teaching import Noisy, Teacher, levels, solve
from edge_wam.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The chunk on its way: pure noise, half way (noise level 1/2), clean.

    ``video``: the video is in the student's latents; else only actions are targets.
    """

    start: Noisy
    half: Noisy
    end: Noisy
    video: bool


class EndpointSource(Protocol):
    """Gives a batch its endpoints."""

    digest: str

    def endpoints(self, batch: Batch, noise: Noise) -> Endpoints:
        """From the noise of ``noise`` (its levels do not matter), or from one of its own; committed knots stay."""
        ...


class SolvedEndpoints:
    """A teacher's ODE, solved where it is asked for.

    Args:
        steps: of Euler's method, an even number, evenly spread: noise level 1/2 is one of them.

    Raises:
        ConfigError: an odd number of steps.
    """

    def __init__(self, teacher: Teacher, steps: int = 8) -> None:
        if steps < 2 or steps % 2:
            raise ConfigError(f"{steps} steps to an endpoint", expected="an even number: level 1/2 is one of them")
        self.teacher, self.schedule = teacher, levels(steps)
        self.digest = teacher.digest

    def endpoints(self, batch: Batch, noise: Noise) -> Endpoints:
        lecture = self.teacher.open(batch)
        states = solve(lecture, noise, self.schedule)
        return Endpoints(states[0], states[len(states) // 2], states[-1], lecture.same_latents)


class KeptEndpoints:
    """Endpoints that were computed once (:mod:`distill.data.endpoints`), from noise of their own.

    The teacher saw each sample as it was recorded; what the student is shown may be disturbed. No knot is committed.
    """

    def __init__(self, stored: StoredEndpoints) -> None:
        self.stored, self.digest = stored, stored.digest

    def endpoints(self, batch: Batch, noise: Noise) -> Endpoints:
        return Endpoints(*self.stored.way(batch, noise), self.stored.video)


class Altered:
    """Endpoints changed on purpose: the controls that a distillation must fail (shuffled or biased targets).

    Args:
        change: the end's actions [B, H, 32] and video [B, F, Nv, C] to others.
    """

    def __init__(self, source: EndpointSource, change: Callable[[Tensor], Tensor], name: str) -> None:
        self.source, self.change = source, change
        self.digest = f"{source.digest} {name}"

    def endpoints(self, batch: Batch, noise: Noise) -> Endpoints:
        whole = self.source.endpoints(batch, noise)

        def altered(state: Noisy) -> Noisy:
            action = self.change(state.action)
            return Noisy(self.change(state.video), action, state.sigma_video, state.sigma_action, state.committed)

        return Endpoints(whole.start, altered(whole.half), altered(whole.end), whole.video)


def shuffled(source: EndpointSource) -> Altered:
    """Every sample gets its neighbour's endpoint: what a student learns from it must be worthless."""
    return Altered(source, lambda x: x.roll(1, 0), "shuffled")
