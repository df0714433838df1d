"""Our transformer and sampler compute what the public reference computes (golden.npz, by make_golden.py)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.teacher.config import TeacherConfig
from distill.teacher.dit import Chunk, Clip, DreamZero
from distill.teacher.memory import Memory
from distill.teacher.sampler import UniPC, flow_sigmas, flow_times, unipc_table
from tests.teacher.make_golden import BLOCKS, GOLDEN, SAMPLES
from tests.teacher.tiny import CONFIGS, draw, inputs, tiny

TOLERANCE = 1e-5
"""float32, of the root mean square of the output (1 to 3 in these models)."""
NAMES = sorted(CONFIGS)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(GOLDEN, allow_pickle=False) as file:
        return dict(file)


def _same(tensor: Tensor, expected: np.ndarray) -> None:
    scale = float(np.sqrt(np.mean(np.square(expected))))
    assert scale > 0.3  # an output of zeros would agree with anything small
    np.testing.assert_allclose(tensor.detach().numpy(), expected, rtol=0, atol=TOLERANCE * max(1.0, scale), strict=True)


def remembered(model: DreamZero, given: dict[str, Tensor], blocks: int) -> tuple[Memory, Any]:
    """A window that has seen frame 0 and so many blocks of the clean clip."""
    config = model.config
    memory = Memory(config, 1, "cpu", torch.float32)
    context = model.context(given["text"], given["image"])
    first = given.get("first_frame")
    for block in range(-1, blocks):
        begin = 0 if block < 0 else 1 + block * config.frames_per_block
        end = 1 + (block + 1) * config.frames_per_block
        here = None if first is None else first[:, :, begin:end]
        model.remember(given["clean"][:, :, begin:end], context, memory, here)
    return memory, context


def chunk_of(config: TeacherConfig, given: dict[str, Tensor], block: int) -> Chunk:
    begin, end = 1 + block * config.frames_per_block, 1 + (block + 1) * config.frames_per_block
    actions = slice(block * config.actions_per_block, (block + 1) * config.actions_per_block)
    states = slice(block * config.states_per_block, (block + 1) * config.states_per_block)
    first = given.get("first_frame")
    return Chunk(
        given["noisy"][:, :, begin:end], given["video_time"][:, begin:end], given["actions"][:, actions],
        given["action_time"][:, actions], given["states"][:, states], None if first is None else first[:, :, begin:end],
    )  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_teacher_forcing_equals_the_reference(name: str, golden: dict[str, np.ndarray]) -> None:
    video, action = tiny(CONFIGS[name])(Clip(**inputs(CONFIGS[name], BLOCKS[name])))
    assert action is not None
    _same(video, golden[f"{name}.train.video"])
    _same(action, golden[f"{name}.train.action"])


@pytest.mark.parametrize(("name", "block"), [(name, block) for name in NAMES for block in range(BLOCKS[name])])
def test_cached_inference_equals_the_reference(name: str, block: int, golden: dict[str, np.ndarray]) -> None:
    config, given, model = CONFIGS[name], inputs(CONFIGS[name], BLOCKS[name]), tiny(CONFIGS[name])
    memory, context = remembered(model, given, block)
    video, action = model.denoise(chunk_of(config, given, block), context, memory)
    begin = 1 + block * config.frames_per_block
    _same(video, golden[f"{name}.cached{begin}.video"])
    _same(action, golden[f"{name}.cached{begin}.action"])


@pytest.mark.parametrize("state_sees_block", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_cached_and_teacher_forced_are_one_function_when_the_state_is_treated_alike(
    name: str, state_sees_block: bool
) -> None:
    config, given, model = CONFIGS[name], inputs(CONFIGS[name], BLOCKS[name]), tiny(CONFIGS[name])
    with torch.no_grad():
        whole_video, whole_action = model(Clip(**given), state_sees_block=state_sees_block)
    for block in range(BLOCKS[name]):
        memory, context = remembered(model, given, block)
        chunk = chunk_of(config, given, block)
        video, action = model.denoise(chunk, context, memory, state_sees_block=state_sees_block)
        begin, end = 1 + block * config.frames_per_block, 1 + (block + 1) * config.frames_per_block
        actions = slice(block * config.actions_per_block, (block + 1) * config.actions_per_block)
        torch.testing.assert_close(video, whole_video[:, :, begin:end], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(action, whole_action[:, actions], atol=TOLERANCE, rtol=0)
        other, _ = model.denoise(chunk, context, memory, state_sees_block=not state_sees_block)
        assert (other - video).abs().max() > 10 * TOLERANCE  # it matters, so the comparison means something


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_the_sampler_equals_the_reference(name: str, golden: dict[str, np.ndarray]) -> None:
    sigmas = flow_sigmas(last=SAMPLES[name])
    np.testing.assert_allclose(sigmas, golden[f"{name}.sigmas"], atol=1e-6)
    np.testing.assert_array_equal(flow_times(sigmas), golden[f"{name}.times"])
    walk = UniPC(unipc_table(sigmas))
    x, target = draw(1, 2, 4, 6), draw(2, 2, 4, 6)
    for sigma in sigmas[:-1]:
        velocity = (x - target) + 0.3 * torch.sin(3.0 * x) * float(sigma)
        x = walk.step(velocity, x)
    _same(x, golden[f"{name}.sample"])
