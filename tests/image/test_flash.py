"""``edge-wam firmware sign | inspect | flash``: dry run by default, refusals by name, tools that fail."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edge_wam.cli.firmware import app
from firmware_bridge.errors import FirmwareError
from firmware_bridge.image import flash, image, keys
from firmware_bridge.image.image import Board
from firmware_bridge.image.program import flash_bytes, sign_target, trust_flags
from firmware_bridge.mcu.build import build

PROGRAM = bytes(range(256)) * 4
RUNNER = CliRunner()


class Maker:
    """A key and an image in a folder of their own, and tools that note what they were asked."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.key = keys.generate(folder / "maker", tree=5)
        self.pub = folder / "maker.pub"
        self.file = folder / "image.ew"
        self.file.write_bytes(image.make(PROGRAM, Board.STM32G474, (1, 4, 0), (1, 2, 0), self.key.path))
        self.tools = folder / "bin"
        self.tools.mkdir()
        self.log = folder / "log"
        self.monkeypatch = monkeypatch

    def tool(self, name: str, *, floor: tuple[int, int, int] = (0, 0, 0), status: int = 0) -> None:
        """A stand-in that notes its arguments, and writes the floor pages where it is asked to."""
        value = image.pack_version(floor)
        pages = self.tools / "pages"
        pages.write_bytes(struct.pack("<II", value, value ^ 0xFFFFFFFF).ljust(4096, b"\xff"))
        path = self.tools / name
        path.write_text(f"""#!/bin/sh
echo "$0 $@" >> {self.log}
[ {status} = 0 ] || {{ echo "Error: no device" >&2; exit {status}; }}
case "$*" in
  *dump_image*) file=$(echo "$*" | sed 's/.*dump_image {{\\([^}}]*\\)}}.*/\\1/'); cp {pages} "$file";;
  *--upload*) for last; do :; done; cp {pages} "$last";;
esac
""")
        path.chmod(0o755)
        self.monkeypatch.setenv("PATH", f"{self.tools}:/usr/bin:/bin")


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Maker:
    return Maker(tmp_path, monkeypatch)


@pytest.mark.parametrize(("tool", "program"), [("openocd", "openocd"), ("dfu", "dfu-util")])
def test_a_dry_run_shows_the_commands_and_runs_none(maker: Maker, tool: str, program: str) -> None:
    maker.tool(program)
    run = RUNNER.invoke(app, ["flash", str(maker.file), "--trust", str(maker.pub), "--tool", tool])
    assert run.exit_code == 0, run.output
    assert run.output.count(program) == 2 and "0x8008000" in run.output and "0x8007000" in run.output
    assert "Nothing was written" in run.output and not maker.log.exists()


@pytest.mark.parametrize(("tool", "program"), [("openocd", "openocd"), ("dfu", "dfu-util")])
def test_with_yes_the_floor_is_read_first_and_then_the_image_is_written(maker: Maker, tool: str, program: str) -> None:
    maker.tool(program, floor=(1, 4, 0))
    run = RUNNER.invoke(app, ["flash", str(maker.file), "--trust", str(maker.pub), "--tool", tool, "--yes"])
    assert run.exit_code == 0, run.output
    first, second = maker.log.read_text().splitlines()
    assert "0x8007000" in first and "0x8008000" in second and str(maker.file) in second


def test_an_image_older_than_the_boards_floor_is_not_written(maker: Maker) -> None:
    maker.tool("openocd", floor=(1, 4, 1))
    with pytest.raises(FirmwareError, match="would refuse this image: FLOOR") as refused:
        flash.flash(maker.file, "openocd", [maker.key.public], really=True)
    assert "1.4.1" in refused.value.expected
    assert len(maker.log.read_text().splitlines()) == 1, "only the floor was read"
    with pytest.raises(FirmwareError, match="FLOOR"):
        flash.flash(maker.file, "openocd", [maker.key.public], floor=(2, 0, 0))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda data: PROGRAM, "EMPTY"), (lambda data: data[:-1], "LENGTH"),
        (lambda data: data[:600] + b"\0" + data[601:], "HASH"), (lambda data: data[:-1] + b"\0", "SIGNATURE"),
    ],
)  # fmt: skip
def test_what_the_board_would_refuse_is_refused_here_with_a_remedy(maker: Maker, change: object, name: str) -> None:
    maker.file.write_bytes(change(maker.file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(FirmwareError, match=f"would refuse this image: {name}") as refused:
        flash.flash(maker.file, "openocd", [maker.key.public])
    assert refused.value.remedy


def test_without_a_trusted_key_nothing_is_flashed(maker: Maker) -> None:
    with pytest.raises(FirmwareError, match="NO_KEY"):
        flash.flash(maker.file, "dfu", [])


def test_a_missing_tool_and_a_failing_one_are_named(maker: Maker) -> None:
    maker.monkeypatch.setenv("PATH", str(maker.tools))
    with pytest.raises(FirmwareError, match="openocd is not installed") as refused:
        flash.flash(maker.file, "openocd", [maker.key.public], really=True)
    assert "apt-get install" in refused.value.remedy
    maker.tool("openocd", status=3)
    with pytest.raises(FirmwareError, match="openocd ended with 3: Error: no device"):
        flash.flash(maker.file, "openocd", [maker.key.public], really=True)


def test_a_bootloader_is_flashed_without_a_floor_and_an_image_is_not_taken_for_one(maker: Maker) -> None:
    maker.tool("openocd")
    with pytest.raises(FirmwareError, match="is no bootloader"):
        flash.flash(maker.file, "openocd", [], bootloader=True)
    raw = maker.file.with_name("boot.bin")
    raw.write_bytes(flash_bytes(build("stm32g474-boot", maker.file.parent, trust_flags([maker.key.public]))))
    assert maker.key.public.pack() in raw.read_bytes() and len(raw.read_bytes()) < 8192
    steps = flash.flash(raw, "openocd", [], bootloader=True)
    assert steps.read_floor == () and "0x8000000" in steps.lines()[0]


def test_the_firmware_of_the_board_is_built_signed_and_inspected(maker: Maker) -> None:
    out = maker.file.with_name("g4.ew")
    run = RUNNER.invoke(app, ["sign", "stm32g474", "--version", "0.1.0", "--key", str(maker.key.path), "-o", str(out)])
    assert run.exit_code == 0, run.output
    run = RUNNER.invoke(app, ["inspect", str(out), "--trust", str(maker.pub)])
    assert "stm32g474" in run.output and "0.1.0" in run.output and "GOOD" in run.output
    stack, entry = struct.unpack_from("<II", out.read_bytes(), 512)
    assert stack == 0x2001_8000 and 0x0800_8200 <= entry < 0x0808_0000 and entry & 1, "a vector table of this part"
    run = RUNNER.invoke(app, ["inspect", str(out)])
    assert "NO_KEY" in run.output


def test_only_what_a_bootloader_starts_is_signed(maker: Maker) -> None:
    with pytest.raises(FirmwareError, match="'lib' is not signed"):
        sign_target("lib", (1, 0, 0), (0, 0, 0), maker.key.path)
