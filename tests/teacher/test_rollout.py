"""The closed loop: what is remembered, how often the transformer runs, and that it ends where one long pass ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.teacher.dit import Chunk, DreamZero
from distill.teacher.memory import Memory
from distill.teacher.rollout import Rollout, Sampling, Scene
from distill.teacher.sampler import RUN_STEPS, StepSkip, UniPC, flow_sigmas, flow_times, unipc_table
from edge_wam.errors import ConfigError, ContractError
from tests.teacher.tiny import TINY_5B, TINY_14B, draw, inputs, tiny


@pytest.fixture(scope="module")
def model() -> DreamZero:
    return tiny(TINY_14B)


def _scene(seed: int = 0) -> Scene:
    given = inputs(TINY_14B, TINY_14B.blocks, seed)
    return Scene(
        text=given["text"], negative=draw(seed + 50, 1, TINY_14B.text_length, TINY_14B.text_width),
        image=given["image"], first_frame=given["first_frame"], latent=given["clean"][:, :, :1],
    )  # fmt: skip


STATE = draw(90, 1, 1, TINY_14B.state_width)


def _seen(block: int) -> torch.Tensor:
    return draw(70 + block, 1, TINY_14B.latent_channels, TINY_14B.frames_per_block, *TINY_14B.latent_grid)


def test_the_schedule_is_the_one_written_down() -> None:
    times = [999, 986, 972, 955, 937, 916, 892, 865, 833, 795, 749, 694, 624, 535, 416, 249]
    assert flow_times(flow_sigmas()).tolist() == times


@pytest.mark.parametrize("steps", [1, 2, 3, 16])
def test_the_sampler_is_exact_where_the_velocity_is_constant_and_ends_in_the_data(steps: int) -> None:
    data, noise = draw(1, 2, 5), draw(2, 2, 5)
    sigmas = flow_sigmas(steps)
    walk, x = UniPC(unipc_table(sigmas)), (1 - float(sigmas[0])) * data + float(sigmas[0]) * noise
    for _ in range(steps):
        x = walk.step(noise - data, x)
    torch.testing.assert_close(x, data, atol=2e-6, rtol=0)


def test_more_steps_come_closer_to_the_flow_of_a_gaussian() -> None:
    # Data N(m, s^2): the exact flow maps noise e to m + s e.
    mean, deviation, noise = 0.7, 0.4, draw(3, 1, 64).double()

    def error(steps: int) -> float:
        sigmas = flow_sigmas(steps)
        walk, x = UniPC(unipc_table(sigmas)), noise
        for sigma in (float(s) for s in sigmas[:-1]):
            variance = (1 - sigma) ** 2 * deviation**2 + sigma**2
            centred = x - (1 - sigma) * mean
            expected_data = mean + (1 - sigma) * deviation**2 / variance * centred
            x = walk.step((x - expected_data) / sigma, x)
        return float((x - (mean + deviation * noise)).abs().max())

    # The last step alone leaves 0.3 at 16 steps: it goes from a level of 0.25 to the mean of what is left.
    few, published, many = (error(steps) for steps in (4, 16, 1024))
    assert few > 2 * published > 200 * many
    assert many < 1e-3


@pytest.mark.parametrize("levels", [[0.5], [0.5, 0.5], [0.2, 0.5], [1.0, 0.0], [0.5, -0.1], [0.5, float("nan")]])
def test_levels_that_do_not_fall_are_refused(levels: list[float]) -> None:
    with pytest.raises(ConfigError, match="noise levels"):
        unipc_table(np.array(levels, np.float32))


@pytest.mark.parametrize("run", sorted(RUN_STEPS))
def test_so_many_steps_run_and_the_first_among_them(run: int) -> None:
    skip = StepSkip(run)
    ran = [index for index in range(16) if skip.runs(index)]
    assert len(ran) == run and ran[0] == 0


def test_a_straight_flow_skips_four_steps_at_a_time_and_a_turning_one_none() -> None:
    straight, turning = StepSkip("dynamic"), StepSkip("dynamic")
    ran, ran_turning = [], []
    for index in range(16):
        if straight.runs(index):
            ran.append(index)
            straight.saw(torch.ones(1, 4))
        if turning.runs(index):
            ran_turning.append(index)
            turning.saw(draw(index, 1, 64))
    assert ran == [0, 1, 6, 11]
    assert ran_turning == list(range(16))


def test_a_choice_of_steps_that_is_not_known_is_refused() -> None:
    for run in (3, "fast"):
        with pytest.raises(ConfigError, match="16 steps"):
            StepSkip(run)


def test_a_chunk_is_the_same_through_the_loop_and_by_hand(model: DreamZero) -> None:
    scene, how = _scene(), Sampling(run=6)
    rollout = Rollout(model, how)
    rollout.begin(scene)
    rollout.observe(_seen(0))
    got = rollout.sample(STATE)
    assert got.passes == 2 * 6

    memories = [Memory(TINY_14B, 1, "cpu", torch.float32) for _ in range(2)]
    contexts = [model.context(text, scene.image) for text in (scene.text, scene.negative)]
    first = scene.first_frame
    assert first is not None
    for memory, context in zip(memories, contexts, strict=True):
        model.remember(scene.latent, context, memory, first[:, :, :1])
        model.remember(_seen(0), context, memory, first[:, :, 1:3])
    sigmas = flow_sigmas()
    walks = [UniPC(unipc_table(sigmas)) for _ in range(2)]
    shape = (1, TINY_14B.latent_channels, 2, *TINY_14B.latent_grid)
    video = torch.randn(shape, generator=torch.Generator().manual_seed(1140))
    actions = torch.randn((1, 24, 32), generator=torch.Generator().manual_seed(1140))
    velocity = None
    for index, time in enumerate(flow_times(sigmas)):
        if index in RUN_STEPS[6]:
            times = [torch.full((1, count), float(time)) for count in (2, 24)]
            chunk = Chunk(video, times[0], actions, times[1], STATE, first[:, :, 3:5])
            (a, action), (b, _) = (model.denoise(chunk, c, m) for c, m in zip(contexts, memories, strict=True))
            velocity = (b + 5.0 * (a - b), action)
        assert velocity is not None
        video, actions = walks[0].step(velocity[0], video), walks[1].step(velocity[1], actions)
    torch.testing.assert_close(got.video, video)
    torch.testing.assert_close(got.actions, actions)


def test_a_chunk_leaves_the_memory_as_it_was(model: DreamZero) -> None:
    rollout = Rollout(model, Sampling(run=5))
    rollout.begin(_scene())
    first, second = rollout.sample(STATE), rollout.sample(STATE)
    torch.testing.assert_close(first.actions, second.actions, rtol=0, atol=0)


def test_guidance_of_one_runs_once_a_step_and_guidance_moves_the_video(model: DreamZero) -> None:
    samples = []
    for guidance in (1.0, 5.0):
        rollout = Rollout(model, Sampling(run=5, guidance=guidance))
        rollout.begin(_scene())
        samples.append(rollout.sample(STATE))
    assert [sample.passes for sample in samples] == [5, 10]
    assert (samples[0].video - samples[1].video).abs().max() > 1e-2


def test_the_video_of_a_decoupled_teacher_stays_noisy(model: DreamZero) -> None:
    rollout = Rollout(model, Sampling(run=5, video_last=0.8))
    rollout.begin(_scene())
    noise = torch.randn((1, 16, 2, 4, 8), generator=torch.Generator().manual_seed(1140))
    correlation = torch.corrcoef(torch.stack([rollout.sample(STATE).video.flatten(), noise.flatten()]))[0, 1]
    assert correlation > 0.7


def test_a_window_holds_nine_frames_and_then_wants_a_new_beginning(model: DreamZero) -> None:
    rollout = Rollout(model, Sampling(run=5))
    assert rollout.needs_scene
    with pytest.raises(ContractError, match="no window"):
        rollout.sample(STATE)
    rollout.begin(_scene())
    for block in range(TINY_14B.blocks):
        assert not rollout.needs_scene
        rollout.observe(_seen(block))
    assert rollout.needs_scene
    for refused in (lambda: rollout.sample(STATE), lambda: rollout.observe(_seen(0))):
        with pytest.raises(ContractError, match="no window"):
            refused()
    rollout.begin(_scene(1))
    assert rollout.sample(STATE).actions.shape == (1, 24, 32)


def test_a_new_window_remembers_nothing_of_the_old_one(model: DreamZero) -> None:
    used, fresh = Rollout(model, Sampling(run=5)), Rollout(model, Sampling(run=5))
    used.begin(_scene(3))
    used.observe(_seen(2))
    for rollout in (used, fresh):
        rollout.begin(_scene())
    torch.testing.assert_close(used.sample(STATE).actions, fresh.sample(STATE).actions, rtol=0, atol=0)


def test_an_answer_that_is_no_number_is_refused(model: DreamZero) -> None:
    rollout = Rollout(model, Sampling(run=5))
    rollout.begin(_scene())
    with pytest.raises(ContractError, match="a number that is none"):
        rollout.sample(torch.full_like(STATE, float("nan")))


def test_a_teacher_without_a_first_frame_latent_runs_the_same_loop() -> None:
    model, given = tiny(TINY_5B), inputs(TINY_5B, 2)
    rollout = Rollout(model, Sampling(run=5))
    rollout.begin(Scene(given["text"], given["text"] * 0, given["image"], None, given["clean"][:, :, :1]))
    rollout.observe(given["clean"][:, :, 1:3])
    sample = rollout.sample(given["states"][:, :1])
    assert sample.actions.shape == (1, 12, 32) and sample.video.shape == (1, 48, 2, 4, 6)
