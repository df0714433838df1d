"""The frozen encoders answer as the public reference's, from tensors under their published names."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill.teacher.checkpoint import PREFIX, Checkpoint, open_checkpoint
from distill.teacher.encoders import IMAGE, TEXT, VIDEO, WAN22_VAE, Encoders, encoders_of, load_encoders
from edge_wam.errors import ConfigError, ContractError
from tests.teacher.make_golden import GOLDEN
from tests.teacher.published import write
from tests.teacher.tiny import TINY_14B, draw, weights
from tests.teacher.tiny_encoders import TINY_TEXT, TINY_VIDEO, image_input, text_input, video_input

TOLERANCE = 2e-5
SCALES = {"latents_mean": torch.linspace(-0.5, 0.5, 4).tolist(), "latents_std": torch.linspace(0.5, 2.0, 4).tolist()}


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def _published(golden: dict[str, np.ndarray], video: str = "video") -> dict[str, Tensor]:
    shapes = {name: tuple(shape) for name, shape in json.loads(str(golden["encoder.shapes"])).items()}
    out = {}
    for prefix in (TEXT, IMAGE, f"{video}/{VIDEO}"):
        group = {name: shape for name, shape in shapes.items() if name.startswith(prefix)}
        # CLIP's weights were drawn for the picture tower alone.
        out |= {name.removeprefix(f"{video}/"): value for name, value in weights(group).items()}
    return out


def _makers(kind: str = "video") -> tuple[Callable[[], nn.Module], ...]:
    from diffusers import AutoencoderKLWan
    from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

    residual: dict[str, Any] = {} if kind == "video" else {
        "is_residual": True, "decoder_base_dim": 8, "in_channels": 12, "out_channels": 12, "patch_size": 2,
        "scale_factor_spatial": 16,
    }  # fmt: skip
    return (
        lambda: UMT5EncoderModel(UMT5Config(
            vocab_size=TINY_TEXT["vocab"], d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, dropout_rate=0.0)),
        lambda: CLIPVisionModel(CLIPVisionConfig(
            hidden_size=32, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, patch_size=14,
            image_size=28, hidden_act="gelu")),
        lambda: AutoencoderKLWan(base_dim=TINY_VIDEO["dim"], z_dim=TINY_VIDEO["z_dim"], **SCALES, **residual),
    )  # fmt: skip


def _encoders(folder: Path, tensors: dict[str, Tensor], kind: str = "video") -> Encoders:
    return encoders_of(open_checkpoint(write(folder, TINY_14B, tensors)), *_makers(kind), clip_blocks=2)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory, golden: dict[str, np.ndarray]) -> Encoders:
    return _encoders(tmp_path_factory.mktemp("encoders"), _published(golden))


def _same(value: Tensor, expected: np.ndarray) -> None:
    scale = float(np.sqrt(np.mean(np.square(expected))))
    assert scale > 0.05
    np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=TOLERANCE * max(1.0, scale), strict=True)


def test_text_equals_the_reference_and_padding_is_zero(encoders: Encoders, golden: dict[str, np.ndarray]) -> None:
    tokens, mask = text_input()
    out = encoders.encode_text(tokens, mask)
    _same(out, golden["encoder.text"])
    assert (out[0, 9:] == 0).all() and (out[0, :9] != 0).any(1).all()


def test_the_picture_before_the_last_block_equals_the_reference(
    encoders: Encoders, golden: dict[str, np.ndarray]
) -> None:
    with torch.no_grad():
        _same(encoders.image(pixel_values=image_input()).last_hidden_state, golden["encoder.image"])


def test_a_picture_is_made_224_and_normalised_as_clip_was_trained(encoders: Encoders) -> None:
    # A grey of CLIP's own mean becomes zero, whatever its size: the answer is that of a black input.
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)) * 2 - 1
    grey = mean[None, :, None, None].expand(1, 3, 40, 72)
    with torch.no_grad():
        expected = encoders.image(pixel_values=torch.zeros(1, 3, 28, 28)).last_hidden_state
    torch.testing.assert_close(encoders.encode_image(grey), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["video", "video38"])
def test_latents_equal_the_reference(kind: str, tmp_path: Path, golden: dict[str, np.ndarray]) -> None:
    _same(_encoders(tmp_path, _published(golden, kind), kind).encode_video(video_input()), golden[f"encoder.{kind}"])


def test_the_first_frame_is_followed_by_grey_ones_under_a_mask(encoders: Encoders) -> None:
    image = draw(23, 1, 3, 32, 32).clamp(-1, 1)
    told = encoders.first_frame(image, 3)
    assert told.shape == (1, 8, 3, 4, 4)
    assert (told[:, :4, 0] == 1).all() and (told[:, :4, 1:] == 0).all()
    video = torch.cat([image[:, :, None], torch.zeros(1, 3, 8, 32, 32)], 2)
    torch.testing.assert_close(told[:, 4:], encoders.encode_video(video))


def test_a_video_that_does_not_divide_into_latent_frames_is_refused(encoders: Encoders) -> None:
    with pytest.raises(ContractError, match="1 \\+ a multiple of 4"):
        encoders.encode_video(torch.zeros(1, 3, 8, 32, 32))
    with pytest.raises(ContractError, match="the same shape"):
        encoders.encode_text(torch.zeros(1, 5, dtype=torch.int64), torch.ones(1, 4, dtype=torch.int64))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda t: t.pop(TEXT + "blocks.1.attn.q.weight"), "SelfAttention.q.weight is missing"),
        (lambda t: t.update({TEXT + "blocks.1.attn.bias": torch.zeros(3)}), "unexpected tensor .*attn.bias"),
        (lambda t: t.update({IMAGE + "visual.extra": torch.zeros(3)}), "unexpected tensor .*extra"),
        (lambda t: t.update({VIDEO + "conv9.weight": torch.zeros(3)}), "conv9.weight is unexpected"),
        (lambda t: t.update({TEXT + "norm.weight": torch.zeros(3)}), r"final_layer_norm.weight \(3,\)"),
        (lambda t: t.update({TEXT + "norm.weight": torch.full((32,), float("inf"))}), "norm.weight holds a number"),
        (lambda t: [t.pop(key) for key in [*t] if key.startswith(VIDEO)], "carries no"),
    ],
)
def test_damaged_encoders_are_refused_by_name(
    damage: Callable[[dict[str, Tensor]], object], says: str, tmp_path: Path, golden: dict[str, np.ndarray]
) -> None:
    tensors = _published(golden)
    damage(tensors)
    with pytest.raises(ConfigError, match=says):
        _encoders(tmp_path, tensors)


def test_the_published_sizes_are_those_of_the_classes() -> None:
    """Parameters of the full-size classes, on the meta device: umT5-XXL's encoder, ViT-H/14 less a block, both VAEs."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        wan21, wan22 = AutoencoderKLWan(), AutoencoderKLWan(**WAN22_VAE)
    assert sum(p.numel() for p in wan21.parameters()) == 126_892_531
    assert sum(p.numel() for p in wan22.parameters()) == 704_688_668
    assert len(WAN22_VAE["latents_mean"]) == len(WAN22_VAE["latents_std"]) == 48


def test_a_checkpoint_with_another_vae_is_refused(tmp_path: Path) -> None:
    tensors = {PREFIX + "head.modulation": draw(1, 1, 2, 96), VIDEO + "conv2.weight": draw(2, 4, 4, 1, 1, 1)}
    checkpoint = open_checkpoint(write(tmp_path, TINY_14B, tensors, shards=1))
    assert isinstance(checkpoint, Checkpoint)
    with pytest.raises(ConfigError, match="a VAE of 4 channels"):
        load_encoders(checkpoint)
