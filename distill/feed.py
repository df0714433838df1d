"""Samples of a training run: demonstrations, and on-policy datasets that arrive while it runs.

A collector writes datasets from the run's own weights; they are taken in between two steps and make up half of every
batch from then on. Which was taken in before which step is journalled before it is used, so that a run that was killed
sees the same samples again; what has arrived since waits until the run is where it had been.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from distill.batch import Batch, Drawn, Noise, NoiseLevels, draw_noise, gather, generator, normal
from distill.data.files import content_hash
from distill.data.windows import Windows
from distill.parallel import Place
from distill.run import Run
from edge_wam.errors import ConfigError
from edge_wam.sim.world import TASKS
from edge_wam.text import encode_text

INTAKE_EVERY = 50
"""Steps between two looks for new datasets."""
FINISHED = "meta/info.json"
"""A dataset is finished once this is there."""


class Sampling(BaseModel):
    """How samples are disturbed.

    Attributes:
        latent_noise: standard deviation of the noise on clean latents (they have unit variance).
        memoryless: share of the steps without past frames: the first 0.2 s of an episode have none, and such a step
            costs a third less.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    latent_noise: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    memoryless: float = Field(default=0.4, ge=0, le=1)
    noise: NoiseLevels = NoiseLevels()


def folder_hash(root: Path) -> str:
    """SHA-256 over names and contents of everything in a dataset's folder."""
    return content_hash(root, (path for path in root.rglob("*") if path.is_file()))


class _Instructions(dict[str, Tensor]):
    """All ways of saying each task, as tokens [variants, length], by the task's first instruction.

    An instruction that is none of the simulator's has one way: its own words.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        super().__init__(
            {t.instruction: self._tokens((t.instruction, *t.paraphrases)) for t in TASKS.values()}
        )  # fmt: skip

    def __missing__(self, instruction: str) -> Tensor:
        self[instruction] = self._tokens((instruction,))
        return self[instruction]

    def _tokens(self, texts: Sequence[str]) -> Tensor:
        return torch.from_numpy(np.stack([encode_text(text, self._length) for text in texts]))


def instruction_tokens(length: int) -> dict[str, Tensor]:
    """The tokens of every instruction, of ``length`` each; see :class:`_Instructions`."""
    return _Instructions(length)


def choose(lengths: Sequence[int], batch: int, rng: np.random.Generator) -> Drawn:
    """Samples of a step: from the first source, and half of them from the later ones as soon as there are any."""
    sizes = np.array([batch])
    if len(lengths) > 1:
        share = np.array(lengths[1:], float)
        counts = rng.multinomial(batch // 2, share / share.sum())
        sizes = np.array([batch - counts.sum(), *counts])
    source = np.repeat(np.arange(len(sizes)), sizes)
    index = np.concatenate([rng.integers(0, lengths[k], n) for k, n in enumerate(sizes)])
    shuffled = rng.permutation(batch)  # so that every process has some of each
    return Drawn(source[shuffled], index[shuffled], rng.random(batch))


@dataclass
class WindowFeed:
    """Batches of windows and their noise.

    Attributes:
        load: a finished dataset's windows.
        arriving: folder into which collectors write; None for a fixed data set.
    """

    run: Run
    demonstrations: Windows
    load: Callable[[Path], Windows]
    arriving: Path | None
    tokens: dict[str, Tensor]
    sampling: Sampling
    batch: int
    seed: int
    place: Place

    def __post_init__(self) -> None:
        self.sources = [self.demonstrations]
        self._taken: set[str] = set()
        self._begun = False
        reached = [int(note["reached"]) for note in self.run.notes("resumed")]
        taken = [int(note["step"]) + 1 for note in self.run.notes("taken in")]
        self._replayed = max([0, *reached, *taken])
        self.place.rows(self.batch)

    def draw(self, step: int) -> tuple[Batch, Noise]:
        """This process' samples of a step, the same however often it is asked.

        Raises:
            ConfigError: a dataset that this run had taken in is gone or was changed.
        """
        if self.arriving is not None:
            self._take_in(step)
        rng = generator(self.seed, step)
        rows = self.place.rows(self.batch)
        drawn = choose([len(w) for w in self.sources], self.batch, rng)
        batch = gather(drawn.rows(rows), self.sources, self.tokens)
        if rng.random() < self.sampling.memoryless:
            batch = batch.without_past()
        disturbance = normal(batch.latents, rng, rows, self.batch)
        batch = replace(batch, latents=batch.latents + self.sampling.latent_noise * disturbance)
        noise = draw_noise(batch, rng, self.sampling.noise, rows, self.batch)
        return batch.to(self.place.device), noise.to(self.place.device)

    def _take_in(self, step: int) -> None:
        """Datasets that were taken in up to this step before, and, where the run has never been, new ones."""
        assert self.arriving is not None
        looking = step % INTAKE_EVERY == 0
        if not looking and self._begun:
            return
        self._begun = True
        if looking and self.place.leads and step >= self._replayed:
            known = {note["dataset"] for note in self.run.notes("taken in")}
            for path in sorted(p.parent.parent for p in self.arriving.glob(f"*/{FINISHED}")):
                if path.name not in known:
                    self.run.note("taken in", step, dataset=path.name, data=folder_hash(path))
        if looking:
            self.place.wait()  # the journal is what all processes go by
        for note in self.run.notes("taken in"):
            if note["step"] <= step and note["dataset"] not in self._taken:
                path = self.arriving / note["dataset"]
                if folder_hash(path) != note["data"]:
                    raise ConfigError(
                        f"{path} is not what it was when step {note['step']} took it in",
                        expected=f"content {note['data'][:12]}", remedy="restore it, or begin another run",
                    )  # fmt: skip
                self._taken.add(note["dataset"])
                self.sources.append(self.load(path))
