"""The distilled frame encoder: causal, the same streamed as whole, and it learns its teacher's latents."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from distill.encoding import Clips, CodecTeacher, LatentRegression, WanTeacher
from distill.models.codec import FrameCodec
from distill.models.frame_encoder import EncoderShape, FrameEncoder
from distill.teacher.encoders import Encoders
from edge_wam.errors import ContractError
from tests.distill.tiny import TINY, smooth_video

VIDEO = EncoderShape(channels=4, frames=4, width=16)
FRAME = EncoderShape(channels=TINY.latent_channels, frames=1, width=16)


def _encoder(shape: EncoderShape, seed: int = 0) -> FrameEncoder:
    torch.manual_seed(seed)
    return FrameEncoder(shape).eval()


def _clips(count: int, length: int, seed: int, size: int = 32) -> Tensor:
    videos = [torch.from_numpy(smooth_video(length, seed + k, size)) for k in range(count)]
    return torch.stack(videos).permute(0, 1, 4, 2, 3).float() / 127.5 - 1.0


@settings(max_examples=10, deadline=None)
@given(groups=st.lists(st.integers(1, 3), min_size=1, max_size=4), spatial=st.sampled_from([8, 16]))
@torch.no_grad()
def test_a_clip_gives_the_same_latents_in_any_stretches(groups: list[int], spatial: int) -> None:
    encoder = _encoder(VIDEO.model_copy(update={"spatial": spatial}))
    frames = torch.randn(2, 4 * sum(groups), 3, 32, 48, generator=torch.Generator().manual_seed(1))
    whole, _ = encoder(frames)
    parts, memory = [], None
    for stretch in frames.split([4 * n for n in groups], 1):
        latents, memory = encoder(stretch, memory)
        parts.append(latents)
    assert whole.shape == (2, sum(groups), 4, 32 // spatial, 48 // spatial)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_no_latent_knows_a_later_frame_and_every_later_one_knows_it() -> None:
    encoder = _encoder(VIDEO)
    frames = torch.randn(1, 9, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    before = encoder.clip(frames)
    moved = frames.clone()
    moved[:, 5] += 1.0  # the first frame of the third latent
    after = encoder.clip(moved)
    assert before.shape[1] == 3, "the first frame, and four and four"
    assert torch.equal(after[:, :2], before[:, :2]) and not torch.allclose(after[:, 2], before[:, 2])
    moved[:, 4] += 1.0  # the last frame of the second
    assert not torch.allclose(encoder.clip(moved)[:, 2], after[:, 2]), "what was seen is remembered"


@torch.no_grad()
def test_a_frame_codecs_encoder_remembers_nothing() -> None:
    encoder = _encoder(FRAME)
    frames = torch.randn(2, 3, 3, 32, 64, generator=torch.Generator().manual_seed(3))
    latents, memory = encoder(frames)
    assert memory == ()
    torch.testing.assert_close(encoder(frames[:, 2:])[0], latents[:, 2:])


@pytest.mark.parametrize("shape", [(1, 3, 3, 16, 16), (1, 4, 3, 12, 16), (1, 4, 3, 16, 20)])
def test_stretches_and_sizes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ContractError, match="frames"):
        _encoder(VIDEO)(torch.zeros(shape))


def _trained(
    objective: LatentRegression, encoder: FrameEncoder, length: int, steps: int, size: int = 32
) -> tuple[float, float]:
    """Explained variance of clips that were not trained on, before and after."""
    tested = Clips(_clips(4, length, 900, size))

    def explained() -> float:
        with torch.no_grad():
            return float(objective.loss(encoder, tested, None, 0)["explained"])

    first = explained()
    optimiser = torch.optim.Adam(encoder.parameters(), 3e-3)
    for step in range(steps):
        optimiser.zero_grad()
        objective.loss(encoder, Clips(_clips(4, length, 7 * step, size)), None, step)["total"].backward()
        optimiser.step()
    return first, explained()


def test_it_learns_the_latents_of_the_projects_codec() -> None:
    torch.manual_seed(1)
    codec = FrameCodec(TINY)
    codec.calibrate(_clips(8, 4, 0).flatten(0, 1))
    first, last = _trained(LatentRegression(CodecTeacher(codec)), _encoder(FRAME), 2, 100)
    assert last > 0.5 > first
    assert all(p.grad is None for p in codec.parameters()), "the teacher is not trained"


def _wan() -> WanTeacher:
    """Wan's VAE at a size for tests, random weights."""
    from diffusers import AutoencoderKLWan

    torch.manual_seed(4)
    video = AutoencoderKLWan(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[0.1] * 4
    )
    return WanTeacher(Encoders(torch.nn.Identity(), torch.nn.Identity(), video.eval().requires_grad_(False)))


def test_it_learns_the_latents_of_wans_vae() -> None:
    teacher = _wan()
    clips = _clips(2, 9, 5)
    assert teacher.latents(clips).shape == _encoder(VIDEO).clip(clips).shape == (2, 3, 4, 4, 4)
    first, last = _trained(LatentRegression(teacher), _encoder(VIDEO), 5, 60, 16)
    assert last > max(0.3, first + 0.2)


def test_another_kind_of_latent_is_refused() -> None:
    codec = FrameCodec(TINY)
    with pytest.raises(ContractError, match="frames to a latent"):
        LatentRegression(CodecTeacher(codec)).loss(_encoder(VIDEO), Clips(torch.zeros(1, 1, 3, 32, 64)), None, 0)
    wide = _encoder(FRAME.model_copy(update={"channels": 9}))
    with pytest.raises(ContractError, match=r"latents \(1, 1, 9"):
        LatentRegression(CodecTeacher(codec)).loss(wide, Clips(torch.zeros(1, 1, 3, 32, 64)), None, 0)
