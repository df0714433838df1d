"""The proofs: ``python -m tests.proof.prove [NAME ...] [--write]``, or ``make proof`` for all of them with ``--write``.

Each harness of tests/proof/cbmc/harnesses.toml is run three times by CBMC: as it is (must be proved), with its end
asserted unreachable (must fail, or the assumptions would contradict each other), and with one bound tightened (must
fail, or the property would say less than it seems). ``--write`` puts the table into docs/measured/proofs.md.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.proof import cbmc_tool

HERE = Path(__file__).resolve().parent / "cbmc"
ROOT = HERE.parents[2]
CORE = ROOT / "firmware_bridge" / "mcu" / "core"
TABLE = ROOT / "docs" / "measured" / "proofs.md"
VACUITY = "vacuity: the end is reached"
LIMIT_S = 1500.0  # of one run of the checker
_RESULT = re.compile(
    r"^\[(?P<name>\S+)\] (?:line \d+ )?(?P<what>.*): (?P<verdict>SUCCESS|FAILURE|UNKNOWN)$", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Proof:
    """One row of harnesses.toml; cut: a function of the harness, called at every access to what it looks at;
    options: for the checker, of its speed and not of its verdict."""

    name: str
    property: str
    bound: str
    file: str
    entry: str
    core: tuple[str, ...]
    unwind: int
    defines: tuple[str, ...] = ()
    unwindset: tuple[str, ...] = ()
    replace: dict[str, str] = field(default_factory=dict)
    scale: dict[str, int] = field(default_factory=dict)
    cut: str = ""
    options: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the checker said. checks: assertions proved; seconds: of the proof itself."""

    proof: Proof
    checks: int
    seconds: float
    failed: tuple[str, ...]
    vacuity_found: bool
    tight_found: bool

    @property
    def good(self) -> bool:
        return not self.failed and self.vacuity_found and self.tight_found


def proofs() -> list[Proof]:
    """All rows."""
    rows = tomllib.loads((HERE / "harnesses.toml").read_text())["proof"]
    return [Proof(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}) for row in rows]


def sources_hash(proof: Proof) -> str:
    """SHA-256 over all that the verdict depends on: harness, core files with their headers, and the row itself."""
    digest = hashlib.sha256(repr(proof).encode())
    flags = ["-std=c11", "-ffreestanding", f"-I{CORE}", f"-I{HERE}", *(f"-D{name}" for name in proof.defines)]
    for path in [HERE / proof.file, *(CORE / name for name in proof.core)]:
        # Without comments and line numbers, and with what it includes, the compiler's own headers apart.
        text = subprocess.run(["cc", "-E", "-P", *flags, str(path)], capture_output=True, text=True, check=True).stdout
        digest.update(path.name.encode() + b"\0" + " ".join(text.split()).encode())
    return digest.hexdigest()[:16]


class CheckerError(Exception):
    """The checker did not come to a verdict."""


def _tool(name: str) -> list[str]:
    """goto-cc or goto-instrument of the same CBMC."""
    command = cbmc_tool.cbmc()
    return [*command[:-1], str(Path(command[-1]).with_name(name))]


def _call(command: Sequence[str]) -> None:
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise CheckerError((run.stdout + run.stderr)[-2000:])


def _scaled_core(proof: Proof, folder: Path) -> Path:
    core = folder / "core"
    shutil.copytree(CORE, core)
    left = dict(proof.scale)
    for path in sorted(core.glob("*.[ch]")):
        text = path.read_text()
        for name, value in proof.scale.items():
            text, count = re.subn(rf"(?m)^(#define {name}) \d+(u?)\b", rf"\g<1> {value}\2", text)
            if count:
                del left[name]
        path.write_text(text)
    assert not left, left
    return core


def _compiled(proof: Proof, folder: Path, define: str) -> Path:
    core = _scaled_core(proof, folder)
    defines = [f"-D{name}" for name in (*proof.defines, define) if name]
    sources = [str(HERE / proof.file), *(str(core / name) for name in proof.core)]
    model = folder / "model.gb"
    # Its preprocessor is the host's gcc; nothing is assembled or run.
    _call([*_tool("goto-cc"), "-std=c11", f"-I{core}", f"-I{HERE}", *defines, *sources, "--function", proof.entry,
           "-o", str(model)])  # fmt: skip
    for function, contract in proof.replace.items():
        _call([*_tool("goto-instrument"), "--replace-calls", f"{function}:{contract}", str(model), str(model)])
    if proof.cut:
        _call([*_tool("goto-instrument"), "--drop-unused-functions", str(model), str(model)])
        _call([*_tool("goto-instrument"), "--isr", proof.cut, str(model), str(model)])
    return model


def check(proof: Proof, define: str = "") -> dict[str, str]:
    """What was checked and the verdict of each, by name and description.

    Raises:
        CheckerError: no verdict: an error in the harness, or more than LIMIT_S.
    """
    with tempfile.TemporaryDirectory(prefix="ew-proof-") as name:
        model = _compiled(proof, Path(name), define)
        command = [
            *cbmc_tool.cbmc(), str(model), "--function", proof.entry, "--unwind", str(proof.unwind),
            "--unwinding-assertions", "--div-by-zero-check", "--slice-formula",
            *proof.options,
        ]  # fmt: skip
        for loop in proof.unwindset:
            command += ["--unwindset", loop]
        try:
            run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT_S)
        except subprocess.TimeoutExpired as expired:
            raise CheckerError(f"{proof.name}: no verdict in {LIMIT_S:.0f} s") from expired
    found = {f"{m['name']} {m['what']}": m["verdict"] for m in _RESULT.finditer(run.stdout)}
    if run.returncode not in (0, 10) or not found:
        raise CheckerError(f"{proof.name}: {(run.stdout + run.stderr)[-2000:]}")
    return found


def prove(proof: Proof) -> Verdict:
    """The three runs of one proof.

    Raises:
        CheckerError: as ``check``.
    """
    begun = time.monotonic()
    found = check(proof)
    seconds = time.monotonic() - begun
    failed = tuple(what for what, verdict in found.items() if verdict != "SUCCESS")
    unreached = [what for what, verdict in check(proof, "VACUITY").items() if verdict == "FAILURE"]
    tightened = [what for what, verdict in check(proof, "TIGHT").items() if verdict == "FAILURE"]
    return Verdict(proof, len(found), seconds, failed, any(VACUITY in what for what in unreached), bool(tightened))


def sound(verdict: Verdict) -> str:
    """One word for the table."""
    if verdict.failed:
        return "FAILED"
    if not verdict.vacuity_found:
        return "VACUOUS"
    return "proved" if verdict.tight_found else "NOT TIGHT"


HEAD = """# Proofs

Written by `make proof` ({version}, MiniSat); [../proof.md](../proof.md) says what they mean. Each line was run three
times: as it is, with its end asserted unreachable, and with one bound tightened; the last two must fail, and did.
*Sources* is the first part of the SHA-256 over the harness and the core's files in it, without comments: a test
compares it with the present ones.

| property | holds for | checks | time (s) | verdict | sources |
|---|---|---|---|---|---|
"""


def row(verdict: Verdict) -> str:
    """One line of the table."""
    p = verdict.proof
    return (f"| **{p.name}**: {p.property} | {p.bound} | {verdict.checks} | {verdict.seconds:.1f} | {sound(verdict)} "
            f"| `{sources_hash(p)}` |\n")  # fmt: skip


def write(lines: dict[str, str]) -> None:
    """The table, of the lines that there are, in the order of the harnesses."""
    head = HEAD.format(version=f"CBMC {cbmc_tool.version(cbmc_tool.cbmc())}")
    TABLE.write_text(head + "".join(lines[proof.name] for proof in proofs() if proof.name in lines))


def written() -> dict[str, str]:
    """Name of each proof in the committed table, and the hash of the sources that it was made of."""
    return dict(re.findall(r"^\| \*\*(.+?)\*\*:.*\| proved \| `(\w+)` \|$", TABLE.read_text(), re.MULTILINE))


def main(arguments: list[str]) -> int:
    """Run the named proofs, all if none; exit status 1 if one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("name", nargs="*", help="part of the name of a proof")
    parser.add_argument("--write", action="store_true", help="put the table into docs/measured/proofs.md")
    parser.add_argument("--resume", action="store_true", help="skip what the table has of the same sources")
    options = parser.parse_args(arguments)
    old = TABLE.read_text() if TABLE.is_file() else ""
    lines = {found[1]: found[0] + "\n" for found in re.finditer(r"^\| \*\*(.+?)\*\*:.*$", old, re.MULTILINE)}
    bad = 0
    for proof in proofs():
        if options.name and not any(part in proof.name for part in options.name):
            continue
        if options.resume and f"proved | `{sources_hash(proof)}`" in lines.get(proof.name, ""):
            continue
        try:
            verdict = prove(proof)
        except CheckerError as error:
            print(f"{proof.name}: {error}", flush=True)
            bad += 1
            continue
        lines[proof.name] = row(verdict)
        bad += not verdict.good
        print(f"{proof.name}: {sound(verdict)}, {verdict.checks} checks, {verdict.seconds:.1f} s", flush=True)
        for what in verdict.failed:
            print(f"    {what}")
        if options.write:
            write(lines)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
