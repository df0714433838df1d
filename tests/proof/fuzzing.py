"""Fuzzing of whole command sequences, watched after every frame and tick: ``python -m tests.proof.fuzzing [COUNT]``.

Builds tests/proof/fuzz and runs its storm: every program of the corpus, then COUNT random changes of them.
``--explore S`` lets libFuzzer (clang-14) look for new programs for S seconds and adds what it finds to the corpus.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build

HERE = Path(__file__).resolve().parent / "fuzz"
CORE = mcu_build.HERE / "core"
CORPUS = HERE / "corpus.txt"
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FAST = ("-O3", "-g")


def build(out: Path, flags: Sequence[str], *harness: str, compiler: str = "cc") -> Path:
    """The core and some files of tests/proof/fuzz in one program."""
    sources = [*map(str, sorted(CORE.glob("*.c"))), *(str(HERE / name) for name in harness)]
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", *flags, f"-I{CORE}", *sources, "-o", str(out)]
    subprocess.run(command, check=True)
    return out


def storm(program: Path, seed: int, count: int, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs it; a program that broke something is left in folder/storm-broke."""
    command = [str(program), str(seed), str(count), str(CORPUS)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def explore(folder: Path, seconds: int) -> int:
    """libFuzzer with coverage and sanitizers; the corpus grows by what it finds, minimised."""
    flags = ("-O1", "-g", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
    program = build(folder / "explore", flags, "fuzz_sequence.c", "watch.c", compiler="clang-14")
    old, new = folder / "corpus", folder / "minimised"
    old.mkdir()
    new.mkdir()
    for index, line in enumerate(CORPUS.read_text().split()):
        (old / str(index)).write_bytes(bytes.fromhex(line))
    run = subprocess.run([str(program), "-max_len=256", f"-max_total_time={seconds}", "-reload=0", str(old)],
                         cwd=folder, check=False)  # fmt: skip
    if run.returncode == 0:
        subprocess.run([str(program), "-merge=1", "-max_len=256", str(new), str(old)], cwd=folder, check=True)
        lines = {path.read_bytes().hex() for path in new.iterdir()} - {""}
        CORPUS.write_text("\n".join(sorted(lines, key=lambda line: (len(line), line))) + "\n")
    return run.returncode


def main(arguments: list[str]) -> int:
    """Exit status 1 if something broke; the program that did it is printed in hexadecimal."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("count", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--explore", type=int, metavar="S", help="seconds of libFuzzer")
    options = parser.parse_args(arguments)
    compiler = "clang-14" if options.explore else "cc"
    if shutil.which(compiler) is None:
        print(f"{compiler} is not installed: apt-get install clang-14 libclang-rt-14-dev gcc", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ew-fuzz-") as name:
        folder = Path(name)
        if options.explore:
            return explore(folder, options.explore)
        program = build(folder / "storm", FAST, "fuzz_sequence.c", "watch.c", "storm.c")
        run = storm(program, options.seed, options.count, folder)
        print(run.stdout + run.stderr, end="")
        if run.returncode != 0 and (folder / "storm-broke").is_file():
            print((folder / "storm-broke").read_bytes().hex())
        return run.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
