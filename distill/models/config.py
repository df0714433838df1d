"""Sizes. One architecture; the table is the only place where a size is written down."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from edge_wam.contracts import ACTION_WIDTH, STATE_WIDTH
from edge_wam.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class StudentConfig:
    """Shape of a student.

    Attributes:
        depth, width, ffn, heads: transformer blocks, residual width, FFN width, attention heads.
        grid: latent grid (rows, columns) of the whole canvas; ``latent_channels`` numbers in each cell.
        patch: latent cells per side of a token for clean frames; ``future_patch`` the same for imagined frames
            (a coarser grid makes imagined frames cheaper while every latent is still predicted).
        past_frames, past_stride: context frames before the newest, and their distance in knots.
        future_knots: for which knots a frame is imagined.
        horizon: action knots in a chunk.
        text_length: tokens of an instruction. ``text_depth`` transformer blocks read them.
        frequency_width: numbers a noise level is spread over before its first layer; 0: as many as ``width``.
        positions: units of rotary positions. ``cells``: 4 knots, one latent cell. ``wan``: a teacher's, that is one
            latent frame of a chunk, one token, and actions numbered from 0 (state: chunks).
        predicts: what the heads say. ``clean``: what remains of the noisy sample after the velocity. ``velocity``.
        target_time: told how far to jump besides the noise level (few-step students).
    """

    name: str
    depth: int
    width: int
    ffn: int
    heads: int
    grid: tuple[int, int]
    latent_channels: int
    patch: int
    future_patch: int
    past_frames: int
    past_stride: int
    future_knots: tuple[int, ...]
    horizon: int
    text_length: int
    text_depth: int
    state_width: int = STATE_WIDTH
    action_width: int = ACTION_WIDTH
    frequency_width: int = 0
    positions: Literal["cells", "wan"] = "cells"
    predicts: Literal["clean", "velocity"] = "clean"
    target_time: bool = False

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def frequencies(self) -> int:
        """Cosines and sines of a noise level."""
        return self.frequency_width or self.width

    @property
    def tokens(self) -> int:
        """Tokens of a clean frame."""
        return self.grid[0] * self.grid[1] // self.patch**2

    @property
    def token_channels(self) -> int:
        """Latent numbers in a token of a clean frame."""
        return self.latent_channels * self.patch**2

    @property
    def future_tokens(self) -> int:
        return self.grid[0] * self.grid[1] // self.future_patch**2

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def _wan(name: str, depth: int, width: int, ffn: int, heads: int) -> StudentConfig:
    """The datacentre sizes: Wan2.2's 16x latents (48 channels) at 352x640, patch 2, DreamZero's 24 actions.

    Positions, noise levels and heads are a teacher's, so that its weights mean the same in them.
    """
    return StudentConfig(
        name=name, depth=depth, width=width, ffn=ffn, heads=heads, grid=(22, 40), latent_channels=48, patch=2,
        future_patch=2, past_frames=9, past_stride=3, future_knots=(12, 24), horizon=24, text_length=512, text_depth=0,
        frequency_width=256, positions="wan", predicts="velocity",
    )  # fmt: skip


CONFIGS: dict[str, StudentConfig] = {
    "nano": StudentConfig(
        name="nano", depth=5, width=128, ffn=512, heads=4, grid=(8, 16), latent_channels=16, patch=2, future_patch=4,
        past_frames=1, past_stride=4, future_knots=(8, 16), horizon=16, text_length=10, text_depth=1,
    ),
    # The teacher of the nano students, on the same latents and tokens; `nano-wrist`: nano with a third camera.
    "10m": StudentConfig(
        name="10m", depth=8, width=256, ffn=1024, heads=8, grid=(8, 24), latent_channels=16, patch=2, future_patch=4,
        past_frames=1, past_stride=4, future_knots=(8, 16), horizon=16, text_length=10, text_depth=1,
    ),
    "nano-wrist": StudentConfig(
        name="nano-wrist", depth=5, width=128, ffn=512, heads=4, grid=(8, 24), latent_channels=16, patch=2,
        future_patch=4, past_frames=1, past_stride=4, future_knots=(8, 16), horizon=16, text_length=10, text_depth=1,
    ),
    "0.4b": _wan("0.4b", 24, 1024, 4096, 16),
    "1.3b": _wan("1.3b", 30, 1536, 8960, 12),
    "2b": _wan("2b", 28, 2048, 8192, 16),
    "5b": _wan("5b", 30, 3072, 14336, 24),
    "14b": _wan("14b", 40, 5120, 13824, 40),
}


def config_named(name: str) -> StudentConfig:
    """Look a size up; raises ConfigError naming the nearest."""
    if name not in CONFIGS:
        raise ConfigError(f"unknown size {name!r}{nearest(name, CONFIGS)}", expected=", ".join(CONFIGS))
    return CONFIGS[name]
