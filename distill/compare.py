"""One table of a teacher and what was made of it, over the same episodes.

Success by task, by difficulty group and in both averages that are in use (the mean of the four groups, as the published
Meta-World tables have it, and the mean of the tasks), each against the teacher in pairs: an episode that both do or
both miss says nothing about their difference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import erfc, log10, sqrt

import numpy as np

from distill.scoring import Score
from edge_wam.app.statistics import wilson
from edge_wam.errors import ContractError
from edge_wam.sim.world import TASKS

GROUPS = ("easy", "medium", "hard", "very hard")
_Z95 = 1.959963984540054
Scores = Sequence[Score]


@dataclass(frozen=True, slots=True)
class Paired:
    """Two policies on the same episodes.

    Attributes:
        pairs, only_first, only_second: episodes of both; done by one alone.
        difference, low, high: success of the second minus the first, with its 95 % interval (Wald, of paired
            proportions).
        p: two-sided exact probability of so uneven a split if there were no difference (McNemar).
    """

    pairs: int
    only_first: int
    only_second: int
    difference: float
    low: float
    high: float
    p: float


def paired(first: Scores, second: Scores) -> Paired:
    """Compare episode by episode.

    Raises:
        ContractError: they have no episode in common.
    """
    a = {(row.task, row.seed): row.success for row in first}
    b = {(row.task, row.seed): row.success for row in second}
    both = sorted(a.keys() & b.keys())
    if not both:
        raise ContractError("no episode in common", expected="scores of the same tasks and seeds")
    n = len(both)
    only_first = sum(a[k] and not b[k] for k in both)
    only_second = sum(b[k] and not a[k] for k in both)
    difference = (only_second - only_first) / n
    spread = sqrt(max(0.0, (only_first + only_second) / n - difference**2) / n)
    return Paired(n, only_first, only_second, difference, difference - _Z95 * spread, difference + _Z95 * spread,
                  _sign_test(only_first, only_second))  # fmt: skip


def _sign_test(a: int, b: int) -> float:
    """Two-sided exact binomial probability of a split at least as uneven."""
    n, k = a + b, min(a, b)
    if n == 0:
        return 1.0
    if n >= 1000:  # the exact terms underflow; the normal approximation is good to four places there
        return min(1.0, erfc((abs(a - b) - 1) / sqrt(2.0 * n)))
    term = total = 0.5**n
    for i in range(1, k + 1):
        term *= (n - i + 1) / i
        total += term
    return min(1.0, 2.0 * total)


@dataclass(frozen=True, slots=True)
class Line:
    """One policy.

    Attributes:
        groups: success rate by difficulty group that was tried. mean_of_groups, mean_of_tasks: both averages.
        passes_per_plan: runs of the transformer for a chunk, counted.
        imagined_db, copied_db: peak signal to noise of foreseen frames, and of copying the newest.
    """

    name: str
    episodes: int
    successes: int
    low: float
    high: float
    groups: Mapping[str, float]
    mean_of_groups: float
    mean_of_tasks: float
    jerk: float
    border_mm: float
    passes_per_plan: float
    imagined_db: float
    copied_db: float


def line(name: str, rows: Scores) -> Line:
    """Sum up a policy's episodes."""
    tasks = sorted({row.task for row in rows})
    rate = {task: float(np.mean([row.success for row in rows if row.task == task])) for task in tasks}
    groups = {
        group: float(np.mean([rate[task] for task in tasks if TASKS[task].group == group]))
        for group in GROUPS if any(TASKS[task].group == group for task in tasks)
    }  # fmt: skip
    wins = sum(row.success for row in rows)
    low, high = wilson(wins, len(rows))
    frames = sum(row.foreseen for row in rows)
    plans = sum(row.plans for row in rows)
    return Line(
        name=name, episodes=len(rows), successes=wins, low=low, high=high, groups=groups,
        mean_of_groups=float(np.mean(list(groups.values()))), mean_of_tasks=float(np.mean(list(rate.values()))),
        jerk=float(np.mean([row.jerk for row in rows])), border_mm=float(np.mean([row.border_mm for row in rows])),
        passes_per_plan=sum(row.passes for row in rows) / plans if plans else 0.0,
        imagined_db=_db(sum(row.imagined_mse * row.foreseen for row in rows), frames),
        copied_db=_db(sum(row.copied_mse * row.foreseen for row in rows), frames),
    )  # fmt: skip


def _db(total: float, frames: int) -> float:
    """Peak signal to noise ratio of pixels in [-1, 1] (peak 2)."""
    return 10.0 * log10(4.0 * frames / total) if frames and total > 0 else float("inf")


def table(policies: Mapping[str, Scores]) -> str:
    """Markdown; the first policy is the reference of the comparisons."""
    names = list(policies)
    lines = [line(name, policies[name]) for name in names]
    groups = [group for group in GROUPS if group in lines[0].groups]
    head = ["policy", "done", "95 %", *groups, "mean of groups", "mean of tasks", "of the first", "paired difference",
            "p", "jerk m/s³", "border mm", "passes a chunk", "imagined / copied dB"]  # fmt: skip
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    reference = lines[0]
    for one in lines:
        against = paired(policies[names[0]], policies[one.name]) if one is not reference else None
        share = one.mean_of_tasks / reference.mean_of_tasks if reference.mean_of_tasks else 0.0
        out.append("| " + " | ".join([
            one.name, f"{one.successes}/{one.episodes}", f"{100 * one.low:.1f}..{100 * one.high:.1f}",
            *(f"{100 * one.groups.get(group, float('nan')):.1f}" for group in groups),
            f"{100 * one.mean_of_groups:.1f}", f"{100 * one.mean_of_tasks:.1f}",
            "" if against is None else f"{100 * share:.1f} %",
            "" if against is None else
            f"{100 * against.difference:+.1f} ({100 * against.low:+.1f}..{100 * against.high:+.1f})",
            "" if against is None else f"{against.p:.2g}",
            f"{one.jerk:.0f}", f"{one.border_mm:.1f}", f"{one.passes_per_plan:.2f}",
            f"{one.imagined_db:.1f} / {one.copied_db:.1f}",
        ]) + " |")  # fmt: skip
    return "\n".join(out) + "\n"


def by_task(policies: Mapping[str, Scores]) -> str:
    """Markdown: success of every policy in every task."""
    tasks = [task for task in TASKS if any(row.task == task for rows in policies.values() for row in rows)]
    out = ["| task | group | " + " | ".join(policies) + " |", "|" + "---|" * (2 + len(policies))]
    for task in tasks:
        cells = []
        for rows in policies.values():
            mine = [row.success for row in rows if row.task == task]
            cells.append(f"{sum(mine)}/{len(mine)}" if mine else "")
        out.append(f"| {task} | {TASKS[task].group} | " + " | ".join(cells) + " |")
    return "\n".join(out) + "\n"
