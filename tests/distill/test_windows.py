"""Windows: what is masked, by an oracle that walks frame by frame."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from distill.data.generate import KNOTS, hindsight_chunks
from distill.data.windows import VIDEO_AGREES, Frames, Rows, Windows, canvas_of, join, make_windows, normalise_canvas
from edge_wam.errors import ConfigError
from edge_wam.kernels import decode_chunk
from tests.distill.tiny import ROBOT, TINY

PUSHED = range(10, 13)
DIFFERS_FROM = 6


def _demonstration(length: int) -> dict[str, np.ndarray]:
    """An expert's episode, pushed for three frames: labels are what followed."""
    action = np.linspace([-0.1, 0.5, 0.1, -1.0], [0.2, 0.8, 0.4, 1.0], length)
    expert = np.array([float(t not in PUSHED) for t in range(length)])
    chunk, mask = hindsight_chunks(action, expert)
    return {"action": action, "chunk": chunk, "chunk_mask": mask}


def _on_policy(length: int) -> dict[str, np.ndarray]:
    """A student's episode: labels at every frame are the expert's; from one on the student does something else."""
    action = np.linspace([0.1, 0.6, 0.2, 0.0], [0.3, 0.7, 0.3, 0.0], length)
    chunk = np.stack([action[np.minimum(t + np.arange(KNOTS), length - 1)] for t in range(length)])
    action[DIFFERS_FROM:, 0] += 2 * VIDEO_AGREES["m"]
    return {"action": action, "chunk": chunk, "chunk_mask": np.ones((length, KNOTS))}


@pytest.fixture(scope="module")
def frames() -> Frames:
    episodes = [_demonstration(30), _on_policy(20)]
    n = sum(len(e["action"]) for e in episodes)
    rng = np.random.default_rng(0)
    columns = {key: np.concatenate([e[key] for e in episodes]).astype(np.float32) for key in episodes[0]}
    starts = np.repeat([0, 30], [30, 20])
    return Frames(
        canvas=np.zeros((n, 3, 1, 1), np.uint8), position=columns["action"] - 0.01, setpoint=columns["action"],
        environment=rng.standard_normal((n, 39)).astype(np.float32), action=columns["action"],
        trusted=np.ones(n, bool), label=columns["chunk"], label_mask=columns["chunk_mask"], label_row=np.arange(n),
        per_knot=np.ones(n), first=starts, last=starts + np.repeat([29, 19], [30, 20]),
        task=np.repeat([0, 1], [30, 20]), success=np.ones(n, bool), tasks=["a", "b"],
    )  # fmt: skip


def _latents(frames: Frames) -> torch.Tensor:
    return torch.arange(len(frames), dtype=torch.float32)[:, None, None].expand(-1, 8, 16)


@pytest.fixture(scope="module")
def windows(frames: Frames) -> Windows:
    """Every sample, made at once."""
    return _whole(make_windows(frames, _latents(frames), TINY, ROBOT))


def _whole(lazy: Windows) -> Windows:
    everything = torch.arange(len(lazy))
    return Windows(*(getattr(lazy, f.name)[everything] for f in fields(lazy) if f.name != "tasks"), tasks=lazy.tasks)


def test_the_past_stays_in_its_episode_oldest_first(frames: Frames, windows: Windows) -> None:
    for i in range(len(windows)):
        for slot, age in enumerate((4, 2)):  # two past frames, two knots apart
            there = i - age >= frames.first[i]
            assert windows.past_mask[i, slot] == float(there)
            if there:
                assert windows.past[i, slot] == i - age
            assert frames.first[i] <= windows.past[i, slot] <= i, "even a masked index stays in the episode"


def test_video_is_a_target_only_where_the_arm_did_what_the_label_says(frames: Frames, windows: Windows) -> None:
    seen = set()
    for i in range(len(windows)):
        for f, knot in enumerate(TINY.future_knots):
            there = i + knot <= frames.last[i]
            agrees = there and all(
                frames.label_mask[i, k] == 1.0
                and np.abs(frames.action[i + k, :3] - frames.label[i, k, :3]).max() < VIDEO_AGREES["m"]
                for k in range(knot)
            )
            assert windows.future_mask[i, f] == float(agrees), (i, knot)
            if there:
                assert windows.future[i, f] == i + knot
            seen.add((there, agrees))
    assert seen == {(True, True), (True, False), (False, False)}


def test_pushed_and_missing_knots_are_no_target(frames: Frames, windows: Windows) -> None:
    d = ROBOT.dof
    np.testing.assert_array_equal(
        windows.action_mask[..., :d], np.repeat(frames.label_mask[..., None], d, -1), "mask by knot"
    )
    assert not windows.action_mask[..., d:].any() and not windows.action[..., d:].any(), "padding is never a target"
    for t in PUSHED:
        assert not windows.action_mask[t].any(), "nobody learns to be pushed"
    assert windows.action_mask[9, 1:].sum() == 0 and windows.action_mask[9, 0, :d].all(), "up to the push only"
    assert windows.action_mask[29, 1:].sum() == 0, "nothing after the end of the episode"


def test_targets_decode_to_the_label_on_the_robot(frames: Frames, windows: Windows) -> None:
    low, high = ROBOT.vector("action_q01"), ROBOT.vector("action_q99")
    for i in (0, 5, 20, 31, 45):
        q = decode_chunk(windows.action[i].numpy(), frames.position[i].astype(float), low, high, ROBOT.relative)
        real = frames.label_mask[i] > 0
        np.testing.assert_allclose(q[real], frames.label[i][real], atol=1e-5)


def test_the_canvas_of_training_is_that_of_the_robot() -> None:
    rng = np.random.default_rng(1)
    images = {c.name: rng.integers(0, 256, (c.height, c.width, 3), dtype=np.uint8) for c in ROBOT.cameras}
    canvas = canvas_of(images, ROBOT)
    assert canvas.shape == (3, ROBOT.canvas_height, ROBOT.canvas_width) and canvas.dtype == np.uint8
    made = normalise_canvas(canvas)
    assert made.min() >= -1.0 and made.max() <= 1.0
    c = ROBOT.cameras[0]
    crop = images[c.name][c.crop_y : c.crop_y + c.crop_height, c.crop_x : c.crop_x + c.crop_width].astype(float)
    region = canvas[:, c.canvas_y : c.canvas_y + c.canvas_height, c.canvas_x : c.canvas_x + c.canvas_width]
    np.testing.assert_allclose(region.mean((1, 2)), crop.mean((0, 1)), atol=1.0)


def test_samples_are_made_by_index_of_any_shape(frames: Frames, windows: Windows) -> None:
    lazy = make_windows(frames, _latents(frames), TINY, ROBOT)
    index = torch.tensor([[3, 40, 3], [0, 49, 12]])
    for f in fields(Windows):
        if f.name != "tasks":
            torch.testing.assert_close(getattr(lazy, f.name)[index], getattr(windows, f.name)[index], msg=f.name)
    assert isinstance(lazy.action, Rows) and len(lazy.action) == len(lazy) == 50


def test_joined_windows_are_those_of_each_part(frames: Frames, windows: Windows) -> None:
    other = replace(windows, tasks=["b", "c"], latent=windows.latent + 1000.0)
    both = join([windows, other, windows])
    assert len(both) == 150 and both.tasks == ["a", "b", "c"]
    for k, part in enumerate((windows, other, windows)):
        index = torch.arange(50) + 50 * k
        for name in ("state", "action", "action_mask", "past_mask", "future_mask", "latent"):
            torch.testing.assert_close(getattr(both, name)[index], getattr(part, name)[torch.arange(50)], msg=name)
        assert [both.tasks[int(i)] for i in both.task[index]] == [part.tasks[int(i)] for i in part.task]
        torch.testing.assert_close(both.latent[both.past[index]], part.latent[part.past])
        torch.testing.assert_close(both.latent[both.future[index]], part.latent[part.future])
    mixed = torch.tensor([149, 0, 50, 99, 1])
    torch.testing.assert_close(both.action[mixed], windows.action[mixed % 50])


def test_labels_shorter_than_the_chunk_are_refused(frames: Frames) -> None:
    with pytest.raises(ConfigError, match=r"labels of 16 knots\n  expected: 24"):
        make_windows(frames, _latents(frames), replace(TINY, horizon=24), ROBOT)
