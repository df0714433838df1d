"""Endpoints from the disk are those of the teacher, from the very noise a student is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distill.batch import Batch
from distill.data.endpoints import StoredEndpoints, cached_endpoints, endpoint_noise
from distill.data.targets import Spec, Targets, TensorSpec, build_targets
from distill.teaching import Lecture, WamTeacher, levels, solve
from edge_wam.errors import ConfigError
from tests.distill.tiny import TINY, make_student
from tests.distill.toy import batch_of, noise_of

SAMPLES, DRAWS = 7, 3
EVERYTHING = batch_of(TINY, SAMPLES, 0)


def samples(rows: NDArray[np.int64]) -> Batch:
    """The samples of these numbers."""
    at = torch.from_numpy(rows)
    return replace(EVERYTHING, **{name: getattr(EVERYTHING, name)[at] for name in Batch.__slots__})


@pytest.fixture(scope="module")
def teacher() -> WamTeacher:
    return WamTeacher(make_student(TINY)[1], TINY)


@pytest.fixture(scope="module")
def stored(teacher: WamTeacher, tmp_path_factory: pytest.TempPathFactory) -> StoredEndpoints:
    folder = tmp_path_factory.mktemp("endpoints")
    return cached_endpoints(folder, SAMPLES, samples, teacher, data_hash="d" * 64, draws=DRAWS, steps=4, batch=4,
                            rows_per_shard=8)  # fmt: skip


def test_endpoints_are_those_of_the_teacher_from_the_same_noise(stored: StoredEndpoints, teacher: WamTeacher) -> None:
    batch = samples(np.array([6, 0, 3, 3]))
    start, half, end = stored.way(batch, noise_of(batch, 1))
    pure = noise_of(batch, 0, level=1.0)
    states = solve(teacher.open(batch), replace(pure, video=start.video, action=start.action), levels(4))
    torch.testing.assert_close(end.action, states[-1].action, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(half.action, states[2].action, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(end.video, states[-1].video, atol=4e-3, rtol=2e-3)
    torch.testing.assert_close(half.video, states[2].video, atol=4e-3, rtol=2e-3)
    assert [float(s.sigma_action[0]) for s in (start, half, end)] == [1.0, 0.5, 0.0]
    assert stored.video and stored.digest == teacher.digest
    assert (end.action - states[0].action).abs().max() > 0.1, "and they are not where they started"


def test_a_sample_gets_one_draw_or_another_by_its_noise(stored: StoredEndpoints) -> None:
    batch = samples(np.array([2]))
    starts = {tuple(stored.way(batch, noise_of(batch, k))[0].action[0, :2, 0].tolist()) for k in range(40)}
    known = {tuple(endpoint_noise(np.array([2 * DRAWS + d]), batch, 0).action[0, :2, 0].tolist()) for d in range(DRAWS)}
    assert starts == known and len(known) == DRAWS
    both, noise = samples(np.array([2, 5])), noise_of(samples(np.array([2, 5])), 3)
    alone = stored.way(both.rows(slice(1, 2)), noise.rows(slice(1, 2)))
    for whole, part in zip(stored.way(both, noise), alone, strict=True):
        assert torch.equal(whole.action[1:], part.action), "the same on any number of processes"


def test_another_teacher_or_way_of_asking_is_refused_and_samples_of_other_data_too(
    stored: StoredEndpoints, teacher: WamTeacher
) -> None:
    folder = stored._targets.folder
    other = WamTeacher(make_student(TINY, seed=1)[1], TINY)
    told = {"data_hash": "d" * 64, "draws": DRAWS, "steps": 4, "rows_per_shard": 8}
    for who, keys, words in (
        (other, {}, "another teacher"), (teacher, {"steps": 8}, "another settings"),
        (teacher, {"data_hash": "e" * 64}, "another data"), (teacher, {"draws": 2}, "another samples"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=words):
            cached_endpoints(folder, SAMPLES, samples, who, **told | keys)
    with pytest.raises(ConfigError, match="3 steps to an endpoint"):
        cached_endpoints(folder, SAMPLES, samples, teacher, data_hash="d" * 64, steps=3)
    batch = samples(np.array([1]))
    with pytest.raises(ConfigError, match="knows the samples of dataset 0 alone"):
        stored.way(replace(batch, source=torch.tensor([1])), noise_of(batch, 0))


def test_a_teacher_with_other_latents_is_asked_for_actions_alone(teacher: WamTeacher, tmp_path: Path) -> None:
    class Foreign:
        digest, depth, width = "f" * 64, teacher.depth, teacher.width

        def open(self, batch: Batch) -> Lecture:
            lecture = teacher.open(batch)
            lecture.same_latents = False
            return lecture

    stored = cached_endpoints(tmp_path, SAMPLES, samples, Foreign(), data_hash="d" * 64, draws=1, steps=2)
    assert not stored.video and set(Targets(tmp_path).spec.tensors) == {"half_action", "end_action"}
    batch = samples(np.array([4]))
    start, _, end = stored.way(batch, noise_of(batch, 0))
    assert torch.equal(start.video, end.video) and not torch.equal(start.action, end.action)


def test_other_targets_are_no_endpoints(tmp_path: Path) -> None:
    spec = Spec(kind="text", teacher="a" * 64, data="b" * 64, samples=1, rows_per_shard=1,
                tensors={"text": TensorSpec(dtype="float32", shape=(1,))})  # fmt: skip
    with pytest.raises(ConfigError, match="holds text"):
        StoredEndpoints(build_targets(tmp_path, spec, lambda rows: {"text": torch.ones(1, 1)}))
