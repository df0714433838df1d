"""The stages that learn from a teacher, run on a few frames: what they leave behind, and what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from distill.checkpoint import save_checkpoint
from distill.models.codec import FrameCodec
from distill.models.wam import WorldActionTransformer
from distill.parallel import Place
from distill.run import Stopped
from distill.shape import Shape, read_shape
from distill.stages.fewstep import Config as FewStepConfig
from distill.stages.fewstep import run as fewstep
from distill.stages.frame import Context
from distill.stages.shrink import Config as ShrinkConfig
from distill.stages.shrink import run as shrink
from distill.student import load_wam
from distill.teaching import weights_digest
from edge_wam.errors import ConfigError
from tests.distill.tiny import ROBOT, ROBOT_FILE, episode_vectors, smooth_video, writer

TEACHER = {"size": "nano", "depth": 3, "width": 48, "ffn": 64, "heads": 4}
STUDENT = {"size": "nano", "depth": 2, "width": 24, "ffn": 40, "heads": 2}
TRAINING = {"steps": 3, "batch": 4, "warmup": 1, "precision": "float32", "curve_every": 1, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets, and a teacher and its codec that were never trained."""
    root = tmp_path_factory.mktemp("work")
    for name, seeds in (("demonstrations", (0, 1)), ("on-policy/round-0", (2,))):
        (root / name).parent.mkdir(exist_ok=True)
        to = writer(root / name)
        for seed in seeds:
            videos = {camera.name: smooth_video(24, seed, camera.width) for camera in ROBOT.cameras}
            to.add("open the drawer", _near_rest(24, seed), videos)
        to.finalize()
    torch.manual_seed(0)
    config = Shape(**TEACHER).config()  # type: ignore[arg-type]
    teacher, codec = WorldActionTransformer(config), FrameCodec(config)
    torch.nn.init.normal_(teacher.time_project.weight, std=0.1)
    save_checkpoint(root / "pretrain" / "wam.pt", {"wam": teacher}, 7)
    save_checkpoint(root / "pretrain" / "codec.pt", {"codec": codec}, 7)
    return root


def _near_rest(length: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Random vectors within the robot's limits."""
    low, high = ROBOT.vector("position_min"), ROBOT.vector("position_max")
    middle, small = (low + high) / 2, 0.1 * (high - low)
    out = episode_vectors(length, seed)
    for name, times in (("action", 1), ("observation.state", 2), ("expert_chunk", 16)):
        out[name] = (np.tile(middle, times) + np.tile(small, times) * out[name]).astype(np.float32)
    out["expert_chunk_mask"] = np.ones_like(out["expert_chunk_mask"])
    return out


def _common(**more: Any) -> dict[str, Any]:
    return {
        "robot": ROBOT_FILE, "data": ["demonstrations"], "teacher": {"shape": TEACHER}, "training": TRAINING,
        "calibration": 2, **more,
    }  # fmt: skip


def _context(work: Path, **more: Any) -> Context:
    return Context(work, ROBOT_FILE.parent, Place(), lambda *_: None, **more)


def _copy(work: Path, to: Path) -> Path:
    shutil.copytree(work, to, ignore=shutil.ignore_patterns("shrink", "fewstep"))
    return to


@pytest.fixture(scope="module")
def shrunk(work: Path) -> Path:
    """A finished run of the first stage."""
    shrink(ShrinkConfig(**_common(student=STUDENT, components=8)), _context(work))
    return work / "shrink"


def _curve(run: Path) -> list[dict[str, str]]:
    with (run / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_shrinking_leaves_a_student_its_codec_and_what_it_inherited(work: Path, shrunk: Path) -> None:
    config = read_shape(shrunk, Shape().config())
    assert (config.depth, config.width, config.target_time) == (2, 24, False)
    load_wam(shrunk, config)
    assert (shrunk / "codec.pt").read_bytes() == (work / "pretrain" / "codec.pt").read_bytes()
    report = json.loads((shrunk / "inheritance.json").read_text())
    assert report["blocks"] == [0, 2] and len(report["residual"]) == 24 and not report["fresh"]
    rows = _curve(shrunk)
    assert len(rows) == 3
    assert {"total", "action", "video", "teacher_action", "teacher_video", "feature", "motion"} <= set(rows[0])
    facts = json.loads((shrunk / "run.json").read_text())
    assert len(facts["teacher"]) == len(facts["data"]) == len(facts["codec"]) == 64


def test_the_controls_without_a_teacher_go_by_one_key(work: Path, tmp_path: Path) -> None:
    place = _copy(work, tmp_path / "w")
    shrink(ShrinkConfig(**_common(student=STUDENT, inherit=False, teaches=False)), _context(place))
    assert not (place / "shrink" / "inheritance.json").exists()
    assert "teacher_action" not in _curve(place / "shrink")[0]


def test_few_steps_begin_at_the_shrunk_student_and_end_with_target_times(work: Path, shrunk: Path) -> None:
    teacher = (work / "pretrain" / "wam.pt").read_bytes()
    config = FewStepConfig(**_common(on_policy="on-policy", steps=2, draws=1))
    fewstep(config, _context(work))
    told = read_shape(work / "fewstep", Shape().config())
    assert told.target_time and told.depth == 2
    student, _ = load_wam(work / "fewstep", told)
    first = load_wam(shrunk, Shape().config())[0]
    assert weights_digest(student) != weights_digest(first) and hasattr(student, "time_jump")
    manifest = json.loads((work / "fewstep" / "endpoints" / "manifest.json").read_text())
    assert manifest["spec"]["samples"] == 72, "every state, those that a student visited by itself among them"
    assert {"endpoint_action", "consistency_action", "flow_action"} <= set(_curve(work / "fewstep")[0])
    assert (work / "pretrain" / "wam.pt").read_bytes() == teacher
    fewstep(config, _context(work))
    assert len(_curve(work / "fewstep")) == 3, "a finished run is finished"


def test_a_stopped_run_goes_on_to_the_same_numbers(work: Path, shrunk: Path, tmp_path: Path) -> None:
    config = FewStepConfig(**_common(steps=2, draws=0))
    ends = []
    for name, stops in (("a", 0), ("b", 2)):
        place = _copy(work, tmp_path / name)
        shutil.copytree(shrunk, place / "shrink")
        asked = iter([False] * (stops - 1) + [True] + [False] * 9 if stops else [False] * 9)
        if stops:
            with pytest.raises(Stopped):
                fewstep(config, _context(place, stop=lambda asked=asked: next(asked)))
        fewstep(config, _context(place))
        told = read_shape(place / "fewstep", Shape().config())
        ends.append((weights_digest(load_wam(place / "fewstep", told)[0]), _curve(place / "fewstep")))
    assert ends[0] == ends[1]


def test_another_teacher_is_another_run(work: Path, shrunk: Path, tmp_path: Path) -> None:
    place = _copy(work, tmp_path / "w")
    shutil.copytree(shrunk, place / "shrink")
    torch.manual_seed(1)
    other = WorldActionTransformer(Shape(**TEACHER).config())  # type: ignore[arg-type]
    save_checkpoint(place / "pretrain" / "wam.pt", {"wam": other}, 8)
    with pytest.raises(ConfigError, match="teacher was"):
        shrink(ShrinkConfig(**_common(student=STUDENT, components=8)), _context(place))


def test_what_is_missing_or_does_not_fit_is_named(work: Path, tmp_path: Path) -> None:
    place = _copy(work, tmp_path / "w")
    with pytest.raises(ConfigError, match="shrink a student first"):
        fewstep(FewStepConfig(**_common()), _context(place))
    with pytest.raises(ConfigError, match="width 96 out of a teacher's 48"):
        shrink(ShrinkConfig(**_common(student={**STUDENT, "width": 96})), _context(place))
    (place / "pretrain" / "wam.pt").unlink()
    with pytest.raises(ConfigError, match=r"wam.pt does not exist"):
        shrink(ShrinkConfig(**_common(student=STUDENT)), _context(place))
