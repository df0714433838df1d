"""The frame encoder that runs on the robot in place of a teacher's: small convolutions, causal in time, streamed.

The size class of TAEHV (tiny autoencoder for Wan's latents): strided convolutions, residual blocks, and for video VAEs
with four frames to a latent a memory of one frame in every block and two halvings of time. A whole clip and the same
clip frame group by frame group give the same latents: everything a block knows of the past is its memory.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from edge_wam.errors import ContractError

Memory = tuple[Tensor, ...]
"""One tensor [B, 1, c, h, w] for each block that remembers."""


class EncoderShape(BaseModel):
    """Attributes:
    channels: of a latent. spatial: pixels per side of a latent cell.
    frames: that make one latent: 1 (a frame codec) or 4 (Wan's VAEs, whose first frame is a latent of its own).
    width, blocks: of the convolutions; residual blocks at full width.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: int = Field(default=16, ge=1)
    spatial: Literal[8, 16] = 8
    frames: Literal[1, 4] = 1
    width: int = Field(default=32, ge=4)
    blocks: int = Field(default=2, ge=1)


class _Block(nn.Module):
    """Residual block over frames [B, T, c, h, w]; with a memory it sees the frame before, too."""

    def __init__(self, width: int, remembers: bool) -> None:
        super().__init__()
        self.remembers = remembers
        self.a = nn.Conv2d(width * (2 if remembers else 1), width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor | None]:
        seen, kept = x, None
        if self.remembers:
            before = torch.zeros_like(x[:, :1]) if memory is None else memory
            seen, kept = torch.cat([x, torch.cat([before, x[:, :-1]], 1)], 2), x[:, -1:]
        made = self.b(F.relu(self.a(seen.flatten(0, 1)))).unflatten(0, x.shape[:2])
        return F.relu(x + made), kept


class FrameEncoder(nn.Module):
    """Frames in [-1, 1] to latents as a teacher normalises them."""

    def __init__(self, shape: EncoderShape) -> None:
        super().__init__()
        self.shape = shape
        halvings = {8: 3, 16: 4}[shape.spatial]
        widths = [3, *(max(8, shape.width >> (halvings - k)) for k in range(1, halvings)), shape.width]
        self.down = nn.ModuleList(
            nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths)
        )
        remembers = shape.frames > 1
        count = shape.blocks if not remembers else max(2, shape.blocks)
        self.blocks = nn.ModuleList(_Block(shape.width, remembers) for _ in range(count))
        self.halve = nn.ModuleList(
            nn.Conv2d(2 * shape.width, shape.width, 1) for _ in range(shape.frames.bit_length() - 1)
        )
        self.out = nn.Conv2d(shape.width, shape.channels, 1)

    def forward(self, frames: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        """A stretch [B, T, 3, H, W] after what ``memory`` stands for -> latents [B, T / frames, C, h, w], new memory.

        Raises:
            ContractError: T is no multiple of the frames of a latent, or the size none of a cell's.
        """
        s = self.shape
        if frames.shape[1] % s.frames or frames.shape[-1] % s.spatial or frames.shape[-2] % s.spatial:
            raise ContractError(
                f"frames {tuple(frames.shape)}", expected=f"multiples of {s.frames} frames and {s.spatial} pixels"
            )
        x = frames.flatten(0, 1)
        for layer in self.down:
            x = F.relu(layer(x))
        x = x.unflatten(0, frames.shape[:2])
        kept: list[Tensor] = []
        halvings = list(self.halve)
        for number, block in enumerate(self.blocks):
            x, now = block(x, None if memory is None or not block.remembers else memory[number])
            if now is not None:
                kept.append(now)
            if halvings:
                pairs = x.unflatten(1, (-1, 2)).flatten(2, 3)
                x = F.relu(halvings.pop(0)(pairs.flatten(0, 1))).unflatten(0, pairs.shape[:2])
        return self.out(x.flatten(0, 1)).unflatten(0, x.shape[:2]), tuple(kept)

    def clip(self, frames: Tensor) -> Tensor:
        """A clip from its beginning [B, 1 + 4 n, 3, H, W] (any T for a frame codec) -> latents [B, n + 1, C, h, w].

        The first frame stands for a whole group: Wan's VAEs give it a latent of its own.
        """
        lead = frames[:, :1].expand(-1, self.shape.frames - 1, -1, -1, -1)
        latents: Tensor = self(torch.cat([lead, frames], 1))[0]
        return latents
