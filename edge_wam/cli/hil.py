"""``edge-wam hil``: scenarios of the hardware-in-the-loop bench, and the fault table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from edge_wam.hil.runner import Outcome

app = typer.Typer(
    no_args_is_help=True,
    help="The hardware-in-the-loop bench: an arm that obeys physics, and everything that can fail.",
)

SCENARIOS = "tests/hil/scenarios"
Scenarios = Annotated[
    list[Path], typer.Argument(metavar="SCENARIO.toml...", help=f"Files, or a folder of them ({SCENARIOS}).")
]


TARGETS = "lockstep | host | mps2-an386 | mps2-an386-icount | ast1030-evb | lm3s6965evb | board"


@app.command()
def run(
    scenarios: Scenarios,
    target: Annotated[str, typer.Option(help=f"{TARGETS}. board: with --port.")] = "lockstep",
    port: Annotated[str | None, typer.Option(help="Serial port of a board's link, e.g. /dev/ttyACM0.")] = None,
    plant_port: Annotated[
        str | None, typer.Option("--plant-port", help="Serial port of the board's second UART, for the simulated arm.")
    ] = None,
    baud: Annotated[int, typer.Option(min=9600, max=12_000_000, help="Of both ports.")] = 1_000_000,
    repeat: Annotated[int, typer.Option(min=1, max=10_000, help="Runs of each scenario, each with another seed.")] = 1,
    core: Annotated[int | None, typer.Option(help="Processor core for an emulator. Default: the last one.")] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html|FILE.json", help="Write what was seen.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")] = False,
) -> None:
    """Run scenario files and judge what the microcontroller and the arm did.

    Exit code 0: all good; 1: one was bad, void or could not be run on this target; 2: refused.
    """
    from typing import get_args

    from edge_wam.cli.show import OUT, as_json, note, progress
    from edge_wam.cli.show import table as show_table
    from edge_wam.errors import ConfigError, nearest
    from edge_wam.hil.injections import Target
    from edge_wam.hil.realtime import Ports
    from edge_wam.hil.runner import play, scenario_files

    if (port is None) != (plant_port is None):
        raise ConfigError("a board needs both of its ports", expected="--port and --plant-port together")
    chosen = "board" if port is not None and target == "lockstep" else target
    if chosen not in get_args(Target):
        raise ConfigError(f"target {chosen!r}{nearest(chosen, get_args(Target))}", expected=TARGETS)
    if (chosen == "board") != (port is not None):
        raise ConfigError(f"target {chosen} with ports {port}, {plant_port}", expected="ports with a board, only there")
    if report is not None and report.suffix not in (".html", ".json"):
        raise ConfigError(f"report {report}", expected="a name that ends in .html or .json")
    ports = None if port is None or plant_port is None else Ports(port, plant_port, baud)
    files = scenario_files(scenarios)
    outcomes: list[Outcome] = []
    with progress(chosen, len(files) * repeat) as update:
        for path in files:
            for number in range(1, repeat + 1):
                update(len(outcomes), f"{path.stem} {number}/{repeat}")
                outcomes.append(play(path, chosen, number, ports=ports, core=core, say=note))  # type: ignore[arg-type]
    if report is not None:
        _write(report, outcomes, chosen)
    if json:
        as_json([one.as_dict() for one in outcomes])
    else:
        _show(outcomes, show_table)
        if report is not None:
            OUT.print(f"report: {report}", markup=False)
    raise typer.Exit(0 if all(one.word == "good" for one in outcomes) else 1)


def _write(path: Path, outcomes: list[Outcome], target: str) -> None:
    from json import dumps

    from edge_wam.hil.report import render

    path.parent.mkdir(parents=True, exist_ok=True)
    text = (
        dumps([one.as_dict() for one in outcomes], indent=2)
        if path.suffix == ".json" else render(outcomes, f"Scenarios on {target}")
    )  # fmt: skip
    path.write_text(text, encoding="utf-8")


def _show(outcomes: list[Outcome], show_table: Callable[..., None]) -> None:
    colours = {"good": "green", "bad": "bold red", "void": "yellow", "not run": "yellow"}
    rows = []
    for one in outcomes:
        verdict = one.verdict
        times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in verdict.reactions.items()) if verdict else ""
        bad = "; ".join(f"{f.check}: {f.seen}" for f in verdict.findings if not f.good) if verdict else one.why
        rows.append((f"[{colours[one.word]}]{one.word}[/]", one.scenario.name, str(one.run), times, bad))
    show_table(
        [("", "left"), ("scenario", "left"), ("run", "right"), ("reaction", "left"), ("wrong, or why not run", "left")],
        rows,
    )


@app.command()
def table(
    runs: Annotated[int, typer.Option(min=1, max=10_000, help="Runs of each fault.")] = 50,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="TEXT", help="Rows whose fault holds this text.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1, help="Stop after this long; a later call goes on.")] = 86_400.0,
    core: Annotated[int | None, typer.Option(help="Processor core for the emulator. Default: the last one.")] = None,
    out: Annotated[Path, typer.Option(help="Where the table goes: this name with .csv and .md.")] = Path(
        "docs/measured/firmware-faults"
    ),
    scenarios: Annotated[Path, typer.Option(help="Folder of the scenario files.")] = Path(SCENARIOS),
) -> None:
    """Inject every fault many times into the emulated microcontroller, and write down what it took.

    Takes an hour; may be interrupted, goes on where it was. Exit code 1: not complete yet.
    """
    from edge_wam.cli.show import note
    from edge_wam.hil.table import ROWS, campaign

    rows = tuple(row for row in ROWS if not only or any(text in row.fault for text in only))
    done = campaign(rows, runs, scenarios, out, seconds=seconds, core=core, say=note)
    raise typer.Exit(0 if done else 1)
