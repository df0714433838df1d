"""Coverage of the C core by the in-process tests, lines and branches: ``python -m tests.firmware.coverage``.

Every test that needs no emulator and no board runs once against a library built with counters, and the program of a
processor that computes wrongly beside it. Exit status 1 if a
test fails, or a line or a branch of the core was not executed that coverage.toml does not account for, or is accounted
for and was executed after all.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build
from tests.firmware import processor

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CORE = mcu_build.HERE / "core"
# What these run is an emulator, a board's registers or a program of its own, and not this process's library.
_ELSEWHERE = (
    "test_ports", "test_slcan", "test_fuzz", "test_build", "test_generated", "test_boards", "test_image",
    "test_microvm", "test_budget", "test_false_bites", "test_stm32", "test_tick_cost", "test_can_timing", "test_robots",
    "test_coverage", "test_dbc", "test_can_transport", "test_usb", "test_rings", "test_sanitized", "test_can_loop",
)  # fmt: skip
TESTS = [
    *(path for folder in ("firmware", "drives", "can") for path in sorted((ROOT / "tests" / folder).glob("test_*.py"))
      if not path.stem.startswith(_ELSEWHERE)),
    ROOT / "tests" / "link" / "test_lockstep.py",
]  # fmt: skip
# Run in a child: counters are written when the process that loaded the library ends. With the same examples every
# time, so that what is executed does not depend on luck.
_CHILD = """
import sys
from pathlib import Path
import pytest
from firmware_bridge.mcu import build
plain, counted = build.build, Path(sys.argv[1])
build.build = lambda target, *more: counted if target == "lib" else plain(target, *more)
class Same:
    def pytest_configure(self):
        from hypothesis import settings
        settings.register_profile("same", derandomize=True, database=None, deadline=None)
        settings.load_profile("same")
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", "--durations=0", "--durations-min=5", *sys.argv[2:]],
                     plugins=[Same()]))
"""
_COUNTERS = ("-O0", "--coverage", "-fprofile-update=atomic")


@dataclass(frozen=True, slots=True)
class Counted:
    """What was executed: by file and line number, lines once and branches as (taken, all)."""

    lines: dict[tuple[str, int], int]
    branches: dict[tuple[str, int], list[int]]

    def missed_lines(self) -> list[tuple[str, int]]:
        return sorted(key for key, count in self.lines.items() if count == 0)

    def missed_branches(self) -> dict[tuple[str, int], int]:
        """How many branches of a line that was executed were never taken."""
        return {key: counts.count(0) for key, counts in sorted(self.branches.items())
                if 0 in counts and self.lines[key] > 0}  # fmt: skip


def run(folder: Path, tests: list[Path]) -> Counted | None:
    """Build with counters, run the tests, read the counters; None when a test failed."""
    library = folder / "libedgewam_mcu.so"
    call = mcu_build.command("lib", library, *_COUNTERS)
    subprocess.run([flag for flag in call if "prefix-map" not in flag], cwd=folder, check=True)
    child = subprocess.run([sys.executable, "-c", _CHILD, str(library), *map(str, tests)], cwd=ROOT, check=False)
    if child.returncode != 0:
        return None
    program = processor.build(folder, *_COUNTERS)
    for wrong in processor.WRONG:
        processor.boot(program, wrong)
    counters = [str(path) for path in folder.glob("*.gcda")]
    subprocess.run(["gcov", "--branch-probabilities", "--json-format", *counters], cwd=folder, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    lines: dict[tuple[str, int], int] = defaultdict(int)
    branches: dict[tuple[str, int], list[int]] = {}
    for path in folder.glob("*.gcov.json.gz"):
        for source in json.loads(gzip.decompress(path.read_bytes()))["files"]:
            if Path(source["file"]).parent.name == "core":
                for line in source["lines"]:
                    key = (Path(source["file"]).name, line["line_number"])
                    lines[key] += line["count"]
                    counts = [branch["count"] for branch in line["branches"]]
                    # A function of a header is compiled into several files: what one of them took was taken.
                    old = branches.get(key, [0] * len(counts))
                    if len(old) == len(counts):
                        branches[key] = [a + b for a, b in zip(old, counts, strict=True)]
    return Counted(dict(lines), branches)


def judge(counted: Counted, accounted: list[dict[str, str | int]]) -> list[str]:
    """What is wrong, a line each."""
    missed: dict[tuple[str, str], int] = defaultdict(int)  # -1: the line itself
    where: dict[tuple[str, str], int] = {}
    text = {file: (CORE / file).read_text().splitlines() for file in {file for file, _ in counted.lines}}
    for file, number in counted.missed_lines():
        missed[file, text[file][number - 1].strip()] = -1
        where[file, text[file][number - 1].strip()] = number
    for (file, number), count in counted.missed_branches().items():
        key = (file, text[file][number - 1].strip())
        missed[key] = missed[key] if missed[key] < 0 else missed[key] + count
        where[key] = number
    wrong = []
    for entry in accounted:
        found = missed.pop((str(entry["file"]), str(entry["code"])), 0)
        if found != entry.get("branches", -1):
            wrong.append(f"coverage.toml: {entry['file']}: {entry['code']!r}: found {found} (-1: the line)")
    for (file, code), count in missed.items():
        what = "not executed" if count < 0 else f"{count} branches never taken"
        wrong.append(f"{file}:{where[file, code]}: {what}: {code}")
    return wrong


def main(arguments: list[str]) -> int:
    """Print what was not executed."""
    for tool in ("cc", "gcov"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed: apt-get install gcc", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="ew-coverage-") as name:
        counted = run(Path(name), [Path(argument).resolve() for argument in arguments] or TESTS)
    if counted is None:
        return 1
    accounted = tomllib.loads((HERE / "coverage.toml").read_text()).get("accounted", [])
    wrong = judge(counted, accounted)
    print("\n".join(wrong))
    taken = sum(count > 0 for counts in counted.branches.values() for count in counts)
    branches = sum(map(len, counted.branches.values()))
    lines = len(counted.lines) - len(counted.missed_lines())
    print(f"lines {lines} of {len(counted.lines)}, branches {taken} of {branches}, "
          f"{len(accounted)} accounted for in coverage.toml")  # fmt: skip
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
