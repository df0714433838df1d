"""The training loss: its schedule is the reference's, its minimum is the velocity, its masks mask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.teacher.dit import Clip, DreamZero
from distill.teacher.objective import Levels, Losses, Schedule, TrainingClip, draw_levels, flow_matching
from edge_wam.errors import ContractError
from tests.teacher.make_golden import GOLDEN
from tests.teacher.tiny import TINY_14B, draw, inputs, tiny

SCHEDULE = Schedule.shifted()


def _clip(batch: int = 1) -> TrainingClip:
    given = inputs(TINY_14B, 2)
    repeat = {key: torch.cat([value] * batch) for key, value in given.items()}
    actions = draw(11, batch, 48, 32).clamp(-1, 1)
    return TrainingClip(
        repeat["clean"], repeat["text"], repeat["image"], repeat["first_frame"], actions,
        torch.ones_like(actions, dtype=torch.bool), torch.ones(batch, dtype=torch.bool), repeat["states"],
    )  # fmt: skip


def _loss(model: DreamZero, clip: TrainingClip, seed: int = 0, levels: Levels = Levels.COUPLED) -> Losses:
    return flow_matching(model, clip, SCHEDULE, torch.Generator().manual_seed(seed), levels)


@pytest.fixture(scope="module")
def model() -> Iterator[DreamZero]:
    with torch.no_grad():
        yield tiny(TINY_14B)


def test_levels_and_weights_are_the_reference_s() -> None:
    with np.load(GOLDEN, allow_pickle=False) as golden:
        np.testing.assert_allclose(1000 * SCHEDULE.sigmas, golden["train.times"], rtol=1e-6)
        np.testing.assert_allclose(SCHEDULE.weights, golden["train.weights"], rtol=1e-4, atol=1e-4)
    assert float(SCHEDULE.weights.mean()) == pytest.approx(1.0, abs=1e-4)


class _Exact(torch.nn.Module):
    """Knows the answer: the clip it is given was made of these data."""

    def __init__(self, clip: TrainingClip) -> None:
        super().__init__()
        self.config, self.data = TINY_14B, clip

    def forward(self, clip: Clip) -> tuple[Tensor, Tensor]:
        assert clip.actions is not None and clip.action_time is not None and self.data.actions is not None
        video = (clip.noisy - self.data.latents) / (clip.video_time / 1000)[:, None, :, None, None]
        return video, (clip.actions - self.data.actions) / (clip.action_time / 1000)[..., None]


@pytest.mark.parametrize("levels", Levels)
def test_the_velocity_of_the_straight_path_is_the_minimum(levels: Levels, model: DreamZero) -> None:
    clip = _clip()
    exact = flow_matching(_Exact(clip), clip, SCHEDULE, torch.Generator().manual_seed(1), levels)  # type: ignore[arg-type]
    assert float(exact.total) < 1e-6
    assert float(_loss(model, clip, 1, levels).total) > 1.0


def test_padded_entries_and_made_up_actions_do_not_count(model: DreamZero) -> None:
    clip = _clip(2)
    assert clip.actions is not None and clip.action_mask is not None
    whole = _loss(model, clip)
    mask = clip.action_mask.clone()
    mask[..., 16:] = False
    half = _loss(model, replace(clip, action_mask=mask))
    assert 0.2 < float(half.action / whole.action) < 0.8
    none = _loss(model, replace(clip, has_action=torch.zeros(2, dtype=torch.bool)))
    assert float(none.action) == 0.0 and float(none.video) == pytest.approx(float(whole.video))
    one = _loss(model, replace(clip, has_action=torch.tensor([True, False])))
    other = _loss(model, replace(clip, has_action=torch.tensor([False, True])))
    assert float(one.action + other.action) == pytest.approx(float(whole.action), rel=1e-5)


def test_video_alone_has_no_action_loss(model: DreamZero) -> None:
    clip = replace(_clip(), actions=None, action_mask=None, has_action=None, states=None)
    losses = _loss(model, clip)
    assert float(losses.action) == 0.0 and float(losses.total) == float(losses.video) > 0.0


def test_a_seed_repeats_the_loss_and_another_does_not(model: DreamZero) -> None:
    assert float(_loss(model, _clip(), 3).total) == float(_loss(model, _clip(), 3).total)
    assert float(_loss(model, _clip(), 3).total) != float(_loss(model, _clip(), 4).total)


@pytest.mark.parametrize("value", [1.01, float("nan"), float("inf")])
def test_actions_outside_their_range_are_refused(value: float, model: DreamZero) -> None:
    clip = _clip()
    assert clip.actions is not None
    clip.actions[0, 3, 2] = value
    with pytest.raises(ContractError, match="actions outside"):
        _loss(model, clip)


def test_levels_are_coupled_by_block_or_free_by_step() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = {levels: draw_levels(TINY_14B, 4000, 2, levels, 7.0, generator) for levels in Levels}
    for levels, (video, action) in drawn.items():
        assert video.shape == (4000, 5) and action.shape == (4000, 48)
        assert (video[:, 1] == video[:, 2]).all() and (video[:, 3] == video[:, 4]).all()
        assert (video[:, 0] != video[:, 1]).any() and (video[:, 1] != video[:, 3]).any()
        coupled = (action[:, :24] == video[:, 1:2]).all() and (action[:, 24:] == video[:, 3:4]).all()
        assert bool(coupled) == (levels is not Levels.DECOUPLED)
        # Index 0 is noise: Beta(7, 1) has a mean of 7/8.
        mean = 1 - float(video.double().mean()) / 1000
        assert mean == pytest.approx(0.5 if levels is Levels.COUPLED else 7 / 8, abs=0.01)
    free = drawn[Levels.DECOUPLED][1].double()
    assert float(free.mean()) == pytest.approx(499.5, abs=5)
    assert abs(float(torch.corrcoef(free[:, :2].T)[0, 1])) < 0.05
