"""``edge-wam firmware sniff``: what goes over a link, in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def sniff(
    source: Annotated[
        str, typer.Argument(help="A recording (*.pcapng), a file of raw bytes, a serial device, or a unix socket.")
    ],
    through: Annotated[
        Path | None,
        typer.Option("--through", metavar="SOCKET", help="Listen here for the host and stand between it and SOURCE."),
    ] = None,
    baud: Annotated[int, typer.Option("--baud", min=1200, max=4_000_000, help="Of a serial device.")] = 921_600,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Of a live line: how long.")] = 86_400.0,
    only: Annotated[str, typer.Option("--only", metavar="NAME,...", help="Show these messages and errors.")] = "",
    write: Annotated[Path | None, typer.Option("--write", metavar="FILE", help="Also keep the bytes (pcapng).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document a line.")] = False,
) -> None:
    """Decode a link: every frame in a line, with its direction, fields and units. Broken frames are shown as broken.

    A line that is listened to is never spoken on. Times are seconds since the first byte.
    """
    from edge_wam.cli.show import OUT
    from firmware_bridge.host import capture, tap

    wanted = {name.strip().lower() for name in only.split(",") if name.strip()}
    pieces = tap.open_source(source, baud=baud, through=through, seconds=seconds)
    if write is not None:
        pieces = capture.kept(pieces, write)
    since_ns = None
    for heard in tap.decode(pieces):
        since_ns = heard.at_ns if since_ns is None else since_ns
        if wanted and not heard.error and heard.name.lower() not in wanted:
            continue
        if as_json:
            OUT.file.write(json.dumps(heard.record()) + "\n")
        else:
            OUT.file.write(heard.line(since_ns) + "\n")
        OUT.file.flush()
