"""pyproject.toml declares what is imported, and nothing that is not."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.repo.tracked import ROOT, tracked

OURS = {"edge_wam", "firmware_bridge", "distill", "tests"}
# Where it is not the name that is imported.
DISTRIBUTION = {"serial": "pyserial", "google": "protobuf", "google_crc32c": "google-crc32c", "can": "python-can",
                "yaml": "pyyaml", "tomli_w": "tomli-w"}  # fmt: skip
# Needed by what we import, without being imported by us.
INDIRECT = {
    "packaging": "metaworld imports it and does not declare it",
    "msgpack": "python-can's udp_multicast bus imports it and does not declare it",
    "onnxscript": "torch.onnx.export needs it",
}
TOOLS = {"ruff", "mypy", "import-linter", "codespell", "pytest-timeout"}  # run, not imported

CHECKOUTS = {
    "groot",  # the public reference, from a folder given by hand when golden numbers are made anew
    "lerobot", "torchvision",  # in environments of their own: make test-lerobot
}  # fmt: skip

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _declared(requirements: Iterable[str]) -> set[str]:
    return {re.split(r"[<>=\[ ]", requirement)[0] for requirement in requirements}


def _imported(paths: Iterable[Path]) -> set[str]:
    found: set[str] = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    foreign = found - OURS - set(sys.stdlib_module_names)
    return {DISTRIBUTION.get(name, name) for name in foreign}


def _python(*folders: str, but: str = "\0") -> list[Path]:
    return [ROOT / n for n in tracked() if n.startswith(folders) and n.endswith(".py") and not n.startswith(but)]


CORE = _declared(PROJECT["dependencies"])
EXTRA = {name: _declared(requirements) for name, requirements in PROJECT["optional-dependencies"].items()}


def test_the_robot_imports_exactly_what_it_declares() -> None:
    imported = _imported(_python("edge_wam/", "firmware_bridge/", but="edge_wam/sim/"))
    assert imported == CORE


def test_the_simulator_imports_what_it_declares() -> None:
    assert _imported(_python("edge_wam/sim/")) - CORE == EXTRA["sim"] - set(INDIRECT)


def test_the_datacentre_imports_what_it_declares() -> None:
    foreign = _imported(_python("distill/")) - CORE - EXTRA["sim"]
    assert foreign == EXTRA["distill"] - set(INDIRECT)


def test_the_tests_import_what_they_declare() -> None:
    foreign = _imported(_python("tests/")) - CORE - EXTRA["sim"] - EXTRA["distill"] - CHECKOUTS
    assert foreign == EXTRA["dev"] - TOOLS - set(INDIRECT)


def test_every_requirement_has_an_upper_bound() -> None:
    requirements = [*PROJECT["dependencies"], *(r for e in PROJECT["optional-dependencies"].values() for r in e)]
    assert not [r for r in requirements if "<" not in r and "==" not in r]
