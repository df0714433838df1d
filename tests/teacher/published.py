"""Writes checkpoints in the layout of the published ones (sharded safetensors, full and LoRA), small and random."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from distill.teacher.checkpoint import INDEX, LORA_PREFIX, PREFIX
from distill.teacher.config import TeacherConfig
from tests.teacher.tiny import draw, tiny

LORA_TARGETS = ("q", "k", "v", "o", "ffn.0", "ffn.2")
RANK, ALPHA = 4, 8


def document(config: TeacherConfig) -> dict[str, Any]:
    """``config.json`` as published: the fields that describe the transformer, among others that do not."""
    dit = {
        "_target_": "groot.vla.model.dreamzero.modules.wan_video_dit_action_casual_chunk.CausalWanModel",
        "model_type": "i2v" if config.first_frame_latent else "ti2v", "frame_seqlen": config.frame_tokens,
        "dim": config.width, "in_dim": config.input_channels, "ffn_dim": config.ffn, "out_dim": config.latent_channels,
        "freq_dim": config.frequency_width, "eps": 1e-6, "num_heads": config.heads, "num_layers": config.depth,
        "max_chunk_size": config.blocks, "num_frame_per_block": config.frames_per_block,
        "num_action_per_block": config.actions_per_block, "num_state_per_block": config.states_per_block,
        "hidden_size": config.hidden, "text_len": config.text_length, "text_dim": config.text_width,
        "concat_first_frame_latent": config.first_frame_latent,
    }  # fmt: skip
    head = {
        "hidden_size": 64, "lora_rank": RANK, "lora_alpha": ALPHA, "action_dim": config.action_width,
        "num_frames": 33, "diffusion_model_cfg": dit,
    }  # fmt: skip
    return {
        "architectures": ["VLA"], "model_type": "vla", "action_dim": 32, "action_horizon": config.actions_per_block,
        "backbone_cfg": {"_target_": "groot.vla.model.dreamzero.backbone.identity.IdentityBackbone"},
        "action_head_cfg": {"_target_": "WANPolicyHead", "config": head},
    }  # fmt: skip


def encoder_tensors() -> dict[str, Tensor]:
    """A few of the frozen encoders' tensors, which a full checkpoint carries along."""
    return {
        "action_head.text_encoder.norm.weight": draw(1, 8),
        "action_head.image_encoder.model.visual.cls_embedding": draw(2, 1, 1, 8),
        "action_head.vae.model.conv1.weight": draw(3, 4, 4, 1, 1, 1),
    }


def lora_tensors(config: TeacherConfig) -> dict[str, Tensor]:
    """Additions to every target, by the transformer's own names with the endings of the published adapters."""
    out = {}
    for index, (name, value) in enumerate(sorted(tiny(config).state_dict().items())):
        stem = name.removesuffix(".weight")
        targeted = stem.startswith("blocks.") and stem.endswith(tuple("." + target for target in LORA_TARGETS))
        if targeted and name.endswith(".weight"):
            out[f"{stem}.lora_A.default.weight"] = 0.1 * draw(5000 + index, RANK, value.shape[1])
            out[f"{stem}.lora_B.default.weight"] = 0.1 * draw(6000 + index, value.shape[0], RANK)
    return out


def write(folder: Path, config: TeacherConfig, tensors: dict[str, Tensor], shards: int = 3) -> Path:
    """Shards with their index, and config.json; ``tensors`` by full key."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(document(config)), encoding="utf-8")
    names = sorted(tensors)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name].contiguous() for name in names[number::shards]}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    total = sum(value.nbytes for value in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")
    return folder


def full(folder: Path, config: TeacherConfig, dtype: torch.dtype = torch.float32) -> Path:
    """A full checkpoint of the tiny teacher."""
    tensors = {PREFIX + name: value.to(dtype) for name, value in tiny(config).state_dict().items()}
    return write(folder, config, tensors | encoder_tensors())


def lora(folder: Path, config: TeacherConfig) -> Path:
    """A LoRA checkpoint that carries its base along."""
    additions = lora_tensors(config)
    tensors = {LORA_PREFIX + name: value for name, value in additions.items()}
    for name, value in tiny(config).state_dict().items():
        stem, dot, leaf = name.rpartition(".")
        wrapped = f"{stem}.lora_A.default.weight" in additions
        tensors[f"{LORA_PREFIX}{stem}.base_layer{dot}{leaf}" if wrapped else LORA_PREFIX + name] = value
    return write(folder, config, tensors)


def adapter(folder: Path, config: TeacherConfig) -> Path:
    """Only what was trained: additions, and the encoders and decoder of states and actions."""
    trained = ("state_encoder.", "action_encoder.", "action_decoder.")
    tensors = {LORA_PREFIX + name: value for name, value in lora_tensors(config).items()}
    for name, value in tiny(config).state_dict().items():
        if name.startswith(trained):
            tensors[LORA_PREFIX + name] = 2.0 * value
    return write(folder, config, tensors, shards=1)
