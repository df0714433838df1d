"""The commands that score and compare: a bundle and a run directory alike, gone on with, refused by name."""

import json
from pathlib import Path

import pytest

from distill.checkpoint import save_checkpoint
from distill.commands import main
from distill.shape import write_shape
from edge_wam.sim.world import TRAIN_SEED_LIMIT
from tests.distill.tiny import EXPORTED, ROBOT_FILE, make_student

BUNDLE = Path(__file__).parents[2] / "bundles" / "metaworld-nano.wam"


def run(*arguments: str | Path) -> None:
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == 0


@pytest.fixture
def student(tmp_path: Path) -> Path:
    codec, wam = make_student(EXPORTED)
    save_checkpoint(tmp_path / "codec.pt", {"codec": codec}, 1)
    save_checkpoint(tmp_path / "wam.pt", {"wam": wam}, 1)
    write_shape(tmp_path, EXPORTED)
    return tmp_path


def test_a_bundle_and_a_student_drive_the_same_scenes_and_are_compared(
    student: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = ("--task", "drawer-close", "--episodes", "1", "--replan-knots", "4")
    bundle, random = student / "bundle.jsonl", student / "random.jsonl"
    run("score", BUNDLE, "--out", bundle, *scene)
    run("score", student, "--out", random, "--passes", "3", "--robot", ROBOT_FILE, *scene)
    run("score", student, "--out", random, "--passes", "3", "--robot", ROBOT_FILE, *scene)
    said = capsys.readouterr().out.splitlines()
    assert said[0] == f"{bundle}: 1 of 1 done" and said[1] == said[2] == f"{random}: 0 of 1 done"
    run("compare", f"nano={bundle}", f"random={random}")
    said = capsys.readouterr().out.splitlines()
    assert said[2].startswith("| nano | 1/1 |") and "| 1.00 |" in said[2]
    assert said[3].startswith("| random | 0/1 |") and "| 3.00 |" in said[3]
    assert "| drawer-close | easy | 1/1 | 0/1 |" in said


def test_the_spread_of_a_student_is_printed_by_task(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("spread", student, "--robot", ROBOT_FILE, "--task", "reach", "--scenes", "1", "--noises", "3", "--knots", "1")
    (row,) = json.loads(capsys.readouterr().out)["spread"]
    assert row["task"] == "reach" and row["noises"] == 3 and row["spread_mm"] > 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "a=none.jsonl"), "none.jsonl: no scores"),
        (("compare", "none.jsonl"), "NAME=FILE"),
        (("score", "none", "--robot", ROBOT_FILE, "--out", "x.jsonl"), "wam.pt does not exist"),
        (("score", BUNDLE, "--out", "x.jsonl", "--task", "rech"), "reach"),
        (("score", BUNDLE, "--out", "x.jsonl", "--seed", str(TRAIN_SEED_LIMIT - 1)), "belongs to training"),
        (("spread", BUNDLE, "--seed", "3"), "belongs to training"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([str(a) for a in arguments])
    assert ended.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir()), "nothing is left behind"
