"""Which blocks, heads and channels of a teacher a student keeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.shrink.axes import Axis
from distill.shrink.importance import Importance
from edge_wam.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Size:
    """What can be cut: blocks, residual width, heads, hidden width of the feed-forward layer, noise frequencies."""

    depth: int
    width: int
    heads: int
    ffn: int
    frequencies: int

    @property
    def head_width(self) -> int:
        return self.width // self.heads


@dataclass(frozen=True, slots=True)
class Selection:
    """Indices into the teacher's axes.

    Attributes:
        blocks: the teacher's blocks, in order. ``inner``, ``cross``, ``ffn``: by kept block.
        residual, text, frequency, time, jump, action: see :class:`Axis`.
        heads, cross_heads: kept heads by kept block, in the teacher's order.
    """

    blocks: tuple[int, ...]
    residual: Tensor
    text: Tensor
    frequency: Tensor
    hidden: dict[Axis, Tensor]
    heads: tuple[Tensor, ...]
    cross_heads: tuple[Tensor, ...]
    inner: tuple[Tensor, ...]
    cross: tuple[Tensor, ...]
    ffn: tuple[Tensor, ...]

    def index(self, axis: Axis, block: int | None, teacher_width: int) -> Tensor | None:
        """Indices of an axis; None where all of it stays. ``block``: number of the student's block."""
        if axis is Axis.FIXED:
            return None
        if axis is Axis.MODULATION:
            return torch.cat([k * teacher_width + self.residual for k in range(6)])
        everywhere = {Axis.RESIDUAL: self.residual, Axis.TEXT: self.text, Axis.FREQUENCY: self.frequency, **self.hidden}
        if axis in everywhere:
            return everywhere[axis]
        assert block is not None  # the table gives these axes to blocks alone
        return {Axis.INNER: self.inner, Axis.CROSS: self.cross, Axis.FFN: self.ffn}[axis][block]


def kept_blocks(teacher: int, student: int, given: Sequence[int] | None = None) -> tuple[int, ...]:
    """The first two and the last two, the others spread evenly between them; or those given.

    Raises:
        ConfigError: more than there are, or a list that is not increasing, of another length or outside the teacher.
    """
    if not 1 <= student <= teacher:
        raise ConfigError(f"{student} blocks out of {teacher}", expected=f"1 to {teacher}")
    if given is not None:
        blocks = tuple(given)
        if len(blocks) != student or list(blocks) != sorted(set(blocks)) or not 0 <= blocks[0] <= blocks[-1] < teacher:
            raise ConfigError(
                f"blocks {list(blocks)}", expected=f"{student} different numbers below {teacher}, increasing"
            )
        return blocks
    if student == 1:
        return (0,)
    if student < 4:
        return tuple(round(k * (teacher - 1) / (student - 1)) for k in range(student))
    between = [1 + k * (teacher - 3) / (student - 3) for k in range(student - 2)]
    return (0, *(int(x + 0.5) for x in between), teacher - 1)


def largest(scores: Tensor, count: int) -> Tensor:
    """Indices of the ``count`` largest, in their own order; the first of equals."""
    order = torch.sort(scores, descending=True, stable=True).indices[:count]
    return order.sort().values


def kept_pairs(teacher: int, student: int) -> Tensor:
    """Channels of a head [student] whose rotary frequencies are those of the student's channels, or nearest to them.

    A head is [first of each pair | second of each pair]; pairs are shared out over (time, row, column) as in
    :func:`distill.models.layers.rotary_angles`, and pair k of n on its axis turns with 10000^(-k / n).
    """
    mine, theirs = student // 2, teacher // 2
    pairs = []
    begin = 0
    for axis in range(3):
        count, wide = ((n // 3 if axis else n - 2 * (n // 3)) for n in (mine, theirs))
        pairs += [begin + min(wide - 1, int(k * wide / count + 0.5)) for k in range(count)]
        begin += wide
    first = torch.tensor(pairs, dtype=torch.int64)
    return torch.cat([first, theirs + first])


def kept_frequencies(teacher: int, student: int) -> Tensor:
    """The same for the cosines and sines of a noise level: [cosines | sines]."""
    mine, theirs = student // 2, teacher // 2
    first = torch.tensor([min(theirs - 1, int(k * theirs / mine + 0.5)) for k in range(mine)], dtype=torch.int64)
    return torch.cat([first, theirs + first])


def channels_of(heads: Tensor, teacher_head: int, student_head: int) -> Tensor:
    """Channels of the kept heads."""
    within = kept_pairs(teacher_head, student_head)
    return (heads[:, None] * teacher_head + within).flatten()


def check_smaller(teacher: Size, student: Size) -> None:
    """Raises ConfigError naming the first measure in which the student is larger."""
    for what in ("depth", "width", "heads", "head_width", "ffn", "frequencies"):
        mine, theirs = getattr(student, what), getattr(teacher, what)
        if mine > theirs:
            raise ConfigError(
                f"{what} {mine} out of a teacher's {theirs}", expected=f"at most {theirs}",
                remedy="choose a smaller student, or train it without inheriting",
            )  # fmt: skip


def select(
    teacher: Size, student: Size, importance: Importance | None, hidden: dict[Axis, Tensor], text: Tensor,
    blocks: Sequence[int] | None = None,
) -> Selection:  # fmt: skip
    """Choose by importance.

    Args:
        importance: may be missing where no width is cut.
        hidden: scores of the hidden channels of the small networks; text: of the instruction's channels.
        blocks: the teacher's blocks to keep; else :func:`kept_blocks`.

    Raises:
        ConfigError: a student that is larger in any measure, or a width to cut without an importance.
    """
    check_smaller(teacher, student)
    kept = kept_blocks(teacher.depth, student.depth, blocks)
    cut = [what for what in ("width", "heads", "ffn") if getattr(student, what) != getattr(teacher, what)]
    if importance is None and cut:
        raise ConfigError(f"{cut[0]} is cut blindly", expected="an importance measured on data")
    if importance is None:
        ones = torch.ones(teacher.depth, teacher.heads)
        ffn = torch.ones(teacher.depth, teacher.ffn)
        importance = Importance(torch.ones(teacher.width), ones, ones, ffn, ones, ones, ones, ones)
    heads = tuple(largest(importance.heads[b], student.heads) for b in kept)
    cross_heads = tuple(largest(importance.cross_heads[b], student.heads) for b in kept)

    def channels(chosen: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(channels_of(h, teacher.head_width, student.head_width) for h in chosen)

    return Selection(
        blocks=kept, residual=largest(importance.residual, student.width), text=largest(text, student.width),
        frequency=kept_frequencies(teacher.frequencies, student.frequencies),
        hidden={axis: largest(scores, student.width) for axis, scores in hidden.items()},
        heads=heads, cross_heads=cross_heads, inner=channels(heads), cross=channels(cross_heads),
        ffn=tuple(largest(importance.ffn[b], student.ffn) for b in kept),
    )  # fmt: skip
