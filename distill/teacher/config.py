"""Shapes of the public teachers, by name or from a checkpoint's ``config.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_wam.contracts import ACTION_WIDTH, STATE_WIDTH
from edge_wam.errors import ConfigError, nearest

CLIP_TOKENS = 257
"""ViT-H/14 at 224 x 224: 16 x 16 patches and the class token."""
CLIP_WIDTH = 1280
MASK_CHANNELS = 4
"""Channels of the first-frame mask: one per raw frame of a latent frame (the VAE takes 4 to 1)."""


@dataclass(frozen=True, slots=True)
class TeacherConfig:
    """Shape of a DreamZero transformer.

    Attributes:
        width, depth, heads, ffn: residual width, blocks, attention heads, hidden width of the feed-forward layer.
        latent_channels: channels of the VAE, which are the channels that are predicted.
        first_frame_latent: the first frame's latent and its mask are concatenated to the input (Wan2.1 I2V); otherwise
            the first frame is known through CLIP alone (Wan2.2 TI2V).
        latent_grid: rows and columns of a latent frame; a token is a patch of 2 x 2 of them.
        frames_per_block: latent frames of a chunk. Frame 0 stands before the first chunk.
        blocks: chunks in a window.
        actions_per_block, states_per_block: action and state tokens of a chunk.
        hidden: hidden width of the state encoder and the action decoder.
    """

    name: str
    width: int
    depth: int
    heads: int
    ffn: int
    latent_channels: int
    first_frame_latent: bool
    latent_grid: tuple[int, int]
    frames_per_block: int = 2
    blocks: int = 4
    actions_per_block: int = 24
    states_per_block: int = 1
    hidden: int = 1024
    text_length: int = 512
    text_width: int = 4096
    clip_width: int = CLIP_WIDTH
    frequency_width: int = 256
    action_width: int = ACTION_WIDTH
    state_width: int = STATE_WIDTH
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ConfigError(
                f"teacher {self.name!r}: width {self.width} over {self.heads} heads",
                expected="an even number of channels in every head",
            )
        if self.latent_grid[0] % 2 or self.latent_grid[1] % 2:
            raise ConfigError(
                f"teacher {self.name!r}: latent grid {self.latent_grid}",
                expected="even rows and columns: a token is 2 x 2 latents",
                remedy="choose a frame size that the VAE's stride and the patch divide",
            )
        if self.actions_per_block % self.states_per_block:
            raise ConfigError(
                f"teacher {self.name!r}: {self.actions_per_block} actions, {self.states_per_block} states in a block",
                expected="as many actions for each state",
            )

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def frame_tokens(self) -> int:
        """Tokens of a latent frame."""
        return self.latent_grid[0] * self.latent_grid[1] // 4

    @property
    def input_channels(self) -> int:
        return self.latent_channels * 2 + MASK_CHANNELS if self.first_frame_latent else self.latent_channels

    @property
    def window_frames(self) -> int:
        """Latent frames of a window: what a training clip holds, and what the key/value cache holds."""
        return self.blocks * self.frames_per_block + 1


TEACHERS = {
    # Wan2.1-I2V-14B at 352 x 640 with the 8 x 8 x 4 VAE: 44 x 80 latents, 880 tokens a frame.
    "14b": TeacherConfig(
        name="14b", width=5120, depth=40, heads=40, ffn=13824, latent_channels=16, first_frame_latent=True,
        latent_grid=(44, 80),
    ),
    # Wan2.2-TI2V-5B at 160 x 320 with the 16 x 16 x 4 VAE: 10 x 20 latents, 50 tokens a frame.
    "5b": TeacherConfig(
        name="5b", width=3072, depth=30, heads=24, ffn=14336, latent_channels=48, first_frame_latent=False,
        latent_grid=(10, 20),
    ),
}  # fmt: skip


def teacher_named(name: str) -> TeacherConfig:
    """Look a teacher up; raises ConfigError naming the nearest."""
    if name not in TEACHERS:
        raise ConfigError(f"unknown teacher {name!r}{nearest(name, TEACHERS)}", expected=", ".join(TEACHERS))
    return TEACHERS[name]


def config_from_checkpoint(path: Path) -> TeacherConfig:
    """Shape written down in a published checkpoint's ``config.json`` (a file, or the folder that holds it).

    Raises:
        ConfigError: no such file, not a DreamZero, or a shape that this code does not know.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}", expected="a DreamZero checkpoint folder", remedy="download it again"
        ) from error
    head = _member(document, "action_head_cfg", path)
    head = head.get("config", head)
    dit = _member(head, "diffusion_model_cfg", path)
    if dit.get("model_type") not in ("i2v", "ti2v"):
        raise ConfigError(f"{path}: model_type {dit.get('model_type')!r}", expected="'i2v' or 'ti2v'")
    blocks = _number(dit, "max_chunk_size", path)
    if blocks < 1:
        raise ConfigError(
            f"{path}: max_chunk_size {blocks}", expected="at least 1: the reference masks otherwise without a window"
        )
    first_frame_latent = bool(dit.get("concat_first_frame_latent", True))
    channels = _number(dit, "out_dim", path)
    tokens = _number(dit, "frame_seqlen", path)
    config = TeacherConfig(
        name=str(document.get("model_type", "checkpoint")),
        width=_number(dit, "dim", path),
        depth=_number(dit, "num_layers", path),
        heads=_number(dit, "num_heads", path),
        ffn=_number(dit, "ffn_dim", path),
        latent_channels=channels,
        first_frame_latent=first_frame_latent,
        latent_grid=_grid(tokens, path),
        frames_per_block=_number(dit, "num_frame_per_block", path),
        blocks=blocks,
        actions_per_block=_number(dit, "num_action_per_block", path),
        states_per_block=_number(dit, "num_state_per_block", path),
        hidden=_number(dit, "hidden_size", path, 1024),
        text_length=_number(dit, "text_len", path, 512),
        text_width=_number(dit, "text_dim", path, 4096),
        frequency_width=_number(dit, "freq_dim", path, 256),
        action_width=_number(head, "action_dim", path, ACTION_WIDTH),
        state_width=_number(dit, "max_state_dim", path, STATE_WIDTH),
    )
    if _number(dit, "in_dim", path) != config.input_channels:
        raise ConfigError(
            f"{path}: in_dim {dit['in_dim']}", expected=f"{config.input_channels} for {channels} latent channels"
        )
    return config


def _member(document: Any, key: str, path: Path) -> dict[str, Any]:
    value = document.get(key) if isinstance(document, dict) else None
    if not isinstance(value, dict):
        raise ConfigError(f"{path} lacks {key!r}", expected="the config.json of a DreamZero checkpoint")
    return value


def _number(document: dict[str, Any], key: str, path: Path, default: int | None = None) -> int:
    value = document.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"{path}: {key} is {value!r}", expected="a whole number")
    return value


GRIDS = {880: (44, 80), 220: (22, 40), 50: (10, 20)}
"""Latent grids of the published set-ups, by tokens a frame: 352 x 640 at strides 8 and 16, 160 x 320 at 16. The tensors
of a call have the last word: the model takes the grid from them."""


def _grid(tokens: int, path: Path) -> tuple[int, int]:
    if tokens in GRIDS:
        return GRIDS[tokens]
    for rows in range(int(tokens**0.5), 0, -1):  # the most square of what is left
        if tokens % rows == 0:
            return (2 * rows, 2 * tokens // rows)
    raise ConfigError(f"{path}: frame_seqlen {tokens}", expected="a positive number of tokens")
