"""Runs `edge-wam` as its user does: exit code, stdout, stderr; in another process where that is the point."""

from __future__ import annotations

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from edge_wam.cli import main

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ran:
    """What came back."""

    code: int
    out: str
    err: str


def argv(*arguments: object) -> list[str]:
    return [sys.executable, "-c", "from edge_wam.cli import main; main()", *map(str, arguments)]


def here(*arguments: object) -> Ran:
    """The same command line in this process: a hundred times faster than starting Python."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
    return Ran(code, out.getvalue(), err.getvalue())


def edge_wam(*arguments: object, stdin: str = "") -> Ran:
    """In another process."""
    run = subprocess.run(
        argv(*arguments), cwd=ROOT, capture_output=True, text=True, input=stdin, timeout=150, check=False
    )
    assert "Traceback" not in run.stderr, run.stderr
    return Ran(run.returncode, run.stdout, run.stderr)


def write_config(folder: Path, bundle: Path, **plan: object) -> Path:
    """A run configuration of the simulated arm on the firmware's host port."""
    lines = [
        "schema_version = 1",
        f'robot = "{ROOT / "robots" / "metaworld_sawyer.toml"}"',
        f'bundle = "{bundle}"',
        "allow_demo_key = true",
        f'recording_dir = "{folder / "runs"}"',
        'instruction = "reach the goal position"',
        "[plan]",
        *(f"{name} = {value}" for name, value in plan.items()),
        "[monitor]",
        "camera_gone_ms = 3000.0",  # pictures may be late on a busy machine; what the arm does then is tested elsewhere
        "[link]",
        'kind = "emulator"',
        'emulator = "host"',
        "clock_bound_ms = 5.0",
    ]
    path = folder / "run.toml"
    path.write_text("\n".join(lines) + "\n")
    return path
