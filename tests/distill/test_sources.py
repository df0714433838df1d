"""Datasets of many kinds for one robot or several: names, units, rates, missing actions, failures, pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from distill.data import canvases
from distill.data.canvases import Canvases, Clip, canvas_of
from distill.data.frames import Frames, load_frames
from distill.data.latents import cached_latents
from distill.data.mixture import Part, load_mixture, mixture_hash, placed
from distill.data.reader import open_dataset, read_episodes
from distill.data.sources import OpenSource, Source, source_from, sources_hash
from distill.data.windows import Windows, encode_frames, join, make_windows
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ConfigError
from tests.distill.datasets import LENGTHS, data_file, edit_column, edit_json, robot_file, vectors, video_file, write
from tests.distill.tiny import ROBOT, TINY, WHOLE, make_student

N = sum(LENGTHS)


def _robot(**changes: Any) -> Embodiment:
    """The Sawyer with cameras of 32 x 32 pixels."""
    data = ROBOT.model_dump()
    for camera in data["cameras"]:
        camera |= {"width": 32, "height": 32, "crop_x": 4, "crop_y": 2, "crop_width": 24, "crop_height": 24}
    return Embodiment.model_validate(data | changes)


SMALL = _robot()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three episodes, the second of which fails, in three dresses."""
    root = tmp_path_factory.mktemp("sources")
    return {"v3": write(root / "v3", "v3.0"), "v2": write(root / "v2", "v2.1"),
            "gear": write(root / "gear", "v2.1", gear=True)}  # fmt: skip


@pytest.fixture
def v2(made: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made["v2"], tmp_path / "v2"))


def _windows(frames: Frames, robot: Embodiment = SMALL) -> Windows:
    return make_windows(frames, torch.arange(len(frames))[:, None, None].float(), TINY, robot)


def _actions(frames: Frames) -> np.ndarray:
    return _windows(frames).action_mask[torch.arange(len(frames))].numpy()


@pytest.mark.parametrize("kind", ["v3", "v2", "gear"])
def test_every_kind_gives_the_same_frames(kind: str, made: dict[str, Path]) -> None:
    cameras = {"corner2": "front", "topview": "topview"} if kind == "gear" else {}
    frames = load_frames([Source(root=made[kind], cameras=cameras)], SMALL)
    wanted = [vectors(n, seed) for seed, n in enumerate(LENGTHS)]
    np.testing.assert_allclose(frames.action, np.concatenate([v["action"] for v in wanted]))
    np.testing.assert_allclose(frames.position, np.concatenate([v["observation.state"] for v in wanted]))
    starts = np.cumsum([0, *LENGTHS[:-1]])
    for start, n, v in zip(starts, LENGTHS, wanted, strict=True):
        np.testing.assert_allclose(frames.setpoint[start + 1 : start + n], v["action"][:-1])
        np.testing.assert_allclose(frames.setpoint[start], v["observation.state"][0], err_msg="nothing was sent yet")
        own = slice(start, start + n)
        assert set(frames.first[own]) == {start} and set(frames.last[own]) == {start + n - 1}
    assert [frames.tasks[k] for k in frames.task[starts]] == ["open the drawer", "close the door", "open the drawer"]
    assert frames.success.tolist() == [True] * 6 + [False] * 9 + [True] * 5
    pictures = [
        {camera: images[t] for camera, images in e.frames.items()} for e in read_episodes(made[kind])
        for t in range(LENGTHS[e.index])
    ]  # fmt: skip
    np.testing.assert_array_equal(frames.canvas[:], np.stack([canvas_of(images, SMALL) for images in pictures]))


def test_the_canvas_is_made_by_the_robots_kernel(made: dict[str, Path]) -> None:
    frames = load_frames([made["v3"]], SMALL)
    dataset = open_dataset(made["v3"])
    entry = dataset.episodes[1]
    images = {c: dataset.frames(entry, f"observation.images.{c}", [4])[0] for c in ("corner2", "topview")}
    np.testing.assert_array_equal(frames.canvas[np.array([6 + 4])][0], canvas_of(images, SMALL))
    one = load_frames([Source(root=made["v3"], cameras={"topview": ""})], SMALL).canvas[np.array([10])][0]
    np.testing.assert_array_equal(one[:, :, :64], canvas_of(images, SMALL)[:, :, :64])
    assert (one[:, :, 64:] == 128).all(), "a view that is left out is 0 to the model, as where the robot has no camera"


def test_failures_are_labelled_and_teach_what_they_are_told_to(made: dict[str, Path]) -> None:
    failed = np.arange(N)[6:15]
    video = load_frames([made["v3"]], SMALL)
    assert not _actions(video)[failed].any() and _actions(video)[:6, 0, :4].all()
    learned = load_frames([Source(root=made["v3"], failures="learn")], SMALL)
    assert _actions(learned)[failed, 0, :4].all()
    dropped = load_frames([Source(root=made["v3"], failures="drop")], SMALL)
    assert len(dropped) == N - 9 and dropped.success.all()
    future = _windows(video).future_mask[torch.arange(N)].numpy()
    assert future[6, :2].tolist() == [1.0, 1.0], "four and eight knots on is a picture of the failed episode"


def test_videos_without_actions_train_the_video_alone(v2: Path) -> None:
    frames = load_frames([Source(root=v2, video_only=True)], SMALL)
    w, everything = _windows(frames), torch.arange(N)
    assert not w.action_mask[everything].any() and not w.action[everything].any()
    assert not w.state[everything].any(), "no state was recorded"
    there = frames.last - np.arange(N)
    np.testing.assert_array_equal(w.future_mask[everything].numpy(), np.stack([there >= 4, there >= 8], 1))
    for name in ("action", "observation.state"):
        edit_json(v2 / "meta/info.json", lambda info, name=name: info["features"].pop(name))
    missing = load_frames([v2], SMALL)
    assert not missing.trusted.any() and np.isnan(missing.action).all(), "a dataset without actions is one by itself"
    edit_json(v2 / "meta/info.json", lambda info: info["features"].update(
        {"observation.state": {"dtype": "float32", "shape": [4]}}))  # fmt: skip
    seen = _windows(load_frames([Source(root=v2, position=("observation.state",))], SMALL)).state[everything]
    assert seen[:, :4].any() and not seen[:, 4:].any(), "a state without actions is known, its offset is not"


def test_units_are_made_the_robots(v2: Path) -> None:
    scale, shift = (0.001, 0.001, 0.001, 0.02), (0.1, 0.0, 0.0, -1.0)
    wanted = load_frames([v2], SMALL).action
    for episode in range(3):
        for name in ("action", "observation.state"):
            edit_column(data_file(v2, episode), name, lambda v: (v - shift) / scale)
    frames = load_frames([Source(root=v2, scale=scale, shift=shift)], SMALL)
    np.testing.assert_allclose(frames.action, wanted, atol=1e-5)
    with pytest.raises(ConfigError, match=r"action of axis 'x' lies far outside its limits in 100%.*\n.*-0.5 to 0.5 m"):
        load_frames([v2], SMALL)
    with pytest.raises(ConfigError, match=r"scale has 3 numbers\n  expected: 4"):
        load_frames([Source(root=v2, scale=scale[:3])], SMALL)


def test_columns_may_be_put_together_from_slices(made: dict[str, Path]) -> None:
    turned = ("action[3:4]", "action[0:3]")
    frames = load_frames([Source(root=made["v2"], action=turned, position=("observation.state",))],
                         _robot(axes=[ROBOT.model_dump()["axes"][k] for k in (3, 0, 1, 2)]))  # fmt: skip
    np.testing.assert_allclose(frames.action[:, 0], load_frames([made["v2"]], SMALL).action[:, 3])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a width": ({"action": ("action[0:3]",)}, r"action action\[0:3\] has 3 numbers\n  expected: 4, the axes of"),
    "a column": ({"action": ("acton",)}, r"no feature 'acton' \(did you mean 'action'\?\)"),
    "a slice": ({"position": ("observation.state[2:6]",)}, r"leaves the column\n  expected: 0 to 4"),
    "a camera of the robot": ({"cameras": {"topvew": "x"}}, r"camera 'topvew' \(did you mean 'topview'\?\)"),
    "a camera of the dataset": ({"cameras": {"topview": "left"}}, r"no video 'left' for camera 'topview'\n.*corner2"),
    "no camera at all": ({"cameras": {"topview": "", "corner2": ""}}, "no camera is read"),
    "a task column": ({"task": "goal"}, r"episode 0: .*no column 'goal'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_names_that_mean_nothing_are_refused(what: str, made: dict[str, Path]) -> None:
    keys, words = REFUSED[what]
    with pytest.raises(ConfigError, match=words):
        load_frames([Source(root=made["v2"], **keys)], SMALL)


def test_datasets_that_do_not_fit_the_robot_are_refused(made: dict[str, Path], v2: Path) -> None:
    with pytest.raises(ConfigError, match=r"images.corner2 is 32x32\n  expected: 128x128, camera 'corner2'"):
        load_frames([made["v2"]], ROBOT)
    with pytest.raises(ConfigError, match=r"20 frames per second\n  expected: at least one a knot of 40 ms"):
        load_frames([made["v2"]], _robot(chunk_dt_ms=40))
    for e in range(3):
        edit_column(data_file(v2, e), "next.success", lambda v: v & False)
    with pytest.raises(ConfigError, match="every episode failed"):
        load_frames([Source(root=v2, failures="drop")], SMALL)
    with pytest.raises(ConfigError, match="no dataset given"):
        load_frames([], SMALL)
    relative = shutil.copytree(made["gear"], v2.with_name("relative"))
    edit_json(relative / "meta/modality.json", lambda m: m["action"]["hand"].update(absolute=False))
    with pytest.raises(ConfigError, match=r"action.hand is relative\n  expected: absolute"):
        load_frames([relative], SMALL)


def test_robots_of_other_axes_rates_and_cameras_are_drawn_from_as_one(made: dict[str, Path], v2: Path) -> None:
    axes = ROBOT.model_dump()["axes"]
    slow = _robot(name="slow", chunk_dt_ms=100, axes=axes[:3], cameras=[SMALL.model_dump()["cameras"][0]])
    three = Source(root=v2, action=("action[0:3]",), position=("observation.state[0:3]",))
    both = join([_windows(load_frames([made["v3"]], SMALL)), _windows(load_frames([three], slow), slow)])
    assert len(both) == 2 * N
    index = torch.tensor([1, N + 1])
    assert both.action_mask[index].shape == both.action[index].shape == (2, 16, 32)
    masks = both.action_mask[index].sum(1)
    assert masks[0, :4].tolist() == [5.0] * 4 and not masks[0, 4:].any(), "50 ms knots of a frame each"
    assert masks[1, :3].tolist() == [2.0] * 3 and not masks[1, 3:].any(), "100 ms knots of two frames each"
    assert both.state[index].shape == (2, 64)
    assert both.past[torch.tensor([N + 5])].tolist() == [[N, N + 1]], "four and two knots of 100 ms before"


@given(
    fps=st.integers(10, 120), dt_ms=st.integers(20, 200), length=st.integers(1, 40), at=st.integers(0, 39),
    bad=st.integers(0, 60),
)  # fmt: skip
def test_knots_are_interpolated_at_any_rate_and_never_extrapolated(
    fps: int, dt_ms: int, length: int, at: int, bad: int
) -> None:
    """A setpoint that is a straight line in time is met at every knot; the mask ends where the frames end."""
    per_knot = fps * dt_ms * 1e-3
    if per_knot < 1.0:
        fps, per_knot = 1000 // dt_ms + 1, (1000 // dt_ms + 1) * dt_ms * 1e-3
    at = min(at, length - 1)
    n = length + 3  # another episode follows
    line = (np.arange(n)[:, None] + 1.0) / fps * np.array([1.0, -2.0, 0.5, 3.0])
    line[length:] = 1e6
    frames = Frames(
        canvas=np.zeros((n, 3, 1, 1), np.uint8), position=line.astype(np.float32), setpoint=line.astype(np.float32),
        action=line.astype(np.float32), environment=np.zeros((n, 0), np.float32), trusted=np.arange(n) != bad,
        label=np.zeros((0, 0, 4), np.float32), label_mask=np.zeros((0, 0), np.float32), label_row=np.full(n, -1),
        per_knot=np.full(n, per_knot), first=np.where(np.arange(n) < length, 0, length),
        last=np.where(np.arange(n) < length, length - 1, n - 1), task=np.zeros(n, int), success=np.ones(n, bool),
        tasks=["t"],
    )  # fmt: skip
    chunk, mask = frames.chunks(np.array([at]), 16)
    time_s = at / fps + (np.arange(16) + 1) * dt_ms * 1e-3
    row = time_s * fps - 1.0  # in rows of ``action``
    needed = np.ceil(row - 1e-6)
    wanted = (needed <= length - 1) & ((bad < at) | (needed < bad))
    np.testing.assert_array_equal(mask[0], wanted.astype(np.float32))
    np.testing.assert_allclose(
        chunk[0][wanted], (time_s[:, None] * np.array([1.0, -2.0, 0.5, 3.0]))[wanted], rtol=1e-4, atol=1e-5
    )


def _clips(root: Path) -> list[Clip]:
    opened = OpenSource(Source(root=root), SMALL)
    return [Clip(opened.dataset, e, opened.videos, SMALL) for e in opened.dataset.episodes]


def test_little_memory_gives_the_same_pictures(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Canvases(_clips(made["v3"]))[:]
    monkeypatch.setattr(canvases, "RUN", 4)
    one = whole[0].nbytes
    small = Canvases(_clips(made["v3"]), cache_bytes=5 * one)
    rng = np.random.default_rng(0)
    for _ in range(20):
        index = rng.integers(0, N, 7)
        np.testing.assert_array_equal(small[index], whole[index])
        assert small._used <= 5 * one and small._used == sum(v.nbytes for v in small._kept.values())
    np.testing.assert_array_equal(small[3:17:2], whole[3:17:2])
    np.testing.assert_array_equal(small[np.array([-1])], whole[-1:])


def test_without_room_no_more_is_decoded_than_was_asked_for(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = _clips(made["v3"])
    asked: list[list[int]] = []
    dataset = clips[0].dataset
    real = dataset.frames
    monkeypatch.setattr(dataset, "frames", lambda e, key, w: asked.append(list(w)) or real(e, key, w))
    small = Canvases(clips, cache_bytes=3 * 64 * 128)
    np.testing.assert_array_equal(small[np.array([9, 7, 9])], Canvases(_clips(made["v3"]))[np.array([9, 7, 9])])
    assert asked == [[1, 3], [1, 3]], "two cameras of the second episode, in rising order, each frame once"
    monkeypatch.setattr(canvases, "RUN", 8)
    asked.clear()
    small[6:10]
    assert asked == [list(range(8))] * 2, "who reads in order gets whole runs"
    small[10:14]
    assert len(asked) == 2, "and each of them once"


def test_what_fits_is_decoded_once(made: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    clips = _clips(made["v3"])
    asked: list[tuple[int, str]] = []
    dataset = clips[0].dataset
    real = dataset.frames
    monkeypatch.setattr(dataset, "frames", lambda e, key, w: asked.append((e.index, key)) or real(e, key, w))
    lazy = Canvases(clips)
    assert len(lazy) == N and asked == [], "nothing is opened before it is asked for"
    rng = np.random.default_rng(0)
    for _ in range(10):
        lazy[rng.integers(0, N, 8)]
    assert len(asked) == len(set(asked)) == 6, "three episodes, two cameras"
    lazy[np.array([0])]
    assert len(asked) == 6


def test_a_damaged_video_is_refused_when_its_frames_are_asked_for(v2: Path) -> None:
    frames = load_frames([v2], SMALL)
    video_file(v2, 1).write_bytes(b"gone")
    frames.canvas[np.arange(6)]
    with pytest.raises(ConfigError, match=r"episode 1: .*episode_000001.mp4 cannot be decoded"):
        frames.canvas[np.array([7])]


def test_a_damaged_episode_can_be_left_out(v2: Path) -> None:
    data_file(v2, 1).write_bytes(b"gone")
    with pytest.raises(ConfigError, match="leave the episode out"):
        load_frames([v2], SMALL)
    frames = load_frames([Source(root=v2, leave_out=(1,))], SMALL)
    assert len(frames) == N - 9 == len(frames.canvas[:])
    assert len({sources_hash([Source(root=v2, leave_out=k)], SMALL) for k in ((1,), (1, 2))}) == 2
    for numbers, words in (((7,), r"no episode 7 to leave out\n.*one of 0 to 2"), ((0, 1, 2), "every episode")):
        with pytest.raises(ConfigError, match=words):
            load_frames([Source(root=v2, leave_out=numbers)], SMALL)


def test_a_file_may_say_how_a_dataset_is_read(made: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "source.toml"
    file.write_text('failures = "drop"\nleave_out = [0]\ncameras = { topview = "" }\n')
    source = source_from(made["v2"], file)
    assert source == Source(root=made["v2"], failures="drop", leave_out=(0,), cameras={"topview": ""})
    assert source_from(made["v2"], None) == Source(root=made["v2"])
    for text, words in (
        ("failure = 1", r"source.toml: failure: Extra.*\(did you mean 'failures'\?\)"), ("a = ", "cannot be read"),
        ('repeat = "often"', "source.toml: repeat: "),
    ):  # fmt: skip
        file.write_text(text)
        with pytest.raises(ConfigError, match=words):
            source_from(made["v2"], file)
    with pytest.raises(ConfigError, match="cannot be read"):
        source_from(made["v2"], tmp_path / "none.toml")


def test_unknown_keys_of_a_source_are_refused() -> None:
    with pytest.raises(ValueError, match="weight"):
        Source.model_validate(json.loads('{"root": "x", "weight": 2}'))


def test_the_hash_of_sources_is_that_of_what_frames_are_made_from(made: dict[str, Path], v2: Path) -> None:
    def of(*sources: Source, robot: Embodiment = SMALL) -> str:
        return sources_hash(sources, robot)

    one = Source(root=made["v2"])
    first = of(one)
    assert of(Source(root=v2)) == first, "where it lies does not matter"
    (v2 / "meta/README.md").write_text("for people")
    video_file(v2, 0, "topview").write_bytes(video_file(v2, 1, "topview").read_bytes())
    left_out = {"topview": ""}
    assert of(Source(root=v2, cameras=left_out)) == of(Source(root=made["v2"], cameras=left_out))
    others = [of(Source(root=v2)), of(Source(root=made["v2"], failures="learn")), of(one, robot=_robot(name="other")),
              of(one, one), of(Source(root=made["v3"])), of(Source(root=made["v2"], cameras=left_out))]  # fmt: skip
    assert len({first, *others}) == 7


def test_latents_from_the_disk_are_those_of_the_encoder(made: dict[str, Path], tmp_path: Path) -> None:
    frames = load_frames([made["v3"]], SMALL)
    codec, _ = make_student(WHOLE)
    hashes = {"codec_hash": "a" * 64, "data_hash": sources_hash([Source(root=made["v3"])], SMALL)}
    said: list[tuple[int, int]] = []
    stored = cached_latents(tmp_path, frames, codec, **hashes, rows_per_shard=8, report=lambda *a: said.append(a))
    assert said == [(0, N), (8, N), (16, N), (N, N)]
    direct = encode_frames(codec, frames.canvas)
    index = torch.tensor([[3, 19], [8, 0]])
    torch.testing.assert_close(stored[index], direct[index], atol=2e-3, rtol=2e-3)
    w = make_windows(frames, stored, WHOLE, SMALL)
    assert w.latent[w.past[index[0]]].shape == (2, 2, *direct.shape[1:])
    with pytest.raises(ConfigError, match="another teacher"):
        cached_latents(tmp_path, frames, codec, **hashes | {"codec_hash": "b" * 64}, rows_per_shard=8)


def test_a_mixture_counts_each_part_as_often_as_it_says(made: dict[str, Path], tmp_path: Path) -> None:
    """A second robot of three axes in 100 ms knots, by its file, three times; the first robot's two datasets once."""
    slow = robot_file(tmp_path / "slow.toml", axes=3, name="slow", chunk_dt_ms=100)
    parts = [
        Part(root=made["v2"]), Part(root=made["v3"]),
        Part(root=made["v2"], robot=slow, action=("action[0:3]",), position=("observation.state[0:3]",), repeat=3),
    ]  # fmt: skip
    asked: list[int] = []

    def encode(frames: Frames, sources: Sequence[Source], robot: Embodiment) -> torch.Tensor:
        assert robot.dof == frames.action.shape[1] and {s.root for s in sources} <= {made["v2"], made["v3"]}
        asked.append(len(frames))
        return torch.arange(len(frames))[:, None, None].float()

    both = load_mixture(parts, SMALL, TINY, encode)
    assert len(both) == 5 * N and asked == [2 * N, N], "what repeats is not encoded again"
    widths = [int(both.action_mask[torch.tensor([k * N])][0, 0].sum()) for k in range(5)]
    assert widths == [4, 4, 3, 3, 3]
    assert len(load_mixture(parts[:1], SMALL, TINY, encode)) == N
    again = [part.model_copy(update={"root": part.root.name, "robot": part.robot and Path(part.robot.name)})
             for part in parts]  # fmt: skip
    assert list(placed([Path("v2"), *again[1:]], made["v2"].parent, tmp_path)) == parts
    hashes = {mixture_hash(p, SMALL) for p in (parts, parts[:2], parts[1::-1], [parts[0], parts[1], parts[0]])}
    assert len(hashes) == 4 and mixture_hash(parts, SMALL) in hashes
    robot_file(slow, axes=3, name="slow", canvas_height=128)
    with pytest.raises(ConfigError, match=r"robot 'slow' has a canvas of 128x128\n  expected: 128x64"):
        load_mixture(parts, SMALL, TINY, encode)
    with pytest.raises(ConfigError, match="no dataset given"):
        load_mixture([], SMALL, TINY, encode)
