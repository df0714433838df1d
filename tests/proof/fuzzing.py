"""Fuzzing of the core: ``python -m tests.proof.fuzzing [COUNT] [--harness sequence|frame|can]``.

``sequence``: whole command sequences, watched after every frame and tick. ``frame``: the receiver of the serial link.
``can``: slcan, and the reassembly of transfers. Builds tests/proof/fuzz and runs its storm: every program of the
corpus, then COUNT random changes of them. ``--explore S`` lets libFuzzer (clang-14) look for new programs for S
seconds and adds what it finds to the corpus.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build

HERE = Path(__file__).resolve().parent / "fuzz"
CORE = mcu_build.HERE / "core"
CAN = mcu_build.HERE / "can"
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FAST = ("-O2", "-g")


@dataclass(frozen=True, slots=True)
class Harness:
    """One thing that is fuzzed. ``longest``: bytes of a program."""

    name: str
    sources: tuple[Path, ...]
    longest: int

    @property
    def corpus(self) -> Path:
        """One program a line, in hexadecimal."""
        return HERE / f"{self.name}.txt"


HARNESSES = {
    harness.name: harness
    for harness in (
        Harness("sequence", (HERE / "fuzz_sequence.c", HERE / "watch.c", *sorted(CORE.glob("*.c"))), 256),
        Harness("frame", (HERE / "fuzz_frame.c", CORE / "ew_frame.c"), 768),
        Harness("can", (HERE / "fuzz_can.c", CORE / "ew_can.c", CORE / "ew_frame.c", CAN / "slcan.c"), 512),
    )
}


def build(harness: Harness, out: Path, flags: Sequence[str], *more: str, compiler: str = "cc") -> Path:
    """A harness, what it is about, and more files of tests/proof/fuzz in one program."""
    sources = [*harness.sources, *(HERE / name for name in more)]
    warnings = ("-Wall", "-Wextra")
    includes = (f"-DLONGEST={harness.longest}u", f"-I{CORE}", f"-I{CAN}")
    command = [compiler, "-std=gnu11", *warnings, *flags, *includes, *map(str, sources), "-o", str(out)]
    subprocess.run(command, check=True)
    return out


def storm(harness: Harness, program: Path, seed: int, count: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs it; a program that broke something is left in folder/storm-broke."""
    command = [str(program), str(seed), str(count), str(harness.corpus)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def explore(harness: Harness, folder: Path, seconds: int) -> int:
    """libFuzzer with coverage and sanitizers; the corpus grows by what it finds, minimised."""
    flags = ("-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
    program = build(harness, folder / "explore", flags, compiler="clang-14")
    old, new = folder / "corpus", folder / "minimised"
    old.mkdir()
    new.mkdir()
    for index, line in enumerate(harness.corpus.read_text().split() if harness.corpus.is_file() else []):
        (old / str(index)).write_bytes(bytes.fromhex(line))
    length = f"-max_len={harness.longest}"
    run = subprocess.run([str(program), length, f"-max_total_time={seconds}", "-reload=0", "-print_final_stats=1",
                          str(old)], cwd=folder, check=False)  # fmt: skip
    if run.returncode == 0:
        subprocess.run([str(program), "-merge=1", length, str(new), str(old)], cwd=folder, check=True)
        lines = {path.read_bytes().hex() for path in new.iterdir()} - {""}
        harness.corpus.write_text("\n".join(sorted(lines, key=lambda line: (len(line), line))) + "\n")
    return run.returncode


def main(arguments: list[str]) -> int:
    """Exit status 1 if something broke; the program that did it is printed in hexadecimal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--harness", choices=sorted(HARNESSES), default="sequence")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--explore", type=int, metavar="S", help="seconds of libFuzzer")
    options = parser.parse_args(arguments)
    harness = HARNESSES[options.harness]
    compiler = "clang-14" if options.explore else "cc"
    if shutil.which(compiler) is None:
        print(f"{compiler} is not installed: apt-get install clang-14 libclang-rt-14-dev gcc", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ew-fuzz-") as name:
        folder = Path(name)
        if options.explore:
            return explore(harness, folder, options.explore)
        program = build(harness, folder / "storm", FAST, "storm.c")
        run = storm(harness, program, options.seed, options.count, folder)
        print(run.stdout + run.stderr, end="")
        if run.returncode != 0 and (folder / "storm-broke").is_file():
            print((folder / "storm-broke").read_bytes().hex())
        return run.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
