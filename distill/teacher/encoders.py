"""The teacher's frozen encoders: umT5 for text, CLIP ViT-H/14 for the first image, Wan's VAE for video.

The classes are those of ``transformers`` and ``diffusers``; here is the map from the published keys to theirs, and what
the reference does before and after: rows of padding become zero, CLIP's last block is left out, latents are scaled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from distill.teacher.checkpoint import REMEDY, Checkpoint
from edge_wam.errors import ConfigError, ContractError

TEXT, IMAGE, VIDEO = "action_head.text_encoder.", "action_head.image_encoder.model.", "action_head.vae.model."
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
CLIP_SIDE = 224
CLIP_BLOCKS = 31
"""Of ViT-H's 32: the teacher was trained on what enters the last one."""
WAN22_VAE: dict[str, Any] = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "is_residual": True, "in_channels": 12, "out_channels": 12,
    "patch_size": 2, "scale_factor_spatial": 16,
    "latents_mean": [
        -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891, 0.1570,
        -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502, -0.2055, -0.0322,
        0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520,
        0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667,
    ],
    "latents_std": [
        0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901, 0.6885, 0.6165,
        0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659, 0.7069, 0.5338, 0.4889, 0.4917,
        0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944, 0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600,
        0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
    ],
}  # fmt: skip
"""AutoencoderKLWan as Wan2.2 TI2V-5B has it: 48 channels, stride 16."""

Pieces = dict[str, Tensor]
"""Tensors by the name they have in our class: one published tensor may be several of them."""

_TEXT_BLOCK = {
    "norm1.weight": "layer.0.layer_norm.weight",
    "attn.q.weight": "layer.0.SelfAttention.q.weight",
    "attn.k.weight": "layer.0.SelfAttention.k.weight",
    "attn.v.weight": "layer.0.SelfAttention.v.weight",
    "attn.o.weight": "layer.0.SelfAttention.o.weight",
    "pos_embedding.embedding.weight": "layer.0.SelfAttention.relative_attention_bias.weight",
    "norm2.weight": "layer.1.layer_norm.weight",
    "ffn.gate.0.weight": "layer.1.DenseReluDense.wi_0.weight",
    "ffn.fc1.weight": "layer.1.DenseReluDense.wi_1.weight",
    "ffn.fc2.weight": "layer.1.DenseReluDense.wo.weight",
}
_IMAGE_BLOCK = {"norm1": "layer_norm1", "attn.proj": "self_attn.out_proj", "norm2": "layer_norm2", "mlp.0": "mlp.fc1",
                "mlp.2": "mlp.fc2"}  # fmt: skip
_IMAGE_UNUSED = re.compile(r"(textual\..*|log_scale|visual\.head)")
"""CLIP's text tower and projection: carried along by the checkpoints and never computed."""
_IMAGE_BLOCK_KEY = re.compile(r"visual\.transformer\.(\d+)\.(.+)\.(weight|bias)")


_RESIDUAL_STAGE = re.compile(r"(encoder|decoder)\.(down|up)samples\.(\d+)\.(?:down|up)samples\.(\d+)\.(.+)")
_RESIDUAL_PARTS = {"residual.0.": "norm1.", "residual.2.": "conv1.", "residual.3.": "norm2.", "residual.6.": "conv2.",
                   "shortcut.": "conv_shortcut."}  # fmt: skip


def text_pieces(key: str, value: Tensor) -> Pieces | None:
    """A published tensor of umT5 by the names of ``transformers.UMT5EncoderModel``; None if there is no such."""
    if key == "token_embedding.weight":
        return {"shared.weight": value}
    if key == "norm.weight":
        return {"encoder.final_layer_norm.weight": value}
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", key)
    if match is None or match[2] not in _TEXT_BLOCK:
        return None
    return {f"encoder.block.{match[1]}.{_TEXT_BLOCK[match[2]]}": value}


def image_pieces(key: str, value: Tensor, blocks: int) -> Pieces | None:
    """A published tensor of CLIP by the names of ``transformers.CLIPVisionModel``; {} for what is never computed: all
    behind its first ``blocks`` blocks."""
    match = _IMAGE_BLOCK_KEY.fullmatch(key)
    if _IMAGE_UNUSED.fullmatch(key) or (match is not None and int(match[1]) >= blocks):
        return {}
    fixed = {
        "visual.cls_embedding": ("embeddings.class_embedding", (-1,)),
        "visual.patch_embedding.weight": ("embeddings.patch_embedding.weight", None),
        "visual.pos_embedding": ("embeddings.position_embedding.weight", value.shape[-2:]),
        "visual.pre_norm.weight": ("pre_layrnorm.weight", None),
        "visual.pre_norm.bias": ("pre_layrnorm.bias", None),
        "visual.post_norm.weight": ("post_layernorm.weight", None),
        "visual.post_norm.bias": ("post_layernorm.bias", None),
    }
    if key in fixed:
        name, shape = fixed[key]
        return {name: value if shape is None else value.reshape(shape)}
    if match is None:
        return None
    block, part, kind = match.groups()
    if part == "attn.to_qkv":
        return {
            f"encoder.layers.{block}.self_attn.{letter}_proj.{kind}": piece
            for letter, piece in zip("qkv", value.chunk(3), strict=True)
        }
    if part not in _IMAGE_BLOCK:
        return None
    return {f"encoder.layers.{block}.{_IMAGE_BLOCK[part]}.{kind}": value}


def video_pieces(tensors: Pieces) -> Pieces:
    """Published tensors of Wan's VAE by the names of ``diffusers.AutoencoderKLWan``.

    Wan2.2's residual stages are mapped here; everything else by diffusers' own converter, which knows Wan2.1 alone.
    """
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    residual: Pieces = {}
    for key in [*tensors]:
        if match := _RESIDUAL_STAGE.fullmatch(key):
            side, way, stage, number, part = match.groups()
            for published, ours in _RESIDUAL_PARTS.items():
                if part.startswith(published):
                    named = f"resnets.{number}.{ours}{part.removeprefix(published)}"
                    break
            else:
                named = f"{way}sampler.{part}"
            residual[f"{side}.{way}_blocks.{stage}.{named}"] = tensors.pop(key)
    converted: Pieces = convert_wan_vae_to_diffusers(tensors)
    return converted | residual


@dataclass(frozen=True, slots=True)
class Encoders:
    """All three, in evaluation mode, on one device."""

    text: nn.Module
    image: nn.Module
    video: Any

    @torch.no_grad()
    def encode_text(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """Token numbers and mask [B, text_length] -> [B, text_length, width], padding rows zero."""
        if tokens.shape != mask.shape:
            raise ContractError(f"tokens {tuple(tokens.shape)} and mask {tuple(mask.shape)}", expected="the same shape")
        out: Tensor = self.text(input_ids=tokens, attention_mask=mask).last_hidden_state
        length = mask.gt(0).sum(1, keepdim=True)
        return out * (torch.arange(tokens.shape[1], device=out.device) < length)[..., None]

    @torch.no_grad()
    def encode_image(self, image: Tensor) -> Tensor:
        """RGB [B, 3, H, W] in [-1, 1] -> CLIP's features before its last block [B, 257, 1280]."""
        side = self.image.config.image_size
        x = F.interpolate(image, (side, side), mode="bicubic", align_corners=False) * 0.5 + 0.5
        mean, std = (torch.tensor(three, device=x.device)[:, None, None] for three in (CLIP_MEAN, CLIP_STD))
        x = ((x - mean) / std).to(next(self.image.parameters()).dtype)
        out: Tensor = self.image(pixel_values=x).last_hidden_state
        return out

    @torch.no_grad()
    def encode_video(self, video: Tensor) -> Tensor:
        """RGB [B, 3, 1 + 4 n, H, W] in [-1, 1] -> scaled latents [B, C, 1 + n, H / stride, W / stride]."""
        if video.ndim != 5 or (video.shape[2] - 1) % 4:
            raise ContractError(f"video {tuple(video.shape)}", expected="[B, 3, 1 + a multiple of 4, H, W]")
        mean = self.video.encode(video.to(self.video.dtype)).latent_dist.mode()
        shift, scale = (self._per_channel(name, mean) for name in ("latents_mean", "latents_std"))
        return (mean - shift) / scale

    def first_frame(self, image: Tensor, frames: int) -> Tensor:
        """What a teacher with a first-frame latent is told of [B, 3, H, W]: mask and latents [B, 4 + C, frames, h, w].

        The image followed by grey (zero) frames goes through the VAE; the mask is 1 on the first latent frame.
        """
        batch, _, height, width = image.shape
        rest = torch.zeros(batch, 3, 4 * (frames - 1), height, width, dtype=image.dtype, device=image.device)
        latents = self.encode_video(torch.cat([image[:, :, None], rest], 2))
        mask = torch.zeros_like(latents[:, :4])
        mask[:, :, 0] = 1.0
        return torch.cat([mask, latents], 1)

    def _per_channel(self, name: str, like: Tensor) -> Tensor:
        return torch.tensor(getattr(self.video.config, name), device=like.device, dtype=like.dtype)[:, None, None, None]


def load_encoders(checkpoint: Checkpoint) -> Encoders:
    """The frozen encoders that a full checkpoint carries along, at their published sizes.

    Raises:
        ConfigError: the checkpoint carries none, or a tensor is missing, unexpected, of another shape, or no number.
    """
    from diffusers import AutoencoderKLWan
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    def make_text() -> nn.Module:
        return UMT5EncoderModel(UMT5Config(
            vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64,
            relative_attention_num_buckets=32, relative_attention_max_distance=128, dropout_rate=0.0,
        ))  # fmt: skip

    def make_image() -> nn.Module:
        return CLIPVisionModel(CLIPVisionConfig(
            hidden_size=1280, intermediate_size=5120, num_hidden_layers=CLIP_BLOCKS, num_attention_heads=16,
            patch_size=14, image_size=CLIP_SIDE, hidden_act="gelu", layer_norm_eps=1e-5,
        ))  # fmt: skip

    def make_video() -> nn.Module:
        return AutoencoderKLWan() if channels == 16 else AutoencoderKLWan(**WAN22_VAE)

    channels = _latent_channels(checkpoint)
    return encoders_of(checkpoint, make_text, make_image, make_video, CLIP_BLOCKS)


def encoders_of(
    checkpoint: Checkpoint,
    make_text: Callable[[], nn.Module],
    make_image: Callable[[], nn.Module],
    make_video: Callable[[], nn.Module],
    clip_blocks: int,
) -> Encoders:
    """:func:`load_encoders` at other sizes; each maker builds its class, of which ``clip_blocks`` blocks of CLIP."""
    text = _fill(make_text, _converted(checkpoint, TEXT, text_pieces), {"encoder.embed_tokens.weight": "shared.weight"})
    image = _fill(make_image, _converted(checkpoint, IMAGE, partial(image_pieces, blocks=clip_blocks)), {})
    video = _fill(make_video, video_pieces(dict(_tensors(checkpoint, VIDEO))), {})
    return Encoders(text, image, video)


def _latent_channels(checkpoint: Checkpoint) -> int:
    place = checkpoint.encoders.get(VIDEO + "conv2.weight")
    channels = place.shape[0] if place is not None else 0
    if channels not in (16, 48):
        raise ConfigError(f"{checkpoint.folder}: a VAE of {channels} channels", expected="16 (Wan2.1) or 48 (Wan2.2)")
    return channels


def _tensors(checkpoint: Checkpoint, prefix: str) -> Iterator[tuple[str, Tensor]]:
    found = {key: place for key, place in checkpoint.encoders.items() if key.startswith(prefix)}
    if not found:
        raise ConfigError(f"{checkpoint.folder} carries no {prefix}*", expected="a full checkpoint", remedy=REMEDY)
    for key, place in found.items():
        with safe_open(place.file, "pt") as shard:
            value = shard.get_tensor(key)
        if not torch.isfinite(value).all():
            raise ConfigError(f"{place.file}: {key} holds a number that is none (NaN or infinite)", remedy=REMEDY)
        yield key.removeprefix(prefix), value


def _converted(checkpoint: Checkpoint, prefix: str, pieces: Callable[[str, Tensor], Pieces | None]) -> Pieces:
    out: Pieces = {}
    for key, value in _tensors(checkpoint, prefix):
        named = pieces(key, value)
        if named is None:
            raise ConfigError(f"{checkpoint.folder}: unexpected tensor {prefix}{key}", remedy=REMEDY)
        out |= named
    return out


def _fill(make: Callable[[], nn.Module], pieces: Pieces, tied: dict[str, str]) -> nn.Module:
    """Build on the meta device and hand the tensors over; ``tied``: names that are another name's tensor."""
    with torch.device("meta"):
        model = make()
    wanted = model.state_dict()
    pieces |= {name: pieces[other] for name, other in tied.items() if name in wanted and other in pieces}
    kind = type(model).__name__
    for names, word in ((set(pieces) - set(wanted), "unexpected"), (set(wanted) - set(pieces), "missing")):
        if names:
            raise ConfigError(f"{kind}: {min(names)} is {word} ({len(names)} in all)", remedy=REMEDY)
    for name, value in pieces.items():
        if value.shape != wanted[name].shape:
            raise ConfigError(f"{kind}: {name} {tuple(value.shape)}", expected=str(tuple(wanted[name].shape)))
    model.load_state_dict(pieces, assign=True)
    for name, buffer in model.named_buffers():
        if buffer.is_meta:  # CLIP's position numbers, which no checkpoint carries
            owner, _, leaf = name.rpartition(".")
            if leaf != "position_ids":
                raise ConfigError(
                    f"{kind}: buffer {name} has no value", expected="a version of transformers that we know"
                )
            model.get_submodule(owner).register_buffer(leaf, torch.arange(buffer.shape[-1])[None], persistent=False)
    return model.eval().requires_grad_(False)
