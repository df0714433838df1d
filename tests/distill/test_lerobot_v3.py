"""Datasets on disk: what is written is read, an interrupted run leaves nothing that counts, the layout is LeRobot's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data import video
from distill.data import writer as writing
from distill.data.reader import read_episodes
from edge_wam.errors import ConfigError
from tests.distill.tiny import add_episode, episode_vectors, smooth_video, writer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of two tasks."""
    root = tmp_path_factory.mktemp("dataset")
    w = writer(root)
    for seed, (length, task) in enumerate(((6, "open the drawer"), (4, "close the door"), (5, "open the drawer"))):
        add_episode(w, length, seed, task)
    w.finalize()
    return root


def test_what_is_written_is_read(dataset: Path) -> None:
    episodes = list(read_episodes(dataset))
    assert [e.task for e in episodes] == ["open the drawer", "close the door", "open the drawer"]
    for seed, episode in enumerate(episodes):
        length = len(episode.vectors["action"])
        wanted = episode_vectors(length, seed)
        assert set(episode.vectors) == set(wanted)
        for name, values in wanted.items():
            np.testing.assert_array_equal(episode.vectors[name], values, err_msg=name)
            assert episode.vectors[name].dtype == np.float32
        for camera, offset in (("corner2", 0), ("topview", 7)):
            original = smooth_video(length, seed + offset).astype(float)
            error = episode.frames[camera].astype(float) - original
            assert 20 * np.log10(255 / np.sqrt((error**2).mean())) > 30  # dB


def test_a_red_goal_of_three_pixels_survives_the_video_codec(tmp_path: Path) -> None:
    video = np.full((6, 32, 32, 3), 110, np.uint8)
    for t in range(6):
        video[t, 12:15, 4 * t + 1 : 4 * t + 4] = (220, 30, 30)
    w = writer(tmp_path)
    w.add("t", episode_vectors(6, 0), {"corner2": video, "topview": video})
    w.finalize()
    seen = next(read_episodes(tmp_path)).frames["corner2"].astype(int)
    for t in range(6):
        goal = seen[t, 13, 4 * t + 2]
        assert goal[0] > 180 and goal[1:].max() < 70
        assert np.abs(seen[t, 25] - 110).max() < 12, "and nothing else turns red"


def test_only_the_wanted_cameras_are_decoded(dataset: Path) -> None:
    assert set(next(iter(read_episodes(dataset, ("topview",)))).frames) == {"topview"}
    assert next(iter(read_episodes(dataset, ()))).frames == {}


@pytest.mark.parametrize("interrupted_in", ["video", "parquet"])
def test_a_half_written_episode_does_not_count(
    interrupted_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = writer(tmp_path)
    add_episode(w, 5, 0)
    with monkeypatch.context() as patch:

        def power_cut(path: Path, *_: object) -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_suffix(".partial").write_bytes(b"half")
            raise KeyboardInterrupt

        if interrupted_in == "parquet":
            patch.setattr(writing, "write_parquet", lambda table, path: power_cut(path))
        else:
            patch.setattr(video, "encode", power_cut)
        with pytest.raises(KeyboardInterrupt):
            add_episode(w, 9, 1)
    again = writer(tmp_path)
    assert again.episodes == 1
    add_episode(again, 4, 2)
    again.finalize()
    episodes = list(read_episodes(tmp_path))
    assert [len(e.vectors["action"]) for e in episodes] == [5, 4]
    assert [len(e.frames["corner2"]) for e in episodes] == [5, 4]
    np.testing.assert_array_equal(episodes[1].vectors["action"], episode_vectors(4, 2)["action"])


def test_an_unfinished_dataset_is_not_read(tmp_path: Path) -> None:
    add_episode(writer(tmp_path), 3, 0)
    with pytest.raises(ConfigError, match="is no LeRobot dataset"):
        list(read_episodes(tmp_path))


def test_more_episodes_may_follow_a_finished_dataset(dataset: Path, tmp_path: Path) -> None:
    w = writer(tmp_path)
    add_episode(w, 3, 0)
    w.finalize()
    w = writer(tmp_path)
    assert w.episodes == 1
    add_episode(w, 4, 1, "close the door")
    w.finalize()
    assert json.loads((tmp_path / "meta" / "info.json").read_text())["total_episodes"] == 2
    assert pq.read_table(tmp_path / "data/chunk-000/file-001.parquet")["index"].to_pylist() == [3, 4, 5, 6]


def test_the_layout_is_that_of_lerobot(dataset: Path) -> None:
    info = json.loads((dataset / "meta" / "info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["total_frames"], info["total_tasks"]) == ("v3.0", 20, 15, 2)
    assert info["splits"] == {"train": "0:3"}
    assert info["features"]["observation.images.corner2"]["shape"] == [32, 32, 3]
    assert info["features"]["action"]["shape"] == [4]
    index = []
    for episode in range(3):
        path = dataset / info["data_path"].format(chunk_index=0, file_index=episode)
        table = pq.read_table(path)
        index += table["index"].to_pylist()
        assert table["frame_index"].to_pylist() == list(range(table.num_rows))
        assert set(table["episode_index"].to_pylist()) == {episode}
        np.testing.assert_allclose(table["timestamp"].to_pylist(), np.arange(table.num_rows) / 20, atol=1e-6)
        assert "huggingface" in {key.decode() for key in table.schema.metadata}
        for camera in ("corner2", "topview"):
            video = info["video_path"].format(
                video_key=f"observation.images.{camera}", chunk_index=0, file_index=episode
            )
            assert (dataset / video).exists()
    assert index == list(range(15))
    rows = pq.read_table(dataset / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [(r["dataset_from_index"], r["dataset_to_index"], r["length"]) for r in rows] == [
        (0, 6, 6), (6, 10, 4), (10, 15, 5),
    ]  # fmt: skip
    assert [r["tasks"] for r in rows] == [["open the drawer"], ["close the door"], ["open the drawer"]]
    tasks = pq.read_table(dataset / "meta/tasks.parquet")
    assert tasks["__index_level_0__"].to_pylist() == ["open the drawer", "close the door"]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]


def test_column_types_are_those_that_lerobot_casts_to(dataset: Path) -> None:
    """Shape [1] is a scalar to LeRobot; a list of one number is refused by its reader (docs/measured/lerobot.md)."""
    info = json.loads((dataset / "meta" / "info.json").read_text())["features"]
    schema = pq.read_schema(dataset / "data/chunk-000/file-000.parquet")
    stored = {"float32": pa.float32(), "int64": pa.int64(), "bool": pa.bool_()}
    for name, feature in info.items():
        if feature["dtype"] == "video":
            assert name not in schema.names
            continue
        scalar, length = stored[feature["dtype"]], feature["shape"][0]
        assert schema.field(name).type == (scalar if length == 1 else pa.list_(scalar, length)), name
    assert info["next.success"]["dtype"] == info["expert"]["dtype"] == "bool"


def test_statistics_are_those_of_the_data(dataset: Path) -> None:
    stats = json.loads((dataset / "meta" / "stats.json").read_text())
    action = np.concatenate([e.vectors["action"] for e in read_episodes(dataset, ())])
    np.testing.assert_allclose(stats["action"]["q01"], np.quantile(action, 0.01, axis=0), rtol=1e-5)
    np.testing.assert_allclose(stats["action"]["std"], action.std(0), rtol=1e-5)
    assert stats["action"]["count"] == [15]
    image = stats["observation.images.corner2"]
    assert np.shape(image["mean"]) == (3, 1, 1) and 0.0 <= np.min(image["min"]) < np.max(image["max"]) <= 1.0


def test_what_does_not_fit_is_refused(dataset: Path, tmp_path: Path) -> None:
    w = writer(tmp_path)
    good, video = episode_vectors(4, 0), {"corner2": smooth_video(4, 0), "topview": smooth_video(4, 0)}
    with pytest.raises(ConfigError, match="episode has"):
        w.add("t", {k: v for k, v in good.items() if k != "action"}, video)
    with pytest.raises(ConfigError, match="action is"):
        w.add("t", {**good, "action": good["action"][:3]}, video)
    with pytest.raises(ConfigError, match="camera topview: 3 frames"):
        w.add("t", good, {**video, "topview": video["topview"][:3]})
    with pytest.raises(ConfigError, match="action of episode 0\n  expected: finite"):
        w.add("t", {**good, "action": good["action"] * np.float32(np.inf)}, video)
    with pytest.raises(ConfigError, match="episode 0 has no frame"):
        w.add("t", {k: v[:0] for k, v in good.items()}, {k: v[:0] for k, v in video.items()})
    assert w.episodes == 0
    with pytest.raises(ConfigError, match="has no episode"):
        w.finalize()
    (tmp_path / "meta").mkdir(exist_ok=True)
    info = json.loads((dataset / "meta" / "info.json").read_text())
    (tmp_path / "meta" / "info.json").write_text(json.dumps({**info, "codebase_version": "v1.6"}))
    with pytest.raises(ConfigError, match=r"version 'v1\.6'"):
        list(read_episodes(tmp_path))
