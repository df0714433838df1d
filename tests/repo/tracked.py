"""What belongs to the project: the files that git tracks."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tracked() -> list[str]:
    """Paths relative to the root, those deleted in the working tree left out."""
    listed = subprocess.run(
        # a checkout that belongs to another user (a container's mount) is read all the same
        ["git", "-c", "safe.directory=*", "ls-files", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]
