"""``python -m distill``: every stage by itself, or ``nano`` for all of them. Each goes on where it was stopped.

Exit codes: 0 done; 2 refused (bad input; what was wrong and what to do is on stderr).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from edge_wam.errors import EdgeWamError

app = typer.Typer(
    no_args_is_help=True, add_completion=False,
    help="Make a student: demonstrations, codec, transformer, on-policy rounds, INT8 bundle.",
)  # fmt: skip
ERR = Console(stderr=True, highlight=False)
Update = Callable[[str, int, int, str], None]

Robot = Annotated[Path, typer.Option(help="Robot file with the statistics for normalisation.")]
Size = Annotated[str, typer.Option(help="Size of the student (distill/models/config.py).")]
Data = Annotated[list[Path], typer.Option("--data", help="A dataset folder; may be repeated.")]
Run = Annotated[Path, typer.Option("--run", help="Folder of checkpoints and curves.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")]
DEFAULT_ROBOT = Path("robots/metaworld_sawyer.toml")


@contextmanager
def _progress() -> Iterator[Update]:
    """One bar per stage on stderr; without a terminal a line now and then (a log file is read by people too)."""
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        TextColumn("{task.fields[remark]}", markup=False),
    )  # fmt: skip
    with Progress(*columns, console=ERR, disable=not ERR.is_terminal) as bars:
        tasks = {}
        said: dict[str, int] = {}

        def update(stage: str, done: int, total: int, remark: str) -> None:
            if not ERR.is_terminal:
                percent = 100 * done // max(1, total)
                if said.get(stage) != percent:
                    said[stage] = percent
                    ERR.print(f"{stage} {done}/{total}  {remark}", markup=False)
                return
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, remark="")
            bars.update(tasks[stage], completed=done, total=total, remark=remark)

        yield update


def _use(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


@app.command()
def generate(
    out: Annotated[Path, typer.Option(help="Dataset folder; an unfinished one is completed.")],
    per_task: Annotated[int, typer.Option(min=1, help="Successful demonstrations of each task.")] = 110,
    seed: Annotated[int, typer.Option(min=0, help="First seed; seeds run upwards, one per round of tasks.")] = 0,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")] = None,
    robot: Robot = DEFAULT_ROBOT,
) -> None:
    """Write demonstrations of Meta-World's experts, pushed and recovering, as a LeRobot v3 dataset."""
    from distill.data.generate import generate as write
    from edge_wam.embodiment import load_embodiment
    from edge_wam.sim.world import SHIPPED_TASKS, task_named

    tasks = tuple(task_named(name).name for name in task) if task else SHIPPED_TASKS
    with _progress() as update:
        writer = write(
            out, load_embodiment(robot), per_task=per_task, seed=seed, tasks=tasks,
            report=lambda done, total, remark: update("demonstrations", done, total, remark),
        )  # fmt: skip
    typer.echo(f"{out}: {writer.episodes} episodes")


@app.command()
def codec(
    data: Data, run: Run, steps: Annotated[int, typer.Option(min=1)] = 2600, size: Size = "nano",
    robot: Robot = DEFAULT_ROBOT, threads: Threads = 2,
) -> None:  # fmt: skip
    """Train the frame codec."""
    from distill.data.windows import load_frames
    from distill.models.config import config_named
    from distill.train_codec import CodecTraining, train_codec
    from edge_wam.embodiment import load_embodiment

    _use(threads)
    config, embodiment = config_named(size), load_embodiment(robot)
    with _progress() as update:
        train_codec(
            load_frames(data, embodiment), config, CodecTraining(steps=steps), run,
            lambda done, total, remark: update("codec", done, total, remark),
        )  # fmt: skip
    typer.echo(str(run / "codec.pt"))


@app.command()
def train(
    data: Data, run: Run,
    on_policy: Annotated[Path, typer.Option(help="Folder into which collectors write; taken in as rounds finish.")],
    steps: Annotated[int | None, typer.Option(min=1, help="Default: as the shipped student.")] = None,
    size: Size = "nano", robot: Robot = DEFAULT_ROBOT, threads: Threads = 2,
) -> None:  # fmt: skip
    """Train the transformer on demonstrations and on whatever collectors write meanwhile."""
    from distill.models.config import config_named
    from distill.student import load_codec
    from distill.train_wam import WamTraining, train_wam
    from edge_wam.embodiment import load_embodiment

    _use(threads)
    config, embodiment = config_named(size), load_embodiment(robot)
    settings = WamTraining() if steps is None else WamTraining(steps=steps)
    with _progress() as update:
        train_wam(
            data, on_policy, load_codec(run, config), config, embodiment, settings, run,
            lambda done, total, remark: update("transformer", done, total, remark),
        )  # fmt: skip
    typer.echo(str(run / "wam.pt"))


@app.command()
def collect(
    run: Run, out: Annotated[Path, typer.Option(help="Folder for the datasets, one per round.")],
    seed: Annotated[int, typer.Option(min=0, help="First seed; every round takes the next ones.")] = 30_000,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of a round.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="Stop when there are so many.")] = 1_000,
    tag: Annotated[str, typer.Option(help="Name of this collector; several may write into one folder.")] = "a",
    attended: Annotated[bool, typer.Option("--attended", help="Stop when the starting process has gone.")] = False,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")] = None,
    size: Size = "nano", robot: Robot = DEFAULT_ROBOT, threads: Threads = 1,
) -> None:  # fmt: skip
    """Let the newest weights of a run act, and relabel what they reach, round after round."""
    from distill.collector import collect_rounds
    from distill.models.config import config_named
    from edge_wam.embodiment import load_embodiment
    from edge_wam.sim.world import SHIPPED_TASKS, task_named

    parent = os.getppid()
    tasks = tuple(task_named(name).name for name in task) if task else SHIPPED_TASKS
    _use(threads)
    with _progress() as update:
        collect_rounds(
            run, out, config_named(size), load_embodiment(robot), tag=tag, first_seed=seed, episodes=episodes,
            rounds=rounds, tasks=tasks,
            report=lambda done, total, remark: update("on-policy rounds", done, total, remark),
            going=lambda: not attended or os.getppid() == parent,
        )  # fmt: skip


@app.command()
def export(
    run: Run, out: Annotated[Path, typer.Option(help="NAME.wam; replaced if it is there.")],
    float_out: Annotated[Path | None, typer.Option(help="Also keep the float32 twin as this NAME.wam.")] = None,
    key: Annotated[Path | None, typer.Option(help="Private key; without one the INSECURE demo key signs.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each task to calibrate on.")] = 4,
    feeds: Annotated[int, typer.Option(min=6, help="Model inputs kept of all of them.")] = 256,
    size: Size = "nano", robot: Robot = DEFAULT_ROBOT, threads: Threads = 1,
) -> None:  # fmt: skip
    """Export, calibrate on the float student's own episodes, quantise, record the golden run and sign."""
    from distill.models.config import config_named
    from distill.release import Calibration, release
    from edge_wam.bundle import demo_private_key, load_private_key

    _use(threads)
    with _progress() as update:
        model_hash = release(
            run, out, robot_file=robot, config=config_named(size), float_out=float_out,
            key=demo_private_key() if key is None else load_private_key(key),
            calibration=Calibration(episodes, feeds), card={"success": "not measured yet: edge-wam eval measures it"},
            report=lambda done, total, remark: update("calibration", done, total, remark),
        )  # fmt: skip
    typer.echo(f"{out} {model_hash}")


@app.command()
def imagination(
    bundle: Annotated[Path, typer.Argument(help="NAME.wam, signed with the demo key or a trusted one.")],
    episodes: Annotated[int, typer.Option(min=1, help="Held-out scenes of each task.")] = 10,
    seed: Annotated[int, typer.Option(help="First of them; training seeds are refused.")] = 200_000,
    trust: Annotated[list[Path] | None, typer.Option(help="Public key (PEM); may be repeated.")] = None,
) -> None:
    """Compare what the model foresees in closed loop with what comes and with copying the newest frame; JSON."""
    import json
    from dataclasses import asdict

    from distill.imagination import measure_foresight
    from edge_wam.bundle import TrustStore, open_bundle
    from edge_wam.policy import Policy
    from edge_wam.sim.lockstep import mcu_library
    from edge_wam.sim.world import SHIPPED_TASKS

    opened = open_bundle(bundle, trust=TrustStore.load(trust or [], allow_demo_key=True))
    done = 0
    with _progress() as update:

        def report(task: str, number: int) -> None:
            nonlocal done
            done += 1
            update("imagination", done, episodes * len(SHIPPED_TASKS), f"{task} seed {number}")

        rows = measure_foresight(
            Policy(opened), opened.embodiment, mcu_library(), episodes=episodes, first_seed=seed, report=report
        )
    typer.echo(json.dumps([asdict(row) for row in rows], indent=2))


@app.command()
def card(
    bundle: Annotated[Path, typer.Argument(help="NAME.wam whose card gets the results.")],
    machine: Annotated[str, typer.Option(help="What they were measured on, in words.")],
    result: Annotated[list[str], typer.Option("--result", help="KEY=FILE.json; may be repeated.")],
    key: Annotated[Path | None, typer.Option(help="Private key; without one the INSECURE demo key signs.")] = None,
    trust: Annotated[list[Path] | None, typer.Option(help="Public key (PEM); may be repeated.")] = None,
) -> None:
    """Write measured results (edge-wam eval --json, edge-wam bench --json, ...) into a bundle's card and sign it."""
    import json

    from edge_wam.bundle import TrustStore, demo_private_key, load_private_key, open_bundle, rewrite_card
    from edge_wam.errors import ConfigError

    opened = open_bundle(bundle, trust=TrustStore.load(trust or [], allow_demo_key=True))
    results = dict(entry.split("=", 1) for entry in result if "=" in entry)
    if len(results) != len(result):
        raise ConfigError(f"--result {result}", expected="KEY=FILE.json, every key once")
    measured = {name: json.loads(Path(file).read_text()) for name, file in results.items()}
    graphs = {name: opened.manifest.files[graph.file].sha256 for name, graph in opened.manifest.graphs.items()}
    text = {k: v for k, v in opened.card().items() if k != "success"}
    model_hash = rewrite_card(
        opened, {**text, **measured, "machine": machine, "measured_graphs": graphs},
        demo_private_key() if key is None else load_private_key(key),
    )
    typer.echo(f"{bundle} {model_hash}")


@app.command()
def nano(
    work: Annotated[Path, typer.Option(help="Folder for datasets, checkpoints and curves (4 GB).")],
    out: Annotated[Path, typer.Option(help="The bundle.")] = Path("bundles/metaworld-nano.wam"),
    key: Annotated[Path | None, typer.Option(help="Private key; without one the INSECURE demo key signs.")] = None,
    robot: Robot = DEFAULT_ROBOT, threads: Threads = 1,
) -> None:  # fmt: skip
    """Make the shipped student from nothing. Hours on two cores; interrupt it and run it again at will."""
    from distill.nano import NanoRecipe, make_nano
    from edge_wam.bundle import demo_private_key, load_private_key

    _use(threads)
    with _progress() as update:
        model_hash = make_nano(
            work, out, robot_file=robot, key=demo_private_key() if key is None else load_private_key(key),
            recipe=NanoRecipe(), report=update,
        )  # fmt: skip
    typer.echo(f"{out} {model_hash}")


def main(arguments: list[str] | None = None) -> None:
    """Entry point; ends the process with its exit code."""
    try:
        app(args=arguments, prog_name="python -m distill")
    except EdgeWamError as error:
        ERR.print(f"refused: {error}", style="bold red", markup=False)
        sys.exit(2)
