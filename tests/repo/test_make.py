"""`make` installs Debian packages where it may, and otherwise says what to run and goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.repo.tracked import ROOT

STAMP = "build/stamps/packages"


class Machine:
    """A folder with the Makefile and a PATH on which the system's tools are stand-ins that write down their calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls = folder / "calls"
        self.tools = folder / "tools"
        self.tools.mkdir()
        shutil.copy(ROOT / "Makefile", folder)
        (folder / "packages.txt").write_text("# tools\ngit\nqemu-system-arm  # the microcontroller\ngcc\n")
        self.tool("dpkg-query", '[ "${!#}" = git ] && echo "install ok installed"; true')
        self.tool("apt-get", f'echo "$*" >> {self.calls}')
        self.tool("sudo", "exit 1")

    def tool(self, name: str, body: str) -> None:
        (self.tools / name).write_text(f"#!/bin/bash\n{body}\n")
        (self.tools / name).chmod(0o755)

    def user(self, number: int) -> None:
        self.tool("id", f"echo {number}")

    def make(self) -> str:
        path = f"{self.tools}:{os.defpath}"
        ran = subprocess.run(
            ["make", STAMP], cwd=self.folder, env={"PATH": path}, capture_output=True, text=True, check=True
        )
        return ran.stdout + ran.stderr

    @property
    def called(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    @property
    def stamped(self) -> bool:
        return (self.folder / STAMP).exists()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_root_installs_what_is_missing_and_nothing_else(machine: Machine) -> None:
    machine.user(0)
    machine.make()
    assert machine.called[-1].split()[-2:] == ["qemu-system-arm", "gcc"]
    assert "--no-install-recommends" in machine.called[-1]
    assert machine.stamped


def test_the_second_time_calls_nothing(machine: Machine) -> None:
    machine.user(0)
    machine.make()
    before = len(machine.called)
    machine.make()
    assert len(machine.called) == before


def test_sudo_without_a_password_is_used(machine: Machine) -> None:
    machine.user(1000)
    machine.tool("sudo", 'while [[ "$1" = -* ]]; do shift; done; exec "$@"')
    machine.make()
    assert machine.called[-1].endswith("qemu-system-arm gcc")


def test_a_user_without_rights_is_told_the_one_line_and_goes_on(machine: Machine) -> None:
    machine.user(1000)
    said = machine.make()
    assert "  sudo apt-get install --no-install-recommends qemu-system-arm gcc\n" in said
    assert not machine.called
    assert not machine.stamped


def test_a_failing_installation_is_said_and_tried_again_next_time(machine: Machine) -> None:
    machine.user(0)
    machine.tool("apt-get", f'echo "$*" >> {machine.calls}; exit 100')
    assert "going on without: qemu-system-arm gcc" in machine.make()
    assert not machine.stamped
    before = len(machine.called)
    machine.make()
    assert len(machine.called) > before


def test_where_all_is_there_nothing_is_asked_for(machine: Machine) -> None:
    machine.user(1000)
    machine.tool("dpkg-query", 'echo "install ok installed"')
    assert machine.make() == ""
    assert machine.stamped


def test_a_python_that_is_too_old_is_refused_by_name(machine: Machine) -> None:
    machine.user(1000)
    machine.tool("dpkg-query", 'echo "install ok installed"')
    pretend = "import sys; sys.version_info = (3, 9); exec(sys.argv[1])"
    machine.tool("python3", f'exec {sys.executable} -c "{pretend}" "$2"')
    ran = subprocess.run(
        ["make", ".venv/stamps/venv"],
        cwd=machine.folder, env={"PATH": f"{machine.tools}:{os.defpath}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode != 0
    assert "Python 3.9 found; edge-wam needs 3.11, 3.12 or 3.13" in ran.stderr
    assert not (machine.folder / ".venv").exists()
