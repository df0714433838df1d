"""Where a teacher's ODE arrives from given noise, computed once: what makes a slow teacher affordable.

The noise of an answer is drawn from (seed, its number), so it is not stored: a student is given the very noise that the
teacher started from. Actions are kept in float32, video in float16 and only where it is in the student's latents.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.batch import Batch, Noise
from distill.data.targets import Spec, Targets, TensorSpec, build_targets
from distill.teaching import Noisy, Teacher, levels, solve
from edge_wam.errors import ConfigError


class StoredEndpoints:
    """A teacher's chunk half way (noise level 1/2) and at its end, for some draws of noise for every sample.

    Args:
        source: number of the run's dataset that they were computed for.

    Raises:
        ConfigError: these are no endpoints.
    """

    def __init__(self, targets: Targets, source: int = 0) -> None:
        if targets.spec.kind != "endpoints":
            raise ConfigError(f"{targets.folder} holds {targets.spec.kind}", expected="endpoints")
        self._targets, self._source = targets, source
        self.digest, self.video = targets.spec.teacher, "end_video" in targets.spec.tensors
        """``video``: the video's endpoints are kept too."""
        settings = targets.spec.settings
        self._draws, self._seed = int(settings["draws"]), int(settings["seed"])

    def way(self, batch: Batch, noise: Noise) -> tuple[Noisy, Noisy, Noisy]:
        """The chunk of each sample at levels 1, 1/2 and 0, from the noise that is kept; no knot is committed.

        Which of the draws a sample gets is read off ``noise``, so that it is the same on any number of processes.

        Raises:
            ConfigError: a sample of another dataset of the run.
        """
        if bool((batch.source != self._source).any()):
            raise ConfigError(
                f"{self._targets.folder} knows the samples of dataset {self._source} alone", expected="no others",
                remedy="solve the teacher's ODE as samples come, or compute endpoints for those, too",
            )  # fmt: skip
        draw = (noise.action[:, 0, 0].abs().cpu() * 1e4).long() % self._draws
        row = batch.index.cpu() * self._draws + draw
        own = endpoint_noise(row.numpy(), batch, self._seed)

        def at(name: str, video: Tensor, level: float) -> Noisy:
            s = noise.sigma_action.new_full((len(batch),), level)
            if name == "start":
                return Noisy(video, own.action.to(s.device), s, s, torch.zeros_like(noise.committed))
            action = self._targets[f"{name}_action"][row].to(s.device)
            video = self._targets[f"{name}_video"][row].float() if self.video else video
            return Noisy(video.to(s.device), action, s, s, torch.zeros_like(noise.committed))

        start = own.video.to(noise.video.device)
        return at("start", start, 1.0), at("half", start, 0.5), at("end", start, 0.0)


def endpoint_noise(rows: NDArray[np.int64], batch: Batch, seed: int) -> Noise:
    """Pure noise of the answers ``rows``, like the chunk of ``batch``, on the CPU."""
    drawn = [np.random.default_rng([seed, int(row)]) for row in rows]
    video = np.stack([rng.standard_normal(tuple(batch.video.shape[1:]), np.float32) for rng in drawn])
    action = np.stack([rng.standard_normal(tuple(batch.action.shape[1:]), np.float32) for rng in drawn])
    one = torch.ones(len(rows))
    return Noise(one, one, torch.from_numpy(video), torch.from_numpy(action), torch.zeros(action.shape[:2]))


def cached_endpoints(
    folder: Path, samples: int, batch_of: Callable[[NDArray[np.int64]], Batch], teacher: Teacher, *, data_hash: str,
    draws: int = 4, steps: int = 8, seed: int = 0, batch: int = 32, rows_per_shard: int = 2048, rebuild: bool = False,
    device: torch.device | str = "cpu", report: Callable[[int, int], None] = lambda done, total: None,
) -> StoredEndpoints:  # fmt: skip
    """Solve the teacher's ODE ``draws`` times for each sample; what an earlier run computed is used.

    Args:
        batch_of: the samples of these numbers, undisturbed, in the order given.
        steps: of Euler's method, an even number: level 1/2 is one of them.
        batch: samples the teacher is shown at once.

    Raises:
        ConfigError: an odd number of steps, or the folder holds endpoints of another teacher, data or setting.
        ContractError: the teacher said a number that is none.
    """
    if steps < 2 or steps % 2:
        raise ConfigError(f"{steps} steps to an endpoint", expected="an even number: level 1/2 is one of them")
    schedule = levels(steps)

    def answers(rows: NDArray[np.int64]) -> dict[str, Tensor]:
        shown = batch_of(rows // draws)
        lecture = teacher.open(shown.to(device))
        states = solve(lecture, endpoint_noise(rows, shown, seed).to(device), schedule)
        half, end = states[len(states) // 2], states[-1]
        out = {"half_action": half.action.float(), "end_action": end.action.float()}
        if lecture.same_latents:
            out |= {"half_video": half.video.half(), "end_video": end.video.half()}
        return out

    def compute(rows: range) -> dict[str, Tensor]:
        parts = [answers(np.arange(k, min(k + batch, rows.stop))) for k in range(rows.start, rows.stop, batch)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    first = answers(np.arange(1))
    spec = Spec(
        kind="endpoints", teacher=teacher.digest, data=data_hash, samples=samples * draws,
        rows_per_shard=rows_per_shard, settings={"draws": draws, "steps": steps, "seed": seed},
        tensors={
            name: TensorSpec(dtype="float16" if name.endswith("video") else "float32", shape=tuple(value.shape[1:]))
            for name, value in first.items()
        },
    )  # fmt: skip
    return StoredEndpoints(build_targets(folder, spec, compute, rebuild=rebuild, report=report))
