"""The build: rebuilt only when something changed, errors name the tool, the same sources give the same bytes."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.messages import SCHEMA_HASH
from firmware_bridge.mcu import build as mcu_build


@pytest.mark.parametrize("target", ["mps2-an386", "lib"])
def test_a_target_is_built_once_and_says_what_is_in_it(target: str, tmp_path: Path) -> None:
    path = mcu_build.build(target, tmp_path)
    stamp = path.stat().st_mtime_ns
    assert mcu_build.build(target, tmp_path) == path and path.stat().st_mtime_ns == stamp
    found = mcu_build.info(target, tmp_path)
    assert (found.path, found.schema_hash, found.build_id) == (path, SCHEMA_HASH, mcu_build.build_id(target))
    assert 5_000 < found.text < 100_000
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, f".{path.name}.stamp", f".{path.name}.su"])


def test_a_damaged_or_foreign_stamp_leads_to_a_new_build(tmp_path: Path) -> None:
    path = mcu_build.build("lib", tmp_path)
    path.write_bytes(b"")
    (tmp_path / f".{path.name}.stamp").write_text("another compiler")
    assert mcu_build.build("lib", tmp_path).stat().st_size > 0


def test_the_firmware_is_the_same_bytes_wherever_it_is_built(tmp_path: Path) -> None:
    one, two = (mcu_build.build("mps2-an386", tmp_path / name) for name in ("a", "another place"))
    assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest()
    assert str(tmp_path).encode() not in one.read_bytes()


def test_the_firmware_needs_no_heap_no_float_and_no_c_library(tmp_path: Path) -> None:
    elf = mcu_build.build("mps2-an386", tmp_path)
    names = subprocess.run(["arm-none-eabi-nm", str(elf)], capture_output=True, text=True, check=True).stdout
    for forbidden in ("malloc", "printf", "_sbrk", "__aeabi_fadd", "__aeabi_dadd", "__aeabi_f2iz", "__aeabi_i2f"):
        assert f" {forbidden}\n" not in names
    sizes = mcu_build.info("mps2-an386", tmp_path)
    assert sizes.text + sizes.data <= 64 * 1024 and sizes.data + sizes.bss <= 96 * 1024, "fits in an STM32F4"


def test_a_missing_compiler_and_an_unknown_target_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FirmwareError, match="'stm32' is unknown") as refused:
        mcu_build.build("stm32", tmp_path)
    assert "mps2-an386" in str(refused.value)
    monkeypatch.setattr(mcu_build.shutil, "which", lambda name: None)
    with pytest.raises(FirmwareError, match="arm-none-eabi-gcc is not installed") as refused:
        mcu_build.build("mps2-an386", tmp_path)
    assert "apt-get install" in refused.value.remedy
    assert mcu_build.main(["lib"]) == 2


def test_an_error_of_the_compiler_is_shown_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = mcu_build.TARGETS["lib"]
    flags = (*broken.flags, "-DEW_MAX_AXES=no")
    monkeypatch.setitem(
        mcu_build.TARGETS, "lib", mcu_build.Target(broken.file, broken.compiler, flags, broken.sources)
    )
    with pytest.raises(FirmwareError, match="does not compile"):
        mcu_build.build("lib", tmp_path)
    assert list(tmp_path.iterdir()) == []
