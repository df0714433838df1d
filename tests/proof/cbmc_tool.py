"""CBMC, which Debian 12 does not have: the one that is installed, or Debian 13's, unpacked into build/tools.

The package is fetched by apt from the archive that this machine already uses, under apt's own signature check, and its
SHA-256 is pinned here. Nothing is installed: it runs from its folder with Debian 13's C library through that
library's loader.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PREFIX = ROOT / "build" / "tools" / "cbmc-6.6.0"
SUITE = "trixie"
# The checker itself is pinned: a verdict is a verdict of this program. Its libraries get Debian's security updates.
CBMC = ("cbmc", "6.6.0-4", "02560859a17049c976961c232c4fc58f0747b57f9b751a466b1f368a438b0e41")
LIBRARIES = ("libc6", "libstdc++6", "libgcc-s1", "minisat")


class ToolMissing(Exception):
    """No CBMC here, and it could not be fetched."""


def _unpacked(prefix: Path) -> list[str]:
    lib = prefix / "usr" / "lib"
    return [
        str(lib / "x86_64-linux-gnu" / "ld-linux-x86-64.so.2"), "--library-path", f"{lib / 'x86_64-linux-gnu'}:{lib}",
        str(prefix / "usr" / "bin" / "cbmc"),
    ]  # fmt: skip


def _archive() -> str:
    """The Debian archive that apt is set up with on this machine."""
    said = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE) $(CREATED_BY)"], capture_output=True,
                          text=True, check=True).stdout  # fmt: skip
    sites = [line.split()[0] for line in said.splitlines() if line.endswith(" Packages")]
    debian = [site for site in sites if re.search(r"/debian/?$", site)]
    if not debian:
        raise ToolMissing("apt knows no Debian archive here; install cbmc 6 by hand")
    return debian[0]


def _fetch(prefix: Path) -> None:
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ToolMissing("no cbmc, and no apt to fetch it with: install cbmc 6")
    with tempfile.TemporaryDirectory(prefix="ew-cbmc-") as name:
        folder = Path(name)
        for part in ("state/lists/partial", "cache/archives/partial", "debs"):
            (folder / part).mkdir(parents=True)
        (folder / "sources.list").write_text(
            f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {_archive()} {SUITE} main\n"
        )
        options = [
            "-qq", "-o", f"Dir::State={folder / 'state'}", "-o", f"Dir::Cache={folder / 'cache'}",
            "-o", f"Dir::Etc::sourcelist={folder / 'sources.list'}", "-o", "Dir::Etc::sourceparts=/dev/null",
            "-o", "Dir::State::status=/dev/null", "-o", "APT::Architecture=amd64", "-o", "Acquire::Languages=none",
            "-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3",
        ]  # fmt: skip
        for call in (["update"], ["download", f"{CBMC[0]}={CBMC[1]}", *LIBRARIES]):
            run = subprocess.run(["apt-get", *options, *call], cwd=folder / "debs", capture_output=True, text=True,
                                 check=False)  # fmt: skip
            if run.returncode != 0:
                raise ToolMissing(f"apt-get {call[0]}: {run.stderr.strip()[-500:]}")
        (package,) = (folder / "debs").glob("cbmc_*.deb")
        found = hashlib.sha256(package.read_bytes()).hexdigest()
        if found != CBMC[2]:
            raise ToolMissing(f"{package.name} has SHA-256 {found}, pinned is {CBMC[2]}")
        prefix.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=prefix.parent))
        for deb in (folder / "debs").glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(deb), str(fresh)], check=True)
        if prefix.exists():
            shutil.rmtree(prefix)
        fresh.rename(prefix)


def cbmc() -> list[str]:
    """The command line that CBMC's arguments are appended to.

    Raises:
        ToolMissing: none is installed and none can be fetched.
    """
    installed = shutil.which("cbmc")
    if installed is not None and version([installed]).startswith("6."):
        return [installed]
    command = _unpacked(PREFIX)
    if not Path(command[-1]).is_file():
        _fetch(PREFIX)
    return command


def version(command: list[str]) -> str:
    """What it calls itself."""
    return subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout.split()[0]


if __name__ == "__main__":
    sys.exit(subprocess.run([*cbmc(), *sys.argv[1:]], check=False).returncode)
