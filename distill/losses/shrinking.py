"""What a shrunk student is trained on: ground truth, the teacher's velocities, its features and their motion.

Formulas and first weights: Efficient-WAM (arXiv 2606.10040), TinyFusion (2412.01199), Shallow-pi (2601.20262).
Features and motion are annealed: full weight, half of it from 35 % of the steps on, none from 75 % on. Each loss goes
by one key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from distill.batch import Batch, Noise, masked_mean
from distill.losses.features import FeatureMatching
from distill.losses.flow_matching import FlowMatchingWeights, knot_weights
from distill.models.wam import WorldActionTransformer
from distill.teaching import Look, Noisy, Teacher, chunk_hidden, noisy_chunk, tapped

ANNEALED = ((0.35, 1.0), (0.75, 0.5))
"""(until this share of the steps, this factor); after the last, 0."""


class ShrinkWeights(BaseModel):
    """What counts how much; 0 leaves a loss out.

    Attributes:
        truth: flow matching on the data. velocity: the teacher's velocities. feature, motion: its hidden states.
        teacher_every: the teacher is asked in every so-manieth step; its losses then weigh as much as they say.
        flow: video beside action, near knots beside far ones, and how action errors are counted, in truth and velocity
            alike. Squares: a shrunk student goes the whole way from noise, as its teacher does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    truth: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    velocity: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    feature: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    motion: float = Field(default=0.2, ge=0, allow_inf_nan=False)
    teacher_every: int = Field(default=1, ge=1)
    flow: FlowMatchingWeights = FlowMatchingWeights(action="squared")


def annealing(step: int, steps: int) -> float:
    """Factor of the annealed losses at a step."""
    share = step / steps
    return next((factor for until, factor in ANNEALED if share < until), 0.0)


def charbonnier(error: Tensor, scale: float) -> Tensor:
    """sqrt(e^2 + scale^2) - scale: a square near 0, an absolute value beyond ``scale``."""
    return (error.square() + scale * scale).sqrt() - scale


def existing_axes(batch: Batch, axes: int) -> Batch:
    """The batch with every knot of every existing axis as a target: a teacher answers where nothing was labelled.

    What it says of padding is no target. ``axes``: the first so many exist in a sample without any label.
    """
    labelled = batch.action_mask.amax(1, keepdim=True)
    first = (torch.arange(labelled.shape[-1], device=labelled.device) < axes).to(labelled.dtype)
    there = torch.where(labelled.amax(2, keepdim=True) > 0, labelled, first)
    return replace(batch, action_mask=there.expand_as(batch.action_mask))


class Shrinking(nn.Module):
    """The objective.

    Args:
        teacher: asked about every batch's noisy chunk; None leaves ground truth alone (the control without a teacher).
        features: compared at ``depths`` of the student and ``teacher_depths`` of the teacher; None leaves them out.
        steps: of the whole run, for the annealing.
        axes: action axes of a sample without any label.
    """

    def __init__(
        self, teacher: Teacher | None, weights: ShrinkWeights, steps: int, features: FeatureMatching | None = None,
        depths: Sequence[int] = (), teacher_depths: Sequence[int] = (), axes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self._teacher = (teacher,)  # in a tuple: no part of this module, so no part of what is trained or saved
        self.weights, self.steps, self.features, self.axes = weights, steps, features, axes
        self.depths, self.teacher_depths = tuple(depths), tuple(teacher_depths)

    def loss(self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int) -> dict[str, Tensor]:
        """``total`` and each loss before its weight."""
        w = self.weights
        asked = self._teacher[0] is not None and step % w.teacher_every == 0
        factor = annealing(step, self.steps) if self.features is not None else 0.0
        deep = asked and factor > 0 and (w.feature > 0 or w.motion > 0)
        with tapped(model.blocks, self.depths if deep else ()) as found:
            video, action = student_velocities(model, batch, noisy_chunk(batch, noise))
        out = self._truth(video, action, batch, noise)
        total = w.truth * (out["action"] + w.flow.video * out["video"])
        if asked and (w.velocity > 0 or deep):
            said, same_latents = self._ask(batch, noise, deep)
            if w.velocity > 0:
                out |= self._velocity(video, action, said, batch, noise, same_latents)
                total = total + w.velocity * (out["teacher_action"] + w.flow.video * out["teacher_video"])
            if deep:
                assert self.features is not None  # factor is 0 without
                mine = [chunk_hidden(model.config, found[depth]) for depth in self.depths]
                out["feature"], out["motion"] = self.features(mine, said.hidden)
                total = total + factor * (w.feature * out["feature"] + w.motion * out["motion"])
        return {"total": total, **self._complete(out)}

    def _ask(self, batch: Batch, noise: Noise, deep: bool) -> tuple[Look, bool]:
        teacher = self._teacher[0]
        assert teacher is not None  # asked only if there is one
        lecture = teacher.open(batch)
        return lecture.look(lecture.noisy(noise), self.teacher_depths if deep else ()), lecture.same_latents

    def _truth(self, video: Tensor, action: Tensor, batch: Batch, noise: Noise) -> dict[str, Tensor]:
        weight = knot_weights(batch, noise, self.weights.flow.near)
        mask = batch.video_mask[..., None, None]
        return {
            "action": masked_mean(self._counted(action - (noise.action - batch.action)), weight),
            "video": masked_mean((video - (noise.video - batch.video)).square(), mask),
        }

    def _counted(self, error: Tensor) -> Tensor:
        return error.square() if self.weights.flow.action == "squared" else charbonnier(error, 0.02)

    def _velocity(
        self, video: Tensor, action: Tensor, said: Look, batch: Batch, noise: Noise, same_latents: bool
    ) -> dict[str, Tensor]:
        weight = knot_weights(existing_axes(batch, self.axes), noise, self.weights.flow.near)
        out = {"teacher_action": masked_mean(self._counted(action - said.action), weight)}
        out["teacher_video"] = action.new_zeros(())
        if same_latents:
            out["teacher_video"] = masked_mean((video - said.video).square(), torch.ones_like(video))
        return out

    def _complete(self, out: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every curve has a value in every step: 0 where a loss was not taken."""
        zero = out["action"].new_zeros(())
        names = ("teacher_action", "teacher_video") if self._teacher[0] is not None and self.weights.velocity else ()
        names += ("feature", "motion") if self.features is not None else ()
        return {**out, **{name: zero for name in names if name not in out}}


def student_velocities(
    model: WorldActionTransformer, batch: Batch, chunk: Noisy, jump_video: Tensor | None = None,
    jump_action: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Velocities of a noisy chunk, float32: of the moment, or the mean ones of jumps [B] down from its levels."""
    video, action = model(
        batch.latents, batch.states, batch.past_mask, chunk.video, chunk.action, chunk.sigma_video, chunk.sigma_action,
        chunk.committed, model.text_kv(batch.tokens), jump_video, jump_action,
    )  # fmt: skip
    return video.float(), action.float()
