"""Rules of CONTRIBUTING.md that a linter cannot see."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from tests.repo.tracked import ROOT, tracked

TRACKED = [ROOT / name for name in tracked()]
RUNTIME = ("edge_wam", "firmware_bridge")
TEXT = {".py", ".pyx", ".pyi", ".md", ".toml", ".c", ".h", ".cu", ".cpp", ".S", ".ld", ".txt", ".json", ".yml", ""}

# Settings of other people's libraries that can be made in no other way; none chooses what this project does.
ENVIRONMENT_ALLOWED = {
    "edge_wam/sim/mujoco_loader.py": "MuJoCo and Mesa are told how to draw before they are loaded",
    "edge_wam/service_watchdog.py": "the protocol by which systemd hands a service its notify socket",
}


def _sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_contracts_import_numpy_and_the_error_type_only() -> None:
    foreign = {
        name
        for name in _imports(ROOT / "edge_wam/contracts.py")
        if name.split(".")[0] not in {*sys.stdlib_module_names, "numpy"}
    }
    assert foreign == {"edge_wam.errors"}


def test_the_runtime_has_no_network_client() -> None:
    clients = {"urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "huggingface_hub"}
    offenders = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in _sources(*RUNTIME)
        for name in _imports(path)
        if name.split(".")[0] in clients or name in {"websockets", "websockets.client", "websockets.sync.client"}
    }
    assert not offenders


def test_no_environment_variable_chooses_behaviour() -> None:
    offenders = []
    for path in _sources(*RUNTIME):
        name = str(path.relative_to(ROOT))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}:
                offenders.append(name)
    assert set(offenders) == set(ENVIRONMENT_ALLOWED)


def test_every_tracked_text_is_finished_and_of_no_particular_machine() -> None:
    unfinished = re.compile(r"\b(T[O]D[O]|F[I]XME|X[X]X)\b|/h[o]me/|/r[o][o]t/|/w[o]rk/")
    offenders = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in TRACKED
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if unfinished.search(line)
    ]
    assert not offenders


def test_no_tracked_file_is_larger_than_the_demo_bundle_may_be() -> None:
    large = {str(p.relative_to(ROOT)): p.stat().st_size for p in TRACKED if p.stat().st_size > 25_000_000}
    assert not large


@pytest.mark.parametrize("document", sorted(p.relative_to(ROOT) for p in TRACKED if p.suffix == ".md"), ids=str)
def test_local_links_lead_somewhere(document: Path) -> None:
    path = ROOT / document
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    dead = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (path.parent / t).exists()]
    assert not dead


def test_the_readme_names_the_commands_that_exist() -> None:
    commands = set(re.findall(r"\bmake ([a-z-]+)", (ROOT / "README.md").read_text()))
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test"} <= commands <= targets
    assert "make test" in (ROOT / ".ci/run").read_text()
