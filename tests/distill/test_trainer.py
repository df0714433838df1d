"""The training loop: killed at any moment, refused numbers, a full disk, and a run that must stay what it was."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from distill import trainer
from distill.curves import Curves
from distill.parallel import Place
from distill.run import Run, Stopped
from distill.sharded import newest
from distill.trainer import Training
from edge_wam.errors import ConfigError, ContractError
from tests.distill.training import TRAINING, WithProbe, dataset, train, weights

ROOT = Path(__file__).parents[2]


class Killed(BaseException):
    """What no code of ours catches."""


def same(one: Path, other: Path) -> None:
    assert (one / "curves.csv").read_bytes() == (other / "curves.csv").read_bytes()
    for name, value in weights(one).items():
        assert torch.equal(value, weights(other)[name]), name


@pytest.fixture(scope="module")
def through(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    folder = tmp_path_factory.mktemp("through")
    train(folder)
    return folder


def test_a_run_writes_down_what_it_was(through: Path) -> None:
    facts = json.loads((through / "run.json").read_text())
    assert facts["stage"] == "test" and facts["data"] == "d" and facts["seed"] == 0 and "+" in facts["code"]
    assert "learning_rate = 0.003" in (through / "config.toml").read_text()
    columns, rows = Curves(through / "curves.csv").rows()
    assert columns == ["step", "total", "action", "video", "copy_last", "first_knot_mm", "probe", "gradient",
                       "learning_rate"]  # fmt: skip
    assert [row[0] for row in rows] == [2, 4, 6, 8, 10, 12]
    picture = (through / "curves.svg").read_text()
    assert picture.count("<path") == len(columns) - 1 and "copy_last" in picture
    assert [path.name for path in (through / "state").iterdir()] == ["step-000000012"], "one checkpoint is kept"
    assert Run(through).finished


def test_a_run_that_was_killed_goes_on_to_the_last_bit(through: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path; from tests.distill.training import alone; alone(Path({str(tmp_path)!r}), 9)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}, check=False)
    assert ended.returncode == -9
    assert newest(tmp_path / "state") == tmp_path / "state" / "step-000000005"
    assert Curves(tmp_path / "curves.csv").rows()[1][-1][0] == 8, "further than its checkpoint"
    train(tmp_path)
    same(through, tmp_path)


def test_a_kill_between_the_last_state_and_what_is_handed_on_does_no_harm(
    through: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "save_tensors", lambda path, states, step: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            train(tmp_path, training=TRAINING.model_copy(update={"checkpoint_every": 12}))
    assert newest(tmp_path / "state") == tmp_path / "state" / "step-000000012"
    assert not (tmp_path / "wam.pt").exists()
    train(tmp_path, training=TRAINING.model_copy(update={"checkpoint_every": 12}))
    same(through, tmp_path)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 25))
def test_wherever_a_disk_is_written_a_kill_does_no_harm(
    through: Path, tmp_path_factory: pytest.TempPathFactory, number: int
) -> None:
    folder = tmp_path_factory.mktemp("killed")
    short = TRAINING.model_copy(update={"checkpoint_every": 6})
    count = 0
    real = os.fsync

    def fsync(file: Any) -> None:
        nonlocal count
        if count == number:
            raise Killed
        count += 1
        real(file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        try:
            train(folder, training=short)
        except (Killed, ConfigError):  # inside of a checkpoint it is told as one that could not be written
            patch.undo()
            train(folder, training=short)
    same(through, folder)
    shutil.rmtree(folder)


def test_asked_to_stop_it_saves_the_step_it_is_at(through: Path, tmp_path: Path) -> None:
    steps: list[int] = []
    with pytest.raises(Stopped, match="stopped at step 8 of 12"):
        train(tmp_path, before=steps.append, stop=lambda: len(steps) == 8)
    train(tmp_path, before=steps.append)
    assert steps == list(range(12)), "no step is computed twice"
    same(through, tmp_path)


def test_on_policy_data_come_back_at_the_step_that_took_them_in(tmp_path: Path) -> None:
    training = TRAINING.model_copy(update={"steps": 104, "checkpoint_every": 40, "curve_every": 4, "batch": 2})

    def arrive(folder: Path) -> Any:
        def before(step: int) -> None:
            if step in (20, 70):
                dataset(folder / f"a-{step:03d}", step)
            if step == 101 and folder.name == "killed":
                raise Killed

        return before

    for name in ("through", "killed"):
        try:
            train(tmp_path / f"run-{name}", training=training, arriving=tmp_path / name, before=arrive(tmp_path / name))
        except Killed:
            dataset(tmp_path / name / "a-090", 90)  # arrived since, and the run had not been told
            train(tmp_path / f"run-{name}", training=training, arriving=tmp_path / name)
    same(tmp_path / "run-through", tmp_path / "run-killed")
    taken = [(note["dataset"], note["step"]) for note in Run(tmp_path / "run-killed").notes("taken in")]
    assert taken == [("a-020", 50), ("a-070", 100)]
    shutil.rmtree(tmp_path / "run-killed" / "state")
    (tmp_path / "killed" / "a-020" / "meta" / "info.json").write_text("7")
    with pytest.raises(ConfigError, match="a-020 is not what it was when step 50 took it in"):
        train(tmp_path / "run-killed", training=training, arriving=tmp_path / "killed")


class Bad(WithProbe):
    """No number in one step, in the loss or in its gradient alone."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def loss(self, model: Any, batch: Any, noise: Any, step: int) -> dict[str, torch.Tensor]:
        parts = super().loss(model, batch, noise, step)
        if step == 7 and self.where == "loss":
            parts["video"] = parts["video"] * float("nan")
        if step == 7 and self.where == "gradient":
            parts["total"] = parts["total"] + (self.probe.bias * 0.0).sqrt().sum()
        return parts


@pytest.mark.parametrize(("where", "named"), [("loss", "video is nan"), ("gradient", "gradient is (nan|inf)")])
def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(
    tmp_path: Path, where: str, named: str
) -> None:
    seen: dict[str, torch.Tensor] = {}
    objective = Bad(where)

    def before(step: int) -> None:
        seen["probe"] = objective.probe.weight.detach().clone()

    with pytest.raises(ContractError, match=f"step 7: {named}"):
        train(tmp_path, objective=objective, before=before)
    assert torch.equal(objective.probe.weight, seen["probe"])
    assert newest(tmp_path / "state") == tmp_path / "state" / "step-000000005"
    assert [note["step"] for note in Run(tmp_path).notes("no number")] == [7]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow further, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_good_checkpoint(through: Path, tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, stop=(tmp_path / "state" / "step-000000005").exists)
    whole = newest(tmp_path / "state")
    assert whole is not None and whole.name == "step-000000006"
    with largest_file(100_000), pytest.raises(ConfigError, match=r"step-000000010 could not be written") as refused:
        train(tmp_path)
    assert "step-000000006 is whole" in refused.value.remedy
    assert list((tmp_path / "state").iterdir()) == [whole]
    train(tmp_path)
    same(through, tmp_path)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, stop=lambda: True)
    state = newest(tmp_path / "state")
    assert state is not None
    (shard,) = state.glob("*.safetensors")
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ConfigError, match="step-000000001 cannot be read"):
        train(tmp_path)


def test_another_configuration_is_refused_by_its_key(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, stop=lambda: True)
    with pytest.raises(ConfigError, match=r"batch was 4 and is 8"):
        train(tmp_path, training=TRAINING.model_copy(update={"batch": 8}))
    run = Run(tmp_path)
    with pytest.raises(ConfigError, match=r"data was 'd' and is 'e'"):
        run.begin("test", TRAINING, {"data": "e", "seed": 0})
    with pytest.raises(ConfigError, match=r"teacher was None and is 't'"):
        Run(tmp_path).begin("test", TRAINING, {"data": "d", "seed": 0, "teacher": "t"})
    run.begin("test", TRAINING, {"data": "d", "seed": 0})  # who was refused holds nothing
    with pytest.raises(ConfigError, match="in use by another process"):
        Run(tmp_path).begin("test", TRAINING, {"data": "d", "seed": 0})
    run.end()


def test_a_journal_survives_a_line_that_was_cut_short(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.begin("test", TRAINING, {"seed": 0})
    run.note("started", 0, reached=0)
    with (tmp_path / "journal.jsonl").open("a") as file:
        file.write('{"event": "finis')
    assert not run.finished
    run.note("finished", 3)
    assert run.finished and len(run.notes("started")) == 1
    run.end()


def test_a_batch_is_shared_out_evenly_or_refused() -> None:
    assert [Place(k, 3).rows(12) for k in range(3)] == [slice(0, 4), slice(4, 8), slice(8, 12)]
    with pytest.raises(ConfigError, match="batch 32 over 3 processes"):
        Place(0, 3).rows(32)


def test_the_learning_rate_has_no_step_where_there_is_no_warmup_or_cooldown() -> None:
    flat = Training(steps=10, warmup=0, cooldown=0.0, learning_rate=0.5)
    assert {flat.rate(step) for step in range(10)} == {0.5}
