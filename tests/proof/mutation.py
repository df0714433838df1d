"""Mutation testing of the core: ``python -m tests.proof.mutation [--changed] [--sample N] [--resume] [--write] [FILE]``

Every mutant (tests/proof/mutants.py) is compiled into a library of its own and the firmware tests run against it until
one fails. A mutant whose object code is the original's is none. What survives is killed by a new test or explained in
mutants.toml; the results are kept in build/mutation and written to docs/measured/mutation.md by ``--write``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build
from tests.firmware.coverage import TESTS
from tests.proof.mutant_session import Ask, ask_all
from tests.proof.mutants import Mutant, mutants

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORE = mcu_build.HERE / "core"
KEPT = ROOT / "build" / "mutation"
TABLE = ROOT / "docs" / "measured" / "mutation.md"
_NO_MUTANT = "\nextern const int ew_not_a_mutant;\nconst int ew_not_a_mutant = 1;\n"
# The files whose every line decides about motion, and the tests that a sample of their mutants is asked.
FIRST = {
    "ew_states.c": ("test_states", "test_latches", "test_supervision"),
    "ew_frame.c": ("test_frame", "test_damage", "test_commands"),
    "ew_stop.c": ("test_stop", "test_reference", "test_limiter"),
    "ew_curve.c": ("test_curve", "test_interpolation", "test_timeline", "test_splice"),
    "ew_chunk.c": ("test_splice", "test_slices", "test_interpolation", "test_commands"),
    "ew_limiter.c": ("test_limiter", "test_reference", "test_splice", "test_supervision"),
    "ew_timeline.c": ("test_timeline", "test_reference_plan", "test_splice", "test_interpolation"),
}


def first_tests(file: str) -> list[Path]:
    """The tests that know the file best."""
    return [path for path in TESTS if path.stem.startswith(FIRST[file])]


def other_tests(file: str) -> list[Path]:
    """The others of the firmware; those of drives and of CAN watch other files."""
    return [path for path in TESTS if path.parent.name in ("firmware", "link") and path not in first_tests(file)]


class Builder:
    """Compiles a library whose one file is changed; the other objects are made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.call = mcu_build.command("lib", folder / "lib.so", "-O1", "-g0", "-w")
        self.sources = [Path(word) for word in self.call if word.endswith(".c")]
        self.flags = [word for word in self.call[1:] if not word.endswith((".c", ".so"))
                      and word not in ("-o", "-shared", "-Werror") and "prefix-map" not in word]  # fmt: skip
        for source in self.sources:
            self._compile(source, folder / f"{source.stem}.o")

    def _compile(self, source: Path, out: Path) -> bool:
        call = [self.call[0], *self.flags, f"-I{CORE}", "-c", str(source), "-o", str(out)]
        return subprocess.run(call, capture_output=True, check=False).returncode == 0

    def build(self, mutant: Mutant) -> Path | str:
        """The library, or why there is none: "does not compile" or "same code"."""
        stem = Path(mutant.file).stem
        source, changed = self.folder / "mutant" / mutant.file, self.folder / "mutant.o"
        source.parent.mkdir(exist_ok=True)
        source.write_text(mutant.text)
        if not self._compile(source, changed):
            return "does not compile"
        if _code(changed) == _code(self.folder / f"{stem}.o"):
            return "same code"
        return self.link(mutant.file, "mutant.so", changed)

    def link(self, file: str, name: str, changed: Path) -> Path:
        """The library in which ``changed`` stands for one of the core's files."""
        library = self.folder / name
        others = [str(self.folder / f"{s.stem}.o") for s in self.sources if s.name != file]
        subprocess.run([self.call[0], "-shared", "-o", str(library), str(changed), *others], check=True)
        return library


def _code(path: Path) -> bytes:
    """The object's code and data, without its name."""
    with tempfile.NamedTemporaryFile(suffix=".o") as stripped:
        subprocess.run(["objcopy", "--strip-unneeded", "-R.comment", str(path), stripped.name], check=True)
        dump = subprocess.run(["objdump", "-s", "-r", stripped.name], capture_output=True, check=True).stdout
    return b"\n".join(dump.splitlines()[3:])


def explained() -> dict[tuple[str, str], str]:
    """Survivors that are accounted for, with the reason, by file and name."""
    path = HERE / "mutants.toml"
    entries = tomllib.loads(path.read_text()).get("mutant", []) if path.is_file() else []
    return {(entry["file"], entry["name"]): entry["reason"] for entry in entries}


def _state(file: str) -> Path:
    return KEPT / f"{file}.json"


def _tests_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted({*TESTS, *(ROOT / "tests" / "firmware").glob("*.py")}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _collected(file: str, tests: Sequence[Path], work: Callable[[Builder, list[Mutant], Ask], None]) -> None:
    """What is needed to ask ``tests`` about mutants of a file; they pass without one, or nobody is asked."""
    source = (CORE / file).read_text()
    with tempfile.TemporaryDirectory(prefix="ew-mutants-") as name:
        builder = Builder(Path(name))
        plain = builder.link(file, "plain.so", builder.folder / f"{Path(file).stem}.o")

        def begin(ask: Ask) -> None:
            if ask(plain) != "survived":
                raise SystemExit("the tests fail without a mutant: nothing can be said")
            work(builder, mutants(file, source), ask)

        ask_all(plain, tests, begin)


def _judge(builder: Builder, mutant: Mutant, ask: Ask) -> str:
    """What became of a mutant: killed, hangs, survived, same code, does not compile."""
    built = builder.build(mutant)
    return built if isinstance(built, str) else ask(built)


def run(file: str, *, resume: bool) -> dict[str, str]:
    """Judges every mutant of a file; kept verdicts of an unchanged file are taken when resuming."""
    key = hashlib.sha256((CORE / file).read_text().encode()).hexdigest()
    KEPT.mkdir(parents=True, exist_ok=True)
    old = json.loads(_state(file).read_text()) if _state(file).is_file() else {}
    # What a test has killed stays killed while the file is the same; what survived is asked again when tests change, if
    # nobody has explained it.
    same, known, tests = old.get("source") == key and resume, explained(), _tests_hash()
    verdicts = {name: verdict for name, verdict in old.get("verdicts", {}).items()
                if same and (verdict != "survived" or old["tests"] == tests or (file, name) in known)}  # fmt: skip

    def keep() -> None:
        _state(file).write_text(json.dumps({"source": key, "tests": tests, "verdicts": verdicts}))

    def work(builder: Builder, todo: list[Mutant], ask: Ask) -> None:
        # Those that are explained come last: every test is asked before one has survived.
        for mutant in sorted(todo, key=lambda mutant: (file, mutant.name) in known):
            if mutant.name not in verdicts:
                verdicts[mutant.name] = _judge(builder, mutant, ask)
                if verdicts[mutant.name] == "survived":
                    said = "as explained" if (file, mutant.name) in known else "survived"
                    print(f"{file}:{mutant.line}: {said}: {mutant.name}", flush=True)
                keep()
        nothing = Mutant(file, 0, "", (CORE / file).read_text() + _NO_MUTANT)
        if _judge(builder, nothing, ask) != "survived":
            raise SystemExit("the tests fail in another order: what they say of mutants is not worth much")

    if any(mutant.name not in verdicts for mutant in mutants(file, (CORE / file).read_text())):
        _collected(file, [*first_tests(file), *other_tests(file)], work)
    keep()
    return verdicts


def sample(file: str, count: int) -> dict[str, str]:
    """Verdicts on some mutants of a file, spread over it, by the tests that know it best; and on one that is none.

    Those that are explained, or are the same code, are left out.
    """
    known = explained()
    verdicts: dict[str, str] = {}

    def work(builder: Builder, todo: list[Mutant], ask: Ask) -> None:
        todo = [mutant for mutant in todo if (file, mutant.name) not in known]
        for mutant in todo[len(todo) // (2 * count) :: max(1, len(todo) // count)]:
            verdicts[mutant.name] = _judge(builder, mutant, ask)
        # Last, in the order in which the tests have come by then.
        verdicts["no mutant"] = _judge(builder, Mutant(file, 0, "", (CORE / file).read_text() + _NO_MUTANT), ask)

    _collected(file, first_tests(file), work)
    return {name: verdict for name, verdict in verdicts.items() if verdict not in ("same code", "does not compile")}


HEAD = """# Mutants

Written by `python -m tests.proof.mutation --resume --write`. A mutant is one small mistake in the C source; it is
killed when a firmware test fails with it, or hangs when the tests do not end (on the microcontroller the watchdog would
bite). Mutants whose object code is the original's are not counted.

| file | mutants | killed | hang | survived, explained | survived, unexplained |
|---|---|---|---|---|---|
"""


def write(results: dict[str, dict[str, str]]) -> int:
    """The table; returns how many survivors nobody has explained."""
    known = explained()
    text, reasons, bad = HEAD, "", 0
    for file, verdicts in results.items():
        count = Counter(verdicts.values())
        survivors = [name for name, verdict in verdicts.items() if verdict == "survived"]
        open_ones = [name for name in survivors if (file, name) not in known]
        bad += len(open_ones)
        total = count["killed"] + count["hangs"] + count["survived"]
        text += (f"| {file} | {total} | {count['killed']} | {count['hangs']} | {len(survivors) - len(open_ones)} "
                 f"| {len(open_ones)} |\n")  # fmt: skip
        for name in survivors:
            reasons += f"- {file}: `{name}`: {known.get((file, name), '**not explained**')}\n"
    TABLE.write_text(text + "\n## Survivors\n\n" + (reasons or "None.\n"))
    return bad


def main(arguments: list[str]) -> int:
    """Exit status 1 if a mutant survives that mutants.toml does not explain."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("file", nargs="*", help="of the core; all of the table if none")
    parser.add_argument("--changed", action="store_true", help="files that differ from the main branch")
    parser.add_argument("--resume", action="store_true", help="keep verdicts of files that did not change")
    parser.add_argument("--sample", type=int, metavar="N", help="only so many of each file, by tests that know it")
    parser.add_argument("--write", action="store_true", help="write docs/measured/mutation.md from the verdicts")
    options = parser.parse_args(arguments)
    for tool in ("objcopy", "objdump", "cc"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed: apt-get install gcc binutils", file=sys.stderr)
            return 2
    files = options.file or list(FIRST)
    if options.changed:
        diff = subprocess.run(["git", "diff", "--name-only", "main", "--", str(CORE)], cwd=ROOT, capture_output=True,
                              text=True, check=True).stdout  # fmt: skip
        files = [file for file in files if f"/{file}" in diff]
    if options.sample:
        told = {file: sample(file, options.sample) for file in files}
        print(json.dumps(told))
        return 1 if any(verdict == "survived" for verdicts in told.values() for name, verdict in verdicts.items()
                        if name != "no mutant") else 0  # fmt: skip
    results = {}
    for file in files:
        begun = time.monotonic()
        results[file] = run(file, resume=options.resume)
        print(f"{file}: {dict(Counter(results[file].values()))}, {time.monotonic() - begun:.0f} s", flush=True)
    known = explained()
    open_ones = [(f, n) for f, verdicts in results.items() for n, v in verdicts.items()
                 if v == "survived" and (f, n) not in known]  # fmt: skip
    if options.write:
        write(results)
    return 1 if open_ones else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
