"""``edge-wam bench``: how fast the model is on this machine, and the link to the microcontroller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(invoke_without_command=True)

Config = Annotated[
    Path | None, typer.Option("--config", metavar="FILE.toml", help="Run configuration. Default: robots/demo.toml.")
]
BundleOption = Annotated[
    Path | None, typer.Option("--bundle", metavar="NAME.wam", help="Another bundle than the configuration's.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, nothing else.")]


@app.callback()
def bench(
    context: typer.Context,
    threads: Annotated[list[int] | None, typer.Option(help="Engine threads to measure; may be repeated.")] = None,
    calls: Annotated[int, typer.Option(min=5, help="Measured calls of each row.")] = 200,
    config: Config = None,
    bundle: BundleOption = None,
    json: Json = False,
) -> None:
    """Latency of the bundle on this machine: INT8 beside its float32 twin, in one run. Or, with `link`, of the wire."""
    if context.invoked_subcommand is not None:
        return
    from edge_wam.app.bench import bench as measure
    from edge_wam.app.opening import DEMO_CONFIG, open_config, open_configured_bundle
    from edge_wam.cli.show import as_json, facts, progress, table

    opened = open_configured_bundle(open_config(config or DEMO_CONFIG, bundle=bundle))
    with progress("rounds", None) as update:
        found = measure(opened, threads=threads or (1, 2), calls=calls, progress=lambda done, _all: update(done, ""))
    if json:
        as_json(found.as_dict())
        return
    table(
        [("", "left"), ("threads", "right"), ("calls", "right"), ("min ms", "right"), ("p50 ms", "right"),
         ("p99 ms", "right"), ("processor p50 ms", "right")],
        [
            (r.what, str(r.threads), str(r.calls), f"{r.min_ms:.2f}", f"{r.p50_ms:.2f}", f"{r.p99_ms:.2f}",
             f"{r.cpu_p50_ms:.2f}")
            for r in found.rows
        ],
    )
    facts([
        ("model", f"{found.model} {found.model_hash[:16]}"),
        ("machine", f"{found.machine}, {found.cores} cores, load before the run {found.load:.1f}, {found.runtime}"),
        ("products", f"{found.integer_products} in integers, {found.float_products} in float"),
        ("INT8 against float32", f"actions differ by {found.action_difference:.3g}, imagination by "
         f"{found.video_difference:.3g} (relative)"),
    ])


@app.command(short_help="Measure the link to the microcontroller.")
def link(
    mcu: Annotated[
        list[str] | None,
        typer.Option(help="library | host | mps2-an386 | ast1030-evb | lm3s6965evb; may be repeated. Default: all."),
    ] = None,
    chunks: Annotated[int, typer.Option(min=10, help="Round trips of each row.")] = 500,
    seconds: Annotated[float, typer.Option(min=0.1, help="Sustained sending of each row.")] = 3.0,
    json: Json = False,
) -> None:
    """Round trip and throughput of a chunk (7 axes, 16 knots) against its wire, and what it costs this processor.

    Measured: a real link and a running microcontroller, over a wire that is paced byte by byte. Computed: the time that
    request and answer take on the wire.
    """
    from edge_wam.cli.show import as_json, facts, note, table
    from edge_wam.machine import machine
    from firmware_bridge.host.bench_rig import available, known
    from firmware_bridge.host.link_bench import bench_link

    names = [known(name) for name in mcu] if mcu else available()
    found = bench_link(names, chunks=chunks, seconds=seconds, progress=note)
    if json:
        as_json({"machine": machine(), **found.as_dict()})
        return
    table(
        [("wire", "left"), ("microcontroller", "left"), ("samples", "left"), ("bytes", "right"),
         ("computed us", "right"), ("min us", "right"), ("p50 us", "right"), ("p99 us", "right"),
         ("sustained", "right"), ("of the wire", "right"), ("pacing late p50 / p99 us", "right"), ("refused", "right")],
        [
            (r.wire, r.mcu, r.encoding, f"{r.request_bytes} + {r.answer_bytes}", f"{r.wire_us:.0f}",
             f"{r.round_trip_us.min:.0f}", f"{r.round_trip_us.p50:.0f}", f"{r.round_trip_us.p99:.0f}",
             f"{r.sustained_bytes_s / 1000:.0f} kB/s", f"{r.share:.0%}",
             f"{r.late_us.p50:.0f} / {r.late_us.p99:.0f}", str(r.refused))
            for r in found.wires
        ],
        title="Round trip of a chunk: measured, beside the computed time of its bytes",
    )
    table(
        [("samples", "left"), ("every ms", "right"), ("send p50 us", "right"), ("p99 us", "right"),
         ("answer p50 us", "right"), ("p99 us", "right"), ("both p50 us", "right")],
        [
            (c.encoding, str(c.every_ms), f"{c.send_us.p50:.0f}", f"{c.send_us.p99:.0f}", f"{c.answer_us.p50:.0f}",
             f"{c.answer_us.p99:.0f}", f"{c.p50_us:.0f}")
            for c in found.costs
        ],
        title="Processor time of the host for one chunk",
    )
    facts([("machine", f"{machine()}, load before the run {found.load:.1f}")])
    facts(("skipped", why) for why in found.skipped)
