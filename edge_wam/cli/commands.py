"""The commands themselves: arguments in, lines out. Everything heavy is imported inside."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_wam.cli import benching, bundle, elsewhere, firmware, hil, serving

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run a World Action Model on a robot arm, under a watchdog.\n\n"
    "Exit codes: 0 good; 1 it ran and the answer is no; 2 refused, nothing was run.",
)
app.add_typer(bundle.app, name="bundle")
app.add_typer(firmware.app, name="firmware")
app.add_typer(hil.app, name="hil")
app.add_typer(benching.app, name="bench", short_help="Measure latency on this machine.")
elsewhere.add_commands(app)
app.command(name="serve", short_help="Answer openpi and DreamZero clients from a bundle.")(serving.serve)

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.toml", help="Run configuration. Default: robots/demo.toml.")
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="NAME.wam", help="Another bundle than the configuration's.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]
Mcu = Annotated[
    str | None,
    typer.Option(help="Emulated microcontroller: auto | qemu | host. auto: QEMU where it is installed."),
]
Report = Annotated[
    Path | None, typer.Option("--report", metavar="FILE.html", help="Where the report goes. Default: beside the log.")
]


def _mcu(value: str | None) -> str | None:
    if value not in (None, "auto", "qemu", "host"):
        raise typer.BadParameter(f"{value!r} is not one of auto, qemu, host", param_hint="--mcu")
    return value


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """See `edge-wam COMMAND --help`."""
    if version:
        import edge_wam

        typer.echo(f"edge-wam {edge_wam.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)


@app.command(short_help="Let the simulated arm do a task.")
def demo(
    task: Annotated[str, typer.Option(help="reach | drawer-open | drawer-close | button-press-topdown | window-open | "
                                      "door-close")] = "drawer-open",
    seed: Annotated[int, typer.Option(help="Scene; from 100000 on: scenes that training never saw.")] = 100_000,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="World time for the task.")] = 10.0,
    config: Config = None,
    bundle: BundleOption = None,
    mcu: Mcu = None,
    report: Report = None,
) -> None:
    """Let the simulated arm do a task: pixels to model to microcontroller to axis, in real time.

    Ends with a verdict, a report to open in a browser, and the recording. Ctrl-C stops the arm in order.
    Exit code 0: task done; 1: not done.
    """
    from edge_wam.app.demo import demo as play_demo
    from edge_wam.app.live import LiveView
    from edge_wam.app.opening import DEMO_CONFIG, open_config
    from edge_wam.app.operator import stoppable
    from edge_wam.cli.show import OUT, facts, note, say, short

    settings = open_config(config or DEMO_CONFIG, bundle=bundle, mcu=_mcu(mcu))
    note(f"starting the emulated microcontroller, the simulator and the model ({settings.bundle.name}) ...")
    with LiveView(OUT, f"edge-wam demo: {task}, seed {seed}") as view, stoppable(view.say) as stop:
        result = play_demo(
            settings, task, seed, limit_s=seconds, on_status=view.update, stop=stop, report=report, say=view.say
        )
    outcome = result.outcome
    sign, style = ("✔", "bold green") if outcome.done else ("✗", "bold red")
    OUT.print(f"\n{sign} {outcome.headline}", style=style, markup=False)
    say(outcome.why)
    shown = [("microcontroller", result.mcu), ("recording", short(result.recording))]
    if result.report.exists():
        shown.insert(1, ("report", short(result.report)))
    facts(shown)
    raise typer.Exit(0 if outcome.done else 1)


@app.command(short_help="Run the model on the configured robot.")
def run(
    config: Annotated[Path, typer.Option("--config", metavar="FILE.toml", help="Run configuration of the robot.")],
    instruction: Annotated[
        str | None, typer.Option(help="What to do, in words. Default: the configuration's.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Stop after this long.")] = 60.0,
    sources: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Makes the camera processes of a real robot: called with a SourceContext, returns ProcessSpecs "
            "(edge_wam.supervisor). Not needed with an emulated microcontroller.",
        ),
    ] = None,
    scene: Annotated[
        str, typer.Option(metavar="TASK:SEED", help="Simulated scene, with an emulated microcontroller.")
    ] = "drawer-open:100000",
    arm: Annotated[
        bool, typer.Option("--arm", help="Arm without asking. You vouch that nobody can be hurt.")
    ] = False,
    report: Report = None,
) -> None:
    """Run the model on the configured robot until the time is up, Ctrl-C, or a fault.

    The arm moves. Before it does, you are asked to arm it: only an operator arms. Exit code 0: ended as asked; 1: a
    fault ended it.
    """
    from edge_wam.app.live import LiveView
    from edge_wam.app.opening import open_config
    from edge_wam.app.operator import stoppable
    from edge_wam.app.run import confirm, run_robot
    from edge_wam.cli.show import OUT, facts, note, say, short

    settings = open_config(config)
    words = instruction or settings.instruction
    if not arm and not confirm(settings, words):
        note("not armed; nothing was run")
        raise typer.Exit(2)
    with LiveView(OUT, f"edge-wam run: {words}") as view, stoppable(view.say) as stop:
        result = run_robot(
            settings, words, seconds=seconds, sources=sources, scene=scene, on_status=view.update, stop=stop,
            report=report, say=view.say,
        )
    outcome = result.outcome
    OUT.print(f"\n{'✗' if outcome.done is False else '✔'} {outcome.headline}", style="bold")
    say(outcome.why)
    facts([
        ("microcontroller", result.mcu), ("report", short(result.report)), ("recording", short(result.recording)),
    ])
    raise typer.Exit(1 if outcome.done is False else 0)


@app.command(name="eval", short_help="Measure success over held-out scenes.")
def evaluate(
    task: Annotated[list[str] | None, typer.Option(help="A task; may be repeated. Default: all six.")] = None,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes of each task.")] = 50,
    first_seed: Annotated[
        int, typer.Option(help="Seeds count up from here; from 100000 on: never trained on.")
    ] = 100_000,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="In real time, through all processes and the emulated microcontroller.")
    ] = False,
    replan_knots: Annotated[
        int | None, typer.Option(min=1, max=15, help="Lockstep: knots executed of each chunk. Default: as the "
                                 "configuration's plan rate.")
    ] = None,
    config: Config = None,
    bundle: BundleOption = None,
    mcu: Mcu = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE.jsonl", help="Results; an interrupted run goes on there.")
    ] = None,
    keep_recordings: Annotated[
        bool, typer.Option("--keep-recordings", help="Real time: keep the recordings (about 1 MB a second).")
    ] = False,
    require: Annotated[
        float | None, typer.Option(min=0, max=1, help="Exit with 1 if a task's success rate is below this.")
    ] = None,
    json: Json = False,
) -> None:
    """Measure closed-loop success over held-out scenes, with 95 % Wilson intervals, jerk and latency.

    Lockstep (default): simulated time, deterministic, as fast as the processor allows. Every finished episode is
    stored at once; the same command goes on where it was interrupted.
    """
    from edge_wam.app import eval as evaluation
    from edge_wam.cli.evaluation import show
    from edge_wam.cli.show import note, progress, short

    tasks = evaluation.check_request(task or (), first_seed, episodes)
    plan = evaluation.prepare(
        config, bundle=bundle, mcu=_mcu(mcu), realtime=realtime, replan_knots=replan_knots, out=out
    )
    note(f"results: {short(plan.results.path)} ({len(plan.results.rows)} episodes there already)")
    missing = [seed for name in tasks for seed in range(first_seed, first_seed + episodes)
               if not plan.results.done(name, seed)]
    with progress("episodes", len(missing)) as update:

        def on_row(row: evaluation.EpisodeRow, done: int) -> None:
            update(done, f"{row.task} {row.seed}: {'done' if row.success else row.ended} {row.time_s:.1f} s")

        finished = evaluation.execute(
            plan, tasks, episodes=episodes, first_seed=first_seed, keep_recordings=keep_recordings, on_row=on_row,
            say=note,
        )
    summaries = evaluation.summarise(plan.results.rows, tasks, first_seed, episodes)
    show(plan.settings, summaries, as_json_document=json)
    if not finished:
        note("interrupted: the same command goes on from here")
        raise typer.Exit(1)
    if require is not None and any(summary.rate < require for summary in summaries):
        raise typer.Exit(1)


@app.command(short_help="Check a recording against the model.")
def replay(
    log: Annotated[Path, typer.Argument(metavar="LOG", help="Recording, FILE.mcap.")],
    config: Config = None,
    bundle: BundleOption = None,
    other_model: Annotated[
        bool, typer.Option("--other-model", help="Compare although another bundle was recorded.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Also write the report of the recording.")
    ] = None,
    json: Json = False,
) -> None:
    """Ask the model every recorded question again; its answers must be the same to the last bit.

    Exit code 0: identical. 1: they differ; each differing field is named. 2: refused.
    """
    from edge_wam.app.opening import DEMO_CONFIG, open_config, open_configured_bundle
    from edge_wam.app.replay import replay as ask_again
    from edge_wam.cli.replaying import show
    from edge_wam.cli.show import note, progress

    opened = open_configured_bundle(open_config(config or DEMO_CONFIG, bundle=bundle))
    with progress("answers", None) as update:
        found = ask_again(log, opened, other_model=other_model, progress=lambda done: update(done, ""))
    if report is not None:
        from edge_wam.report import write_report

        note(f"report: {write_report(log, report, bundle=opened)}")
    show(found, as_json_document=json)
    raise typer.Exit(0 if found.exact else 1)


@app.command(short_help="Check that this machine can run the arm.")
def doctor(config: Config = None, json: Json = False) -> None:
    """Check everything that a run needs: each line says what was found and what to do.

    ✔ good, – works but not as it should, ✗ does not work. Nothing is armed. Exit code 1: something does not work.
    """
    from edge_wam.app.doctor import examine
    from edge_wam.app.opening import DEMO_CONFIG
    from edge_wam.cli.show import OUT, as_json, say

    found = []
    for finding in examine(config or DEMO_CONFIG):
        found.append(finding)
        if json:
            continue
        sign = {True: "[green]✔[/]", False: "[red]✗[/]", None: "[yellow]–[/]"}[finding.good]
        OUT.print(f"{sign} {finding.name}: ", end="")
        say(finding.text)
        if finding.remedy and finding.good is not True:
            say(f"    {finding.remedy}", style="yellow")
    good = all(finding.good is not False for finding in found)
    if json:
        as_json({"good": good, "findings": found})
    raise typer.Exit(0 if good else 1)
