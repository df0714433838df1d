"""From the expert to a signed bundle, as small as it can be: every stage runs, goes on where it stopped, and fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from distill import collector, commands, release
from distill.calibration import Reservoir
from distill.checkpoint import save_checkpoint
from distill.collector import SuccessRates, collect_rounds, next_round
from distill.data import on_policy
from distill.data.expert import EFFORT, Expert, advance
from distill.data.generate import KNOTS, generate
from distill.data.mixture import Part
from distill.data.on_policy import expert_chunk
from distill.data.reader import read_episodes
from distill.parallel import Place
from distill.quantise import student as quantised
from distill.run import Run
from distill.stages import STAGES, codec, pretrain
from distill.stages import release as release_stage
from distill.stages.frame import Context, read_recipe, run_stage
from distill.stages.pretrain import Collector
from distill.student import load_codec, load_wam
from edge_wam.bundle import TrustStore, open_bundle
from edge_wam.errors import ConfigError
from edge_wam.policy import Policy
from edge_wam.sim import lockstep
from edge_wam.sim.world import PHYSICS_STEP_NS, SHIPPED_TASKS, TASKS, World
from tests.distill.datasets import robot_file, write
from tests.distill.tiny import EXPORTED, ROBOT, ROBOT_FILE, Exported

pytestmark = pytest.mark.timeout(900)
KNOT_STEPS = ROBOT.chunk_dt_ms * 1_000_000 // PHYSICS_STEP_NS
RECIPES = Path(codec.__file__).parents[1] / "recipes"
TINY_RECIPE = f"""
size = "nano"
robot = "{ROBOT_FILE}"
[demonstrations]
per_task = 1
tasks = ["reach", "window-open"]
[codec]
data = ["demonstrations-0"]
training = {{ steps = 2, batch = 4 }}
[pretrain]
data = ["demonstrations-0"]
on_policy = "on-policy"
collect = {{ from_step = 2 }}
training = {{ steps = 2, batch = 4, curve_every = 1 }}
[release]
name = "tiny"
episodes = 1
feeds = 12
"""


def _silent(*_: object) -> None:
    pass


@pytest.fixture(autouse=True, scope="module")
def _tiny() -> Iterator[None]:
    """Every stage takes the smallest student that can be exported."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (codec, pretrain, release_stage):
            patch.setattr(module, "config_named", lambda name: EXPORTED)
        yield


@dataclass
class Chain:
    """A chain in its work folder. ``said``: the stages that reported something; ``started``: calls of the collector."""

    recipe: Path
    work: Path
    said: list[str]
    started: list[list[str]]

    def run(self, *only: str) -> None:
        context = Context(
            self.work, self.recipe.parent, Place(), lambda stage, done, total, remark: self.said.append(stage)
        )  # fmt: skip
        for name, config in read_recipe(self.recipe).items():
            if not only or name in only:
                run_stage(name, config, context)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    """A chain that has run all that is trained: two steps of codec and two of transformer."""
    work = tmp_path_factory.mktemp("work")
    (work / "tiny.toml").write_text(TINY_RECIPE)
    out = Chain(work / "tiny.toml", work, [], [])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Collector, "start", lambda self: out.started.append(self._arguments))
        out.run("demonstrations", "codec", "pretrain")
    return out


@pytest.fixture
def demonstrations(chain: Chain) -> Path:
    """One demonstration each of two tasks."""
    return chain.work / "demonstrations-0"


@pytest.fixture
def run(chain: Chain) -> Path:
    """The run directory with codec and transformer."""
    return chain.work / "pretrain"


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


def test_training_writes_what_the_next_stage_reads(chain: Chain, run: Path) -> None:
    assert load_wam(run, EXPORTED)[1] == 2
    codec = load_codec(run, EXPORTED)
    assert not codec.training and torch.isfinite(codec.std).all() and not torch.equal(codec.std, torch.ones(1, 4, 1, 1))
    curves = (chain.work / "codec" / "curves.csv").read_text()
    assert curves.startswith("step,total,image,probe,objects_mm,gradient") and len(curves.splitlines()) == 2
    assert len(chain.started) == 1 and str(run) in chain.started[0], "the collector watches this run"
    with pytest.raises(ConfigError, match="does not exist"):
        load_wam(run / "elsewhere", EXPORTED)
    with pytest.raises(ConfigError, match="does not exist"):
        load_codec(run / "elsewhere", EXPORTED)


def test_training_takes_in_what_collectors_wrote(
    chain: Chain, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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

    config = read_recipe(chain.recipe)["pretrain"].model_copy(
        update={"codec": chain.work / "codec", "data": (Part(root=chain.work / "demonstrations-0"),), "collect": None}
    )
    remarks: list[str] = []
    context = Context(tmp_path, tmp_path, Place(), lambda stage, done, total, remark: remarks.append(remark))
    run_stage("pretrain", config, context)
    assert [note["step"] for note in Run(tmp_path / "pretrain").notes("taken in")] == [0]
    assert remarks and all(remark.endswith("on-policy frames 6") for remark in remarks), "they take part at once"


def test_a_recipe_may_mix_robots_and_keep_latents_on_the_disk(chain: Chain, tmp_path: Path) -> None:
    """A version 2 dataset of another robot, with an instruction nobody else uses, beside the demonstrations."""
    write(tmp_path / "work" / "foreign", "v2.1")
    robot_file(tmp_path / "slow.toml", axes=3, name="slow", chunk_dt_ms=100)
    for name in ("demonstrations-0", "codec"):
        (tmp_path / "work" / name).symlink_to(chain.work / name)
    head = TINY_RECIPE[: TINY_RECIPE.index("[demonstrations]")]
    foreign = (
        '{ root = "foreign", robot = "slow.toml", action = ["action[0:3]"], position = ["observation.state[0:3]"], '
        "repeat = 40 }"
    )
    weights = []
    for keep in ("false", "true"):
        (tmp_path / "mixed.toml").write_text(
            f'{head}[pretrain]\ndata = ["demonstrations-0", {foreign}]\nkeep_latents = {keep}\n'
            "training = { steps = 2, batch = 4 }\n"
        )
        out = Chain(tmp_path / "mixed.toml", tmp_path / "work", [], [])
        out.run()
        weights.append(torch.load(out.work / "pretrain" / "wam.pt", weights_only=True)["wam"])
        assert ("latents" in out.said) == (keep == "true")
        kept = sorted(out.work.glob("pretrain/latents-*/manifest.json"))
        assert len(kept) == (2 if keep == "true" else 0), "one folder for each robot"
        (out.work / "pretrain").rename(tmp_path / f"run-{keep}")
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_codec_wants_what_its_probe_reads(chain: Chain, tmp_path: Path) -> None:
    write(tmp_path / "work" / "foreign", "v2.1")
    robot_file(tmp_path / "small.toml")
    for data, words in (('"foreign"', "hold 0 numbers of a simulator's state"),
                        ('{ root = "foreign", robot = "small.toml" }', "is of another robot")):  # fmt: skip
        (tmp_path / "r.toml").write_text(f'robot = "small.toml"\n[codec]\ndata = [{data}]\n')
        with pytest.raises(ConfigError, match=words):
            Chain(tmp_path / "r.toml", tmp_path / "work", [], []).run()


def test_a_dataset_is_inspected_before_anything_is_trained_on_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "d", "v3.0")
    (tmp_path / "source.toml").write_text('failures = "drop"')
    robot = ["--robot", str(robot_file(tmp_path / "small.toml"))]
    with pytest.raises(SystemExit) as ended:
        commands.main(["inspect", str(tmp_path / "d"), "--source", str(tmp_path / "source.toml"), *robot])
    assert not ended.value.code
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["frames"], found["decoded"], found["failures"]) == (2, 11, 11, 0)
    assert set(found["axes"]) == {"x", "y", "z", "gripper"}
    with pytest.raises(SystemExit) as ended:
        commands.main(["inspect", str(tmp_path / "none"), *robot])
    assert ended.value.code == 2


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
    chain: Chain, exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "export_graphs", lambda codec, wam, way: exported.graphs)
    passes = {name: exported.graphs[name] for name in ("text", "step")}
    monkeypatch.setattr(quantised, "export_student", lambda wam, way: passes)
    monkeypatch.setattr(quantised, "scan", lambda *_: [])  # two dozen sessions; it has a test of its own
    monkeypatch.setattr(lockstep, "MAX_EPISODE_NS", 200_000_000)
    monkeypatch.setattr(Collector, "start", lambda self: pytest.fail("the training is over"))
    assert set(chain.said) == {"demonstrations-0", "codec", "pretrain"}
    chain.said.clear()
    chain.run()
    assert set(chain.said) == {"release"}, "what was done is not done again"
    bundle = open_bundle(chain.work / "tiny.wam", trust=TrustStore(allow_demo_key=True), embodiment=ROBOT)
    assert bundle.manifest.name == "tiny"
    precisions = {name: graph.precision for name, graph in bundle.manifest.graphs.items()}
    assert precisions == {"text": "float32", "encode": "float32", "decode": "float32", "step": "int8"}
    assert Policy(bundle).verify_golden().exact
    card = json.loads((chain.work / "tiny.wam" / "card.json").read_text())
    assert card["training_steps"] == 2 and card["recipe"]["student"]["training"]["batch"] == 4


def test_the_recipes_that_are_shipped_are_read(tmp_path: Path) -> None:
    recipes = sorted(RECIPES.glob("*.toml"))
    assert recipes
    for recipe in recipes:
        configs = read_recipe(recipe)
        assert set(configs) <= set(STAGES)
        assert all((recipe.parent / config.robot).exists() for config in configs.values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[pretran]\n", "unknown stage 'pretran' (did you mean 'pretrain'?)"),
        ('robot = "r"\n[codec]\ndata = []\nsteps = 3\n', "codec.steps: Extra inputs are not permitted"),
        ('robot = "r"\n[codec]\ndata = []\ntraining = { batc = 3 }\n', "codec.training.batc"),
        ('robot = "r"\nsise = "nano"\n[codec]\ndata = []\n', "unknown key 'sise' (did you mean 'size'?)"),
        ("[codec]\ndata = []\n", "codec.robot: Field required"),
        ("[codec\n", "cannot be read"),
    ],
)
def test_a_recipe_is_refused_by_the_key_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        read_recipe(tmp_path / "r.toml")
    assert words in str(refused.value)


def test_the_collectors_process_is_started_once_and_ended(tmp_path: Path) -> None:
    process = Collector(["--help"], tmp_path / "log")
    process.start()
    assert process._process is not None
    first = process._process
    process.start()
    assert process._process is first, "one at a time"
    assert first.wait(timeout=120) == 0
    assert "--attended" in (tmp_path / "log").read_text(), "it understood what it was told"
    process.start()
    assert process._process is not first, "a dead one is replaced"
    process.stop()
    assert process._process.poll() is not None


def test_commands_refuse_by_name_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe, work = tmp_path / "tiny.toml", str(tmp_path / "work")
    recipe.write_text(TINY_RECIPE)
    save_checkpoint(tmp_path / "codec.pt", {}, 1)
    here = ["--config", str(recipe), "--work", work]
    for arguments, words in (
        (["generate", "--out", str(tmp_path / "d"), "--task", "rech"], "reach"),
        (["codec", *here], "is no LeRobot dataset"),
        (["pretrain", *here], "does not exist remedy: train it first: edge-wam distill codec"),
        (["all", *here, "--device", "tpu"], "device 'tpu'"),
        (["all", "--config", str(tmp_path / "none.toml")], "expected: a recipe in TOML"),
        (["export", "--run", str(tmp_path), "--out", str(tmp_path / "x.zip")], "ends in .wam"),
        (["collect", "--run", str(tmp_path), "--out", str(tmp_path), "--seed", "99999"], "seeds below 100000"),
        (["export", "--run", str(tmp_path), "--out", "x.wam", "--size", "nan"], "nano"),
    ):
        with pytest.raises(SystemExit) as ended:
            commands.main(arguments)
        assert ended.value.code == 2, arguments
        assert words in " ".join(capsys.readouterr().err.split()), arguments
    recipe.write_text(TINY_RECIPE[: TINY_RECIPE.index("[release]")])
    with pytest.raises(SystemExit) as ended:
        commands.main(["release", *here])
    assert ended.value.code == 2 and "has no table [release]" in " ".join(capsys.readouterr().err.split())
