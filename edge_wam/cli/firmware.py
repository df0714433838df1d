"""``edge-wam firmware``: the microcontroller's firmware: build, sign, flash, measure, listen to its link."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_wam.cli.imaging import Trust, flash, inspect, keygen, sign
from edge_wam.cli.sniffing import sniff

app = typer.Typer(no_args_is_help=True, help="The microcontroller's firmware: build, sign, flash, measure, listen.")

Targets = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[TARGET]...",
        help="mps2-an386 | ast1030-evb | lm3s6965evb, each also with -realtime and -nowfi | stm32g474 | "
        "stm32g474-usb | stm32g474-boot | mps2-an386-boot | mps2-an386-slot | host | lib. Default: all.",
    ),
]
for _command in (keygen, sign, inspect, flash, sniff):
    app.command()(_command)
Out = Annotated[Path | None, typer.Option("--out", help="Where the files go. Default: build/firmware.")]


@app.command()
def build(targets: Targets = None, out: Out = None, trust: Trust = None) -> None:
    """Build firmware. What is up to date is not built again. A bootloader without --trust starts nothing."""
    from edge_wam.cli.show import OUT, progress
    from firmware_bridge.image import keys
    from firmware_bridge.image.program import BOOTLOADERS, trust_flags
    from firmware_bridge.mcu.build import DEFAULT_OUT
    from firmware_bridge.mcu.build import build as build_target
    from firmware_bridge.mcu.targets import TARGETS

    names = targets or list(TARGETS)
    flags = trust_flags([keys.load_public(path) for path in trust or []])
    made = []
    with progress("building", len(names)) as update:
        for index, name in enumerate(names):
            update(index, name)
            made.append((name, build_target(name, out or DEFAULT_OUT, flags if name in BOOTLOADERS else ())))
    for name, path in made:
        OUT.print(f"[green]✔[/] {name}: {path}")


@app.command()
def info(
    targets: Targets = None,
    out: Out = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Sizes, protocol and build identity of each target (built first where needed)."""
    from dataclasses import asdict

    from edge_wam.cli.show import as_json, progress, table
    from firmware_bridge.mcu.budget import BUDGETS, usage
    from firmware_bridge.mcu.build import DEFAULT_OUT
    from firmware_bridge.mcu.build import info as target_info
    from firmware_bridge.mcu.targets import TARGETS

    names = targets or list(TARGETS)
    found = {}
    with progress("measuring", len(names)) as update:
        for index, name in enumerate(names):
            update(index, name)
            found[name] = target_info(name, out or DEFAULT_OUT)
    stacks = {name: usage(name, out or DEFAULT_OUT) for name in names if name in BUDGETS}
    if json:
        as_json({
            name: {
                **asdict(i), "schema_hash": f"{i.schema_hash:08x}", "build_id": f"{i.build_id:08x}",
                "stack": stacks[name].stack if name in stacks else None,
                "budget": asdict(BUDGETS[name]) if name in stacks else None,
            }
            for name, i in found.items()
        })
        return
    table(
        [("target", "left"), ("text", "right"), ("data", "right"), ("bss", "right"), ("worst stack", "right"),
         ("protocol", "left"),
         ("build", "left"), ("file", "left")],
        [
            (name, str(i.text), str(i.data), str(i.bss), str(stacks[name].stack) if name in stacks else "",
             f"{i.schema_hash:08x}", f"{i.build_id:08x}", str(i.path))
            for name, i in found.items()
        ],
    )
