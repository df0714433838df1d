"""The few-step objective: teacher endpoints, consistency, native flow matching.

Jumps: ``x_r = x_s - (s - r) u``, u told both levels. Three of them are trained, each sample one, in turn: 1 to 0 (one
pass), 1 to 1/2 and, from the teacher's state there, 1/2 to 0 (two passes).

endpoint (TACD, arXiv 2610.06617): where the teacher's ODE arrives from the same noise. consistency (Flash-WAM,
2606.05254): one step of the teacher's ODE down, the averaged student arrives where the student does; the boundary is
linear, f = x - s u, for actions and video alike: the usual one starves the low-noise end on which actions live. flow:
the data's own velocity at a jump of 0, which keeps the network a flow model. Guidance is in the teacher's velocities.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from distill.batch import Batch, Noise, masked_mean
from distill.fewstep.endpoints import EndpointSource
from distill.losses.flow_matching import FlowMatchingWeights, knot_weights
from distill.losses.shrinking import charbonnier, existing_axes, student_velocities
from distill.models.wam import WorldActionTransformer
from distill.teaching import Noisy, Teacher, noisy_chunk
from edge_wam.errors import ConfigError

JUMPS = ((1.0, 0.0), (1.0, 0.5), (0.5, 0.0))
ANCHOR_EVERY = 5
"""Of the consistency samples two in so many stand at levels 1 and 1/2, the runtime's own."""


class FewStepWeights(BaseModel):
    """What counts how much; 0 leaves a loss out.

    Attributes:
        endpoint, consistency, flow: the three losses. video: of each beside its action part.
        passes: what is trained: 1, 2, or both. scale: of Charbonnier's root; latents and actions have unit variance.
        down: how far the teacher steps in the consistency loss. average: decay of the averaged student there; 0: the
            student itself.
        near: of the first knot beside the last.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    consistency: float = Field(default=0.5, ge=0, allow_inf_nan=False)
    flow: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    video: float = Field(default=0.3, ge=0, allow_inf_nan=False)
    passes: tuple[int, ...] = (1, 2)
    scale: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    down: float = Field(default=0.25, gt=0, le=1)
    average: float = Field(default=0.995, ge=0, lt=1)
    near: float = Field(default=3.0, ge=1, allow_inf_nan=False)

    @property
    def jumps(self) -> tuple[tuple[float, float], ...]:
        """Jumps in training; raises ConfigError for passes other than 1 and 2."""
        if not self.passes or set(self.passes) - {1, 2}:
            raise ConfigError(f"passes {list(self.passes)}", expected="1, 2 or both")
        return tuple(jump for jump in JUMPS if (1 if jump == (1.0, 0.0) else 2) in self.passes)


class FewStep(nn.Module):
    """The objective.

    Args:
        model: with target times; its average starts from it.
        endpoints, teacher: what each loss is anchored to; may be missing where its weight is 0.
        axes: action axes of a sample without any label: the teacher labels it.

    Raises:
        ConfigError: a model without target times, or a loss with nothing to anchor it.
    """

    def __init__(
        self, model: WorldActionTransformer, weights: FewStepWeights, endpoints: EndpointSource | None,
        teacher: Teacher | None, axes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        if not model.config.target_time:
            raise ConfigError(f"{model.config.name} knows no target time", expected="target_time in its configuration")
        for what, there in (("endpoint", endpoints), ("consistency", teacher)):
            if getattr(weights, what) and there is None:
                raise ConfigError(f"a loss {what!r} without a teacher", expected=f"{what} = 0, or a teacher")
        self.weights, self.jumps, self.axes = weights, weights.jumps, axes
        self._anchors = (endpoints, teacher)  # in a tuple: no part of this module
        follows = weights.consistency > 0 and weights.average > 0
        self.average = copy.deepcopy(model).requires_grad_(False) if follows else None

    def loss(self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int) -> dict[str, Tensor]:
        """``total`` and each loss before its weight."""
        w = self.weights
        out: dict[str, Tensor] = {}
        total = batch.action.new_zeros(())
        for name, weight, part in (
            ("endpoint", w.endpoint, self._endpoint), ("consistency", w.consistency, self._consistency),
            ("flow", w.flow, self._flow),
        ):  # fmt: skip
            if weight > 0:
                action, video = part(model, batch, noise, step)
                out |= {f"{name}_action": action, f"{name}_video": video}
                total = total + weight * (action + w.video * video)
        return {"total": total, **out}

    @torch.no_grad()
    def after_step(self, model: nn.Module, step: int) -> None:
        """Let the averaged student follow."""
        if self.average is not None:
            decay = min(self.weights.average, (1.0 + step) / (10.0 + step))
            for mine, theirs in zip(self.average.parameters(), model.parameters(), strict=True):
                mine.lerp_(theirs, 1.0 - decay)

    def _endpoint(
        self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        source = self._anchors[0]
        assert source is not None  # seen to at the start
        way = source.endpoints(batch, noise)
        which = (batch.index + step) % len(self.jumps)  # by sample, so that it is the same on any number of processes
        table = batch.action.new_tensor(self.jumps)[which.to(batch.action.device)]
        begin, target = table.unbind(1)
        from_half, to_half = begin < 0.75, target > 0.25

        def pick(first: Tensor, second: Tensor, mask: Tensor) -> Tensor:
            return torch.where(mask.reshape(-1, *[1] * (first.ndim - 1)), second, first)

        if way.video:
            video = pick(way.start.video, way.half.video, from_half)
        else:  # the teacher's video is another one: the student's stands at this level of its own data
            video = noisy_chunk(batch, replace(noise, sigma_video=begin)).video
        chunk = Noisy(video, pick(way.start.action, way.half.action, from_half), begin, begin, way.start.committed)
        u_video, u_action = student_velocities(model, batch, chunk, begin - target, begin - target)
        arrived = chunk.moved(u_video, u_action, target, target)
        known = replace(noise, committed=way.start.committed)
        action = self._action(arrived.action - pick(way.end.action, way.half.action, to_half), batch, known)
        if not way.video:
            return action, action.new_zeros(())
        return action, self._video(arrived.video - pick(way.end.video, way.half.video, to_half))

    def _consistency(
        self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int
    ) -> tuple[Tensor, Tensor]:
        teacher = self._anchors[1]
        assert teacher is not None  # seen to at the start
        anchored = self._anchored(batch, noise, step)
        lecture = teacher.open(batch)
        here = lecture.noisy(anchored)
        said = lecture.look(here)
        lower = [(s - self.weights.down).clamp_min(0.0) for s in (here.sigma_video, here.sigma_action)]
        if lecture.same_latents:
            below = here.moved(said.video, said.action, lower[0], lower[1])
        else:  # the teacher's video is another one: the student's stays at its own levels of its own data
            here = noisy_chunk(batch, anchored)
            moved = here.moved(torch.zeros_like(here.video), said.action, here.sigma_video, lower[1])
            data = noisy_chunk(batch, replace(anchored, sigma_video=lower[0]))
            below = replace(moved, video=data.video, sigma_video=lower[0])
        with torch.no_grad():
            goal = self._arrives(model if self.average is None else self.average, batch, below)
        mine = self._arrives(model, batch, here)
        action = self._action(mine.action - goal.action, batch, noise)
        return action, self._video(mine.video - goal.video)

    def _flow(self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int) -> tuple[Tensor, Tensor]:
        still = torch.zeros_like(noise.sigma_action)
        video, action = student_velocities(model, batch, noisy_chunk(batch, noise), still, still)
        error = (action - (noise.action - batch.action)).square()  # squares: a velocity is a mean, not a median
        wrong = (video - (noise.video - batch.video)).square()
        weight = knot_weights(batch, noise, self.weights.near)
        return masked_mean(error, weight), masked_mean(wrong, batch.video_mask[..., None, None])

    @staticmethod
    def _arrives(model: WorldActionTransformer, batch: Batch, chunk: Noisy) -> Noisy:
        """The linear boundary f = x - s u: where a jump to 0 arrives."""
        u_video, u_action = student_velocities(model, batch, chunk, chunk.sigma_video, chunk.sigma_action)
        none = torch.zeros_like(chunk.sigma_video)
        return chunk.moved(u_video, u_action, none, none)

    @staticmethod
    def _anchored(batch: Batch, noise: Noise, step: int) -> Noise:
        """Some samples at the runtime's own levels 1 and 1/2, the others where they were drawn."""
        turn = (batch.index + step).to(noise.sigma_action.device) % ANCHOR_EVERY

        def at(sigma: Tensor) -> Tensor:
            return torch.where(turn == 0, 1.0, torch.where(turn == 1, 0.5, sigma))

        return replace(noise, sigma_video=at(noise.sigma_video), sigma_action=at(noise.sigma_action))

    def _action(self, error: Tensor, batch: Batch, noise: Noise) -> Tensor:
        weight = knot_weights(existing_axes(batch, self.axes), noise, self.weights.near)
        return masked_mean(charbonnier(error, self.weights.scale), weight)

    def _video(self, error: Tensor) -> Tensor:
        return masked_mean(charbonnier(error, self.weights.scale), torch.ones_like(error))


def few_passes(
    model: WorldActionTransformer, batch: Batch, noise: Noise, passes: int
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A chunk (video, action) from pure noise in 1 or 2 passes of a few-step student, teacher-forced."""
    if passes not in (1, 2):
        raise ConfigError(f"{passes} passes", expected="1 or 2")
    full = torch.ones_like(noise.sigma_video)
    state = noisy_chunk(batch, replace(noise, sigma_video=full, sigma_action=full))
    for target in (0.0,) if passes == 1 else (0.5, 0.0):
        to = torch.full_like(full, target)
        video, action = student_velocities(
            model, batch, state, state.sigma_video - to, state.sigma_action - to
        )  # fmt: skip
        state = state.moved(video, action, to, to)
    return state.video, state.action


class Shortcut(nn.Module):
    """Regression of one pass onto the demonstrations, no teacher: the control that averages where experts differ."""

    def __init__(self, weights: FlowMatchingWeights, scale: float = 0.05) -> None:
        super().__init__()
        self.weights, self.scale = weights, scale

    def loss(self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int) -> dict[str, Tensor]:
        """``total`` of action and video."""
        video, action = few_passes(model, batch, noise, 1)
        error = charbonnier(action - batch.action, self.scale)
        told = masked_mean(error, knot_weights(batch, noise, self.weights.near))
        seen = masked_mean(charbonnier(video - batch.video, self.scale), batch.video_mask[..., None, None])
        return {"total": told + self.weights.video * seen, "action": told, "video": seen}
