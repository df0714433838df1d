"""Memory of a training at scale, from the real shapes: parameters are counted and blocks are run on the meta device.

What a GPU holds: its part of the float32 weights, gradients, Adam's two moments and the average; gathered in float32
the block that computes and the one that comes next, and what belongs to no block; with recomputation the input of every
block, and everything that one block saves while it is computed again. Left out: the allocator's waste, NCCL's buffers,
the frozen encoders (text, image, VAE run beforehand) and a second model that teaches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from distill.models.config import CONFIGS, config_named
from distill.models.wam import Levels, WorldActionTransformer
from distill.teacher.config import TEACHERS, teacher_named
from distill.teacher.dit import DreamZero
from distill.teacher.layers import Level
from distill.teacher.rope import Rotation
from edge_wam.errors import ConfigError

FLOAT32, BFLOAT16 = 4, 2
STATE_BYTES = 5 * FLOAT32
"""Of a parameter that is trained: weight, gradient, two moments, average."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model the arithmetic needs. ``saved``: bytes that one block saves for its backward pass, per clip."""

    parameters: int
    largest_block: int
    outside: int
    depth: int
    tokens: int
    width: int
    saved: int


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes in each GPU."""

    state: int
    gathered: int
    activations: int

    @property
    def total(self) -> int:
        return self.state + self.gathered + self.activations


def shape_of(name: str) -> Shape:
    """``teacher-14b``, ``teacher-5b``, or a student's size.

    Raises:
        ConfigError: unknown.
    """
    names = [*(f"teacher-{teacher}" for teacher in TEACHERS), *CONFIGS]
    if name not in names:
        raise ConfigError(f"unknown model {name!r}", expected=", ".join(names))
    with torch.device("meta"):
        if name.startswith("teacher-"):
            return _teacher(name.removeprefix("teacher-"))
        return _student(name)


def need(shape: Shape, gpus: int, clips: int, *, recompute: bool = True) -> Need:
    """For ``gpus`` GPUs with ``clips`` clips each."""
    part = -(-shape.parameters // gpus)
    gathered = 2 * shape.largest_block + shape.outside if gpus > 1 else 0
    inputs = shape.depth * shape.tokens * shape.width * BFLOAT16
    activations = inputs + shape.saved if recompute else shape.depth * shape.saved
    return Need(STATE_BYTES * part, FLOAT32 * gathered, clips * activations)


def _teacher(name: str) -> Shape:
    config = teacher_named(name)
    model = DreamZero(config)
    frames = config.window_frames
    registers = config.blocks * (config.actions_per_block + config.states_per_block)
    tokens = 2 * frames * config.frame_tokens + registers
    rows = 2 * frames + registers  # one noise level for each frame, action and state
    x = torch.empty(1, tokens, config.width, dtype=torch.bfloat16)
    level = Level(
        torch.empty(1, rows, config.width, dtype=torch.bfloat16),
        torch.empty(1, rows, 6, config.width, dtype=torch.bfloat16), torch.zeros(tokens, dtype=torch.int64),
    )  # fmt: skip
    rotation = Rotation(torch.zeros(tokens, config.head_width // 2), torch.bfloat16)
    context = torch.empty(1, 257 + config.text_length, config.width, dtype=torch.bfloat16)
    block = model.blocks[0].bfloat16()
    return _measured(model, block, tokens, config.width, lambda y: block(y, level, rotation, _fused, context), x)


def _student(name: str) -> Shape:
    config = config_named(name)
    model = WorldActionTransformer(config)
    clean = (config.past_frames + 1) * model.block_tokens
    tokens, d = clean + model.chunk_tokens, config.width
    future = len(config.future_knots) * config.future_tokens

    def half(*shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.bfloat16)

    levels = Levels(half(1, 1, 6, d), half(1, 1, 6, d), half(1, config.horizon, 6, d), (clean, future, config.horizon))
    rope = (half(tokens, 1, config.head_dim // 2), half(tokens, 1, config.head_dim // 2))
    bias, cross = half(1, 1, tokens, tokens), half(1, 2, config.text_length, d)
    block = model.blocks[0].bfloat16()
    x = half(1, tokens, d)
    return _measured(model, block, tokens, d, lambda y: block(y, levels, rope, None, bias, cross)[0], x)


def _fused(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention as the fused kernels do it: q, k, v and the output are kept, the square of scores never is."""
    return q * k * v


def _measured(
    model: nn.Module, block: nn.Module, tokens: int, width: int, call: Callable[[Tensor], Tensor], x: Tensor
) -> Shape:
    count = sum(p.numel() for p in model.parameters())
    blocks = [sum(p.numel() for p in b.parameters()) for b in model.blocks]  # type: ignore[union-attr,operator]
    own = {p.untyped_storage()._cdata for p in block.parameters()}
    saved: dict[int, int] = {}  # by storage: what several operations save is there once
    kept: list[Tensor] = []  # so that no storage is given away while it is counted

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            saved[storage._cdata] = storage.nbytes()
            kept.append(tensor)
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        call(x.requires_grad_())
    return Shape(count, max(blocks), count - sum(blocks), len(blocks), tokens, width, sum(saved.values()))
