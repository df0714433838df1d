"""From the expert to a signed bundle, as small as it can be: every stage runs, goes on where it stopped, and fits."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from distill import cli, collector, nano, release, train_wam
from distill.batch import Batch
from distill.calibration import Reservoir
from distill.checkpoint import save_checkpoint
from distill.collector import SuccessRates, collect_rounds, next_round
from distill.data import on_policy
from distill.data.expert import EFFORT, Expert, advance
from distill.data.generate import KNOTS, generate
from distill.data.on_policy import expert_chunk
from distill.data.reader import read_episodes
from distill.data.windows import load_frames
from distill.nano import Collector, NanoRecipe, make_nano
from distill.quantise import student as quantised
from distill.release import Calibration
from distill.student import load_codec, load_wam
from distill.train_codec import CodecTraining, train_codec
from distill.train_wam import WamTraining
from edge_wam.bundle import TrustStore, demo_private_key, open_bundle
from edge_wam.errors import ConfigError
from edge_wam.policy import Policy
from edge_wam.sim import lockstep
from edge_wam.sim.world import PHYSICS_STEP_NS, SHIPPED_TASKS, TASKS, World
from tests.distill.tiny import EXPORTED, ROBOT, ROBOT_FILE, Exported

pytestmark = pytest.mark.timeout(900)
KNOT_STEPS = ROBOT.chunk_dt_ms * 1_000_000 // PHYSICS_STEP_NS


def _silent(*_: object) -> None:
    pass


@pytest.fixture(scope="module")
def demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One demonstration each of two tasks."""
    root = tmp_path_factory.mktemp("data") / "demonstrations"
    generate(root, ROBOT, per_task=1, seed=0, tasks=("reach", "window-open"))
    return root


@pytest.fixture(scope="module")
def run(demonstrations: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder after two steps of codec and two of transformer."""
    out = tmp_path_factory.mktemp("run")
    frames = load_frames([demonstrations], ROBOT)
    codec = train_codec(frames, EXPORTED, CodecTraining(steps=2, batch=4), out, _silent)
    train_wam.train_wam([demonstrations], out / "none", codec, EXPORTED, ROBOT, WamTraining(steps=2, batch=4), out,
                        _silent)  # fmt: skip
    return out


def test_demonstrations_succeed_within_the_robots_limits(demonstrations: Path) -> None:
    episodes = list(read_episodes(demonstrations))
    assert [e.task for e in episodes] == [TASKS["reach"].instruction, TASKS["window-open"].instruction]
    for e in episodes:
        v = e.vectors
        assert v["next.success"][-1, 0] == 1.0 and v["next.success"][0, 0] == 0.0
        assert set(np.unique(v["expert"])) <= {0.0, 1.0}
        assert all(f.shape == (len(v["action"]), 128, 128, 3) for f in e.frames.values())
        speed = np.abs(np.diff(v["action"], axis=0)) / (ROBOT.chunk_dt_ms * 1e-3)
        assert (speed <= EFFORT * ROBOT.vector("velocity_max") * 1.001 + 1e-4).all()
        np.testing.assert_allclose(v["observation.state"][1:, 4:], v["action"][:-1], atol=1e-6)
        real = v["expert_chunk_mask"][:, 0] > 0
        np.testing.assert_array_equal(real, v["expert"][:, 0] > 0)
        np.testing.assert_allclose(v["expert_chunk"].reshape(-1, KNOTS, 4)[real, 0], v["action"][real], atol=1e-6)


def test_generation_goes_on_where_it_stopped_with_the_same_episodes(demonstrations: Path, tmp_path: Path) -> None:
    said: list[int] = []
    generate(demonstrations, ROBOT, per_task=1, seed=0, tasks=("reach", "window-open"),
             report=lambda done, total, remark: said.append(done))  # fmt: skip
    assert said == [], "nothing is left to do"
    generate(tmp_path, ROBOT, per_task=1, seed=0, tasks=("reach",))
    again, first = next(read_episodes(tmp_path, ())), next(read_episodes(demonstrations, ()))
    np.testing.assert_array_equal(again.vectors["action"], first.vectors["action"])


def test_a_label_is_what_the_expert_then_does() -> None:
    world, branch = World("drawer-open", 2), World("drawer-open", 2)
    expert = Expert(world, ROBOT, np.random.default_rng(0))
    advance(world, expert, 5 * KNOT_STEPS)
    before = world.dynamic_state()
    label = expert_chunk(branch, world, expert.follower, ROBOT, KNOT_STEPS, np.random.default_rng(0))
    np.testing.assert_array_equal(world.dynamic_state(), before, "looking ahead does not move the world")
    done = []
    for _ in range(KNOTS):
        advance(world, expert, KNOT_STEPS)
        done.append(expert.follower.position.copy())
    np.testing.assert_allclose(label[:, :3], np.array(done)[:, :3], atol=5e-3)


def test_training_writes_what_the_next_stage_reads(run: Path) -> None:
    assert load_wam(run, EXPORTED)[1] == 2
    codec = load_codec(run, EXPORTED)
    assert not codec.training and torch.isfinite(codec.std).all() and not torch.equal(codec.std, torch.ones(1, 4, 1, 1))
    assert (run / "codec.csv").read_text().startswith("step,image,probe")
    with pytest.raises(ConfigError, match="does not exist"):
        load_wam(run / "elsewhere", EXPORTED)
    with pytest.raises(ConfigError, match="does not exist"):
        load_codec(run / "elsewhere", EXPORTED)


def test_training_goes_on_and_takes_in_what_collectors_wrote(
    run: Path, demonstrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wam-training.pt", "codec.pt"):
        (tmp_path / name).write_bytes((run / name).read_bytes())
    rounds = tmp_path / "on-policy"
    monkeypatch.setattr(on_policy, "EPISODE_CAP_NS", 300_000_000)
    collect_rounds(run, rounds, EXPORTED, ROBOT, tag="a", first_seed=30_000, episodes=1, rounds=1,
                   tasks=SHIPPED_TASKS, report=_silent)  # fmt: skip
    (episode,) = read_episodes(rounds / "a-000")
    v = episode.vectors
    assert len(v["action"]) == 6 and not v["expert"].any() and v["expert_chunk_mask"].all()
    assert np.isfinite(v["expert_chunk"]).all()
    reach = np.abs(v["expert_chunk"][:, :3] - v["observation.state"][:, 4:7])
    assert reach.max() <= 0.05 * ROBOT.vector("velocity_max")[0] + 1e-3, "the first label is one knot away"

    seen: list[int] = []
    real = train_wam.losses

    def counted(model: object, batch: Batch, *rest: object) -> dict[str, torch.Tensor]:
        seen.append(len(batch))
        return real(model, batch, *rest)  # type: ignore[arg-type]

    samplers: list[train_wam.Sampler] = []
    plain = train_wam.Sampler
    monkeypatch.setattr(train_wam, "losses", counted)
    monkeypatch.setattr(train_wam, "Sampler", lambda *a: samplers.append(plain(*a)) or samplers[-1])
    train_wam.train_wam([demonstrations], rounds, load_codec(tmp_path, EXPORTED), EXPORTED, ROBOT,
                        WamTraining(steps=5, batch=4), tmp_path, _silent)  # fmt: skip
    assert seen == [4, 4, 4], "from step 2 to step 5"
    assert load_wam(tmp_path, EXPORTED)[1] == 5
    assert [len(w) for w in samplers[0].sources[1:]] == [6], "the collected frames take part at once"


def test_a_restarted_collector_goes_on_with_its_rounds_and_rates(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int]] = []

    def fake(root: Path, student: object, embodiment: object, *, episodes: int, first_seed: int, report: object,
             **_: object) -> None:  # fmt: skip
        made.append((root.name, first_seed))
        (root / "meta").mkdir(parents=True)
        (root / "meta" / "info.json").write_text("{}")
        for _ in range(episodes):
            report("reach", True, 10)  # type: ignore[operator]

    monkeypatch.setattr(collector, "collect", fake)
    start = partial(collect_rounds, run, tmp_path, EXPORTED, ROBOT, tag="b", first_seed=100, episodes=3,
                    tasks=SHIPPED_TASKS, report=_silent)  # fmt: skip
    start(rounds=2)
    (tmp_path / "b-002" / "meta").mkdir(parents=True)  # a round cut short: no info.json
    assert next_round(tmp_path, "b") == 2
    (tmp_path / "b-002" / "meta").rmdir()
    start(rounds=3)
    start(rounds=9, going=lambda: False)
    assert made == [("b-000", 100), ("b-001", 103), ("b-002", 106)]
    rates = json.loads((tmp_path / "b-success.json").read_text())
    assert rates["reach"] == pytest.approx(1 - 0.5 * 0.85**9) and rates["door-close"] == 0.5
    again = SuccessRates(tmp_path / "b-success.json", SHIPPED_TASKS)
    assert again.weights["reach"] < again.weights["door-close"], "what fails is visited more"


def test_a_sample_of_a_stream_is_uniform() -> None:
    counts = np.zeros(40)
    for seed in range(300):
        sample = Reservoir(8, np.random.default_rng(seed))
        places: dict[int, int] = {}
        for item in range(40):
            if (place := sample.wants()) is not None:
                places[place] = item
        assert len(places) == len(sample.kept) == 8
        counts[list(places.values())] += 1
    assert counts.sum() == 2400 and counts.min() > 30 and counts.max() < 95, "60 expected of each"


def test_the_whole_chain_ends_in_a_bundle_that_a_robot_would_arm(
    exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nano, "config_named", lambda name: EXPORTED)
    monkeypatch.setattr(nano, "generate", partial(generate, tasks=("reach",)))
    monkeypatch.setattr(release, "export_graphs", lambda codec, wam, way: exported.graphs)
    passes = {name: exported.graphs[name] for name in ("text", "step")}
    monkeypatch.setattr(quantised, "export_student", lambda wam, way: passes)
    monkeypatch.setattr(quantised, "scan", lambda *_: [])  # two dozen sessions; it has a test of its own
    monkeypatch.setattr(lockstep, "MAX_EPISODE_NS", 200_000_000)
    started: list[list[str]] = []
    monkeypatch.setattr(Collector, "start", lambda self: started.append(self._arguments))
    recipe = NanoRecipe(
        extra=(),
        first_seeds=(0,), per_task=1, codec=CodecTraining(steps=2, batch=4), wam=WamTraining(steps=25, batch=2),
        collect_from_step=25, calibration=Calibration(episodes=1, feeds=12),
    )  # fmt: skip
    said: list[str] = []

    def chain() -> str:
        said.clear()
        return make_nano(
            tmp_path / "work", tmp_path / "tiny.wam", robot_file=ROBOT_FILE, key=demo_private_key(), recipe=recipe,
            report=lambda stage, done, total, remark: said.append(stage),
        )  # fmt: skip

    model_hash = chain()
    assert set(said) == {"demonstrations-0", "codec", "transformer", "calibration"}
    assert len(started) == 1 and "--run" in started[0]
    bundle = open_bundle(tmp_path / "tiny.wam", trust=TrustStore(allow_demo_key=True), embodiment=ROBOT)
    assert bundle.model_hash == model_hash and bundle.manifest.name == "tiny"
    precisions = {name: graph.precision for name, graph in bundle.manifest.graphs.items()}
    assert precisions == {"text": "float32", "encode": "float32", "decode": "float32", "step": "int8"}
    policy = Policy(bundle)
    assert policy.verify_golden().exact
    card = json.loads((tmp_path / "tiny.wam" / "card.json").read_text())
    assert card["training_steps"] == 25 and card["recipe"]["per_task"] == 1
    chain()
    assert set(said) == {"calibration"}, "what was done is not done again"


def test_the_collectors_process_is_started_once_and_ended(tmp_path: Path) -> None:
    process = Collector(["--help"], tmp_path / "log")
    process.start()
    assert process._process is not None
    first = process._process
    process.start()
    assert process._process is first, "one at a time"
    assert first.wait(timeout=120) == 0
    assert "--attended" in (tmp_path / "log").read_text()
    process.start()
    assert process._process is not first, "a dead one is replaced"
    process.stop()
    assert process._process.poll() is not None


def test_commands_refuse_by_name_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_checkpoint(tmp_path / "codec.pt", {}, 1)
    for arguments, words in (
        (["generate", "--out", str(tmp_path / "d"), "--task", "rech"], "reach"),
        (["codec", "--data", str(tmp_path / "none"), "--run", str(tmp_path)], "is no LeRobot dataset"),
        (["train", "--data", "x", "--run", str(tmp_path / "none"), "--on-policy", "y"], "codec.pt does not exist"),
        (["export", "--run", str(tmp_path), "--out", str(tmp_path / "x.zip")], "ends in .wam"),
        (["collect", "--run", str(tmp_path), "--out", str(tmp_path), "--seed", "99999"], "seeds below 100000"),
        (["export", "--run", str(tmp_path), "--out", "x.wam", "--size", "nan"], "nano"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == 2, arguments
        assert words in " ".join(capsys.readouterr().err.split()), arguments
