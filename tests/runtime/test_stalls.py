"""What spoils a real-time test is told apart from what fails it."""

from __future__ import annotations

import pytest

from edge_wam.supervisor import SessionError
from tests.support.stalls import ATTEMPTS, STALL_S, Witness, judge


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
