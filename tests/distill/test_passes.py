"""More than one pass a chunk: target times, refining behind the cache, and what they are equal to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from distill.models.config import CONFIGS
from distill.models.wam import WorldActionTransformer
from distill.teacher.rope import register_angles, video_angles
from edge_wam.errors import ConfigError
from tests.distill.tiny import TINY, make_student

JUMPING = replace(TINY, target_time=True)
P = TINY.past_frames


@pytest.fixture(scope="module")
def jumping() -> WorldActionTransformer:
    """A student with target times that mean something."""
    wam = make_student(JUMPING)[1]
    torch.nn.init.normal_(wam.time_jump[2].weight, std=0.1)
    return wam


def _scene(wam: WorldActionTransformer, d: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(3)
    c = wam.config
    mask = (torch.arange(c.horizon) < d).float()[None]
    with torch.no_grad():
        cross = wam.text_kv(torch.tensor([[5, 9, 40, 0, 0, 0, 0, 0, 0, 0]]))
        latents = torch.randn(1, P + 1, c.tokens, c.token_channels, generator=g)
        states = torch.randn(1, P + 1, 64, generator=g)
        past = [wam.prefill(latents[:, k], states[:, k], cross[:, 0]) for k in range(P)]
    return {
        "latents": latents, "states": states, "cross": cross, "past": torch.cat(past, 2), "mask": mask,
        "video": torch.randn(1, len(c.future_knots), c.tokens, c.token_channels, generator=g),
        "action": torch.randn(1, c.horizon, c.action_width, generator=g),
        "known": torch.randn(1, c.horizon, c.action_width, generator=g) * mask[..., None],
    }  # fmt: skip


def _step(wam: WorldActionTransformer, s: dict[str, Tensor], target: float) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        return wam.step(s["latents"][:, -1], s["states"][:, -1], s["video"], s["action"], s["known"], s["mask"],
                        s["past"], torch.ones(1, P), s["cross"][:, 0], target=target)  # fmt: skip


def _refine(wam: WorldActionTransformer, s: dict[str, Tensor], video: Tensor, action: Tensor, new_kv: Tensor,
            level: float, target: float = 0.0) -> tuple[Tensor, Tensor]:  # fmt: skip
    with torch.no_grad():
        return wam.refine(video, action, s["known"], s["mask"], s["past"], torch.ones(1, P), new_kv, s["cross"][:, 0],
                          level=level, target=target)  # fmt: skip


def test_a_student_that_learns_target_times_begins_as_the_one_it_was() -> None:
    old = make_student(TINY)[1]
    new = WorldActionTransformer(JUMPING)
    left = new.load_state_dict(old.state_dict(), strict=False)
    assert not left.unexpected_keys and all(name.startswith("time_jump.") for name in left.missing_keys)
    s = _scene(old)
    for target in (0.0, 0.5):
        for a, b in zip(_step(old, s, target), _step(new, s, target), strict=True):
            assert torch.equal(a, b)
    one = torch.ones(1)
    given = (s["latents"], s["states"], torch.ones(1, P), s["video"], s["action"], one, one, s["mask"], s["cross"])
    with torch.no_grad():
        for a, b in zip(old(*given), new(*given, 0.3 * one, 0.7 * one), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("target", [0.0, 0.5])
@pytest.mark.parametrize("d", [0, 3])
def test_the_fused_step_is_the_prefill_and_a_pass_behind_it(
    jumping: WorldActionTransformer, d: int, target: float
) -> None:
    s = _scene(jumping, d)
    action, video, new_kv = _step(jumping, s, target)
    with torch.no_grad():
        alone = jumping.prefill(s["latents"][:, -1], s["states"][:, -1], s["cross"][:, 0])
    torch.testing.assert_close(alone, new_kv, atol=1e-5, rtol=1e-5)
    later_action, later_video = _refine(jumping, s, s["video"], s["action"], alone, 1.0, target)
    torch.testing.assert_close(later_action, action, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(later_video, video, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("d", [0, 3])
def test_refining_behind_the_cache_equals_the_teacher_forced_pass(jumping: WorldActionTransformer, d: int) -> None:
    s = _scene(jumping, d)
    half_action, half_video, new_kv = _step(jumping, s, 0.5)
    action, video = _refine(jumping, s, half_video, half_action, new_kv, 0.5)
    half = torch.full((1,), 0.5)
    with torch.no_grad():
        u_video, u_action = jumping(s["latents"], s["states"], torch.ones(1, P), half_video, half_action, half, half,
                                    s["mask"], s["cross"], half, half)  # fmt: skip
    torch.testing.assert_close(video, half_video - 0.5 * u_video, atol=1e-4, rtol=1e-4)
    expected = s["known"] + (half_action - 0.5 * u_action) * (1 - s["mask"][..., None])
    torch.testing.assert_close(action, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(action[:, :d], s["known"][:, :d])


def test_two_passes_are_not_one(jumping: WorldActionTransformer) -> None:
    s = _scene(jumping)
    action, video, new_kv = _step(jumping, s, 0.5)
    twice = _refine(jumping, s, video, action, new_kv, 0.5)[0]
    assert (twice - _step(jumping, s, 0.0)[0]).abs().max() > 1e-3


def test_the_target_time_reaches_its_own_tokens_alone(jumping: WorldActionTransformer) -> None:
    one, zero = torch.ones(1), torch.zeros(1)
    committed = (torch.arange(16) < 3).float()[None]
    with torch.no_grad():
        base, _ = jumping._levels(9, one, one, committed, zero, zero)
        plain, _ = jumping._levels(9, one, one, committed)
        far, _ = jumping._levels(9, one, one, committed, zero, one)
    assert torch.equal(base.action, plain.action)
    assert torch.equal(base.video, far.video) and torch.equal(base.clean, far.clean)
    torch.testing.assert_close(base.action[:, :3], far.action[:, :3])
    assert not torch.allclose(base.action[:, 3:], far.action[:, 3:])


def test_a_jump_is_refused_by_a_network_that_knows_none() -> None:
    wam = make_student(TINY)[1]
    with pytest.raises(ConfigError, match="target time"):
        wam.modulation(torch.ones(1), torch.ones(1))
    one = torch.ones(1)
    with pytest.raises(ConfigError, match="both or neither"):
        make_student(JUMPING)[1]._levels(9, one, one, torch.zeros(1, 16), one, None)


def test_positions_in_a_teachers_units_are_the_teachers() -> None:
    """The newest frame is latent frame 0, the chunk frames 1 and 2; actions count from 0, the state stands at 0."""
    c = replace(CONFIGS["5b"], depth=1, width=48, heads=2, ffn=8, past_frames=0)
    wam = WorldActionTransformer(c)
    angles = torch.atan2(wam.rope_sin, wam.rope_cos)[:, 0]
    device = torch.device("cpu")
    video = video_angles((3, 11, 20), 0, c.head_dim, device).float()
    wanted = torch.cat([video[:220], register_angles(0, 1, 24, device).float(), video[220:],
                        register_angles(0, 24, 24, device).float()])  # fmt: skip
    torch.testing.assert_close(torch.stack([angles.cos(), angles.sin()]), torch.stack([wanted.cos(), wanted.sin()]),
                               atol=1e-5, rtol=0)  # fmt: skip


def test_heads_that_say_velocities_are_taken_at_their_word() -> None:
    clean = make_student(TINY)[1]
    velocity = make_student(replace(TINY, predicts="velocity"))[1]
    s = _scene(clean)
    one = torch.ones(1)
    given = (s["latents"], s["states"], torch.ones(1, P), s["video"], s["action"], one, one, s["mask"], s["cross"])
    with torch.no_grad():
        remains, says = clean(*given), velocity(*given)
    for x, a, b in zip((s["video"], s["action"]), remains, says, strict=True):
        torch.testing.assert_close(x - b, a, atol=1e-5, rtol=1e-5)
