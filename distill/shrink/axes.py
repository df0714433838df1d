"""What each axis of each parameter of a WorldActionTransformer counts: the one table that slicing goes by."""

from __future__ import annotations

import re
from enum import Enum

from edge_wam.errors import ConfigError


class Axis(Enum):
    """FIXED axes belong to the layout of tokens and must be equal; the others may be cut.

    RESIDUAL: channels of the residual stream, the same in all blocks. MODULATION: six of them, one after the other.
    INNER, CROSS: channels of a block's heads of self- and cross-attention. FFN: hidden channels of a block.
    TEXT: channels of the instruction. FREQUENCY: cosines and sines of a noise level.
    TIME, JUMP, ACTION: hidden channels of the small networks for noise level, jump and action.
    """

    FIXED = "fixed"
    RESIDUAL = "residual"
    MODULATION = "modulation"
    INNER = "inner"
    CROSS = "cross"
    FFN = "ffn"
    TEXT = "text"
    FREQUENCY = "frequency"
    TIME = "time"
    JUMP = "jump"
    ACTION = "action"


F, R, M, I, X, H = Axis.FIXED, Axis.RESIDUAL, Axis.MODULATION, Axis.INNER, Axis.CROSS, Axis.FFN  # noqa: E741
T, W, E, J, A = Axis.TEXT, Axis.FREQUENCY, Axis.TIME, Axis.JUMP, Axis.ACTION

_BLOCK: dict[str, tuple[Axis, ...]] = {
    "q.weight": (I, R), "k.weight": (I, R), "v.weight": (I, R), "o.weight": (R, I),
    "q.bias": (I,), "k.bias": (I,), "v.bias": (I,), "o.bias": (R,), "norm_q.weight": (I,), "norm_k.weight": (I,),
    "cross_q.weight": (X, R), "cross_k.weight": (X, T), "cross_v.weight": (X, T), "cross_o.weight": (R, X),
    "cross_q.bias": (X,), "cross_k.bias": (X,), "cross_v.bias": (X,), "cross_o.bias": (R,),
    "cross_norm_q.weight": (X,), "cross_norm_k.weight": (X,), "norm3.weight": (R,), "norm3.bias": (R,),
    "ffn_in.weight": (H, R), "ffn_in.bias": (H,), "ffn_out.weight": (R, H), "ffn_out.bias": (R,), "modulation": (F, R),
}  # fmt: skip
_WHOLE: dict[str, tuple[Axis, ...]] = {
    "patch_embed.weight": (R, F), "patch_embed.bias": (R,), "future_embed.weight": (R, F), "future_embed.bias": (R,),
    "state_encoder.weight": (R, F), "state_encoder.bias": (R,), "action_encoder.weight": (R, F),
    "action_encoder.bias": (R,), "frame_position": (F, R), "future_position": (F, F, R), "action_position": (F, R),
    "text.embedding.weight": (F, T), "text.position": (F, T), "text.norm.weight": (T,), "text.norm.bias": (T,),
    "text.mix.weight": (T, T), "text.mix.bias": (T,),
    "time_embed.0.weight": (E, W), "time_embed.0.bias": (E,), "time_embed.2.weight": (R, E), "time_embed.2.bias": (R,),
    "time_jump.0.weight": (J, W), "time_jump.0.bias": (J,), "time_jump.2.weight": (R, J), "time_jump.2.bias": (R,),
    "time_project.weight": (M, R), "time_project.bias": (M,), "head_modulation": (F, R),
    "video_head.weight": (F, R), "video_head.bias": (F,), "action_head.0.weight": (A, R), "action_head.0.bias": (A,),
    "action_head.2.weight": (F, A), "action_head.2.bias": (F,),
}  # fmt: skip


def block_of(name: str) -> tuple[int | None, str]:
    """(number of the block, name within it) of a parameter; (None, name) outside the blocks."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    return (int(found[1]), found[2]) if found else (None, name)


def axes_of(name: str) -> tuple[Axis, ...]:
    """Axes of a parameter.

    Raises:
        ConfigError: a parameter that the table does not know: it could not be cut, and would be lost in silence.
    """
    block, rest = block_of(name)
    table = _WHOLE if block is None else _BLOCK
    rest = re.sub(r"^text\.mix\.\d+\.", "text.mix.", rest)
    if rest not in table:
        raise ConfigError(f"parameter {name!r} has no axes", expected="a row in distill/shrink/axes.py")
    return table[rest]
