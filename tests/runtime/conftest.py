"""Real-time sessions, begun anew where the machine spoiled one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runtime.rig import Running
from tests.support.stalls import judge


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object | None:
    """Tests of a module that says REAL_TIME: see :mod:`tests.support.stalls`."""
    if not getattr(pyfuncitem.module, "REAL_TIME", False):
        return None
    given = pyfuncitem.funcargs
    names = pyfuncitem._fixtureinfo.argnames
    again = 0

    def renew() -> None:
        nonlocal again
        again += 1
        for name in ("own", "shared"):
            running = given.get(name)
            if isinstance(running, Running):
                running.renew()
                given["rig"], given["session"] = running
        if "tmp_path" in names:
            folder = given["tmp_path"]
            assert isinstance(folder, Path)
            given["tmp_path"] = folder / f"again-{again}"
            (folder / f"again-{again}").mkdir()

    def before_s() -> float:
        running = given.get("shared")
        return running.witness.longest_gap_s if isinstance(running, Running) else 0.0

    judge(lambda: pyfuncitem.obj(**{name: given[name] for name in names}), renew, before_s=before_s)
    return True
