"""Teachers: their answers are their networks', they stay as they are, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.models.codec import tokens_from_grid
from distill.models.config import StudentConfig
from distill.teacher.config import TeacherConfig
from distill.teacher.dit import Clip
from distill.teacher.lecture import DreamZeroTeacher, Window
from distill.teaching import WamTeacher, at_depths, levels, solve, tapped, weights_digest
from edge_wam.errors import ConfigError, ContractError
from tests.distill.tiny import TINY, make_student
from tests.distill.toy import TOY, ForkTeacher, batch_of, fork, noise_of, path
from tests.teacher.tiny import TINY_5B, TINY_14B, inputs, tiny


def test_a_larger_transformer_teaches_what_it_says() -> None:
    wam = make_student(TINY)[1]
    teacher, before = WamTeacher(wam, TINY), weights_digest(wam)
    batch = batch_of(TINY, 3, 0)
    noise = noise_of(batch, 0)
    lecture = teacher.open(batch)
    chunk = lecture.noisy(noise)
    with tapped(wam.blocks, (0, 1)) as found, torch.no_grad():
        video, action = wam(
            batch.latents, batch.states, batch.past_mask, chunk.video, chunk.action, noise.sigma_video,
            noise.sigma_action, noise.committed, wam.text_kv(batch.tokens),
        )  # fmt: skip
    said = lecture.look(chunk, (0, 1))
    assert torch.equal(said.video, video) and torch.equal(said.action, action)
    for depth, (frames, knots) in enumerate(said.hidden):
        assert frames.shape == (3, 2, TINY.future_tokens, TINY.width) and knots.shape == (3, TINY.horizon, TINY.width)
        assert torch.equal(torch.cat([frames.flatten(1, 2), knots], 1), found[depth][:, -TINY.horizon - 4 :])
    assert teacher.digest == before == weights_digest(wam)
    assert not any(p.requires_grad for p in wam.parameters())
    assert not said.action.requires_grad and not any(block._forward_hooks for block in wam.blocks)
    with torch.no_grad():
        wam.action_encoder.bias[0] += 1e-3
    assert weights_digest(wam) != before


def test_a_teacher_with_less_memory_sees_the_newest_frames() -> None:
    short = make_student(replace(TINY, past_frames=1))[1]
    batch = batch_of(TINY, 2, 1)
    noise = noise_of(batch, 1)
    newest = replace(batch, latents=batch.latents[:, 1:], states=batch.states[:, 1:], past_mask=batch.past_mask[:, 1:])
    answers = [(lecture := WamTeacher(short, TINY).open(b)).look(lecture.noisy(noise)) for b in (batch, newest)]
    assert torch.equal(answers[0].action, answers[1].action)


def test_a_teacher_of_other_tokens_is_refused_by_name() -> None:
    wam = make_student(TINY)[1]
    for change in ({"grid": (8, 8)}, {"horizon": 8}, {"future_knots": (4, 16)}, {"text_length": 12}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            WamTeacher(wam, replace(TINY, **change))


def test_an_ode_goes_from_the_noise_to_one_of_the_answers() -> None:
    batch = fork(64, np.random.default_rng(0))
    noise = replace(noise_of(batch, 3), committed=torch.zeros(64, TOY.horizon))
    noise.committed[:32, :2] = 1.0
    states = solve(ForkTeacher().open(batch), noise, levels(8))
    assert torch.equal(states[0].video, noise.video) and torch.equal(states[0].action[32:], noise.action[32:])
    assert [float(state.sigma_action[0]) for state in states] == [1 - k / 8 for k in range(9)]
    for state in states:
        assert torch.equal(state.action[:32, :2], batch.action[:32, :2]), "committed knots stay"
    end = states[-1].action[32:, :, :2]
    near = torch.minimum((end - path()[:, :2]).abs().amax((1, 2)), (end + path()[:, :2]).abs().amax((1, 2)))
    assert near.median() < 0.35
    assert 5 < int((end[:, 0, 0] < 0).sum()) < 27, "both of them are found"


def test_a_teacher_that_says_no_number_stops_the_run() -> None:
    wam = make_student(TINY)[1]
    with torch.no_grad():
        wam.action_head[2].bias[3] = float("nan")
    batch = batch_of(TINY, 2, 0)
    with pytest.raises(ContractError, match="endpoint is not finite"):
        solve(WamTeacher(wam, TINY).open(batch), noise_of(batch, 0), levels(2))


def test_levels_fall_from_one_to_zero() -> None:
    assert levels(4) == (1.0, 0.75, 0.5, 0.25, 0.0)
    assert levels(2, 5.0) == (1.0, 5.0 / 6.0, 0.0)
    assert at_depths(40, (0.25, 0.5, 0.75, 1.0)) == (9, 19, 29, 39) and at_depths(2, (0.1, 1.0)) == (0, 1)
    with pytest.raises(ConfigError, match="0 steps"):
        levels(0)


# ---- DreamZero ------------------------------------------------------------------------------------------------------


def _student(t: TeacherConfig, **change: object) -> StudentConfig:
    full = StudentConfig(
        name="student", depth=1, width=32, ffn=32, heads=2, grid=t.latent_grid, latent_channels=t.latent_channels,
        patch=2, future_patch=2, past_frames=0, past_stride=3, future_knots=(12, 24), horizon=t.actions_per_block,
        text_length=10, text_depth=0, positions="wan", predicts="velocity",
    )  # fmt: skip
    return replace(full, **change)  # type: ignore[arg-type]


def _window(t: TeacherConfig, size: int = 2) -> Window:
    """The context of two samples: one seen frame."""
    rows = [inputs(t, 1, 10 * k) for k in range(size)]
    each = {key: torch.cat([row[key] for row in rows]) for key in rows[0]}
    other = inputs(t, 1, 77)["text"].expand(size, -1, -1)
    return Window(each["text"], other, each["image"], each["clean"][:, :, :1], each["states"], each.get("first_frame"))


@pytest.mark.parametrize("config", [TINY_14B, TINY_5B], ids=["14b", "5b"])
def test_dreamzero_teaches_what_its_teacher_forced_pass_says(config: TeacherConfig) -> None:
    model, student = tiny(config), _student(config)
    window = _window(config)
    batch = batch_of(student, 2, 4)
    noise = replace(noise_of(batch, 4), committed=(torch.arange(student.horizon) < 3).float().expand(2, -1).clone())
    chunk = (lecture := DreamZeroTeacher(model, student, lambda _: window, guidance=1.0).open(batch)).noisy(noise)
    said = lecture.look(chunk, (0, config.depth - 1))
    grid = _grid(chunk.video, config)
    first = window.clean
    clip = Clip(
        noisy=torch.cat([first, grid], 2), clean=torch.cat([first, torch.zeros_like(grid)], 2),
        video_time=torch.cat([torch.zeros(2, 1), 1000 * noise.sigma_video[:, None].expand(-1, 2)], 1),
        text=window.text, image=window.image, first_frame=window.first_frame, actions=chunk.action,
        action_time=1000 * noise.sigma_action[:, None] * (1 - noise.committed), states=window.states,
    )  # fmt: skip
    with torch.no_grad():
        video, action = model(clip, state_sees_block=True)
    torch.testing.assert_close(said.action, action, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(_grid(said.video, config), video[:, :, 1:], atol=1e-4, rtol=1e-4)
    assert [tuple(x.shape) for x in said.hidden[0]] == [
        (2, 2, config.frame_tokens, config.width), (2, student.horizon, config.width)
    ]  # fmt: skip


def _grid(tokens: Tensor, config: TeacherConfig) -> Tensor:
    """[B, F, N, 4 C] -> [B, C, F, h, w], by hand."""
    b, f = tokens.shape[:2]
    h, w = config.latent_grid
    x = tokens.reshape(b, f, h // 2, w // 2, 2, 2, config.latent_channels)
    return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(b, config.latent_channels, f, h, w)


def test_guidance_is_in_the_video_and_not_in_the_action() -> None:
    model, student = tiny(TINY_5B), _student(TINY_5B)
    window = _window(TINY_5B)
    batch = batch_of(student, 2, 5)
    noise = noise_of(batch, 5)

    def ask(guidance: float, context: Window) -> tuple[Tensor, Tensor]:
        lecture = DreamZeroTeacher(model, student, lambda _: context, guidance).open(batch)
        said = lecture.look(lecture.noisy(noise))
        return said.video, said.action

    with_it, alone = ask(5.0, window), ask(1.0, window)
    without = ask(1.0, replace(window, text=window.negative))
    torch.testing.assert_close(with_it[0], without[0] + 5.0 * (alone[0] - without[0]), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(with_it[1], alone[1])


def test_a_teacher_with_another_vae_is_shown_its_own_latents() -> None:
    """8x latents beside 16x ones: hidden states are pooled 2 x 2, video velocities are not compared."""
    config = TINY_14B  # 2 x 4 tokens
    student = _student(config, grid=(2, 4), latent_channels=48)  # 1 x 2 tokens
    window = _window(config)
    batch = batch_of(student, 2, 6)
    noise = noise_of(batch, 6)
    with pytest.raises(ContractError, match="another one"):
        DreamZeroTeacher(tiny(config), student, lambda _: window).open(batch)
    own = torch.randn(2, 2, 8, 64)
    told = replace(window, video=own, noise=torch.zeros_like(own))
    lecture = DreamZeroTeacher(tiny(config), student, lambda _: told, guidance=1.0).open(batch)
    chunk = lecture.noisy(noise)
    torch.testing.assert_close(chunk.video, (1 - noise.sigma_video)[:, None, None, None] * own)
    said = lecture.look(chunk, (1,))
    assert not lecture.same_latents and said.video.shape == own.shape
    with tapped(lecture.model.blocks, (1,)) as found:
        lecture.look(chunk)
    first = found[1][0, :8].reshape(2, 4, -1)  # the first imagined frame's tokens in rows and columns
    wanted = torch.stack([first[:, :2].mean((0, 1)), first[:, 2:].mean((0, 1))])
    torch.testing.assert_close(said.hidden[0][0][0, 0], wanted)
    assert said.hidden[0][1].shape == (2, 24, config.width)


def test_dreamzero_refuses_a_student_of_other_chunks() -> None:
    for change, what in (({"horizon": 12}, "actions"), ({"future_knots": (12,)}, "frames"), ({"grid": (6, 8)}, "grid")):
        with pytest.raises(ConfigError, match=what):
            DreamZeroTeacher(tiny(TINY_14B), _student(TINY_14B, **change), lambda _: _window(TINY_14B))


def test_tokens_by_hand_are_the_tokens_of_the_codec() -> None:
    grid = torch.randn(2, 16, 4, 8)
    assert torch.equal(_grid(tokens_from_grid(grid, 2)[:, None], TINY_14B)[:, :, 0], grid)
