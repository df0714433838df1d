"""Hidden states as targets: masked features and their differences from frame to frame and knot to knot.

The teacher's states are projected onto their first principal components, which are fixed before training. The student
reads the same components out of its own residual channels by a map that is fixed too: it is fitted on the *teacher's*
channels that the student inherited. Nothing is learned beside the student, and the student keeps its teacher's basis.

Masked (TinyFusion, arXiv 2412.01199): components further than two standard deviations from their mean are left out; a
few huge activations would otherwise be all of the loss. Differences (Efficient-WAM, arXiv 2606.10040): motion is what
changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.batch import masked_mean
from edge_wam.errors import ConfigError, ContractError

Hidden = tuple[Tensor, Tensor]
"""Of the future frames [B, F, Nt, d] and of the actions [B, H, d]."""
SIGMAS = 2.0
"""Components further from their mean are left out."""
RIDGE = 1e-4
"""Of the mean variance of a channel, added to all: kept channels may depend on each other."""


@dataclass(frozen=True, slots=True)
class Basis:
    """One depth's fixed numbers.

    Attributes:
        teacher: [d_teacher, k] components. student: [d_student, k], what reads them out of the kept channels.
        offset, student_offset: means before projecting [d_teacher], [d_student]. scale: standard deviations [k].
    """

    teacher: Tensor
    student: Tensor
    offset: Tensor
    student_offset: Tensor
    scale: Tensor


class Moments:
    """Mean and covariance of tokens [N, d], added up in float64."""

    def __init__(self, width: int) -> None:
        self.count = 0
        self.sum = torch.zeros(width, dtype=torch.float64)
        self.square = torch.zeros(width, width, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Tokens [..., d]."""
        rows = x.detach().flatten(0, -2).double().cpu()
        self.count += len(rows)
        self.sum += rows.sum(0)
        self.square += rows.T @ rows

    def basis(self, kept: Sequence[int], components: int) -> Basis:
        """Principal components, and the least-squares map to them from the kept channels.

        Raises:
            ContractError: fewer tokens than components, or numbers that are none.
        """
        if self.count <= components:
            raise ContractError(f"{self.count} tokens for {components} components", expected="more tokens")
        mean = self.sum / self.count
        covariance = self.square / self.count - torch.outer(mean, mean)
        if not bool(torch.isfinite(covariance).all()):
            raise ContractError("hidden states are not finite", remedy="check the teacher's weights and dtype")
        values, vectors = torch.linalg.eigh(covariance)
        chosen = values.argsort(descending=True)[:components]
        projection = vectors[:, chosen]
        scale = values[chosen].clamp_min(1e-12).sqrt()
        index = torch.tensor(list(kept))
        own = covariance[index][:, index]
        own = own + RIDGE * own.diagonal().mean() * torch.eye(len(index), dtype=own.dtype)
        reads = torch.linalg.solve(own, covariance[index] @ projection)
        return Basis(projection.float(), reads.float(), mean.float(), mean[index].float(), scale.float())


class FeatureMatching(nn.Module):
    """Compares hidden states of student and teacher at some depths.

    Args:
        bases: one for each pair of depths.
    """

    def __init__(self, bases: Sequence[Basis]) -> None:
        super().__init__()
        if not bases:
            raise ConfigError("features at no depth", expected="at least one")
        self.depths = len(bases)
        for number, basis in enumerate(bases):
            for name in ("teacher", "student", "offset", "student_offset", "scale"):
                self.register_buffer(f"{name}{number}", getattr(basis, name).contiguous())

    def forward(self, student: Sequence[Hidden], teacher: Sequence[Hidden]) -> tuple[Tensor, Tensor]:
        """(features, motion): mean square errors in units of each component's variance, summed over depths.

        1 is what a constant answer would score.
        """
        if not len(student) == len(teacher) == self.depths:
            raise ContractError(f"{len(student)} and {len(teacher)} depths", expected=str(self.depths))
        features, motion = [], []
        for number, (mine, theirs) in enumerate(zip(student, teacher, strict=True)):
            for x, y in zip(mine, theirs, strict=True):  # future frames, then actions
                told, wanted = self._project(number, x.float(), y.float())
                features.append(masked_mean((told - wanted).square(), (wanted.abs() < SIGMAS).float()))
                moved = told.diff(dim=1) - wanted.diff(dim=1)  # [B, frames or knots - 1, ...]
                if moved.numel():
                    motion.append(masked_mean(moved.square(), torch.ones_like(moved)))
        zero = features[0].new_zeros(())
        return sum(features, zero) / 2.0, sum(motion, zero) / 2.0

    def _project(self, number: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        part = {name: getattr(self, f"{name}{number}") for name in ("teacher", "student", "offset", "scale")}
        told = (x - getattr(self, f"student_offset{number}")) @ part["student"] / part["scale"]
        return told, (y - part["offset"]) @ part["teacher"] / part["scale"]
