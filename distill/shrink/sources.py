"""A teacher's weights by a student's names, at full size, one tensor at a time.

A :class:`WamSource` is a larger WorldActionTransformer and needs no translation. A :class:`WanSource` is DreamZero: its
keys are renamed, its patch convolution becomes a linear layer, and its rotary pairs, which are neighbours (0, 1),
(2, 3), ..., become halves: the rows of q and k are permuted within each head, which alters no product of a query and a
key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from distill.models.codec import tokens_from_grid
from distill.models.config import StudentConfig
from distill.shrink.axes import block_of
from distill.shrink.selection import Size
from distill.teacher.config import TeacherConfig
from edge_wam.errors import ConfigError

NO_TOWER = "the student has none: a robot carries neither umT5 nor CLIP"
NO_JUMP = "the teacher knows no target time; it begins without effect"


class Source(Protocol):
    """Where weights come from.

    Attributes:
        name: of the teacher, for the report.
        size: what can be cut.
        zeros: student parameters that begin at zero, and why.
        fresh: student parameters that are trained from random numbers, and why; a name stands for all that begin so.
        unused: teacher tensors that no student can take, and why; likewise.
    """

    name: str
    size: Size
    zeros: Mapping[str, str]
    fresh: Mapping[str, str]
    unused: Mapping[str, str]

    def keys(self) -> set[str]:
        """All of the teacher's own names."""
        ...

    def origin(self, name: str) -> str | None:
        """The teacher's name of a full-size parameter named as in a student; None where there is none."""
        ...

    def tensor(self, name: str) -> Tensor:
        """That parameter in the student's layout, full size."""
        ...


def check_same(teacher: object, student: object, what: tuple[str, ...], why: str) -> None:
    """Raises ConfigError naming the first attribute in which two configurations differ."""
    for name in what:
        mine, theirs = getattr(student, name), getattr(teacher, name)
        if mine != theirs:
            raise ConfigError(f"the student's {name} is {mine!r}", expected=f"{theirs!r}, the teacher's", remedy=why)


class WamSource:
    """A WorldActionTransformer's weights.

    Raises:
        ConfigError: heads, positions or latents that mean something else in the student.
    """

    zeros: Mapping[str, str] = {}
    unused: Mapping[str, str] = {}

    def __init__(self, state: Mapping[str, Tensor], config: StudentConfig, student: StudentConfig) -> None:
        check_same(
            config, student, ("predicts", "positions", "latent_channels", "patch", "future_patch"),
            "weights mean the same only there: change the student's configuration",
        )  # fmt: skip
        self.name = config.name
        self.size = size_of(config)
        self.fresh: Mapping[str, str] = {} if config.target_time else {"time_jump.": NO_JUMP}
        self._state = state

    def keys(self) -> set[str]:
        return set(self._state)

    def origin(self, name: str) -> str | None:
        return name if name in self._state else None

    def tensor(self, name: str) -> Tensor:
        return self._state[name]


_WAN_BLOCK = {
    "q": "self_attn.q", "k": "self_attn.k", "v": "self_attn.v", "o": "self_attn.o", "norm_q": "self_attn.norm_q",
    "norm_k": "self_attn.norm_k", "cross_q": "cross_attn.q", "cross_k": "cross_attn.k", "cross_v": "cross_attn.v",
    "cross_o": "cross_attn.o", "cross_norm_q": "cross_attn.norm_q", "cross_norm_k": "cross_attn.norm_k",
    "norm3": "norm3", "ffn_in": "ffn.0", "ffn_out": "ffn.2",
}  # fmt: skip
_WAN_WHOLE = {
    "patch_embed": "patch_embedding", "future_embed": "patch_embedding", "time_embed.0": "time_embedding.0",
    "time_embed.2": "time_embedding.2", "time_project": "time_projection.1", "video_head": "head.head",
}  # fmt: skip
_ROTARY = ("q", "k", "norm_q", "norm_k")


class WanSource:
    """DreamZero's weights.

    Raises:
        ConfigError: a student that does not speak Wan's dialect (positions, velocities, patches of 2 x 2 latents).
    """

    zeros: Mapping[str, str] = {
        name: "the teacher knows places by rotation alone"
        for name in ("frame_position", "future_position", "action_position")
    }
    fresh: Mapping[str, str] = {
        "text.": "the student reads words itself; the teacher reads umT5's features",
        "state_encoder.": "a linear layer here, an MLP with one hidden layer there",
        "action_encoder.": "a linear layer here; there it is told the noise level",
        "action_head.": "it reads the modulated stream; the teacher's decoder reads the stream itself",
        "time_jump.": NO_JUMP,
    }
    unused: Mapping[str, str] = {
        "text_embedding.": NO_TOWER, "img_emb.": NO_TOWER, "state_encoder.": "another form, see state_encoder",
        "action_encoder.": "another form, see action_encoder", "action_decoder.": "another form, see action_head",
    }  # fmt: skip

    def __init__(self, state: Mapping[str, Tensor], config: TeacherConfig, student: StudentConfig) -> None:
        wanted = {"positions": "wan", "predicts": "velocity", "patch": 2, "future_patch": 2}
        for key, value in wanted.items():
            if getattr(student, key) != value:
                raise ConfigError(
                    f"a student of DreamZero with {key} {getattr(student, key)!r}", expected=repr(value),
                    remedy="take a datacentre size, or set it in the student's configuration",
                )  # fmt: skip
        self.name = config.name
        self.size = Size(config.depth, config.width, config.heads, config.ffn, config.frequency_width)
        self._state, self._config = state, config
        self.fresh, self.unused = dict(self.fresh), dict(self.unused)
        for block in range(config.depth):
            for part in ("k_img", "v_img", "norm_k_img"):
                self.unused[f"blocks.{block}.cross_attn.{part}."] = NO_TOWER
        if config.latent_channels != student.latent_channels:
            why = f"its latents have {config.latent_channels} channels, the student's {student.latent_channels}"
            self.fresh |= {"patch_embed.": why, "future_embed.": why, "video_head.": why}
            self.unused |= {"patch_embedding.": why, "head.head.": why}

    def keys(self) -> set[str]:
        return set(self._state)

    def origin(self, name: str) -> str | None:
        block, rest = block_of(name)
        if rest == "modulation":
            return f"blocks.{block}.modulation"
        if name == "head_modulation":
            return "head.modulation"
        module, _, kind = rest.rpartition(".")
        table, prefix = (_WAN_WHOLE, "") if block is None else (_WAN_BLOCK, f"blocks.{block}.")
        if module not in table or any(name.startswith(part) for part in self.fresh):
            return None
        return f"{prefix}{table[module]}.{kind}"

    def tensor(self, name: str) -> Tensor:
        origin = self.origin(name)
        assert origin is not None  # asked only for what has one
        value = self._state[origin]
        block, rest = block_of(name)
        if rest in ("modulation", "head_modulation"):
            return value[0]
        if name in ("patch_embed.weight", "future_embed.weight"):
            # [d, channels, 1, 2, 2]: what comes behind the latents is the first frame, which the student is not given.
            return tokens_from_grid(value[:, : self._config.latent_channels, 0], 2)[:, 0]
        if block is not None and rest.split(".")[0] in _ROTARY:
            return value.unflatten(0, (self._config.heads, -1, 2)).transpose(1, 2).flatten(0, 2)
        return value

    @property
    def partly(self) -> dict[str, str]:
        """Tensors of which a part is left behind."""
        first = self._config.input_channels - self._config.latent_channels
        return {"patch_embedding.weight": f"{first} input channels of the first frame"} if first else {}


def size_of(config: StudentConfig) -> Size:
    """What of a student's configuration can be cut."""
    return Size(config.depth, config.width, config.heads, config.ffn, config.frequencies)


def column_scores(source: Source, modules: tuple[str, ...]) -> Tensor:
    """Norm of each input channel of some linear layers, taken together: how much is read of it."""
    total: Tensor | None = None
    for module in modules:
        square = source.tensor(f"{module}.weight").detach().double().square().sum(0)
        total = square if total is None else total + square
    assert total is not None  # there is at least one module
    return total.sqrt()


def hidden_scores(source: Source, first: str, second: str) -> Tensor:
    """Hidden channels of a small network: norm of what makes each times norm of what reads it."""
    made = source.tensor(f"{first}.weight").detach().double().norm(dim=1)
    return made * column_scores(source, (second,)).to(made.device)


def cut(value: Tensor, indices: list[Tensor | None]) -> Tensor:
    """A copy of ``value`` with each axis reduced to its indices: a student never holds a teacher's memory."""
    for axis, index in enumerate(indices):
        if index is not None:
            value = value.index_select(axis, index.to(value.device))
    return value.detach().clone().contiguous()
