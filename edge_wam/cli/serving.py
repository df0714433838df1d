"""``edge-wam serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def serve(
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="Run configuration. Default: robots/demo.toml.")
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", metavar="NAME.wam", help="Another bundle than the configuration's.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on. Anyone who reaches it may use it.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8000,
    threads: Annotated[int, typer.Option(min=1, help="Engine threads.")] = 1,
) -> None:
    """Answer openpi and DreamZero websocket clients from a bundle, until Ctrl-C.

    For simulators, benchmarks and comparisons: actions leave as numbers, and no limits of an arm stand behind them.
    The bundle is verified and repeats its golden run first, as everywhere.
    """
    import asyncio

    from edge_wam.app.opening import DEMO_CONFIG, open_config, open_configured_bundle
    from edge_wam.app.serve import GRIPPER, JOINTS, PolicyServer, image_keys
    from edge_wam.cli.show import facts, note, say
    from edge_wam.policy import Policy

    policy = Policy(open_configured_bundle(open_config(config or DEMO_CONFIG, bundle=bundle)), threads=threads)
    policy.verify_golden()
    policy.warm_up()
    robot = policy.bundle.embodiment
    gripper = robot.axes[-1].unit == "1"

    async def listen() -> None:
        server = await PolicyServer(policy, told=note).start(host, port)
        chosen = next(iter(server.sockets)).getsockname()[1]
        say(f"serving {policy.bundle.directory.name} on ws://{host}:{chosen}")
        facts([
            *((f"camera {camera.name}", f"{image_keys(robot)[camera.name]}: uint8 {camera.height} x {camera.width} x 3")
              for camera in robot.cameras),
            ("axes", f"{JOINTS}: {robot.dof - gripper} numbers" + (f"; {GRIPPER}: 1" if gripper else "")),
            ("answer", f"{policy.bundle.manifest.model.knots} knots x {robot.dof} axes, {robot.chunk_dt_ms} ms apart"),
        ])  # fmt: skip
        await server.serve_forever()

    try:
        asyncio.run(listen())
    except KeyboardInterrupt:
        note("stopped")
