"""The transformer: cached is recomputed, clean never sees noisy, the past that is not there does not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distill.models.codec import FrameCodec, grid_from_tokens, tokens_from_grid
from distill.models.config import CONFIGS, config_named
from distill.models.wam import WorldActionTransformer
from edge_wam.errors import ConfigError
from tests.distill.tiny import TINY, make_student

Tensors = dict[str, Tensor]
P, B = TINY.past_frames, TINY.tokens + 1


@pytest.fixture(scope="module")
def wam() -> WorldActionTransformer:
    return make_student(TINY)[1]


@pytest.fixture(scope="module")
def scene(wam: WorldActionTransformer) -> Tensors:
    """Three frames with their states, noise, and an instruction."""
    g = torch.Generator().manual_seed(1)
    f = len(TINY.future_knots)
    words = torch.tensor([[5, 9, 40, 0, 0, 0, 0, 0, 0, 0]])
    with torch.no_grad():
        cross = wam.text_kv(words)
    return {
        "latents": torch.randn(1, P + 1, TINY.tokens, TINY.token_channels, generator=g),
        "states": torch.randn(1, P + 1, 64, generator=g),
        "noise_video": torch.randn(1, f, TINY.tokens, TINY.token_channels, generator=g),
        "noise_action": torch.randn(1, 16, 32, generator=g),
        "known": torch.randn(1, 16, 32, generator=g),
        "cross": cross,
    }


def _prefix(scene: Tensors, d: int) -> tuple[Tensor, Tensor]:
    mask = (torch.arange(16) < d).float()[None]
    return scene["known"] * mask[..., None], mask


@torch.no_grad()
def _step(wam: WorldActionTransformer, scene: Tensors, frame: int, past: Tensor, mask: Tensor, d: int = 0,
          **other: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    s = {**scene, **other}
    action, mask_d = _prefix(s, d)
    return wam.step(s["latents"][:, frame], s["states"][:, frame], s["noise_video"], s["noise_action"], action, mask_d,
                    past, mask, s["cross"][:, 0])  # fmt: skip


def _cache(wam: WorldActionTransformer, scene: Tensors, present: tuple[int, ...]) -> Tensor:
    """K/V of the past frames, each made by its own call when it was the newest; zeros where there is none."""
    nothing = torch.zeros(TINY.depth, 2, P * B, TINY.width)
    parts = []
    for frame, there in enumerate(present):
        new = _step(wam, scene, frame, nothing, torch.zeros(1, P))[2]
        parts.append(new if there else torch.zeros_like(new))
    return torch.cat(parts, 2)


@pytest.mark.parametrize("d", [0, 1, 4, 15])
@pytest.mark.parametrize("present", [(0, 0), (0, 1), (1, 1)])
def test_the_cached_step_equals_the_teacher_forced_pass(
    wam: WorldActionTransformer, scene: Tensors, present: tuple[int, ...], d: int
) -> None:
    mask = torch.tensor([present], dtype=torch.float32)
    action, video, _ = _step(wam, scene, P, _cache(wam, scene, present), mask, d)
    known, committed = _prefix(scene, d)
    noisy = known + scene["noise_action"] * (1 - committed[..., None])
    one = torch.ones(1)
    with torch.no_grad():
        v_video, v_action = wam(scene["latents"], scene["states"], mask, scene["noise_video"], noisy, one, one,
                                committed, scene["cross"])  # fmt: skip
    torch.testing.assert_close(video, scene["noise_video"] - v_video, atol=1e-4, rtol=1e-4)
    recomputed = known + (noisy - v_action) * (1 - committed[..., None])
    torch.testing.assert_close(action, recomputed, atol=1e-4, rtol=1e-4)


def test_without_past_frames_the_pass_may_be_given_the_newest_alone(
    wam: WorldActionTransformer, scene: Tensors
) -> None:
    one, none = torch.ones(1), torch.zeros(1, 16)
    with torch.no_grad():
        rest = (scene["noise_video"], scene["noise_action"], one, one, none, scene["cross"])
        masked = wam(scene["latents"], scene["states"], torch.zeros(1, P), *rest)
        alone = wam(scene["latents"][:, -1:], scene["states"][:, -1:], torch.zeros(1, 0), *rest)
    for a, b in zip(masked, alone, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_clean_tokens_never_see_the_chunk(wam: WorldActionTransformer, scene: Tensors) -> None:
    past, mask = _cache(wam, scene, (1, 1)), torch.ones(1, P)
    kv = _step(wam, scene, P, past, mask)[2]
    for key in ("noise_video", "noise_action", "known"):
        other = _step(wam, scene, P, past, mask, 4, **{key: scene[key] * -3.0 + 1.0})[2]
        assert torch.equal(kv, other), f"{key} leaks into the cache"
    moved = _step(wam, scene, P, past, mask, latents=scene["latents"] + 0.1)[2]
    assert not torch.equal(kv, moved), "the cache does hold the frame"


def test_cached_frames_do_not_depend_on_frames_before_them(wam: WorldActionTransformer, scene: Tensors) -> None:
    alone = _step(wam, scene, P, torch.zeros(TINY.depth, 2, P * B, TINY.width), torch.zeros(1, P))[2]
    among = _step(wam, scene, P, _cache(wam, scene, (1, 1)), torch.ones(1, P))[2]
    torch.testing.assert_close(alone, among, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("slot", range(P))
def test_a_masked_past_frame_changes_nothing(wam: WorldActionTransformer, scene: Tensors, slot: int) -> None:
    past = _cache(wam, scene, (1, 1))
    mask = torch.ones(1, P)
    mask[0, slot] = 0.0
    before = _step(wam, scene, P, past, mask)
    other = past.clone()
    other[:, :, slot * B : (slot + 1) * B] = 5.0
    after = _step(wam, scene, P, other, mask)
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a, b)
    seen = _step(wam, scene, P, other, torch.ones(1, P))
    assert not torch.equal(before[0], seen[0]), "an unmasked one does matter"


@pytest.mark.parametrize("d", [1, 3, 15])
def test_committed_knots_come_out_unchanged_and_shape_the_rest(
    wam: WorldActionTransformer, scene: Tensors, d: int
) -> None:
    past, mask = _cache(wam, scene, (1, 1)), torch.ones(1, P)
    action = _step(wam, scene, P, past, mask, d)[0]
    assert torch.equal(action[:, :d], scene["known"][:, :d])
    assert not torch.equal(action[:, d:], _step(wam, scene, P, past, mask)[0][:, d:])


def test_the_instruction_matters(wam: WorldActionTransformer, scene: Tensors) -> None:
    past, mask = _cache(wam, scene, (1, 1)), torch.ones(1, P)
    with torch.no_grad():
        other = wam.text_kv(torch.tensor([[6, 9, 41, 0, 0, 0, 0, 0, 0, 0]]))
    assert not torch.equal(_step(wam, scene, P, past, mask)[0], _step(wam, scene, P, past, mask, cross=other)[0])


def test_noise_levels_are_decoupled(wam: WorldActionTransformer) -> None:
    """Video tokens know the video's level, actions theirs, clean tokens and committed knots level 0."""
    committed = (torch.arange(16) < 3).float()[None]
    with torch.no_grad():
        base, _ = wam._levels(B, torch.tensor([0.3]), torch.tensor([0.8]), committed)
        video, _ = wam._levels(B, torch.tensor([0.9]), torch.tensor([0.8]), committed)
        action, _ = wam._levels(B, torch.tensor([0.3]), torch.tensor([0.1]), committed)
        zero, _ = wam.modulation(torch.tensor([0.0]))
    assert not torch.equal(base.video, video.video) and torch.equal(base.action, video.action)
    assert not torch.equal(base.action[:, 3:], action.action[:, 3:]) and torch.equal(base.video, action.video)
    assert torch.equal(base.clean, video.clean) and torch.equal(base.clean, action.clean)
    torch.testing.assert_close(base.clean[0, 0], zero[0])
    torch.testing.assert_close(base.action[0, :3], zero.expand(3, -1, -1))


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_tokens_and_grid_are_inverses(patch: int) -> None:
    grid = torch.randn(2, 3, 8, 16)
    tokens = tokens_from_grid(grid, patch)
    assert tokens.shape == (2, 8 * 16 // patch**2, 3 * patch**2)
    assert torch.equal(grid_from_tokens(tokens, (8, 16), patch), grid)
    first = tokens[0, 1].reshape(patch, patch, 3)
    assert torch.equal(first, grid[0, :, :patch, patch : 2 * patch].permute(1, 2, 0)), "row-major, channels last"


def test_coarser_and_finer_are_inverses_and_keep_neighbours_together(wam: WorldActionTransformer) -> None:
    grid = torch.randn(3, TINY.latent_channels, *TINY.grid)
    fine = tokens_from_grid(grid, TINY.patch)[:, None]
    coarse = wam._coarser(fine)
    assert coarse.shape == (3, 1, TINY.future_tokens, TINY.latent_channels * TINY.future_patch**2)
    assert torch.equal(wam._finer(coarse), fine)
    by_grid = tokens_from_grid(grid, TINY.future_patch)
    assert torch.equal(coarse[:, 0].sort(-1)[0], by_grid.sort(-1)[0]), "a coarse token is one square of cells"


def test_calibrated_latents_are_standard_and_the_decoder_stays_in_range() -> None:
    codec = FrameCodec(TINY, width=16).eval()
    canvases = torch.rand(16, 3, 32, 64) * 2 - 1
    codec.calibrate(canvases)
    with torch.no_grad():
        grid = codec.grid(canvases)
        torch.testing.assert_close(grid.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
        torch.testing.assert_close(grid.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)
        assert codec.decode(torch.randn(2, TINY.tokens, TINY.token_channels) * 50).abs().max() <= 1.0


def test_every_size_is_consistent_and_an_unknown_one_is_named() -> None:
    for config in CONFIGS.values():
        assert config.head_dim * config.heads == config.width and config.head_dim % 2 == 0
        assert config.future_patch % config.patch == 0
        assert all(0 < knot <= config.horizon for knot in config.future_knots)
        assert config.tokens * config.patch**2 == config.grid[0] * config.grid[1]
    with pytest.raises(ConfigError, match="nano"):
        config_named("nanoo")


def test_one_past_frame_more_or_less_is_only_a_table() -> None:
    """The weights do not depend on how many past frames there are: memory can be lengthened without training anew."""
    short, long = make_student(TINY)[1], WorldActionTransformer(replace(TINY, past_frames=5))
    long.load_state_dict(short.state_dict())
