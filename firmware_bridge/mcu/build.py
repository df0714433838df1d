"""Builds the firmware: ``python -m firmware_bridge.mcu.build [TARGET ...]``.

A target is rebuilt only when a source, a flag or the compiler changed; two builds at once do not disturb each other.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.messages import SCHEMA_HASH
from firmware_bridge.mcu.targets import COMMON_FLAGS, TARGETS, Target

HERE = Path(__file__).resolve().parent
_ROOT = HERE.parents[1]
# In the checkout wherever the caller stands; below the caller's folder where the package is installed without sources.
DEFAULT_OUT = (_ROOT if (_ROOT / "pyproject.toml").is_file() else Path()) / "build" / "firmware"

_REMEDIES = {
    "cc": "apt-get install --no-install-recommends gcc libc6-dev",
    "arm-none-eabi-gcc": "apt-get install --no-install-recommends gcc-arm-none-eabi",
}


def _compiler(target: Target) -> str:
    path = shutil.which(target.compiler)
    if path is None:
        raise FirmwareError(
            f"{target.compiler} is not installed", expected=f"a compiler for {target.file}",
            remedy=_REMEDIES[target.compiler],
        )  # fmt: skip
    return path


def _folders(target: Target) -> list[Path]:
    """Where sources, headers and linker scripts of a target are. The core's headers belong to all."""
    files = [*target.sources, *([target.linker_script] if target.linker_script else [])]
    return sorted({HERE / "core", *(HERE / name for name in target.headers), *((HERE / f).parent for f in files)})


def _inputs(target: Target) -> list[Path]:
    """Everything that the result depends on, headers included."""
    files = (path for folder in _folders(target) for path in folder.iterdir())
    return sorted(path for path in files if path.suffix in (".c", ".h", ".ld"))


def build_id(target: str) -> int:
    """First 4 bytes of the SHA-256 over the sources of a target; HELLO reports it."""
    digest = hashlib.sha256()
    for path in _inputs(_target(target)):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return int.from_bytes(digest.digest()[:4], "little")


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise FirmwareError(f"firmware target {name!r} is unknown", expected=" | ".join(TARGETS))
    return TARGETS[name]


def command(name: str, output: Path, *extra: str) -> list[str]:
    """The compiler call that makes ``output`` from the sources of a target, with ``extra`` flags."""
    target = _target(name)
    core = sorted((HERE / "core").glob("*.c")) if target.core else []
    sources = [str(path) for path in core] + [str(HERE / s) for s in target.sources]
    folders = _folders(target)
    includes = [f"-I{folder}" for folder in folders]
    script = [f"-L{folder}" for folder in folders]
    script = [*script, "-T", str(HERE / target.linker_script)] if target.linker_script else []
    # The path of the checkout must not be in the binary: the same sources give the same bytes everywhere.
    return [
        _compiler(target), *COMMON_FLAGS, f"-ffile-prefix-map={HERE}=mcu", *target.flags, *extra,
        f"-DEW_BUILD_ID={build_id(name):#010x}u", *includes, *sources, *script, "-o", str(output),
        *target.libraries,
    ]  # fmt: skip


def stack_report(target: str, out: Path = DEFAULT_OUT) -> Path:
    """Where a build leaves what ``-fstack-usage`` said."""
    return out / f".{_target(target).file}.su"


def build(target: str, out: Path = DEFAULT_OUT, flags: tuple[str, ...] = ()) -> Path:
    """The built file, rebuilt if anything that it depends on changed, the additional ``flags`` included.

    Raises:
        FirmwareError: unknown target, missing compiler, or an error of the compiler.
    """
    name = _target(target).file
    path = out / name
    call = command(target, path, *flags)
    version = subprocess.run([call[0], "--version"], capture_output=True, text=True, check=True).stdout
    stamp = hashlib.sha256("\0".join([version, *call]).encode()).hexdigest()
    stamp_path = out / f".{name}.stamp"
    made = all(p.is_file() for p in (path, stack_report(target, out), stamp_path))
    if made and stamp_path.read_text() == stamp:
        return path
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix=f".{name}-") as folder:
        fresh = Path(folder) / name
        usage = ("-fstack-usage", "-dumpdir", f"{folder}/")
        run = subprocess.run(command(target, fresh, *usage, *flags), capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise FirmwareError(
                f"firmware target {target} does not compile:\n{run.stderr.strip()[-4000:]}",
                remedy="report it with the compiler's version",
            )
        stack_report(target, out).write_text("".join(p.read_text() for p in sorted(Path(folder).glob("*.su"))))
        fresh.replace(path)
    stamp_path.write_text(stamp)
    return path


@dataclass(frozen=True, slots=True)
class FirmwareInfo:
    """What is in a built file. Sizes in bytes."""

    path: Path
    text: int
    data: int
    bss: int
    schema_hash: int
    build_id: int


def info(target: str, out: Path = DEFAULT_OUT) -> FirmwareInfo:
    """Builds a target if needed and measures it.

    Raises:
        FirmwareError: as ``build``, or the ``size`` tool is missing.
    """
    path = build(target, out)
    size = "arm-none-eabi-size" if _target(target).compiler.startswith("arm") else "size"
    if shutil.which(size) is None:
        raise FirmwareError(f"{size} is not installed", remedy="apt-get install binutils binutils-arm-none-eabi")
    lines = subprocess.run([size, str(path)], capture_output=True, text=True, check=True).stdout.splitlines()
    text, data, bss = (int(word) for word in lines[1].split()[:3])
    return FirmwareInfo(path, text, data, bss, SCHEMA_HASH, build_id(target))


def main(arguments: list[str]) -> int:
    """Build the named targets (all if none) and print their sizes."""
    try:
        for name in arguments or list(TARGETS):
            found = info(name)
            print(f"{name}: {found.path} text {found.text} data {found.data} bss {found.bss}")
    except FirmwareError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
