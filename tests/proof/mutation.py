"""Mutation testing of the core: ``python -m tests.proof.mutation [--changed | --all] [--resume] [FILE ...]``.

Every mutant (tests/proof/mutants.py) is compiled into a library of its own and the firmware tests run against it until
one fails. A mutant whose object code is the original's is none. What survives is killed by a new test or explained in
mutants.toml; the results are kept in build/mutation and written to docs/measured/mutation.md by ``--write``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build
from tests.firmware.coverage import TESTS
from tests.proof.mutants import Mutant, mutants

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORE = mcu_build.HERE / "core"
KEPT = ROOT / "build" / "mutation"
TABLE = ROOT / "docs" / "measured" / "mutation.md"
LIMIT_S = 900.0  # of the tests without a mutant
SLOWER = 5.0  # a mutant whose tests take so many times longer hangs: on the microcontroller the watchdog would bite
# The files whose every line decides about motion, and the tests that are asked first.
FIRST = {
    "ew_states.c": ("test_states", "test_latches", "test_supervision"),
    "ew_frame.c": ("test_frame", "test_damage", "test_commands"),
    "ew_stop.c": ("test_stop", "test_limiter"),
    "ew_curve.c": ("test_interpolation", "test_timeline", "test_splice"),
    "ew_chunk.c": ("test_splice", "test_interpolation", "test_commands"),
    "ew_limiter.c": ("test_limiter", "test_splice", "test_supervision"),
    "ew_timeline.c": ("test_timeline", "test_splice", "test_interpolation"),
}


def _tests(file: str) -> tuple[list[str], list[str]]:
    """The tests that are asked first, and all others."""
    first = [str(path) for path in TESTS if path.stem.startswith(FIRST.get(file, ("test_",)))]
    return first, [str(path) for path in TESTS if str(path) not in first]


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
        library = self.folder / "mutant.so"
        others = [str(self.folder / f"{s.stem}.o") for s in self.sources if s.stem != stem]
        subprocess.run([self.call[0], "-shared", "-o", str(library), str(changed), *others], check=True)
        return library


def _code(path: Path) -> bytes:
    """The object's code and data, without its name."""
    with tempfile.NamedTemporaryFile(suffix=".o") as stripped:
        subprocess.run(["objcopy", "--strip-unneeded", "-R.comment", str(path), stripped.name], check=True)
        dump = subprocess.run(["objdump", "-s", "-r", stripped.name], capture_output=True, check=True).stdout
    return b"\n".join(dump.splitlines()[3:])


def _child(library: Path, tests: list[str], limit_s: float) -> int:
    """The tests against one library, in a forked process with everything imported already."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        import pytest
        from hypothesis import Phase, settings

        settings.register_profile("mutant", phases=(Phase.explicit, Phase.generate), database=None, derandomize=True,
                                  deadline=None)  # fmt: skip
        settings.load_profile("mutant")
        plain = mcu_build.build
        mcu_build.build = lambda target, *more: library if target == "lib" else plain(target, *more)
        code = 99
        try:
            code = int(pytest.main(["-q", "-x", "--assert=plain", "-p", "no:cacheprovider", *tests]))
        finally:
            os._exit(code)
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return -99


def judge(builder: Builder, mutant: Mutant, limit_s: float) -> str:
    """What became of a mutant: killed, hangs, survived, same code, does not compile."""
    built = builder.build(mutant)
    if isinstance(built, str):
        return built
    return asked(built, mutant.file, limit_s)


def asked(library: Path, file: str, limit_s: float) -> str:
    """What the tests say of a library."""
    for tests in _tests(file):
        code = _child(library, tests, limit_s) if tests else 0
        if code != 0:
            return "hangs" if code == -99 else "killed"
    return "survived"


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


def run(file: str, *, resume: bool) -> dict[str, str]:
    """Judges every mutant of a file; kept verdicts of an unchanged file are taken when resuming."""
    source = (CORE / file).read_text()
    key = hashlib.sha256(source.encode()).hexdigest()
    KEPT.mkdir(parents=True, exist_ok=True)
    old = json.loads(_state(file).read_text()) if _state(file).is_file() else {}
    # What a test has killed stays killed while the file is the same; what survived is asked again when tests change.
    same = old.get("source") == key and resume
    verdicts = {name: verdict for name, verdict in old.get("verdicts", {}).items()
                if same and (verdict != "survived" or old["tests"] == _tests_hash())}  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="ew-mutants-") as name:
        builder = Builder(Path(name))
        todo = mutants(file, source)
        more = "\nextern const int ew_not_a_mutant;\nconst int ew_not_a_mutant = 1;\n"
        unchanged = builder.build(Mutant(file, 0, "", source + more))
        assert isinstance(unchanged, Path), unchanged
        begun = time.monotonic()
        if any(mutant.name not in verdicts for mutant in todo) and asked(unchanged, file, LIMIT_S) != "survived":
            raise SystemExit("the tests fail without a mutant: nothing can be said")
        limit_s = 30.0 + (SLOWER * (time.monotonic() - begun))
        for index, mutant in enumerate(todo):
            if mutant.name in verdicts:
                continue
            verdicts[mutant.name] = judge(builder, mutant, limit_s)
            if verdicts[mutant.name] == "survived":
                print(f"{file}:{mutant.line}: survived: {mutant.name}", flush=True)
            if index % 10 == 0:
                _state(file).write_text(json.dumps({"source": key, "tests": _tests_hash(), "verdicts": verdicts}))
    _state(file).write_text(json.dumps({"source": key, "tests": _tests_hash(), "verdicts": verdicts}))
    return verdicts


HEAD = """# Mutants

Written by `python -m tests.proof.mutation --all --resume --write`. A mutant is one small mistake in the C source; it is
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
    parser.add_argument("--all", action="store_true", help="all files (the default without names)")
    parser.add_argument("--changed", action="store_true", help="files that differ from the main branch")
    parser.add_argument("--resume", action="store_true", help="keep verdicts of files that did not change")
    parser.add_argument("--write", action="store_true", help="write docs/measured/mutation.md from the verdicts")
    options = parser.parse_args(arguments)
    for tool in ("objcopy", "objdump", "cc"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed: apt-get install gcc binutils", file=sys.stderr)
            return 2
    import hypothesis  # noqa: F401  (imported once, before the children are forked)
    import numpy as np  # noqa: F401
    import pytest  # noqa: F401

    files = options.file or list(FIRST)
    if options.changed:
        diff = subprocess.run(["git", "diff", "--name-only", "main", "--", str(CORE)], cwd=ROOT, capture_output=True,
                              text=True, check=True).stdout  # fmt: skip
        files = [file for file in files if f"/{file}" in diff]
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
