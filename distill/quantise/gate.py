"""Does INT8 keep the skill? The float student and its INT8 self drive the same scenes; success and jerk decide.

No number of a tensor replaces this: action cosines of 0.999 have gone with a success rate that halved (reference: VLA
quantisation studies). A drop of 1 pp is only *shown* by thousands of pairs; the verdict carries its interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from distill.compare import paired
from distill.scoring import Score, open_scores, score
from edge_wam.bundle import Bundle
from edge_wam.contracts import F32, F64, ActionChunk, Imagination, Observation
from edge_wam.policy import Latents, Policy


class GateSettings(BaseModel):
    """What INT8 may cost.

    Attributes:
        episodes, first_seed: of each task; seeds that no training has seen.
        loss_pp: success, percentage points. jerk: share by which it may grow.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    episodes: Annotated[int, Field(ge=1)] = 20
    first_seed: Annotated[int, Field(ge=0)] = 300_000
    replan_knots: Annotated[int, Field(ge=1)] = 4
    loss_pp: Annotated[float, Field(ge=0, le=100)] = 1.0
    jerk: Annotated[float, Field(ge=0)] = 0.05


@dataclass(frozen=True, slots=True)
class Verdict:
    """Float against INT8 on the same episodes.

    Attributes:
        difference_pp, low_pp, high_pp: success of INT8 minus float, with its 95 % interval (paired).
        jerk_ratio, border_ratio: INT8 over float.
        passes_per_plan: runs of step and refine for a chunk, counted where the engine is called.
        reasons: what is not as it should be; empty: passed.
    """

    pairs: int
    difference_pp: float
    low_pp: float
    high_pp: float
    jerk_ratio: float
    border_ratio: float
    passes_per_plan: float
    reasons: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.reasons


class BundlePlanner:
    """A bundle's policy that counts: ``executed`` are runs of the graphs that the transformer is in."""

    def __init__(self, bundle: Bundle) -> None:
        self._policy = Policy(bundle)

    @property
    def executed(self) -> int:
        runs = self._policy.graph_runs
        return runs.get("step", 0) + runs.get("refine", 0)

    def reset(self) -> None:
        """A new episode."""
        self._policy.reset()

    def infer(self, observation: Observation, prefix: F64, sequence: int) -> tuple[ActionChunk, Imagination, Latents]:
        """As :meth:`edge_wam.policy.Policy.infer`."""
        return self._policy.infer(observation, prefix, sequence)

    def pixels(self, latents: F32) -> F32:
        """Float32 [3, Hc, Wc] in [-1, 1]."""
        picture = self._policy.decode_latents(np.array(latents))
        return np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / np.float32(127.5) - np.float32(1.0)


def judge(first: Sequence[Score], second: Sequence[Score], settings: GateSettings) -> Verdict:
    """The verdict on INT8 (``second``) against float (``first``)."""
    pairs = paired(first, second)
    jerk, border = (_ratio(first, second, name) for name in ("jerk", "border_mm"))
    plans = sum(row.plans for row in second)
    reasons = []
    if -100.0 * pairs.difference > settings.loss_pp:
        reasons.append(f"success falls by {-100 * pairs.difference:.1f} pp, more than {settings.loss_pp:g}")
    if jerk > 1.0 + settings.jerk:
        reasons.append(f"jerk grows by {100 * (jerk - 1):.1f} %, more than {100 * settings.jerk:g}")
    return Verdict(
        pairs.pairs, 100 * pairs.difference, 100 * pairs.low, 100 * pairs.high, jerk, border,
        sum(row.passes for row in second) / plans if plans else 0.0, tuple(reasons),
    )  # fmt: skip


def _ratio(first: Sequence[Score], second: Sequence[Score], name: str) -> float:
    before, after = (float(np.mean([getattr(row, name) for row in rows])) for rows in (first, second))
    return after / before if before > 0 else (1.0 if after == 0 else float("inf"))


def drive(
    floating: Bundle, int8: Bundle, tasks: Sequence[str], folder: Path, settings: GateSettings,
    report: Callable[[int, int, str], None],
) -> Verdict:  # fmt: skip
    """Run every episode with both bundles (those in ``folder`` are kept) and judge.

    Raises:
        ConfigError: seeds that belong to training, or an unknown task.
        ContractError: ``folder`` holds scores of other bundles.
    """
    rows = {}
    for name, bundle in (("float", floating), ("int8", int8)):
        facts = {"model": bundle.model_hash, "replan_knots": settings.replan_knots}
        results = open_scores(folder / f"gate-{name}-{bundle.model_hash[:12]}.jsonl", facts)
        score(
            BundlePlanner(bundle), bundle.embodiment, results, tasks, episodes=settings.episodes,
            first_seed=settings.first_seed, replan_knots=settings.replan_knots,
            report=lambda done, total, remark, name=name: report(done, total, f"{name}: {remark}"),  # type: ignore[misc]
        )  # fmt: skip
        asked = range(settings.first_seed, settings.first_seed + settings.episodes)
        rows[name] = [row for row in results.rows if row.seed in asked and row.task in tasks]
    return judge(rows["float"], rows["int8"], settings)
