"""Rotary positions of DreamZero: three axes for video, one for actions and states.

Pairs are neighbours (0, 1), (2, 3), ...; base 10000. Video shares the pairs of a head out over (frame, row, column);
actions and states use them all. Angles are computed in float64 and applied in the dtype of the keys: the reference
multiplies complex float64, which differs by 4e-7 and costs a GPU without fast float64 most of the block's time.
"""

from __future__ import annotations

import torch
from torch import Tensor

BASE = 10000.0


def _angles(positions: Tensor, width: int) -> Tensor:
    """[N] positions -> [N, width / 2] angles."""
    rates = BASE ** (-torch.arange(0, width, 2, dtype=torch.float64, device=positions.device) / width)
    return positions.to(torch.float64)[:, None] * rates


def video_angles(grid: tuple[int, int, int], first_frame: int, head_width: int, device: torch.device) -> Tensor:
    """Angles [frames * rows * columns, head_width / 2] of a grid of tokens whose first frame has this index."""
    frames, rows, columns = grid
    spatial = 2 * (head_width // 6)
    parts = (
        _angles(torch.arange(first_frame, first_frame + frames, device=device), head_width - 2 * spatial),
        _angles(torch.arange(rows, device=device), spatial),
        _angles(torch.arange(columns, device=device), spatial),
    )
    t, y, x = parts
    return torch.cat(
        [
            t[:, None, None].expand(frames, rows, columns, -1),
            y[None, :, None].expand(frames, rows, columns, -1),
            x[None, None, :].expand(frames, rows, columns, -1),
        ],
        -1,
    ).flatten(0, 2)


def register_angles(first: int, count: int, head_width: int, device: torch.device) -> Tensor:
    """Angles [count, head_width / 2] of actions or states numbered from ``first`` since the start of the window."""
    return _angles(torch.arange(first, first + count, device=device), head_width)


class Rotation:
    """Cosines and sines of a sequence of tokens, kept for all blocks of a pass."""

    def __init__(self, angles: Tensor, dtype: torch.dtype) -> None:
        # At least float32: bfloat16 angles would put neighbouring actions on one position.
        kind = torch.promote_types(dtype, torch.float32)
        self.cos = angles.cos().to(kind)[None, :, None]
        self.sin = angles.sin().to(kind)[None, :, None]

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate [B, N, heads, head_width]; the result has x's dtype."""
        a, b = x.to(self.cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * self.cos - b * self.sin, a * self.sin + b * self.cos], -1).flatten(-2).to(x.dtype)
