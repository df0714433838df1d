"""Commands of the other packages: found by entry point, loaded only when called, refused with what to install."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from edge_wam.cli.elsewhere import EXTRAS, GROUP
from tests.cli.command import ROOT

CALL = "from edge_wam.cli import main; main()"


def _call(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``edge-wam`` where ``site`` says first which commands there are; none are known where it is ``bare``."""
    code = f"import importlib.metadata as m; m.entry_points = lambda **_: (); {CALL}"
    real = f"import sys; sys.path.insert(0, {str(site)!r}); {CALL}"
    bare = site.name == "bare"
    return subprocess.run(
        [sys.executable, "-c", code if bare else real, *words], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": ".", "COLUMNS": "200"},
    )  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A place where packages are installed, with one that offers ``distill``."""
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[edge_wam.commands]\ndistill = other_commands:main\n")
    (tmp_path / "other_commands.py").write_text(
        "import sys\ndef main(words):\n    print('told', words)\n    sys.exit(3)\n"
    )
    return tmp_path


def test_arguments_and_exit_code_are_the_commands_own(site: Path) -> None:
    ran = _call(site, "distill", "all", "--config", "x.toml", "--help")
    assert ran.returncode == 3 and "told ['all', '--config', 'x.toml', '--help']" in ran.stdout, ran.stderr


def test_help_names_it_without_loading_it(site: Path) -> None:
    (site / "other_commands.py").write_text("raise SystemExit('loaded')\n")
    ran = _call(site, "--help")
    assert ran.returncode == 0 and "distill" in ran.stdout and "Make a student" in ran.stdout


def test_without_the_extra_it_says_what_to_install(site: Path, tmp_path: Path) -> None:
    (site / "other_commands.py").write_text("import a_package_that_is_not_here\n")
    ran = _call(site, "distill", "all")
    said = " ".join(ran.stderr.split())
    assert ran.returncode == 2 and "a_package_that_is_not_here" in said, ran.stderr
    assert "pip install 'edge-wam[distill,sim]'" in said
    bare = tmp_path / "bare"
    bare.mkdir()
    ran = _call(bare, "distill", "all")
    said = " ".join(ran.stderr.split())
    assert ran.returncode == 2 and "'distill' is not installed" in said and "pip install" in said, ran.stderr


def test_the_project_offers_the_command_that_it_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][GROUP] == {"distill": "distill.commands:main"} and set(EXTRAS) == {"distill"}
    for extra in EXTRAS["distill"][1].split(","):
        assert extra in project["optional-dependencies"]
