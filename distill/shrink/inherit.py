"""A student with a teacher's weights, and a report in which every tensor of both has a line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from distill.shrink.axes import Axis, axes_of, block_of
from distill.shrink.importance import Importance
from distill.shrink.selection import Selection, Size, select
from distill.shrink.sources import Source, WanSource, column_scores, cut, hidden_scores, size_of
from edge_wam.errors import ConfigError

_NORMS = {
    "norm_q.weight": ("q", Axis.INNER), "norm_k.weight": ("k", Axis.INNER),
    "cross_norm_q.weight": ("cross_q", Axis.CROSS), "cross_norm_k.weight": ("cross_k", Axis.CROSS),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """What became of every tensor.

    Attributes:
        inherited: the teacher's name by the student's. fresh: why the student's tensor begins at random or at zero.
        unused: why the teacher's tensor is left behind; ``partly``: what of it.
        blocks: the teacher's blocks that stay. residual: its residual channels that stay.
    """

    teacher: str
    student: str
    blocks: tuple[int, ...]
    residual: tuple[int, ...]
    inherited: dict[str, str]
    fresh: dict[str, str]
    unused: dict[str, str]
    partly: dict[str, str]

    def write(self, path: Path) -> None:
        """As JSON, whole or not at all."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    def summary(self) -> str:
        """One line for a person."""
        return (
            f"{self.student} from {self.teacher}: {len(self.inherited)} tensors inherited, {len(self.fresh)} begin "
            f"anew, {len(self.unused)} of the teacher's stay behind; blocks {', '.join(map(str, self.blocks))}"
        )


def choose(
    source: Source, student: StudentConfig, importance: Importance | None, blocks: Sequence[int] | None = None
) -> Selection:
    """Which blocks, heads and channels of ``source`` the student keeps; see :func:`distill.shrink.selection.select`."""
    every = range(source.size.depth)
    cross = tuple(f"blocks.{b}.{part}" for b in every for part in ("cross_k", "cross_v"))
    pairs = {
        Axis.TIME: ("time_embed.0", "time_embed.2"), Axis.JUMP: ("time_jump.0", "time_jump.2"),
        Axis.ACTION: ("action_head.0", "action_head.2"),
    }  # fmt: skip
    hidden = {
        axis: hidden_scores(source, first, second) for axis, (first, second) in pairs.items()
        if source.origin(f"{first}.weight") is not None
    }  # fmt: skip
    return select(source.size, size_of(student), importance, hidden, column_scores(source, cross), blocks)


def inherit(
    source: Source, student: StudentConfig, importance: Importance | None = None, blocks: Sequence[int] | None = None,
    seed: int = 0,
) -> tuple[WorldActionTransformer, Report]:  # fmt: skip
    """A student of this size with as much of the teacher's weights as fits.

    Args:
        importance: measured on the teacher; needed where a width is cut.
        blocks: the teacher's blocks to keep; else the first and last two and the others spread evenly.
        seed: of the weights that begin at random.

    Raises:
        ConfigError: a student larger than its teacher, a width cut without an importance, weights that are no number.
    """
    selection = choose(source, student, importance, blocks)
    random = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=random)))
        model = WorldActionTransformer(student)
    inherited: dict[str, str] = {}
    fresh: dict[str, str] = {}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            value, reason = _value(source, selection, importance, name, parameter, student)
            if value is None:
                fresh[name] = reason
                if any(name.startswith(prefix) for prefix in source.zeros):
                    parameter.zero_()
                continue
            if not bool(torch.isfinite(value).all()):
                raise ConfigError(f"the teacher's {reason} is not finite", remedy="take a checkpoint that is whole")
            parameter.copy_(value)
            inherited[name] = reason
    taken = set(inherited.values())
    unused = {
        name: _reason(source.unused, name) or _left_block(name, selection.blocks) or "its place in the student differs"
        for name in sorted(source.keys() - taken)
    }  # fmt: skip
    partly = source.partly if isinstance(source, WanSource) else {}
    channels = tuple(selection.residual.tolist())
    return model, Report(
        source.name, student.name, selection.blocks, channels, inherited, fresh, unused, partly
    )  # fmt: skip


def _value(
    source: Source, selection: Selection, importance: Importance | None, name: str, parameter: Tensor,
    student: StudentConfig,
) -> tuple[Tensor | None, str]:  # fmt: skip
    """(the cut tensor, the teacher's name), or (None, why there is none)."""
    block, rest = block_of(name)
    theirs = name if block is None else f"blocks.{selection.blocks[block]}.{rest}"
    reason = _reason(source.fresh, name) or _reason(source.zeros, name)
    origin = None if reason else source.origin(theirs)
    if origin is None:
        return None, reason or "the teacher has none"
    axes = axes_of(name)
    indices = [selection.index(axis, block, source.size.width) for axis in axes]
    value = cut(source.tensor(theirs), indices)
    if value.shape != parameter.shape:
        return None, f"{tuple(value.shape)} in the teacher, {tuple(parameter.shape)} here: another layout of tokens"
    if rest in _NORMS and importance is not None:
        value = value * _scale(source.size, size_of(student), importance, selection, block, *_NORMS[rest])
    return value.to(parameter.dtype), origin


def _scale(
    teacher: Size, student: Size, importance: Importance, selection: Selection, block: int | None, what: str, axis: Axis
) -> float:
    """RMS-norm divides by what is left: keep the queries and keys as long as they were, and the logits as large.

    The mean square over the kept heads differs from that over all; a logit is q.k / sqrt(width of a head), a sum over
    fewer channels if heads are narrower.
    """
    assert block is not None  # norms of queries and keys are in blocks alone
    square: Tensor = getattr(importance, what)[selection.blocks[block]]
    kept = (selection.heads if axis is Axis.INNER else selection.cross_heads)[block]
    ratio = float(square[kept].mean() / square.mean().clamp_min(1e-30))
    narrower = teacher.head_width / student.head_width if what in ("q", "cross_q") else 1.0
    return math.sqrt(max(ratio, 1e-12) * narrower)


def _reason(reasons: Mapping[str, str], name: str) -> str | None:
    return next((why for prefix, why in reasons.items() if name.startswith(prefix)), None)


def _left_block(name: str, kept: tuple[int, ...]) -> str | None:
    block, _ = block_of(name)
    return None if block is None or block in kept else f"block {block} is not kept"
