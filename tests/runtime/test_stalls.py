"""What spoils a real-time test is told apart from what fails it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from edge_wam.supervisor import SessionError
from tests.runtime.rig import Running
from tests.support import stalls
from tests.support.stalls import ATTEMPTS, STALL_S, Queue, Witness, judge


class Scripted(Witness):
    """Has seen what the test says."""

    def __init__(self, gap_s: float) -> None:
        super().__init__()
        self.gap_s = gap_s

    def _run(self) -> None:
        self.longest_gap_s = self.gap_s


def play(fails: int, gap_s: float, before_s: float = 0.0) -> tuple[int, int]:
    """(runs, renewals) of a test that fails so many times on a machine that stalls for so long."""
    runs = renewals = 0

    def test() -> None:
        nonlocal runs
        runs += 1
        if runs <= fails:
            raise SessionError("the arm never ran")

    def renew() -> None:
        nonlocal renewals
        renewals += 1

    judge(test, renew, witness=lambda: Scripted(gap_s), before_s=lambda: before_s)
    return runs, renewals


def test_a_failure_on_a_machine_that_did_not_stall_is_a_failure_at_once() -> None:
    with pytest.raises(SessionError):
        play(1, 0.5 * STALL_S)


def test_one_on_a_machine_that_stalled_is_done_again_from_the_beginning() -> None:
    assert play(0, 1.0) == (1, 0)
    assert play(ATTEMPTS - 1, 1.0) == (ATTEMPTS, ATTEMPTS - 1)
    assert play(1, 0.0, before_s=1.0) == (2, 1), "what was given to it may have been spoiled before it"


def test_a_machine_that_always_stalls_does_not_make_it_good() -> None:
    with pytest.raises(SessionError):
        play(ATTEMPTS, 1.0)


class Counted(Running):
    """No session at all: counts how often it was begun."""

    def _open(self) -> None:
        self.rig, self.session = ("rig", self._count), ("session", self._count)  # type: ignore[assignment]
        self.witness = Scripted(1.0)

    def close(self) -> None:
        """Nothing runs."""


MODULE = """
import os
import signal
import subprocess
import sys
import time

import pytest
from tests.runtime.test_stalls import Counted

REAL_TIME = {real_time}
runs = []

@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return Counted(tmp_path_factory.mktemp("shared"))

@pytest.fixture
def rig(shared):
    return shared.rig

@pytest.fixture
def session(shared):
    return shared.session

def test_it(rig, session, tmp_path):
    runs.append((rig, session, tmp_path.name, tmp_path.is_dir()))
    assert len(runs) == 3

def test_what_was_given():
    assert runs == [
        (("rig", k), ("session", k), name, True)
        for k, name in enumerate(["test_it0", "again-1", "again-2"])
    ]
"""


@pytest.mark.parametrize("real_time", [True, False])
def test_every_attempt_is_given_a_session_and_a_folder_of_its_own(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, real_time: bool
) -> None:
    monkeypatch.setattr(stalls, "STALL_S", -1.0)
    pytester.makeconftest("from tests.runtime.conftest import pytest_pyfunc_call as pytest_pyfunc_call\n")
    pytester.makepyfile(MODULE.format(real_time=real_time))
    outcome = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")
    outcome.assert_outcomes(passed=2 if real_time else 0, failed=0 if real_time else 2)


def _busy(nice: int) -> subprocess.Popen[bytes]:
    program = f"import os; os.nice({nice}); os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nwhile True: pass"
    return subprocess.Popen([sys.executable, "-c", program])


def test_a_process_that_waits_for_its_processor_is_told_from_one_that_was_stopped() -> None:
    hurried, patient = _busy(0), _busy(19)
    queue = Queue(patient.pid)
    try:
        deadline = time.monotonic() + 20.0
        while queue.longest_s < 0.005 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert queue.longest_s >= 0.005, "of two on one processor the patient one waits"
        patient.send_signal(signal.SIGSTOP)
        os.waitpid(patient.pid, os.WUNTRACED)  # it has to be given the processor once more to stop
        time.sleep(0.05)
        before = queue.longest_s
        time.sleep(0.3)
        assert queue.longest_s == before, "who was stopped does not wait for a processor"
    finally:
        for process in (hurried, patient):
            process.kill()
            process.wait()
        queue.close()
