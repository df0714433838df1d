"""From a float student and the inputs of its own episodes to its INT8 graphs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import onnx
import torch
from pydantic import BaseModel, ConfigDict, Field

from distill.export import Way, export_student, step_arguments
from distill.models.wam import WorldActionTransformer
from distill.quantise.fake import scales_of
from distill.quantise.graph import PERCENTILE, Feed, Levels, clipping, insert_qdq, observe, quantisable, run_feeds
from distill.quantise.keep import edge_blocks, keep_float
from distill.quantise.sensitivity import (
    Cost,
    Judge,
    actions_of,
    left_to_quantise,
    picture,
    restore,
    scan,
    write_table,
)
from distill.quantise.smooth import ALPHAS, Smoothed, smooth
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ContractError

Report = Callable[[int, int, str], None]
PASSES = ("step", "refine")
FOLDED = 1e-4
"""Largest relative change of an action by folding: float rounding, and nothing else, may change."""


class Quantisation(BaseModel):
    """How a student is quantised.

    Attributes:
        percentile: of the magnitudes of an activation; what is above is clipped.
        alphas: exponents tried for SmoothQuant; none: nothing is folded.
        edge: blocks that stay float at either end; None: by depth.
        action_error: groups are put back to float until the weighted error of an action is at most this fraction of
            q01..q99.
        scanned: inputs of the sensitivity scan, spread over all that there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    percentile: Annotated[float, Field(gt=50, le=100)] = PERCENTILE
    alphas: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ALPHAS
    edge: Annotated[int, Field(ge=0)] | None = None
    action_error: Annotated[float, Field(gt=0, le=1)] = 0.02
    scanned: Annotated[int, Field(ge=1)] = 64


@dataclass(frozen=True)
class Quantised:
    """The result.

    Attributes:
        graphs: text, step and perhaps refine of the smoothed student, the passes in INT8.
        twins: the passes in float32, smoothed alike.
        costs: the sensitivity scan, dearest first; ``back``: groups that it put back to float.
        action_error: of the INT8 chain, as in :class:`distill.quantise.sensitivity.Cost`.
        scales: activation scale of every layer of the first pass that became INT8, by the layer's name.
    """

    graphs: Mapping[str, onnx.ModelProto]
    twins: Mapping[str, onnx.ModelProto]
    smoothed: Smoothed
    costs: Sequence[Cost]
    back: Sequence[str]
    action_error: float
    scales: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """For the card and the journal."""
        return {
            "smoothing": {choice.kind: choice.alpha for choice in self.smoothed.choices},
            "smoothing_errors": {choice.kind: choice.errors for choice in self.smoothed.choices},
            "put_back_to_float": list(self.back), "action_error": self.action_error,
        }  # fmt: skip

    def write(self, folder: Path, name: str) -> None:
        """``sensitivity.csv`` and ``sensitivity.svg``."""
        write_table(folder / "sensitivity.csv", self.costs)
        text = picture(self.costs, f"{name}: error of an action with one group in INT8 (grey: stays float)")
        (folder / "sensitivity.svg").write_text(text, encoding="utf-8")


def later_feeds(step: onnx.ModelProto, feeds: Sequence[Feed]) -> list[dict[str, Any]]:
    """What the second pass is given where the first one was given ``feeds``, from running the first one."""
    names = ["action", "video", "new_kv"]
    out: list[dict[str, Any]] = []
    for feed, (action, video, new_kv) in zip(feeds, run_feeds(step, names, feeds), strict=True):
        kept = {n: feed[n] for n in ("prefix_action", "prefix_mask", "past_kv", "past_mask", "cross_kv")}
        out.append({"noisy_video": video, "noisy_action": action, "new_kv": new_kv, **kept})
    return out


def quantise_graph(
    graph: onnx.ModelProto, keep: Sequence[str], feeds: Sequence[Feed], levels: Levels | None = None
) -> onnx.ModelProto:
    """One graph without smoothing and without a scan: calibrate, quantise all that is not kept."""
    nodes = quantisable(graph.graph, keep)
    return insert_qdq(graph, nodes, clipping(observe(graph, nodes, feeds)), levels)


def quantise_student(
    wam: WorldActionTransformer, feeds: Sequence[Feed], robot: Embodiment, settings: Quantisation,
    way: Way | None = None, report: Report = lambda done, total, remark: None,
) -> Quantised:  # fmt: skip
    """Smooth, calibrate, scan, put back what costs too much, quantise the rest.

    Args:
        feeds: inputs of the step graph (:func:`distill.calibration.closed_loop_feeds`), of ``wam`` as it is.

    Raises:
        ContractError: no feeds, a number that is none, or smoothing that changed what the student does.
    """
    config = wam.config
    edge = edge_blocks(config.depth) if settings.edge is None else settings.edge
    keep = keep_float(config, edge)
    smoothed = smooth(wam, feeds, range(edge, config.depth - edge), settings.alphas, way)
    graphs = export_student(smoothed.wam, way)
    passes = {name: graphs[name] for name in PASSES if name in graphs}
    moved = [smoothed.feed(feed) for feed in feeds]
    inputs = {"step": moved}
    if "refine" in passes:
        inputs["refine"] = later_feeds(passes["step"], moved)
    clip = {
        name: clipping(observe(graph, quantisable(graph.graph, ()), inputs[name]), settings.percentile)
        for name, graph in passes.items()
    }
    stride = max(1, len(moved) // settings.scanned)
    chosen = moved[::stride]
    judge = Judge.of(actions_of(passes, chosen), chosen, robot)
    _same(wam, smoothed, feeds[0], way)
    costs = scan(passes, chosen, clip, keep, judge, report)
    back, error = restore(passes, chosen, clip, keep, costs, judge, settings.action_error)
    made = {
        name: insert_qdq(graph, left_to_quantise(graph, keep, back), clip[name]) for name, graph in passes.items()
    }
    scales = scales_of(left_to_quantise(passes["step"], keep, back), clip["step"])
    return Quantised({**graphs, **made}, passes, smoothed, costs, back, error, scales)


@torch.no_grad()
def _same(wam: WorldActionTransformer, smoothed: Smoothed, feed: Feed, way: Way | None) -> None:
    """Smoothing is an identity; a fold that is not would be calibrated and shipped as if it were the student."""
    target = (way or Way()).target
    before = wam.step(*step_arguments(feed, wam.config, way), target=target)[0]
    after = smoothed.wam.step(*step_arguments(smoothed.feed(feed), wam.config, way), target=target)[0]
    change = float((after - before).abs().max() / before.abs().max().clamp_min(1e-6))
    if not change <= FOLDED:
        raise ContractError(f"smoothing changed an action by {change:.2g} of its size", expected=f"at most {FOLDED:g}")
