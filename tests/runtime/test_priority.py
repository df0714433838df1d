"""A nice level holds against other sessions too, and only a session's own leader changes what the session gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import os
from pathlib import Path
from edge_wam.realtime import prefer_process
assert prefer_process(nice=7) == ()
print(os.getpriority(os.PRIO_PROCESS, 0), *Path("/proc/self/autogroup").read_text().split()[-1:])
"""


def session_nice() -> str:
    """Of this session; "" where the kernel has no autogroups, or a control group takes their place (an empty file)."""
    group = Path("/proc/self/autogroup")
    return "".join(group.read_text().split()[-1:]) if group.exists() else ""


@pytest.mark.parametrize("leader", [True, False])
def test_nice_reaches_the_session_from_its_leader_only(leader: bool) -> None:
    before = session_nice()
    ran = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, check=True, start_new_session=leader
    )
    process, *session = ran.stdout.split()
    assert process == "7"
    assert not before or session == ["7" if leader else before]
    assert session_nice() == before
