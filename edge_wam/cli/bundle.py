"""``edge-wam bundle``: look at a bundle, verify it, sign it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    help="Model bundles (NAME.wam): look inside, verify, sign.",
)

Directory = Annotated[Path, typer.Argument(metavar="BUNDLE", help="Bundle directory, NAME.wam.")]
Trusted = Annotated[
    list[Path] | None, typer.Option("--trust", metavar="KEY.pub", help="A public key to trust; may be repeated.")
]
DemoKey = Annotated[
    bool, typer.Option("--allow-demo-key", help="Trust the demo key too. Its private half is public.")
]


@app.command()
def inspect(
    directory: Directory,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what a bundle is, for which robot, and what was measured of it.

    Every file is checked against the signed manifest. Who signed it is shown; whether to trust the signer is for
    `verify` to say.
    """
    from edge_wam.app.bundles import inspect_bundle
    from edge_wam.cli.show import as_json, facts, table

    found = inspect_bundle(directory)
    if json:
        as_json(found)
        return
    facts((name.replace("_", " "), str(found[name])) for name in (
        "name", "description", "model_hash", "signed_by", "robot", "axes", "wire_schema", "min_runtime", "size_mb",
    ))
    table(
        [("graph", "left"), ("precision", "left"), ("MB", "right")],
        [(name, graph["precision"], f"{graph['size'] / 1e6:.2f}") for name, graph in found["graphs"].items()],
    )
    table([("model", "left"), ("", "left")], [(name, str(value)) for name, value in found["model"].items()])
    table([("card", "left"), ("", "left")], [(name, str(value)) for name, value in found["card"].items()])


@app.command()
def verify(
    directory: Directory,
    robot: Annotated[
        Path | None, typer.Option(help="Robot file; checks that the bundle is for exactly this robot.")
    ] = None,
    trust: Trusted = None,
    allow_demo_key: DemoKey = False,
    golden: Annotated[bool, typer.Option(help="Also repeat the golden run on this machine.")] = True,
) -> None:
    """Check signature, files, robot, protocol and golden run, as a robot does before it may arm.

    Exit code 0: this machine would run it. 2: refused, with the reason.
    """
    from edge_wam.app.bundles import verify_bundle
    from edge_wam.cli.show import OUT

    for line in verify_bundle(
        directory, robot=robot, trusted=trust or [], allow_demo_key=allow_demo_key, golden=golden
    ):
        OUT.print(f"[green]✔[/] {line}")


@app.command()
def sign(
    directory: Directory,
    key: Annotated[Path, typer.Option(metavar="PRIVATE.key", help="Your Ed25519 private key (PEM, mode 600).")],
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Also declare that it works with this release's firmware protocol, after its golden run has passed.",
        ),
    ] = False,
) -> None:
    """Sign a bundle with your key, after checking every file against its manifest.

    With the signature you vouch for the bundle on every robot that trusts your key.
    """
    from edge_wam.app.bundles import sign_bundle
    from edge_wam.cli.show import OUT

    signed = sign_bundle(directory, key, accept_here=accept)
    OUT.print(f"[green]✔[/] {directory} signed with {signed.key_id}; model hash {signed.model_hash[:16]}")


@app.command()
def key(
    private: Annotated[Path, typer.Argument(help="Where the private key goes (created, mode 600).")],
) -> None:
    """Make a signing key. The public half, PRIVATE.pub, goes into `trusted_keys` of the robots' configurations."""
    from edge_wam.bundle import create_key
    from edge_wam.cli.show import OUT

    public = private.with_suffix(".pub")
    made = create_key(private, public)
    OUT.print(f"[green]✔[/] key {made}: keep {private} secret, hand out {public}")
