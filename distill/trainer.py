"""The one training loop: every stage that has a loss runs it. It knows nothing of teachers, tasks or data.

Given the same configuration and data, step s computes the same numbers whether or not the run was interrupted before:
weights, optimiser, averages and half-full means come from the checkpoint, everything random from (seed, s).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from distill.checkpoint import save_tensors, step_of
from distill.curves import Curves
from distill.parallel import DTYPES, Place, Precision, add_up, norm_of, spread, whole
from distill.run import Run, Stopped
from distill.sharded import load_state, newest, save_state, saved_names
from edge_wam.errors import ContractError

Report = Callable[[int, int, str], None]
"""Called with how much is done, of how much, and a remark."""


class Training(BaseModel):
    """How a loss is brought down; part of every training stage's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 32
    """Samples of a step, over all processes."""
    learning_rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 300
    """Steps over which the learning rate rises."""
    cooldown: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Last share of the steps, over which it falls to ``floor`` of itself."""
    floor: Annotated[float, Field(ge=0, le=1)] = 0.02
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.02
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    """Largest norm of the gradient."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the average of the weights, which is what a run hands on; 0: the weights themselves."""
    precision: Precision = "bfloat16"
    """Of matrix products. Weights, averages and sums are float32."""
    recompute: bool = False
    """Keep only the inputs of blocks for the backward pass: less memory, a third more time."""
    curve_every: Annotated[int, Field(ge=1)] = 25
    checkpoint_every: Annotated[int, Field(ge=1)] = 250
    seed: Annotated[int, Field(ge=0)] = 0

    def rate(self, step: int) -> float:
        """Learning rate: warm-up, constant, linear cooldown."""
        up = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        left = (self.steps - step) / (self.cooldown * self.steps) if self.cooldown else 1.0
        return self.learning_rate * up * max(self.floor, min(1.0, left))


class Objective(Protocol):
    """What is minimised. One that is an ``nn.Module`` has its own parameters trained and its state kept."""

    def loss(self, model: Any, batch: Any, noise: Any, step: int) -> dict[str, Tensor]:
        """Scalars: ``total`` is minimised, every entry becomes a curve. Means over samples: ``batch.masked_mean``."""


class Feed(Protocol):
    """Where samples come from."""

    def draw(self, step: int) -> tuple[Any, Any]:
        """This process' part of the batch of a step, and its noise: the same whenever it is asked."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """What a run hands on: ``file`` holds the averaged weights under ``name``, written with every checkpoint."""

    file: str
    name: str


class Trainer:
    """A model in training in a run's directory.

    Args:
        model: on the device, whole; it is cut over all processes here.
    """

    def __init__(
        self, run: Run, model: nn.Module, objective: Objective, training: Training, artefact: Artefact, place: Place
    ) -> None:  # fmt: skip
        self.run, self.model, self.objective, self.training = run, model, objective, training
        self.artefact, self.place = artefact, place
        spread(model, place, recompute=training.recompute)
        own = objective if isinstance(objective, nn.Module) else None
        self.modules = {"model": model, **({"objective": own} if own is not None else {})}
        self.trained = {
            f"{prefix}.{name}": parameter
            for prefix, module in self.modules.items()
            for name, parameter in module.named_parameters() if parameter.requires_grad
        }  # fmt: skip
        self.optimiser = torch.optim.AdamW(
            list(self.trained.values()), lr=training.learning_rate, betas=(0.9, 0.95),
            weight_decay=training.weight_decay,
        )  # fmt: skip
        self.average = {
            name: parameter.detach().clone()
            for name, parameter in model.named_parameters() if training.ema and parameter.requires_grad
        }  # fmt: skip
        self.sums: dict[str, float] = {}
        self.curves = Curves(run.folder / "curves.csv")
        self.start = self._resume()

    def fit(self, feed: Feed, report: Report, stop: Callable[[], bool] = lambda: False) -> None:
        """Train to the end, or until ``stop`` says so.

        Raises:
            ContractError: a loss or a gradient is no number; the weights are those of the step before.
            Stopped: ``stop`` said so; the state is saved.
            ConfigError: a checkpoint could not be written; the one before it is whole.
        """
        t = self.training
        self.model.train()
        if self.start and self._behind(self.start):
            self._hand_on(self.start)
        for step in range(self.start, t.steps):
            parts, norm = self._gradients(feed, step)
            names = list(parts)
            mean = self.place.mean([*(float(parts[name].detach()) for name in names), float(stop())])
            stopping = mean.pop() > 0
            values = {**dict(zip(names, mean, strict=True)), "gradient": norm}
            for name, value in values.items():
                if not math.isfinite(value):
                    self.run.note("no number", step, curve=name)
                    raise ContractError(
                        f"step {step}: {name} is {value}", expected="a finite number",
                        remedy=f"the weights are those of step {step} and were not saved: look at the batch of that "
                        "step and at the learning rate; a checkpoint from before is kept",
                    )  # fmt: skip
            self._step(step)
            done = step + 1
            self._curve(done, values, report)
            if done % t.checkpoint_every == 0 or done == t.steps or stopping:
                self._save(done)
            if stopping and done < t.steps:
                self.run.note("stopped", done)
                raise Stopped(f"{self.run.folder}: stopped at step {done} of {t.steps}", remedy="start it again")
        self.run.note("finished", t.steps)

    # ---- a step -------------------------------------------------------------------------------------------------

    def _gradients(self, feed: Feed, step: int) -> tuple[dict[str, Tensor], float]:
        batch, noise = feed.draw(step)
        for group in self.optimiser.param_groups:
            group["lr"] = self.training.rate(step)
        self.optimiser.zero_grad(set_to_none=True)
        dtype = DTYPES[self.training.precision]
        low: AbstractContextManager[Any] = nullcontext()
        if dtype != torch.float32:  # with several processes no rounded copy of every weight is kept for the pass
            low = torch.autocast(self.place.device.type, dtype, cache_enabled=self.place.world == 1)
        with low:
            parts = self.objective.loss(self.model, batch, noise, step)
        parts["total"].backward()
        groups = [[p for n, p in self.trained.items() if n.startswith(prefix)] for prefix in ("model.", "objective.")]
        add_up([*groups[0], *groups[1]], self.place)
        gradients = [[p.grad for p in group if p.grad is not None] for group in groups]
        norm = math.hypot(*(norm_of(group) for group in gradients))
        if math.isfinite(norm) and norm > self.training.clip:
            for gradient in (*gradients[0], *gradients[1]):
                gradient.mul_(self.training.clip / norm)
        return parts, norm

    @torch.no_grad()
    def _step(self, step: int) -> None:
        self.optimiser.step()
        decay = min(self.training.ema, (1.0 + step) / (10.0 + step))
        for name, parameter in self.model.named_parameters():
            if name in self.average:
                self.average[name].lerp_(parameter.detach(), 1.0 - decay)
        after = getattr(self.objective, "after_step", None)
        if after is not None:
            after(self.model, step)

    def _curve(self, done: int, values: dict[str, float], report: Report) -> None:
        every = self.training.curve_every
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if done % every and done != self.training.steps:
            return
        count = every if done % every == 0 else done % every
        mean = {name: value / count for name, value in self.sums.items()}
        self.sums = {}
        if self.place.leads:
            self.curves.add(done, {**mean, "learning_rate": self.training.rate(done - 1)})
        report(done, self.training.steps, "  ".join(f"{name} {value:.4g}" for name, value in mean.items()))

    # ---- state --------------------------------------------------------------------------------------------------

    def _tensors(self, names: set[str] | None = None) -> dict[str, Tensor]:
        """Everything that a run goes on from, by name; the optimiser's numbers of what it has touched so far.

        ``names``: those of a checkpoint, for which places are made.
        """
        out = {f"{prefix}.{n}": v for prefix, m in self.modules.items() for n, v in m.state_dict().items()}
        out |= {f"average.{name}": value for name, value in self.average.items()}
        for name, parameter in self.trained.items():
            if names is not None and f"adam.step.{name}" in names:
                self.optimiser.state[parameter] = {
                    "step": torch.zeros(()), "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }  # fmt: skip
            for key, value in self.optimiser.state.get(parameter, {}).items():
                out[f"adam.{key}.{name}"] = value.view(1) if key == "step" else value  # the format knows no scalars
        return out

    def _save(self, done: int) -> None:
        save_state(self.run.folder / "state", done, self._tensors(), {"sums": self.sums}, self.place)
        self._hand_on(done)

    def _behind(self, done: int) -> bool:
        """What was handed on is not of step ``done``: a kill came between the two files."""
        path = self.run.folder / self.artefact.file
        behind = self.place.leads and (not path.exists() or step_of(path) != done)
        return self.place.mean([float(behind)])[0] > 0

    def _hand_on(self, done: int) -> None:
        self.write_artefact(done)
        if self.place.leads:
            self.curves.draw()

    def _resume(self) -> int:
        """Load the last checkpoint; the step to go on from."""
        path = newest(self.run.folder / "state")
        reached = max([0, *(int(note["reached"]) for note in self.run.notes("resumed"))])
        if path is None:
            if self.place.leads:
                reached = max(reached, self.curves.rewind(0))
            self.run.note("resumed" if self.run.notes("started") else "started", 0, reached=reached)
            return 0
        facts = load_state(path, self._tensors(saved_names(path)), self.place)
        self.sums = {name: float(value) for name, value in facts["sums"].items()}
        step = int(facts["step"])
        if self.place.leads:
            reached = max(reached, self.curves.rewind(step))
        self.run.note("resumed", step, reached=reached, processes=self.place.world)
        return step

    def write_artefact(self, done: int) -> None:
        """Write the averaged weights, whole, by the first process."""
        out = {}
        for name, value in self.model.state_dict().items():
            tensor = whole(self.average.get(name, value))
            if self.place.leads:
                out[name] = tensor
        if self.place.leads:
            save_tensors(self.run.folder / self.artefact.file, {self.artefact.name: out}, done)
