"""Coverage of the C core by the in-process tests: ``python -m tests.firmware.coverage [LEAST_PERCENT]``.

Exit status 1 if fewer than LEAST_PERCENT of the lines of the core are executed.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build

HERE = Path(__file__).resolve().parent
TESTS = (
    "test_frame", "test_limiter", "test_splice", "test_states", "test_supervision", "test_latches", "test_commands",
    "test_timeline", "test_damage",
)  # fmt: skip
LEAST_PERCENT = 99.9  # the failed self-test runs in a program of its own (test_damage.py), which is not counted
# Run in a child, because counters are written when the process that loaded the library ends.
_CHILD = """
import sys
from pathlib import Path
import pytest
from tests.firmware import mcu
mcu.build = lambda target: Path(sys.argv[1])
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
"""


def main(arguments: list[str]) -> int:
    """Build with counters, run the tests, print what was not executed."""
    least = float(arguments[0]) if arguments else LEAST_PERCENT
    for tool in ("cc", "gcov"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed: apt-get install gcc", file=sys.stderr)
            return 2
    with tempfile.TemporaryDirectory(prefix="ew-coverage-") as name:
        folder = Path(name)
        library = folder / "libedgewam_mcu.so"
        call = [flag for flag in mcu_build.command("lib", library, "-O0", "--coverage") if "prefix-map" not in flag]
        subprocess.run(call, cwd=folder, check=True)
        tests = [str(HERE / f"{test}.py") for test in TESTS]
        child = subprocess.run([sys.executable, "-c", _CHILD, str(library), *tests], cwd=HERE.parents[1], check=False)
        if child.returncode != 0:
            return 1
        counters = [str(path) for path in folder.glob("*.gcda")]
        subprocess.run(["gcov", "--branch-probabilities", "--json-format", *counters], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        return _report(folder, least)


def _report(folder: Path, least: float) -> int:
    lines: dict[tuple[str, int], int] = {}
    branches: dict[tuple[str, int, int], int] = {}
    for path in folder.glob("*.gcov.json.gz"):
        for source in json.loads(gzip.decompress(path.read_bytes()))["files"]:
            file = Path(source["file"])
            if file.parent.name != "core":
                continue
            for line in source["lines"]:
                key = (file.name, line["line_number"])
                lines[key] = lines.get(key, 0) + line["count"]
                for index, branch in enumerate(line["branches"]):
                    branches[(*key, index)] = branches.get((*key, index), 0) + branch["count"]
    missed = sorted(key for key, count in lines.items() if count == 0)
    for file, number in missed:
        print(f"{file}:{number}: not executed")
    percent = 100.0 * (len(lines) - len(missed)) / len(lines)
    taken = sum(count > 0 for count in branches.values())
    print(f"lines {len(lines) - len(missed)}/{len(lines)} = {percent:.1f} %, branches {taken}/{len(branches)} "
          f"= {100.0 * taken / len(branches):.1f} %")  # fmt: skip
    return 0 if percent >= least else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
