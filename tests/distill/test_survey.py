"""A survey counts what is there and gives the statistics that a robot file wants."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from distill.data.sources import Source
from distill.data.survey import survey
from edge_wam.errors import ConfigError
from tests.distill.datasets import FPS, LENGTHS, vectors, video_file, write
from tests.distill.test_sources import SMALL

N = sum(LENGTHS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("survey") / "d", "v2.1")


def test_what_is_there_is_counted(root: Path) -> None:
    said: list[tuple[int, int]] = []
    found = survey(Source(root=root), SMALL, 16, report=lambda *a: said.append(a))
    assert (found.episodes, found.frames, found.seconds, found.failures) == (3, N, N / FPS, 1)
    assert found.learned == N - LENGTHS[1] and found.decoded == N and said[-1] == (N, N)
    assert found.tasks == {"open the drawer": LENGTHS[0] + LENGTHS[2], "close the door": LENGTHS[1]}
    assert survey(Source(root=root), SMALL, 16, decode=False).decoded == 0


def test_statistics_are_those_a_robot_file_wants(root: Path) -> None:
    """Relative axes: over all knots of all chunks, from the measured position. Absolute ones: the setpoints."""
    found = survey(Source(root=root, failures="learn"), SMALL, 4, decode=False)
    relative, absolute = [], []
    for seed, length in enumerate(LENGTHS):
        v = vectors(length, seed)
        for t in range(length):
            for k in range(t, min(t + 4, length)):
                relative.append(v["action"][k, 0] - v["observation.state"][t, 0])
                absolute.append(v["action"][k, 3])
    x, gripper = found.axes["x"], found.axes["gripper"]
    np.testing.assert_allclose(x.action or (), np.quantile(relative, [0.01, 0.99]), atol=1e-6)
    np.testing.assert_allclose(gripper.action or (), np.quantile(absolute, [0.01, 0.99]), atol=1e-6)
    states = np.concatenate([vectors(n, seed)["observation.state"] for seed, n in enumerate(LENGTHS)])
    np.testing.assert_allclose(x.state or (), np.quantile(states[:, 0], [0.01, 0.99]), atol=1e-6)
    assert x.offset is not None and x.offset[0] < x.offset[1]


def test_what_was_not_recorded_has_no_statistics(root: Path) -> None:
    found = survey(Source(root=root, video_only=True), SMALL, 16, decode=False)
    assert found.learned == 0
    assert all((a.action, a.state, a.offset) == (None, None, None) for a in found.axes.values())


def test_every_picture_is_looked_at(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "d"))
    video_file(copy, 2, "topview").write_bytes(b"gone")
    survey(Source(root=copy), SMALL, 16, decode=False)
    with pytest.raises(ConfigError, match=r"episode 2: .*topview.*cannot be decoded"):
        survey(Source(root=copy), SMALL, 16)
