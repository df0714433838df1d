"""Static analysis of the firmware: cppcheck, its MISRA C:2012 addon and gcc -fanalyzer.

``python -m tests.proof.misra [--list]``

Every C file of every firmware image is checked once, with the macros of the first image that contains it. A finding
that misra.toml does not justify fails; so does an entry of misra.toml that justifies nothing, or another number of
findings than it says. ``--list`` prints the justified findings as well. The addon knows the rules by number only:
their text belongs to MISRA.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.mcu import build as mcu_build
from firmware_bridge.mcu.targets import TARGETS

HERE = Path(__file__).resolve().parent
MCU = mcu_build.HERE
# All of the core, CAN, the servo bus and one board's registers in one program: rules about a whole program see it here.
FIRST = "stm32g474"
_FINDING = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+):(?P<id>[\w.-]+):(?P<what>.*)$", re.MULTILINE)
# These may not be deviated from, whatever the reason (MISRA Compliance:2020).
MANDATORY = frozenset(
    ("9.1", "12.5", "13.6", "17.3", "17.4", "17.6", "17.9", "19.1", "21.13", "21.17", "21.18", "21.19", "21.20",
     "21.22", "22.2", "22.4", "22.5", "22.6", "22.20")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Finding:
    """One message of a checker; the file is relative to firmware_bridge/mcu, the text is the line it is about."""

    rule: str
    file: str
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class Deviation:
    """Findings that are justified: of one rule, in files that match one of the patterns, exactly ``count`` of them
    (None: any number above 0, for advisory rules that are not followed at all)."""

    rule: str
    where: tuple[str, ...]
    category: str
    reason: str
    count: int | None = None

    def covers(self, finding: Finding) -> bool:
        """Whether it is about this finding."""
        return self.rule == finding.rule and any(fnmatch.fnmatch(finding.file, pattern) for pattern in self.where)


@dataclass(frozen=True, slots=True)
class Program:
    """Files that are checked together. All paths are relative to firmware_bridge/mcu; defines as NAME or NAME=VALUE."""

    sources: tuple[str, ...]
    includes: tuple[str, ...]
    defines: tuple[str, ...]


def programs() -> dict[str, Program]:
    """What is checked: per image the files that no earlier one has. The PC's port is a test double and not here."""
    out: dict[str, Program] = {}
    seen: set[str] = set()
    for name in (FIRST, *(name for name in TARGETS if name != FIRST)):
        target = TARGETS[name]
        if not target.compiler.startswith("arm"):
            continue
        core = sorted(f"core/{path.name}" for path in (MCU / "core").glob("*.c")) if target.core else []
        fresh = tuple(source for source in (*core, *target.sources) if source not in seen)
        if fresh:
            seen.update(fresh)
            folders = dict.fromkeys(("core", *target.headers, *(str(Path(source).parent) for source in target.sources)))
            defines = tuple(flag.removeprefix("-D") for flag in target.flags if flag.startswith("-D"))
            out[name] = Program(fresh, tuple(folders), (*defines, "EW_BUILD_ID=1u"))
    return out


def cppcheck(root: Path, program: Program) -> list[Finding]:
    """What cppcheck and its MISRA addon say of a program's files below ``root``, which is written to.

    Raises:
        RuntimeError: the checker itself failed, or said something about a file that it could not read or understand.
    """
    work = root / ".cppcheck"
    work.mkdir()
    command = [
        "cppcheck", "--quiet", f"-j{min(4, len(os.sched_getaffinity(0)))}", f"--cppcheck-build-dir={work}",
        "--std=c11", "--platform=arm32-wchar_t4", "--enable=warning,style,performance,portability", "--addon=misra",
        "--suppress=missingIncludeSystem", "--template={file}:{line}:{id}:{message}", "--template-location=",
        *(f"-D{name}" for name in program.defines), *(f"-I{path}" for path in program.includes), *program.sources,
    ]  # fmt: skip
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    shutil.rmtree(work)
    if run.returncode != 0:
        raise RuntimeError(run.stdout + run.stderr)
    found = set()
    for line in run.stderr.splitlines():
        match = _FINDING.match(line)
        if match is None or match["id"] in ("syntaxError", "internalError", "preprocessorErrorDirective"):
            raise RuntimeError(line)
        rule, at = match["id"].removeprefix("misra-c2012-"), int(match["line"])
        text = (root / match["file"]).read_text().splitlines()[at - 1].strip()
        found.add(Finding(rule, match["file"], at, text if rule != match["id"] else f"{match['what']}: {text}"))
    return sorted(found, key=lambda f: (f.rule, f.file, f.line))


def copy_sources(root: Path) -> None:
    """The firmware's sources: the checker leaves files beside what it reads."""
    shutil.copytree(MCU, root, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.py", "__pycache__", "*.dump"))


def findings() -> list[Finding]:
    """Of all programs; what is said of a header by several of them counts once."""
    out: dict[Finding, None] = {}
    with tempfile.TemporaryDirectory(prefix="edge-wam-misra-") as folder:
        root = Path(folder)
        copy_sources(root)
        for program in programs().values():
            out.update(dict.fromkeys(cppcheck(root, program)))
    return list(out)


def judge(found: Sequence[Finding], table: Sequence[Deviation]) -> list[str]:
    """What is not justified, and what justifies nothing or another number of findings: a line each."""
    used = [0] * len(table)
    wrong = []
    for finding in found:
        index = next((i for i, entry in enumerate(table) if entry.covers(finding)), None)
        if index is None or finding.rule in MANDATORY:
            wrong.append(f"{finding.file}:{finding.line}: {finding.rule}: {finding.text}")
        else:
            used[index] += 1
    for entry, number in zip(table, used, strict=True):
        if number == 0 or (entry.count is not None and number != entry.count):
            said = "some" if entry.count is None else entry.count
            wrong.append(f"misra.toml: rule {entry.rule} in {' '.join(entry.where)}: {said} said, {number} found")
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


def deviations(path: Path = HERE / "misra.toml") -> list[Deviation]:
    """The table of justified deviations.

    Raises:
        TypeError: an entry with an unknown key, or one that lacks a key.
    """
    rows = tomllib.loads(path.read_text())["deviation"]
    return [Deviation(**{**row, "where": tuple(row["where"].split())}) for row in rows]


def main(arguments: list[str]) -> int:
    """Print what is not justified."""
    for tool in ("cppcheck", "cc"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed: apt-get install cppcheck gcc", file=sys.stderr)
            return 2
    found = findings()
    table = deviations()
    if arguments == ["--list"]:
        print("\n".join(f"{f.rule} {f.file}:{f.line}: {f.text}" for f in found))
    wrong = judge(found, table) + analyzer()
    print("\n".join(wrong))
    print(f"{len(found)} findings, {len(table)} deviations, {len(wrong)} not in order")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
