"""The reader: every version gives the same episodes, and what does not fit is refused by dataset, episode and file."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.data import lerobot_v2, lerobot_v3, video
from distill.data.reader import open_dataset, read_episodes
from edge_wam.errors import ConfigError
from tests.distill.datasets import (
    CAMERAS,
    FPS,
    LENGTHS,
    TASKS,
    data_file,
    edit_column,
    edit_json,
    pictures,
    vectors,
    video_file,
    write,
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same episodes in each version."""
    root = tmp_path_factory.mktemp("datasets")
    return {version: write(root / version, version, gear=version == "v2.1") for version in ("v2.1", "v3.0")}


@pytest.fixture
def v2(written: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the version 2.1 dataset to damage."""
    return Path(shutil.copytree(written["v2.1"], tmp_path / "v2"))


@pytest.fixture
def v3(written: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(written["v3.0"], tmp_path / "v3"))


def _all_in_one_file(root: Path) -> None:
    """Put a version 3 dataset's episodes into one table and one video per camera, as LeRobot's own writer does."""
    tables = [pq.read_table(data_file(root, e)) for e in range(3)]
    for e in (1, 2):
        data_file(root, e).unlink()
    pq.write_table(pa.concat_tables(tables), data_file(root, 0))
    rows_file = root / "meta/episodes/chunk-000/file-000.parquet"
    rows = pq.read_table(rows_file).to_pylist()
    for camera in CAMERAS:
        parts = [pictures(n, seed)[camera] for seed, n in enumerate(LENGTHS)]
        video.encode(video_file(root, 0, camera), np.concatenate(parts), FPS)
        for e in (1, 2):
            video_file(root, e, camera).unlink()
            rows[e][f"videos/observation.images.{camera}/file_index"] = 0
            rows[e][f"videos/observation.images.{camera}/from_timestamp"] = sum(LENGTHS[:e]) / FPS
            rows[e]["data/file_index"] = 0
    pq.write_table(pa.Table.from_pylist(rows), rows_file)


@pytest.mark.parametrize("kind", ["v2.1", "v2.0", "v3.0", "v3.0, one file"])
def test_every_version_gives_the_same_episodes(kind: str, v2: Path, v3: Path) -> None:
    root = v3 if kind.startswith("v3") else v2
    if kind == "v2.0":
        edit_json(root / "meta/info.json", lambda info: info.update(codebase_version="v2.0"))
        (root / "meta/episodes_stats.jsonl").unlink()
        (root / "meta/stats.json").write_text("{}")
    if kind == "v3.0, one file":
        _all_in_one_file(root)
    episodes = list(read_episodes(root))
    assert [e.task for e in episodes] == list(TASKS)
    for seed, (episode, length) in enumerate(zip(episodes, LENGTHS, strict=True)):
        wanted = vectors(length, seed, success=seed != 1)
        assert set(episode.vectors) == set(wanted)
        for name, values in wanted.items():
            np.testing.assert_array_equal(episode.vectors[name], values, err_msg=name)
        for camera, images in pictures(length, seed).items():
            error = episode.frames[camera].astype(float) - images
            assert 20 * np.log10(255 / np.sqrt((error**2).mean())) > 30  # dB


@pytest.mark.parametrize("one_file", [False, True])
def test_single_frames_are_those_of_the_whole_episode(one_file: bool, v3: Path) -> None:
    if one_file:
        _all_in_one_file(v3)
    dataset = open_dataset(v3)
    key = "observation.images.topview"
    for entry in dataset.episodes:
        whole = dataset.frames(entry, key, range(entry.length))
        assert len(whole) == entry.length
        for wanted in ([0], [entry.length - 1], [1, 3], [0, 2, 4]):
            np.testing.assert_array_equal(dataset.frames(entry, key, wanted), whole[wanted])


def test_a_frame_far_from_the_one_before_is_found_by_seeking(tmp_path: Path) -> None:
    images = np.zeros((200, 16, 16, 3), np.uint8)
    images += np.arange(200, dtype=np.uint8)[:, None, None, None]
    video.encode(tmp_path / "v.mp4", images, FPS)
    wanted = [0, 1, 90, 91, 199]
    seen = video.read_frames(tmp_path / "v.mp4", wanted, fps=FPS, start_s=0.0, what="test")
    np.testing.assert_allclose(seen.mean((1, 2, 3)), wanted, atol=2.0)


def test_a_frame_that_the_camera_dropped_is_not_replaced_by_its_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"bf": "0"})
        stream.height = stream.width = 16
        for k in [*range(100), *range(101, 200)]:
            frame = av.VideoFrame.from_ndarray(np.full((16, 16, 3), k, np.uint8), format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert len(video.read_frames(path, [98, 99, 101], fps=FPS, start_s=0.0, what="x")) == 3
    for wanted in ([100], [99, 100], range(200)):
        with pytest.raises(ConfigError, match=r"no frame at 5.0000 s: the nearest is at 5.0500 s"):
            video.read_frames(path, wanted, fps=FPS, start_s=0.0, what="x")


def test_a_picture_that_the_decoder_had_to_make_up_is_refused(tmp_path: Path) -> None:
    """H.264 has no checksum: not every damage shows, but what the decoder itself complains of is not used."""
    path = tmp_path / "v.mp4"
    video.encode(path, pictures(12, 1, size=64)["corner2"], FPS)
    whole = path.read_bytes()
    begin = whole.index(b"mdat") + 8
    refused = 0
    for share in np.linspace(0.1, 0.9, 9):
        at = begin + int(share * (len(whole) - begin - 2000))
        path.write_bytes(whole[:at] + b"\x00" * 24 + whole[at + 24 :])
        try:
            video.read_frames(path, range(12), fps=FPS, start_s=0.0, what="episode 3")
        except ConfigError as error:
            refused += "episode 3: " in str(error) and "v.mp4" in str(error)
    assert refused >= 3


def _into_tables(root: Path) -> None:
    """Move the pictures of a version 2 dataset from its videos into its tables, as PNG."""
    dataset = open_dataset(root)
    for entry in dataset.episodes:
        table = pq.read_table(entry.data)
        for camera in CAMERAS:
            key = f"observation.images.{camera}"
            cells = []
            for image in dataset.frames(entry, key, range(entry.length)):
                with io.BytesIO() as file:
                    with av.open(file, "w", format="image2pipe") as container:
                        stream = container.add_stream("png")
                        stream.height, stream.width = image.shape[:2]
                        stream.pix_fmt = "rgb24"
                        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
                        container.mux(stream.encode())
                    cells.append({"bytes": file.getvalue(), "path": None})
            table = table.append_column(key, pa.array(cells))
            entry.videos[key].file.unlink()
        pq.write_table(table, entry.data)
    edit_json(root / "meta/info.json", lambda i: [
        i["features"][f"observation.images.{c}"].update(dtype="image") for c in CAMERAS])  # fmt: skip


def test_pictures_in_tables_are_those_of_the_videos(v2: Path) -> None:
    wanted = [e.frames for e in read_episodes(v2)]
    _into_tables(v2)
    for e, frames in zip(read_episodes(v2), wanted, strict=True):
        for camera, images in frames.items():
            np.testing.assert_array_equal(e.frames[camera], images)
    dataset = open_dataset(v2)
    key = "observation.images.topview"
    np.testing.assert_array_equal(dataset.frames(dataset.episodes[1], key, [2, 5]), wanted[1]["topview"][[2, 5]])
    table = pq.read_table(data_file(v2, 1))
    cells = table[key].to_pylist()
    for cell, words in ((None, "has no picture in frame 3"), ({"bytes": b"P" * 90, "path": None}, "cannot be decoded")):
        column = pa.array([*cells[:3], cell, *cells[4:]])
        pq.write_table(table.set_column(table.column_names.index(key), key, column), data_file(v2, 1))
        damaged = open_dataset(v2)
        with pytest.raises(ConfigError, match=f"episode 1: .*{words}"):
            damaged.frames(damaged.episodes[1], key, [2, 3])
        assert len(damaged.frames(damaged.episodes[1], key, [2, 4])) == 2


def test_gears_names_stand_for_columns_and_slices(v2: Path) -> None:
    modality = open_dataset(v2).index.modality
    assert modality is not None
    column, part = modality.vector("state.gripper") or ("", None)
    assert (column, part and (part.start, part.end)) == ("observation.state", (3, 4))
    assert (modality.vector("action.hand") or [""])[0] == "action"
    assert modality.vector("state.leg") is modality.vector("video.front") is modality.vector("hand") is None
    assert modality.video_column("front") == "observation.images.corner2"
    assert modality.annotation_column("human.task_description") == "task_index"
    assert modality.video_column("back") is modality.annotation_column("back") is None


def test_tasks_are_looked_up_frame_by_frame(v2: Path) -> None:
    edit_column(data_file(v2, 0), "task_index", lambda v: np.where(np.arange(len(v)) < 2, 1, 0))
    dataset = open_dataset(v2)
    assert dataset.tasks(dataset.episodes[0]) == ["close the door"] * 2 + ["open the drawer"] * 4
    edit_column(data_file(v2, 0), "task_index", lambda v: v + 7)
    with pytest.raises(ConfigError, match=r"episode 0: .*task_index 7 is no task"):
        open_dataset(v2).tasks(dataset.episodes[0])


def test_lists_without_a_fixed_length_are_read_too(v2: Path) -> None:
    edit_column(data_file(v2, 1), "action", lambda v: v)
    assert pa.types.is_list(pq.read_schema(data_file(v2, 1)).field("action").type)
    np.testing.assert_array_equal(list(read_episodes(v2, ()))[1].vectors["action"], vectors(9, 1)["action"])


def _nan(v: np.ndarray) -> np.ndarray:
    v[2, 1] = np.nan
    return v


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated video": (
        lambda r: video_file(r, 1).write_bytes(video_file(r, 1).read_bytes()[:-400]),
        r"episode 1: .*episode_000001.mp4.* (cannot be decoded|has no frame)",
    ),
    "a video that ends early": (
        lambda r: video.encode(video_file(r, 1), pictures(4, 1)["corner2"], FPS),
        r"episode 1: .*episode_000001.mp4 has no frame at 0.2000 s: the video ends",
    ),
    "a video of another rate": (
        lambda r: video.encode(video_file(r, 1), pictures(9, 1)["corner2"], 30),
        r"episode 1: .*episode_000001.mp4 runs at 30 frames per second",
    ),
    "no video": (lambda r: video_file(r, 2).unlink(), r"episode 2: .*episode_000002.mp4 cannot be decoded"),
    "no picture in the video": (
        lambda r: shutil.copy(r / "meta/info.json", video_file(r, 0)), r"episode 0: .*mp4 cannot be decoded"
    ),
    "no table": (lambda r: data_file(r, 1).unlink(), r"episode 1: .*episode_000001.parquet: cannot be read"),
    "half a table": (
        lambda r: data_file(r, 1).write_bytes(data_file(r, 1).read_bytes()[:900]), r"episode 1: .*cannot be read"
    ),
    "too few rows": (
        lambda r: pq.write_table(pq.read_table(data_file(r, 1)).slice(0, 7), data_file(r, 1)), r"episode 1: .*: 7 rows"
    ),
    "another episode's table": (
        lambda r: shutil.copy(data_file(r, 1), data_file(r, 0)), r"episode 0: .*episode_index is not that of"
    ),
    "rows out of order": (
        lambda r: edit_column(data_file(r, 0), "frame_index", lambda v: v[::-1]), r"episode 0: .*frame_index is not"
    ),
    "NaN": (
        lambda r: edit_column(data_file(r, 1), "action", _nan), r"episode 1: .*parquet: action is nan in frame 2"
    ),
    "a hole": (
        lambda r: edit_column(data_file(r, 1), "action", lambda v: [None, *v[1:].tolist()]), r"episode 1: .*is missing"
    ),
    "a frame of another width": (
        lambda r: edit_column(data_file(r, 1), "action", lambda v: [*v[:-1].tolist(), [1.0, 2.0]]),
        r"episode 1: .*action has 2 numbers in frame 8",
    ),
    "another width than promised": (
        lambda r: edit_json(r / "meta/info.json", lambda i: i["features"]["action"].update(shape=[7])),
        r"episode 0: .*action has 4 numbers in frame 0\n  expected: 7",
    ),
    "words for numbers": (
        lambda r: edit_column(data_file(r, 0), "action", lambda v: ["far"] * len(v)), r"episode 0: .*holds string"
    ),
    "another rate than promised": (
        lambda r: edit_json(r / "meta/info.json", lambda i: i.update(fps=25)),
        r"episode 0: .*frame 5 is 50.0 ms off the rate\n  expected: 25 Hz",
    ),
    "a missing column": (
        lambda r: pq.write_table(pq.read_table(data_file(r, 0)).drop_columns(["action"]), data_file(r, 0)),
        r"episode 0: .*no column 'action'",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_episode_is_refused_by_name(damage: str, v2: Path) -> None:
    break_it, words = DAMAGES[damage]
    break_it(v2)
    with pytest.raises(ConfigError, match=words) as refused:
        list(read_episodes(v2))
    assert str(v2) in str(refused.value)


def _lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("\n".join(change(path.read_text().splitlines())))


METADATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "no statistics": (lambda r: (r / "meta/episodes_stats.jsonl").unlink(), "has no statistics"),
    "statistics of some": (
        lambda r: _lines(r / "meta/episodes_stats.jsonl", lambda rows: rows[:-1]), "lacks episode 2"
    ),
    "no list of episodes": (lambda r: (r / "meta/episodes.jsonl").unlink(), "episodes.jsonl cannot be read"),
    "no tasks": (lambda r: (r / "meta/tasks.jsonl").unlink(), "tasks.jsonl cannot be read"),
    "half a line": (
        lambda r: _lines(r / "meta/episodes.jsonl", lambda rows: [*rows[:-1], rows[-1][:9]]), "line 3 is no JSON"
    ),
    "a list for a line": (lambda r: _lines(r / "meta/tasks.jsonl", lambda rows: ["[1]"]), "line 1 is list"),
    "an episode without length": (
        lambda r: _lines(r / "meta/episodes.jsonl", lambda rows: ['{"episode_index": 0}']), r"length: Field required"
    ),
    "fewer episodes than promised": (
        lambda r: _lines(r / "meta/episodes.jsonl", lambda rows: rows[:-1]), r"lists 2 episodes\n  expected: 3"
    ),
    "no info": (lambda r: (r / "meta/info.json").unlink(), "is no LeRobot dataset"),
    "half an info": (lambda r: (r / "meta/info.json").write_text('{"fps": 20'), r"info.json cannot be read"),
    "a rate of nothing": (
        lambda r: edit_json(r / "meta/info.json", lambda i: i.update(fps=0)), r"info.json: fps: .*greater than 0"
    ),
    "an unknown version": (
        lambda r: edit_json(r / "meta/info.json", lambda i: i.update(codebase_version="v4.0")),
        r"version 'v4.0'\n  expected: v3.0, v2.1, v2.0",
    ),
    "a way out": (
        lambda r: edit_json(r / "meta/info.json", lambda i: i.update(data_path="../{episode_index}.parquet")),
        "leads out of the dataset",
    ),
    "a template for something else": (
        lambda r: edit_json(r / "meta/info.json", lambda i: i.update(video_path="{eye}.mp4")), r"unknown \['eye'\]"
    ),
    "a slice beyond the column": (
        lambda r: edit_json(r / "meta/modality.json", lambda m: m["action"]["hand"].update(end=9)),
        r"action.hand ends at 9\n  expected: at most the width of 'action', 4",
    ),
    "a slice of nothing": (
        lambda r: edit_json(r / "meta/modality.json", lambda m: m["state"]["hand"].update(end=0)),
        r"modality.json: state.hand: .*end 0 must be above start 0",
    ),
    "a name for no column": (
        lambda r: edit_json(r / "meta/modality.json", lambda m: m["state"]["hand"].update(original_key="acton")),
        r"no feature 'acton' \(did you mean 'action'\?\)",
    ),
    "a video that is none": (
        lambda r: edit_json(r / "meta/modality.json", lambda m: m["video"]["front"].update(original_key="action")),
        r"video.front is 'action'",
    ),
}


@pytest.mark.parametrize("damage", METADATA)
def test_damaged_metadata_is_refused_before_any_data_is_opened(damage: str, v2: Path) -> None:
    break_it, words = METADATA[damage]
    shutil.rmtree(v2 / "data")
    open_dataset(v2)
    break_it(v2)
    with pytest.raises(ConfigError, match=words):
        open_dataset(v2)


@pytest.mark.parametrize("file", ["stats.json", "tasks.parquet", "episodes/chunk-000/file-000.parquet"])
def test_version_3_without_a_file_of_its_metadata_is_refused(file: str, v3: Path) -> None:
    path = v3 / "meta" / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError, match="cannot be read"):
        open_dataset(v3)
    path.unlink()
    with pytest.raises(ConfigError, match=r"cannot be read|has no table"):
        open_dataset(v3)


def test_the_hash_is_that_of_what_is_read(v2: Path) -> None:
    keys = ("observation.images.corner2",)
    dataset = open_dataset(v2)
    told: list[tuple[int, int]] = []
    first = dataset.content_hash(dataset.episodes, keys, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(dataset.files(dataset.episodes, keys)),) * 2 and len(told) == told[-1][0]
    (v2 / "README.md").write_text("not read")
    video_file(v2, 0, "topview").write_bytes(b"not asked for")
    assert open_dataset(v2).content_hash(dataset.episodes, keys) == first
    moved = v2.rename(v2.with_name("elsewhere"))
    again = open_dataset(moved)
    assert again.content_hash(again.episodes, keys) == first, "where it lies does not matter"
    for path in (data_file(moved, 1), video_file(moved, 2), moved / "meta/modality.json"):
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert again.content_hash(again.episodes, keys) != first, path
        path.write_bytes(before)
    assert again.content_hash(again.episodes, keys) == first


def test_info_json_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dataset is one once it has that file: whatever is written after it could be missing."""
    for module, version in ((lerobot_v2, "v2.1"), (lerobot_v3, "v3.0")):
        names: list[str] = []
        for function in ("write_json", "write_jsonl", "write_parquet"):
            if not hasattr(module, function):
                continue
            real = getattr(module, function)

            def noted(*a: object, real: Callable[..., None] = real, names: list[str] = names) -> None:
                names.append(next(x.name for x in a if isinstance(x, Path)))
                real(*a)

            monkeypatch.setattr(module, function, noted)
        write(tmp_path / version, version)
        assert names[-1] == "info.json" and len(names) > 3
        assert json.loads((tmp_path / version / "meta" / "info.json").read_text())["codebase_version"] == version
