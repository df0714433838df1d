"""Writes golden.npz: what the public reference computes on the tiny teachers of :mod:`tests.teacher.tiny`.

    python -m tests.teacher.make_golden FOLDER

FOLDER: a checkout of github.com/dreamzero0/dreamzero (commit ab790c198fbce33503358efbbd4187ce9a89adf3). Needs einops
besides what the tests need. Two of its parts ask for CUDA and are given plain attention instead: the flash attention of
its cross attention, and the attention module that casts to bfloat16. Its sampler is told that its GPU is the CPU.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from distill.teacher.config import TeacherConfig
from distill.teacher.encoders import IMAGE, TEXT, VIDEO
from tests.teacher.tiny import CONFIGS, draw, inputs, weights
from tests.teacher.tiny_encoders import (
    TINY_IMAGE,
    TINY_TEXT,
    TINY_VIDEO,
    TINY_VIDEO38,
    image_input,
    text_input,
    video_input,
)

GOLDEN = Path(__file__).with_name("golden.npz")
BLOCKS = {"14b": 3, "5b": 2}
SAMPLES = {"plain": 0.0, "decoupled": 0.8}


def _attend(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    parts = (t.transpose(1, 2) for t in (q, k, v))
    return F.scaled_dot_product_attention(*parts, is_causal=causal).transpose(1, 2).contiguous()


def reference_model(config: TeacherConfig) -> Any:
    """The reference's transformer with the tiny weights."""
    from groot.vla.model.dreamzero.modules import wan2_1_attention, wan2_1_submodule
    from groot.vla.model.dreamzero.modules import wan_video_dit_action_casual_chunk as dit

    wan2_1_submodule.flash_attention = lambda q, k, v, *_, **__: _attend(q, k, v)
    model = dit.CausalWanModel(
        model_type="i2v" if config.first_frame_latent else "ti2v", frame_seqlen=config.frame_tokens,
        text_len=config.text_length, in_dim=config.input_channels, dim=config.width, ffn_dim=config.ffn,
        freq_dim=config.frequency_width, text_dim=config.text_width, out_dim=config.latent_channels,
        num_heads=config.heads, num_layers=config.depth, max_chunk_size=config.blocks,
        num_frame_per_block=config.frames_per_block, num_action_per_block=config.actions_per_block,
        num_state_per_block=config.states_per_block, action_dim=config.action_width,
        max_state_dim=config.state_width, hidden_size=config.hidden,
        concat_first_frame_latent=config.first_frame_latent,
    ).float().eval()  # fmt: skip
    for name, module in model.named_modules():
        if isinstance(module, wan2_1_attention.AttentionModule):
            causal = name.endswith("causal_attn")
            module.attn_func = lambda q, k, v, *_, causal=causal: _attend(q, k, v, causal)
    model.load_state_dict(weights({name: tuple(value.shape) for name, value in model.state_dict().items()}))
    return model


def forwards(name: str) -> dict[str, np.ndarray]:
    """Teacher-forced and cached outputs for every start frame."""
    config, blocks = CONFIGS[name], BLOCKS[name]
    model, given = reference_model(config), inputs(CONFIGS[name], BLOCKS[name])
    nobody = torch.zeros(1, dtype=torch.int64)
    tokens = config.frame_tokens
    first = given.get("first_frame")
    video, action = model._forward_train(  # under autograd: its other path is broken
        given["noisy"], given["video_time"], given["action_time"], given["text"],
        given["noisy"].shape[2] * tokens, clean_x=given["clean"], y=first, clip_feature=given["image"],
        action=given["actions"], state=given["states"], embodiment_id=nobody,
    )  # fmt: skip
    out = {f"{name}.train.video": video, f"{name}.train.action": action}
    cache = [torch.zeros(2, 1, 0, config.heads, config.head_width) for _ in range(config.depth)]
    step = config.frames_per_block
    with torch.no_grad():
        for block in range(-1, blocks):
            begin, end = (0, 1) if block < 0 else (1 + block * step, 1 + (block + 1) * step)
            here = {"context": given["text"], "clip_feature": given["image"], "current_start_frame": begin}
            here["y"] = None if first is None else first[:, :, begin:end]
            if block >= 0:
                a, s = config.actions_per_block, config.states_per_block
                video, action, _ = model._forward_inference(
                    given["noisy"][:, :, begin:end], given["video_time"][:, begin:end], seq_len=step * tokens,
                    kv_cache=cache, crossattn_cache=None, action=given["actions"][:, block * a : (block + 1) * a],
                    timestep_action=given["action_time"][:, block * a : (block + 1) * a],
                    state=given["states"][:, block * s : (block + 1) * s], embodiment_id=nobody, **here,
                )  # fmt: skip
                out |= {f"{name}.cached{begin}.video": video, f"{name}.cached{begin}.action": action}
            _, _, cache = model._forward_inference(
                given["clean"][:, :, begin:end], torch.zeros(1, end - begin), seq_len=(end - begin) * tokens,
                kv_cache=cache, crossattn_cache=None, **here,
            )  # fmt: skip
    return {key: value.detach().numpy() for key, value in out.items()}


def samples() -> dict[str, np.ndarray]:
    """A sampler run of 16 steps in a field that bends, with and without decoupled noise; and the schedules."""
    torch.compile = lambda *_, **__: lambda function: function
    from groot.vla.model.dreamzero.modules import flow_unipc_multistep_scheduler as module

    to = torch.Tensor.to

    def stay(self: Tensor, *given: Any, **named: Any) -> Tensor:
        return to(self, *given, **{key: value for key, value in named.items() if value != "cuda"})

    out = {}
    for name, last in SAMPLES.items():
        with mock.patch.object(torch.Tensor, "to", stay):
            scheduler = module.FlowUniPCMultistepScheduler(1000, shift=1, use_dynamic_shifting=False)
        scheduler.set_timesteps(16, device="cpu", shift=5.0)
        if last:
            top = scheduler.sigmas[0].item()
            scheduler.sigmas = scheduler.sigmas * (top - last) / top + last
            scheduler.timesteps = (scheduler.sigmas[:-1] * 1000).to(torch.int64)
        x, target = draw(1, 2, 4, 6), draw(2, 2, 4, 6)
        for index, time in enumerate(scheduler.timesteps):
            velocity = (x - target) + 0.3 * torch.sin(3.0 * x) * float(scheduler.sigmas[index])
            x = scheduler.step(velocity, time, x, index, return_dict=False)[0]
        out |= {f"{name}.sample": x.numpy(), f"{name}.sigmas": scheduler.sigmas.numpy()}
        out[f"{name}.times"] = scheduler.timesteps.numpy()
    return out


def training() -> dict[str, np.ndarray]:
    """The levels and weights of training."""
    from groot.vla.model.dreamzero.modules.flow_match_scheduler import FlowMatchScheduler

    scheduler = FlowMatchScheduler(shift=5, sigma_min=0.0, extra_one_step=True)
    scheduler.set_timesteps(1000, training=True)
    return {"train.times": scheduler.timesteps.numpy(), "train.weights": scheduler.linear_timesteps_weights.numpy()}


def encoders() -> dict[str, np.ndarray]:
    """What the three frozen encoders answer, and the names and shapes of their tensors."""
    for name in ("torchvision", "torchvision.transforms"):  # only its picture files would need them
        sys.modules.setdefault(name, mock.MagicMock())
    from groot.vla.model.dreamzero.modules.wan_video_image_encoder import VisionTransformer
    from groot.vla.model.dreamzero.modules.wan_video_text_encoder import WanTextEncoder
    from groot.vla.model.dreamzero.modules.wan_video_vae import VideoVAE38_, VideoVAE_

    def filled(module: torch.nn.Module, prefix: str) -> torch.nn.Module:
        drawn = weights({prefix + name: tuple(value.shape) for name, value in module.state_dict().items()})
        module.load_state_dict({name.removeprefix(prefix): value for name, value in drawn.items()})
        shapes.update({name: tuple(value.shape) for name, value in drawn.items()})
        return module.eval()

    shapes: dict[str, tuple[int, ...]] = {}
    text = filled(WanTextEncoder(**TINY_TEXT), TEXT)
    image = filled(VisionTransformer(**TINY_IMAGE), IMAGE + "visual.")
    out = {}
    with torch.no_grad():
        tokens, mask = text_input()
        out["text"] = text(tokens, mask) * mask[..., None]
        out["image"] = image(image_input(), use_31_block=True)
        for name, kind, sizes in (("video", VideoVAE_, TINY_VIDEO), ("video38", VideoVAE38_, TINY_VIDEO38)):
            video = filled(kind(**sizes), f"{name}/{VIDEO}")
            channels = sizes["z_dim"]
            scale = [torch.linspace(-0.5, 0.5, channels), 1.0 / torch.linspace(0.5, 2.0, channels)]
            out[name] = video.encode(video_input(), scale)
    found = {f"encoder.{name}": value.numpy() for name, value in out.items()}
    return found | {"encoder.shapes": np.array(json.dumps({name: list(shape) for name, shape in shapes.items()}))}


def main(folder: str) -> None:
    sys.path.insert(0, folder)
    np.savez_compressed(GOLDEN, **forwards("14b"), **forwards("5b"), **samples(), **training(), **encoders())


if __name__ == "__main__":
    main(sys.argv[1])
