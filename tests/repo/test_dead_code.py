"""No function, class, method or property is left that nothing uses. `make check` finds dead imports and variables.

Fields and module variables are not looked at here: a field of a contract or a configuration is read by its name in a
file or on the wire, which no tool sees.
"""

from __future__ import annotations

import re

from vulture.core import Vulture

from tests.repo.tracked import ROOT, tracked

# Called by a framework: pydantic's validators, typer's commands, pytest's fixtures and hooks, Hypothesis.
CALLED_BY_DECORATOR = [
    "@model_validator", "@field_validator", "@*.command", "@*.callback", "@pytest.fixture", "@rule", "@invariant",
    "@precondition", "@initialize",
]  # fmt: skip
# Called by a base class of somebody else: PyTorch, setuptools, html.parser, pytest, python-can.
CALLED_BY_NAME = ["forward", "_recv_internal", "run", "handle_*", "test_*", "Test*", "pytest_*", "setup_*"]


def _entry_points() -> set[str]:
    """Functions that are started by name, in another process: the strings ``package.module:function`` of our code."""
    texts = [(ROOT / name).read_text() for name in tracked() if name.endswith((".py", ".toml"))]
    return {function for text in texts for function in re.findall(r"\"[a-z_]+(?:\.[a-z_]+)+:([a-z_]+)\"", text)}


def test_everything_that_is_defined_is_used() -> None:
    finder = Vulture(ignore_decorators=CALLED_BY_DECORATOR, ignore_names=[*CALLED_BY_NAME, *_entry_points()])
    finder.scavenge([str(ROOT / name) for name in ("edge_wam", "firmware_bridge", "distill", "tests", "setup.py")])
    dead = {
        f"{item.filename.relative_to(ROOT)}:{item.first_lineno}: {item.typ} {item.name}"
        for kind in (finder.unused_funcs, finder.unused_classes, finder.unused_methods, finder.unused_props)
        for item in kind
    }
    assert not dead
