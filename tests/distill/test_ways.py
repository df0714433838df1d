"""Two passes and action-only exports: what they share with the joint pass to the last bit, and their graphs."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import Tensor

from distill.export import (
    HALF_WAY,
    Way,
    _Act,
    _onnx,
    _Refine,
    fixed_noise,
    model_sizes,
    refine_inputs,
    step_arguments,
    step_inputs,
)
from distill.models.wam import WorldActionTransformer
from distill.quantise.graph import run_feeds
from distill.quantise.smooth import smooth
from distill.quantise.student import later_feeds
from edge_wam.bundle import graph_contract
from edge_wam.engines.onnx_graph import graph_io, parse_graph
from edge_wam.errors import ConfigError
from tests.distill.tiny import EXPORTED, ROBOT, Exported, make_student, step_feed

pytestmark = pytest.mark.timeout(900)
NOISE, ABSENT = Way(video="noise"), Way(video="absent")


@pytest.fixture(scope="module")
def wam() -> WorldActionTransformer:
    return make_student(EXPORTED)[1]


@torch.no_grad()
def _act(wam: WorldActionTransformer, way: Way, seed: int) -> tuple[Tensor, Tensor]:
    feed = step_feed(seed)
    return _Act(wam, way)(*(torch.from_numpy(feed[name]) for name in feed if name != "noise_video"))


@torch.no_grad()
def _joint(wam: WorldActionTransformer, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    feed = {**step_feed(seed), "noise_video": fixed_noise(EXPORTED).numpy()}
    return wam.step(*(torch.from_numpy(feed[name]) for name in feed))


def test_behind_fixed_noise_the_action_and_the_memory_are_the_joint_passes(wam: WorldActionTransformer) -> None:
    for seed in (1, 4):
        action, new_kv = _act(wam, NOISE, seed)
        joint = _joint(wam, seed)
        assert torch.equal(action, joint[0]) and torch.equal(new_kv, joint[2])


def test_without_video_the_memory_is_the_joint_passes_and_the_action_is_not(wam: WorldActionTransformer) -> None:
    """Clean frames see nothing but themselves, so a joint and an action-only export may share a cache."""
    action, new_kv = _act(wam, ABSENT, 3)
    joint = _joint(wam, 3)
    torch.testing.assert_close(new_kv, joint[2], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(action, joint[0], atol=1e-3), "the chunk had been looking at its video"
    assert torch.equal(action[:, :3], joint[0][:, :3]), "three committed knots"


@torch.no_grad()
def test_without_video_cached_and_recomputed_are_the_same(wam: WorldActionTransformer) -> None:
    g = torch.Generator().manual_seed(2)
    c = EXPORTED
    latents = torch.randn(1, c.past_frames + 1, c.tokens, c.token_channels, generator=g)
    states = torch.randn(1, c.past_frames + 1, 64, generator=g)
    noise, none = torch.randn(1, 16, 32, generator=g), torch.zeros(1, 0, c.tokens, c.token_channels)
    cross, one = wam.text_kv(torch.tensor([[5, 9, 40, 0, 0, 0, 0, 0, 0, 0]])), torch.ones(1)
    past = torch.cat([wam.prefill(latents[:, k], states[:, k], cross[:, 0]) for k in range(c.past_frames)], 2)
    known, seen = torch.zeros(1, 16), torch.ones(1, c.past_frames)
    video, velocity = wam(latents, states, seen, none, noise, one, one, known, cross)
    action, video_too, _ = wam.step(latents[:, -1], states[:, -1], none, noise, torch.zeros(1, 16, 32), known, past,
                                    seen, cross[:, 0])  # fmt: skip
    assert video.shape == video_too.shape == none.shape
    torch.testing.assert_close(action, noise - velocity, atol=1e-4, rtol=1e-3)


def test_two_passes_imagine() -> None:
    for video in ("noise", "absent"):
        with pytest.raises(ConfigError, match="two passes with video"):
            Way(passes=2, video=video)  # type: ignore[arg-type]


def test_smoothing_watches_what_the_export_will_compute(wam: WorldActionTransformer) -> None:
    feeds = [{k: v for k, v in step_feed(100 + k).items() if k != "noise_video"} for k in range(3)]
    with pytest.raises(KeyError, match="noise_video"):
        smooth(wam, feeds, [1])
    for way in (NOISE, ABSENT):
        smoothed = smooth(wam, feeds, [1], way=way)
        with torch.no_grad():
            a = wam.step(*step_arguments(feeds[0], EXPORTED, way))[0]
            b = smoothed.wam.step(*step_arguments(smoothed.feed(feeds[0]), EXPORTED, way))[0]
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_the_second_passes_graph_equals_pytorch_and_is_fed_by_the_first(exported: Exported) -> None:
    logging.disable(logging.CRITICAL)
    try:
        graph = _onnx(_Refine(exported.wam, HALF_WAY, 0.0), refine_inputs(EXPORTED), ["action", "video"])
    finally:
        logging.disable(logging.NOTSET)
    contract = graph_contract(model_sizes(EXPORTED, 1, Way(passes=2)), ROBOT)
    assert graph_io("refine", parse_graph("refine", graph.SerializeToString())) == contract["refine"]
    assert [i.name for i in graph.graph.input] == list(contract["refine"][0])
    feeds = later_feeds(exported.graphs["step"], [step_feed(k) for k in (3, 5)])
    for feed, values in zip(feeds, run_feeds(graph, ["action", "video"], feeds), strict=True):
        told = [torch.from_numpy(np.array(feed[name])) for name in contract["refine"][0]]
        wanted = exported.wam.refine(*told, level=HALF_WAY)
        for name, a, b in zip(("action", "video"), values, wanted, strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=2e-4, rtol=1e-3, err_msg=name)
        d = int(feed["prefix_mask"].sum())
        np.testing.assert_array_equal(values[0][0, :d], feed["prefix_action"][0, :d], "committed knots are exact")


@torch.no_grad()
def test_the_action_only_graph_equals_pytorch(exported: Exported) -> None:
    inputs = {name: value for name, value in step_inputs(EXPORTED).items() if name != "noise_video"}
    logging.disable(logging.CRITICAL)
    try:
        graph = _onnx(_Act(exported.wam, ABSENT), inputs, ["action", "new_kv"])
    finally:
        logging.disable(logging.NOTSET)
    contract = graph_contract(model_sizes(EXPORTED, 1, ABSENT), ROBOT)
    assert graph_io("step", parse_graph("step", graph.SerializeToString())) == contract["step"]
    feed = {name: value for name, value in step_feed(7).items() if name in inputs}
    (values,) = run_feeds(graph, ["action", "new_kv"], [feed])
    for a, b in zip(values, _act(exported.wam, ABSENT, 7), strict=True):
        np.testing.assert_allclose(a, b.numpy(), atol=2e-4, rtol=1e-3)
