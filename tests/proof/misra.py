"""Static analysis of the firmware: cppcheck, its MISRA C:2012 addon and gcc -fanalyzer.

``python -m tests.proof.misra``

A finding that misra.toml does not justify fails, and so does an entry of misra.toml that no finding needs.
"""

from __future__ import annotations

import fnmatch
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build

HERE = Path(__file__).resolve().parent
MCU = mcu_build.HERE
# What is checked together, with the macros that its build gives it. The ports of Linux are not: they are a test double.
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "core": (("core",), ()),
    "can": (("can",), ()),
    "mps2_an386": (("ports/common", "ports/mps2_an386"), ("PORT_WATCHDOG_MS=20",)),
    "ast1030_evb": (("ports/ast1030_evb",), ("PORT_WATCHDOG_MS=20",)),
    "lm3s6965evb": (("ports/lm3s6965evb",), ("PORT_WATCHDOG_MS=20",)),
    "stm32g474": (("ports/stm32g474",), ("PORT_WATCHDOG_MS=20",)),
}
_INCLUDES = ("core", "can", "ports/common")
_FINDING = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+):(?P<id>[\w.-]+):(?P<what>.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Finding:
    """One message of a checker; the file is relative to firmware_bridge/mcu."""

    rule: str
    file: str
    line: int
    what: str


def cppcheck(sources: Sequence[Path], includes: Sequence[Path], defines: Sequence[str]) -> list[Finding]:
    """What cppcheck and its MISRA addon say of some files, as one program.

    Raises:
        RuntimeError: the checker itself failed.
    """
    command = [
        "cppcheck", "--quiet", "--std=c11", "--enable=warning,style,performance,portability", "--addon=misra",
        "--suppress=missingIncludeSystem", "--template={file}:{line}:{id}:{message}", "--template-location=",
        *(f"-D{name}" for name in (*defines, "EW_BUILD_ID=1u")), *(f"-I{path}" for path in includes),
        *map(str, sources),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise RuntimeError(run.stdout + run.stderr)
    found = set()
    for match in _FINDING.finditer(run.stderr):
        path = Path(match["file"])
        name = str(path.relative_to(MCU)) if path.is_relative_to(MCU) else path.name
        found.add(Finding(match["id"].removeprefix("misra-c2012-"), name, int(match["line"]), match["what"]))
    return sorted(found, key=lambda f: (f.rule, f.file, f.line))


def findings() -> list[Finding]:
    """Of all groups."""
    out: dict[Finding, None] = {}
    for folders, defines in GROUPS.values():
        sources = [path for folder in folders for path in sorted((MCU / folder).glob("*.c"))]
        if sources:
            includes = [MCU / folder for folder in dict.fromkeys((*_INCLUDES, *folders))]
            out.update(dict.fromkeys(cppcheck(sources, includes, defines)))
    return list(out)


def judge(found: Sequence[Finding], deviations: Sequence[dict[str, str]]) -> list[str]:
    """What is not justified, and what justifies nothing: a line each."""
    used: Counter[int] = Counter()
    wrong = []
    for finding in found:
        for index, entry in enumerate(deviations):
            if entry["rule"] == finding.rule and any(
                fnmatch.fnmatch(finding.file, pattern) for pattern in entry["where"].split()
            ):
                used[index] += 1
                break
        else:
            wrong.append(f"{finding.file}:{finding.line}: {finding.rule}: {finding.what}")
    wrong += [f"misra.toml: rule {entry['rule']} in {entry['where']}: no finding needs it"
              for index, entry in enumerate(deviations) if not used[index]]  # fmt: skip
    return wrong


def analyzer() -> list[str]:
    """What gcc's static analyzer says of the core."""
    command = ["cc", "-std=c11", "-O2", "-fanalyzer", "-Wall", "-Wextra", "-Wconversion", f"-I{MCU / 'core'}"]
    out = []
    for path in sorted((MCU / "core").glob("*.c")):
        run = subprocess.run([*command, "-c", str(path), "-o", "/dev/null"], capture_output=True, text=True,
                             check=False)  # fmt: skip
        out += [line for line in run.stderr.splitlines() if ": warning:" in line or ": error:" in line]
    return out


def deviations() -> list[dict[str, str]]:
    """The table of justified deviations."""
    return list(tomllib.loads((HERE / "misra.toml").read_text())["deviation"])


def main(_: list[str]) -> int:
    """Print what is not justified."""
    for tool in ("cppcheck", "cc"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed: apt-get install cppcheck gcc", file=sys.stderr)
            return 2
    found = findings()
    wrong = judge(found, deviations()) + analyzer()
    print("\n".join(wrong))
    print(f"{len(found)} findings, {len(deviations())} deviations, {len(wrong)} not in order")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
