"""``edge-wam distill``: every stage of a recipe by itself, or all of them, and what stands beside the chain.

Every stage goes on where it was stopped. Under torchrun the training stages run in all its processes.
Exit codes: 0 done; 1 stopped before the end (the state is saved); 2 refused (what was wrong is on stderr).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from distill.progress import ERR, progress
from distill.scoring_commands import compare, score, spread
from distill.stages import STAGES
from edge_wam.errors import EdgeWamError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Make a student: demonstrations, codec, transformer, on-policy rounds, INT8 bundle.",
)  # fmt: skip

Robot = Annotated[Path, typer.Option(help="Robot file with the statistics for normalisation.")]
Size = Annotated[str, typer.Option(help="Size of the student (distill/models/config.py).")]
Run = Annotated[Path, typer.Option("--run", help="Run directory of the student.")]
Threads = Annotated[int, typer.Option(min=1, help="Threads of PyTorch.")]
Recipe = Annotated[
    Path, typer.Option("--config", metavar="RECIPE.toml", help="Recipe with a table for each stage (distill/recipes).")
]
Work = Annotated[
    Path | None, typer.Option(help="Folder for datasets and run directories. Default: runs/ and the recipe's name.")
]
Device = Annotated[str, typer.Option(help="cpu | cuda.")]
Key = Annotated[
    Path | None, typer.Option(help="Private key that signs. Without one the INSECURE demo key signs.")
]
DEFAULT_ROBOT = Path("robots/metaworld_sawyer.toml")


def _use(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


@contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """SIGINT and SIGTERM end the training after the step that is being computed; a second one at once."""
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, None)
        asked = True

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _chain(recipe: Path, only: str | None, work: Path | None, device: str, threads: int, key: Path | None) -> None:
    """Run the stages of a recipe, or one of them."""
    from distill.parallel import joined
    from distill.run import Stopped
    from distill.stages.frame import Context, read_recipe, run_stage
    from edge_wam.errors import ConfigError

    if device not in ("cpu", "cuda"):
        raise ConfigError(f"device {device!r}", expected="cpu or cuda")
    configs = read_recipe(recipe)
    if only is not None and only not in configs:
        raise ConfigError(f"{recipe} has no table [{only}]", expected=", ".join(configs))
    _use(threads)
    folder = Path("runs") / recipe.stem if work is None else work
    with joined(device) as place, progress(place.leads) as update, _stoppable() as stop:
        folder.mkdir(parents=True, exist_ok=True)
        context = Context(folder.resolve(), recipe.parent.resolve(), place, update, stop, key)
        for name, config in configs.items():
            if only in (None, name):
                try:
                    run_stage(name, config, context)
                except Stopped as stopped:
                    ERR.print(str(stopped), markup=False)
                    raise typer.Exit(1) from None
    if place.leads:
        typer.echo(str(folder))


def _add(name: str, text: str) -> None:
    @app.command(name=name, help=text, short_help=text)
    def stage(
        config: Recipe, work: Work = None, device: Device = "cpu", threads: Threads = 1, key: Key = None
    ) -> None:
        _chain(config, None if name == "all" else name, work, device, threads, key)


for _command in (score, compare, spread):
    app.command()(_command)
for _name, _text in (*STAGES.items(), ("all", "Run every stage of the recipe, one after the other.")):
    _add(_name, _text)


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
    with progress() as update:
        writer = write(
            out, load_embodiment(robot), per_task=per_task, seed=seed, tasks=tasks,
            report=lambda done, total, remark: update("demonstrations", done, total, remark),
        )  # fmt: skip
    typer.echo(f"{out}: {writer.episodes} episodes")


@app.command()
def inspect(
    data: Annotated[Path, typer.Argument(help="Dataset folder: LeRobot 2.0, 2.1 or 3.0, or GEAR.")],
    source: Annotated[Path | None, typer.Option(help="TOML file that says how it is read (docs/data.md).")] = None,
    horizon: Annotated[int, typer.Option(min=1, help="Knots of a chunk, for the statistics of actions.")] = 16,
    decode: Annotated[bool, typer.Option(help="Decode every picture.")] = True, robot: Robot = DEFAULT_ROBOT,
) -> None:  # fmt: skip
    """Open, decode and count a dataset as training would, and give the statistics that a robot file wants; JSON."""
    import json
    from dataclasses import asdict

    from distill.data.sources import source_from
    from distill.data.survey import survey
    from edge_wam.embodiment import load_embodiment

    with progress() as update:
        found = survey(
            source_from(data, source), load_embodiment(robot), horizon, decode=decode,
            report=lambda done, total: update("frames", done, total, ""),
        )  # fmt: skip
    typer.echo(json.dumps(asdict(found), indent=2))


@app.command()
def collect(
    run: Run, out: Annotated[Path, typer.Option(help="Folder for the datasets, one per round.")],
    seed: Annotated[int, typer.Option(min=0, help="First seed; every round takes the next ones.")] = 30_000,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of a round.")] = 24,
    rounds: Annotated[int, typer.Option(min=1, help="Stop when there are so many.")] = 1_000,
    tag: Annotated[str, typer.Option(help="Name of this collector; several may write into one folder.")] = "a",
    attended: Annotated[bool, typer.Option("--attended", help="Stop when the starting process has gone.")] = False,
    task: Annotated[list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")] = None,
    passes: Annotated[int, typer.Option(min=1, max=64, help="Passes over the transformer for a chunk.")] = 1,
    replan_knots: Annotated[int, typer.Option(min=1, max=14, help="Knots between two chunks.")] = 1,
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
    with progress() as update:
        collect_rounds(
            run, out, config_named(size), load_embodiment(robot), tag=tag, first_seed=seed, episodes=episodes,
            rounds=rounds, tasks=tasks, passes=passes, replan_knots=replan_knots,
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
    with progress() as update:
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
    with progress() as update:

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
def memory(
    model: Annotated[str, typer.Argument(help="teacher-14b, teacher-5b, or a student's size.")],
    gpus: Annotated[list[int] | None, typer.Option(min=1, help="May be repeated. Default: 8, 16, 64.")] = None,
    clips: Annotated[int, typer.Option(min=1, help="Clips of a step in each GPU.")] = 1,
) -> None:
    """Memory of a training in each GPU, from the real shapes (distill/memory.py says what is counted)."""
    from distill.memory import need, shape_of

    shape = shape_of(model)
    typer.echo(f"{model}: {shape.parameters:,} parameters, {shape.tokens:,} tokens a clip, {shape.depth} blocks")
    typer.echo("GPUs  state GB  gathered GB  activations GB  sum GB  sum without recomputation GB")
    for count in gpus or (8, 16, 64):
        m, kept = need(shape, count, clips), need(shape, count, clips, recompute=False)
        typer.echo(
            f"{count:4d}  {m.state / 1e9:8.1f}  {m.gathered / 1e9:11.1f}  {m.activations / 1e9:14.1f}"
            f"  {m.total / 1e9:6.1f}  {kept.total / 1e9:8.1f}"
        )


def main(arguments: list[str] | None = None) -> None:
    """Entry point; ends the process with its exit code."""
    try:
        app(args=arguments, prog_name="edge-wam distill")
    except EdgeWamError as error:
        ERR.print(f"refused: {error}", style="bold red", markup=False)
        sys.exit(2)
