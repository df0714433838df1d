"""Quantisation-aware distillation: the float student teaches its INT8 self, on the same noise.

Actions and imagined frames by a Charbonnier penalty, block outputs by their relative square error; samples whose action
INT8 changes most weigh most (saliency weights of quantisation-robust imitation learning, SQIL 2025). No label is
needed: what the float student does is right by definition, and a sample of its own episodes is as good as a
demonstration.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from distill.batch import Batch, Noise, masked_mean
from distill.models.wam import WorldActionTransformer


class AwareWeights(BaseModel):
    """Attributes:
    video, hidden: weights beside the action's 1.
    charbonnier: c of sqrt(e^2 + c^2) - c, in normalised units (the action's range is 2).
    saliency: 1 weighs a sample by 1 + its action error over the mean; 0 weighs all alike.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    video: float = Field(default=0.3, ge=0)
    hidden: float = Field(default=0.1, ge=0)
    charbonnier: float = Field(default=0.01, gt=0)
    saliency: float = Field(default=1.0, ge=0)


@contextmanager
def _outputs(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What the blocks put out while this is open, in the order in which they ran."""
    seen: list[Tensor] = []
    hooks = [block.register_forward_hook(lambda _m, _i, out: seen.append(out[0])) for block in blocks]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


class QuantisationAware:
    """The objective. ``teacher``: the float student, smoothed as the trained one is; it is never changed.

    Args:
        blocks: numbers of the blocks that are quantised; their outputs are compared.
    """

    def __init__(
        self, teacher: WorldActionTransformer, blocks: Sequence[int], weights: AwareWeights | None = None
    ) -> None:
        self._teacher = teacher.eval().requires_grad_(False)
        self._blocks = tuple(blocks)
        self._weights = weights or AwareWeights()

    def loss(self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int) -> dict[str, Tensor]:
        """``total`` and its parts; ``off`` is the mean |difference| of an action, as a fraction of its range."""
        told = self._run(model, batch, noise)
        with torch.no_grad():
            wanted = self._run(self._teacher, batch, noise)
        w, c = self._weights, self._weights.charbonnier

        def penalty(e: Tensor) -> Tensor:
            return (e.square() + c * c).sqrt() - c

        free = (1.0 - noise.committed[..., None]).expand_as(batch.action)
        video, action = told[0] - wanted[0], told[1] - wanted[1]
        error = (action.detach().abs() * free).mean((1, 2))
        sample = 1.0 + w.saliency * error / masked_mean(error, torch.ones_like(error)).clamp_min(1e-9)
        near = masked_mean(penalty(action), free * sample[:, None, None])
        # Where video has no target there is none to be learnt; between two answers of one student there always is.
        frames = masked_mean(penalty(video), sample[:, None, None, None].expand_as(video))
        hidden = near.new_zeros(())
        for mine, theirs in zip(told[2], wanted[2], strict=True):
            spread = theirs.float().var().clamp_min(1e-9)
            hidden = hidden + masked_mean((mine - theirs).float().square() / spread, torch.ones_like(mine))
        hidden = hidden / max(1, len(told[2]))
        return {
            "total": near + w.video * frames + w.hidden * hidden, "action": near.detach(), "video": frames.detach(),
            "hidden": hidden.detach(), "off": masked_mean(action.detach().abs() / 2.0, free),
        }  # fmt: skip

    def _run(
        self, model: WorldActionTransformer, batch: Batch, noise: Noise
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Velocities of video and action, and the outputs of the compared blocks."""
        sa = noise.sigma_action[:, None, None] * (1.0 - noise.committed[..., None])
        sv = noise.sigma_video[:, None, None, None]
        video = (1.0 - sv) * batch.video + sv * noise.video
        action = (1.0 - sa) * batch.action + sa * noise.action
        with _outputs([model.blocks[k] for k in self._blocks]) as seen:
            v_video, v_action = model(
                batch.latents, batch.states, batch.past_mask, video, action, noise.sigma_video, noise.sigma_action,
                noise.committed, model.text_kv(batch.tokens),
            )  # fmt: skip
        return v_video.float(), v_action.float(), seen
