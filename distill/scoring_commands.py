"""``edge-wam distill score | compare | spread``: what a teacher and its students do in closed loop, side by side."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from distill.progress import progress

if TYPE_CHECKING:
    from distill.scoring import ScoredPlanner
    from edge_wam.embodiment import Embodiment

What = Annotated[Path, typer.Argument(help="A run directory with codec.pt and wam.pt, or NAME.wam.")]
Robot = Annotated[Path, typer.Option(help="Robot file; of a bundle its own.")]
Size = Annotated[str, typer.Option(help="Size of the student, where the run directory does not say.")]
Passes = Annotated[int, typer.Option(min=1, max=64, help="Passes for a chunk; a bundle has its own number.")]
Task = Annotated[list[str] | None, typer.Option("--task", help="Only this task; may be repeated. Default: all.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")]
Trust = Annotated[list[Path] | None, typer.Option(help="Public key (PEM) of a bundle; may be repeated.")]
DEFAULT_ROBOT = Path("robots/metaworld_sawyer_wrist.toml")


def _open(
    what: Path, robot: Path, size: str, passes: int, threads: int, trust: list[Path] | None
) -> tuple[ScoredPlanner, Embodiment, dict[str, Any]]:
    """The planner, its robot, and what makes its scores comparable."""
    import torch

    from distill.data.files import sha256_of
    from distill.models.config import config_named
    from distill.planner import TorchPlanner
    from distill.quantise.gate import BundlePlanner
    from distill.shape import read_shape
    from distill.student import CODEC_FILE, WAM_FILE, load_codec, load_wam
    from edge_wam.bundle import TrustStore, open_bundle
    from edge_wam.embodiment import load_embodiment

    torch.set_num_threads(threads)
    if what.suffix == ".wam":
        bundle = open_bundle(what, trust=TrustStore.load(trust or [], allow_demo_key=True))
        return BundlePlanner(bundle), bundle.embodiment, {"model": bundle.model_hash, "passes": "the bundle's own"}
    embodiment = load_embodiment(robot)
    config = read_shape(what, config_named(size))
    wam, _ = load_wam(what, config)
    planner = TorchPlanner(load_codec(what, config), wam, embodiment, passes=passes)
    hashes = f"{sha256_of(what / WAM_FILE)}+{sha256_of(what / CODEC_FILE)}"
    return planner, embodiment, {"model": hashes, "passes": passes}


def _tasks(task: list[str] | None) -> tuple[str, ...]:
    from edge_wam.sim.world import TASKS, task_named

    return tuple(task_named(name).name for name in task) if task else tuple(TASKS)


def score(
    what: What, out: Annotated[Path, typer.Option(help="File of scores; one that is there is gone on with.")],
    passes: Passes = 1, episodes: Annotated[int, typer.Option(min=1, help="Scenes of each task.")] = 32,
    seed: Annotated[int, typer.Option(help="First of them; training seeds are refused.")] = 300_000,
    replan_knots: Annotated[int, typer.Option(min=1, max=15, help="Knots executed of each chunk.")] = 4,
    task: Task = None, robot: Robot = DEFAULT_ROBOT, size: Size = "10m", threads: Threads = 1, trust: Trust = None,
) -> None:  # fmt: skip
    """Drive held-out scenes in simulated time through the microcontroller's own code, and write every episode down."""
    from distill.scoring import check_scenes, open_scores
    from distill.scoring import score as drive

    tasks = _tasks(task)
    check_scenes(tasks, seed)
    planner, embodiment, settings = _open(what, robot, size, passes, threads, trust)
    results = open_scores(out, {**settings, "robot": embodiment.name, "replan_knots": replan_knots})
    try:
        with progress() as update:
            drive(
                planner, embodiment, results, tasks, episodes=episodes, first_seed=seed,
                replan_knots=replan_knots, report=lambda done, total, remark: update("episodes", done, total, remark),
            )  # fmt: skip
    finally:
        results.close()
    typer.echo(f"{out}: {sum(row.success for row in results.rows)} of {len(results.rows)} done")


def compare(
    result: Annotated[list[str], typer.Argument(help="NAME=FILE of scores. The others are held against the first.")],
) -> None:  # fmt: skip
    """Print tables (Markdown): success by group and task, paired differences, jerk, passes, foresight."""
    from distill.compare import by_task, table
    from distill.scoring import read_scores
    from edge_wam.errors import ConfigError

    named = dict(entry.split("=", 1) for entry in result if "=" in entry)
    if len(named) != len(result):
        raise ConfigError(f"{' '.join(result)}", expected="NAME=FILE, every name once")
    policies = {name: read_scores(Path(file)) for name, file in named.items()}
    typer.echo(table(policies))
    typer.echo(by_task(policies))


def spread(
    what: What, passes: Passes = 1, scenes: Annotated[int, typer.Option(min=1, help="Of each task.")] = 8,
    noises: Annotated[int, typer.Option(min=2, help="In each moment.")] = 32,
    knots: Annotated[int, typer.Option(min=0, help="How far into the expert's episode.")] = 4,
    seed: Annotated[int, typer.Option(help="First scene; training seeds are refused.")] = 400_000,
    task: Task = None, robot: Robot = DEFAULT_ROBOT, size: Size = "10m", threads: Threads = 1, trust: Trust = None,
) -> None:  # fmt: skip
    """How far the answers to one moment differ from noise to noise, by task; JSON."""
    from distill.modes import measure_spread

    planner, embodiment, settings = _open(what, robot, size, passes, threads, trust)
    with progress() as update:
        rows = measure_spread(
            planner, embodiment, _tasks(task), first_seed=seed, scenes=scenes, noises=noises, knots=knots,
            report=lambda done, total, remark: update("tasks", done, total, remark),
        )  # fmt: skip
    typer.echo(json.dumps({**settings, "spread": [asdict(row) for row in rows]}, indent=2))
