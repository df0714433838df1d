"""``edge-wam firmware keygen | sign | inspect | flash``: signed images, from a key to a board."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Key = Annotated[Path, typer.Option("--key", help="Secret key file; it counts its signatures.")]
Trust = Annotated[
    list[Path] | None, typer.Option("--trust", help="Public key (.pub) that the bootloader trusts. May be given twice.")
]
File = Annotated[Path, typer.Argument(help="The image.", exists=True, dir_okay=False)]


def keygen(
    path: Annotated[Path, typer.Argument(help="New file of the secret key; its public half is PATH.pub.")],
) -> None:
    """Make a signing key for firmware: 1024 signatures, hash-based (LMS, RFC 8554). Takes some seconds."""
    from edge_wam.cli.show import OUT
    from firmware_bridge.image import keys

    key = keys.generate(path)
    OUT.print(f"[green]✔[/] {key.path}: secret. Keep one copy: a copy that signs too gives the key away.")
    OUT.print(f"[green]✔[/] {key.path}.pub: for `edge-wam firmware build --trust` and `flash --trust`.")


def sign(
    target: Annotated[str, typer.Argument(help="Firmware target: stm32g474 | stm32g474-usb | mps2-an386-slot.")],
    version: Annotated[str, typer.Option("--version", help="Of the image, e.g. 1.4.0.")],
    key: Key,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the image goes.")],
    floor: Annotated[
        str, typer.Option("--floor", help="Once this image was accepted, the board takes none below this version.")
    ] = "0.0.0",
) -> None:
    """Build a target and sign it. Uses up one of the key's signatures."""
    from edge_wam.cli.show import OUT
    from firmware_bridge.image import keys
    from firmware_bridge.image.image import parse_version
    from firmware_bridge.image.program import sign_target

    data = sign_target(target, parse_version(version), parse_version(floor), key)
    output.write_bytes(data)
    left = keys.load(key).left
    OUT.print(f"[green]✔[/] {output}: {target} {version}, {len(data)} bytes; the key can sign {left} more times")


def inspect(file: File, trust: Trust = None) -> None:
    """Say what an image is, and what a bootloader that trusts these keys would say to it."""
    from edge_wam.cli.show import OUT
    from firmware_bridge.image import image, keys

    data = file.read_bytes()
    found = image.read(data)
    known = found.board in {int(board) for board in image.Board}
    verdict = "no such board"
    if known:
        trusted = [keys.load_public(path) for path in trust or []]
        verdict = image.judge(data, image.Board(found.board), (0, 0, 0), trusted).name
    dotted = ".".join
    for name, value in (
        ("board", image.Board(found.board).name.lower() if known else str(found.board)),
        ("version", dotted(map(str, found.version))), ("floor", dotted(map(str, found.floor))),
        ("program", f"{found.payload_bytes} bytes at {found.address + image.HEADER_BYTES:#010x}"),
        ("build", f"{found.build_id:08x}"), ("protocol", f"{found.schema_hash:08x}"), ("SHA-256", found.sha256.hex()),
        ("bootloader", verdict),
    ):  # fmt: skip
        OUT.print(f"{name:12}{value}")


def flash(
    file: File,
    trust: Trust = None,
    tool: Annotated[
        Literal["openocd", "dfu"], typer.Option("--tool", help="Over the debug probe, or over USB (BOOT0 held).")
    ] = "openocd",
    floor: Annotated[str, typer.Option("--floor", help="Version floor that the board is known to have.")] = "0.0.0",
    bootloader: Annotated[bool, typer.Option("--bootloader", help="FILE is the bootloader, not an image.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Really write. Without it only the commands are shown.")] = False,
) -> None:
    """Flash an image (or a bootloader) into an STM32G474. Refuses what the board would refuse. Dry run by default."""
    from edge_wam.cli.show import OUT
    from firmware_bridge.image import keys
    from firmware_bridge.image.flash import flash as flash_file
    from firmware_bridge.image.image import parse_version

    trusted = [keys.load_public(path) for path in trust or []]
    flash_file(
        file, tool, trusted, bootloader=bootloader, floor=parse_version(floor), really=yes,
        tell=lambda line: OUT.print(line, soft_wrap=True, markup=False, highlight=False),
    )  # fmt: skip
    OUT.print("[green]✔[/] written and verified" if yes else "Nothing was written: add --yes to run this.")
