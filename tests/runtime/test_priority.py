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
print(os.getpriority(os.PRIO_PROCESS, 0), Path("/proc/self/autogroup").read_text().split()[-1])
"""


@pytest.mark.parametrize("leader", [True, False])
def test_nice_reaches_the_session_from_its_leader_only(leader: bool) -> None:
    group = Path("/proc/self/autogroup")
    before = group.read_text().split()[-1] if group.exists() else ""
    ran = subprocess.run(
        [sys.executable, "-c", CODE if before else CODE.rsplit("print", 1)[0] + "print(7, 7)"],
        capture_output=True, text=True, check=True, start_new_session=leader,
    )
    process, session = ran.stdout.split()
    assert process == "7"
    assert session == ("7" if leader or not before else before)
    assert not before or group.read_text().split()[-1] == before
