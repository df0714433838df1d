"""The table says what the episodes say: paired, by group, in both averages."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.compare import by_task, line, paired, table
from distill.scoring import Score
from edge_wam.errors import ContractError

ROW = Score("reach", 100_000, True, 1.0, 100.0, 2.0, 4, 8, 3, 0.01, 0.04, 0)


def scores(outcomes: list[bool], task: str = "reach") -> list[Score]:
    return [replace(ROW, task=task, seed=100_000 + i, success=done) for i, done in enumerate(outcomes)]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_only_episodes_that_differ_decide(pairs: list[tuple[bool, bool]]) -> None:
    found = paired(scores([a for a, _ in pairs]), scores([b for _, b in pairs]))
    assert found.pairs == len(pairs)
    assert found.difference == pytest.approx(sum(b - a for a, b in pairs) / len(pairs))
    assert found.low <= found.difference <= found.high
    b, c = found.only_first, found.only_second
    exact = min(1.0, 2 * sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c))
    assert found.p == pytest.approx(exact)


def test_a_large_and_even_split_is_no_difference_and_an_uneven_one_is() -> None:
    even = paired(scores([True, False] * 1000), scores([False, True] * 1000))
    assert even.difference == 0 and even.p > 0.9
    uneven = paired(scores([True] * 1500), scores([False] * 1200 + [True] * 300))
    assert uneven.p < 1e-6


def test_policies_without_a_common_episode_are_not_compared() -> None:
    with pytest.raises(ContractError, match="no episode in common"):
        paired(scores([True]), scores([True], "push"))


def test_both_averages_and_every_group_are_reported() -> None:
    rows = scores([True] * 4) + scores([True, False] * 2, "window-open") + scores([False] * 4, "push")
    one = line("teacher", rows)
    assert dict(one.groups) == {"easy": 0.75, "hard": 0.0}
    assert one.mean_of_groups == pytest.approx(0.375) and one.mean_of_tasks == pytest.approx(0.5)
    assert (one.episodes, one.successes, one.passes_per_plan) == (12, 6, 2.0)
    assert one.imagined_db == pytest.approx(10 * math.log10(400)) and one.copied_db == pytest.approx(20.0)


def test_the_table_compares_with_the_first_row() -> None:
    policies = {"teacher": scores([True] * 10), "student": scores([True] * 9 + [False])}
    teacher, student = table(policies).splitlines()[2:]
    assert teacher.startswith("| teacher | 10/10 |") and student.startswith("| student | 9/10 |")
    assert "| 90.0 % | -10.0 (-28.6..+8.6) | 1 |" in student
    assert "| reach | easy | 10/10 | 9/10 |" in by_task(policies)
