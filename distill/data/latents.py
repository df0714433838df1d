"""Latents of every frame, computed once and kept on disk: what stands for the video in training.

A frame of nano takes 4 kB and one of the datacentre's sizes 84 kB; 100,000 of the latter are 8 GB, which a training
process maps instead of loading.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from distill.data.frames import Frames
from distill.data.targets import Column, Spec, TensorSpec, build_targets
from distill.data.windows import encode_frames
from distill.models.codec import FrameCodec


def cached_latents(
    folder: Path, frames: Frames, codec: FrameCodec, *, codec_hash: str, data_hash: str, rebuild: bool = False,
    rows_per_shard: int = 4096, report: Callable[[int, int], None] = lambda done, total: None,
) -> Column:  # fmt: skip
    """Latent tokens float16 [N, Nv, C] of ``frames``; what an earlier run computed is used.

    Args:
        codec_hash, data_hash: SHA-256 of the encoder's weights, and of what the frames are made from.
        rebuild: latents of another encoder or other data are replaced instead of refused.
        report: called with the frames done and their number.

    Raises:
        ConfigError: the folder holds something else, or a frame cannot be decoded.
    """
    shape = encode_frames(codec, frames.canvas[:1]).shape[1:]
    spec = Spec(
        kind="latents", teacher=codec_hash, data=data_hash, samples=len(frames), rows_per_shard=rows_per_shard,
        tensors={"latents": TensorSpec(dtype="float16", shape=tuple(shape))},
    )  # fmt: skip

    def encode(rows: range) -> dict[str, torch.Tensor]:
        # In runs of 256 frames: a shard's pictures need not fit into memory.
        parts = [
            encode_frames(codec, frames.canvas[k : min(k + 256, rows.stop)]) for k in range(rows.start, rows.stop, 256)
        ]
        return {"latents": torch.cat(parts)}

    return build_targets(folder, spec, encode, rebuild=rebuild, report=report)["latents"]
