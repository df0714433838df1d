"""The small causal frame codec (TAEHV class): canvas [B, 3, H, W] <-> latent tokens [B, N, C].

It reads one frame at a time, so it is causal by construction and a late or dropped frame harms no other; motion is the
transformer's business, which sees several frames through its KV cache. Spatial factor 8, 16 channels: 12:1.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from distill.models.config import StudentConfig

DOWNSAMPLING = 8


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.b = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.b(functional.relu(self.a(x))))


def tokens_from_grid(grid: Tensor, patch: int) -> Tensor:
    """[B, C, h, w] -> [B, (h/p)(w/p), p*p*C]: row-major tokens, each with its cells row-major, channels last."""
    b, c, h, w = grid.shape
    x = grid.reshape(b, c, h // patch, patch, w // patch, patch)
    return x.permute(0, 2, 4, 3, 5, 1).reshape(b, (h // patch) * (w // patch), patch * patch * c)


def grid_from_tokens(tokens: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The inverse of :func:`tokens_from_grid`."""
    b, _, width = tokens.shape
    h, w = grid
    c = width // (patch * patch)
    x = tokens.reshape(b, h // patch, w // patch, patch, patch, c)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, c, h, w)


class FrameCodec(nn.Module):
    """Encoder and decoder. Latents have zero mean and unit variance per channel once ``calibrate`` has been called."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: StudentConfig, width: int = 48) -> None:
        super().__init__()
        self.config = config
        c = config.latent_channels
        self.encoder = nn.Sequential(
            nn.Conv2d(3, 24, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(24, width, 4, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 4, stride=2, padding=1), nn.ReLU(),
            _Residual(width), _Residual(width), nn.Conv2d(width, c, 1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Conv2d(c, width, 3, padding=1), nn.ReLU(), _Residual(width), _Residual(width),
            nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(width, 24, 3, padding=1), nn.ReLU(),
            nn.Conv2d(24, 12, 3, padding=1), nn.PixelShuffle(2),
        )  # fmt: skip
        self.register_buffer("mean", torch.zeros(1, c, 1, 1))
        self.register_buffer("std", torch.ones(1, c, 1, 1))

    @property
    def canvas(self) -> tuple[int, int]:
        """Height and width of a canvas."""
        rows, columns = self.config.grid
        return rows * DOWNSAMPLING, columns * DOWNSAMPLING

    def grid(self, canvas: Tensor) -> Tensor:
        """Canvas in [-1, 1] -> normalised latent grid [B, c, h, w]."""
        latent: Tensor = (self.encoder(canvas) - self.mean) / self.std
        return latent

    def encode(self, canvas: Tensor) -> Tensor:
        """Canvas -> tokens [B, N, C]."""
        return tokens_from_grid(self.grid(canvas), self.config.patch)

    def decode(self, tokens: Tensor) -> Tensor:
        """Tokens -> canvas, clamped to [-1, 1]."""
        grid = grid_from_tokens(tokens, self.config.grid, self.config.patch)
        image: Tensor = self.decoder(grid * self.std + self.mean)
        return image.clamp(-1.0, 1.0)

    def reconstruct(self, canvas: Tensor) -> tuple[Tensor, Tensor]:
        """(reconstruction without clamp, latent grid) for training."""
        grid = self.grid(canvas)
        return self.decoder(grid * self.std + self.mean), grid

    @torch.no_grad()
    def calibrate(self, canvases: Tensor) -> None:
        """Set mean and std so that latents of ``canvases`` are standard."""
        raw = self.encoder(canvases)
        self.mean.copy_(raw.mean((0, 2, 3), keepdim=True))
        self.std.copy_(raw.std((0, 2, 3), keepdim=True).clamp_min(1e-3))
