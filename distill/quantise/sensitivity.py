"""What INT8 costs where: one group of products at a time, by the error of the action that the robot would execute.

Not the cosine of the output: a cosine of 0.999 can hide a third of the success rate (reference: VLA quantisation
studies). Near knots weigh more, they are the ones that are driven; so do chunks in which a gripper moves, where a
little error drops what is held.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from distill.quantise.graph import Feed, insert_qdq, quantisable, run_feeds
from edge_wam.embodiment import Embodiment

F32 = NDArray[np.float32]
_BLOCK = re.compile(r"blocks\.(\d+)\.(\w+)\.weight")
_TOGETHER = {"q": "self_in", "k": "self_in", "v": "self_in", "o": "self_out", "cross_q": "cross_in",
             "cross_o": "cross_out"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """One group quantised alone.

    Attributes:
        group: block and kind, or the name of a part outside of the blocks; ``weights`` numbers are in it.
        action_error: weighted mean |difference| of an action to the float graph's, as a fraction of q01..q99.
        kept: stays float by the keep-list.
    """

    group: str
    weights: int
    action_error: float
    kept: bool


def group_of(weight: str) -> str:
    """``wam.blocks.3.q.weight`` -> ``blocks.3. self_in``; products that share an input are one group."""
    if match := _BLOCK.search(weight):
        return f"blocks.{match[1]} {_TOGETHER.get(match[2], match[2])}"
    return weight.removesuffix(".weight").rpartition("wam.")[2]


def knot_weights(knots: int) -> F32:
    """As in training: the first knots weigh three times the last."""
    return (1.0 + 2.0 * np.exp(-np.arange(knots) / 3.0)).astype(np.float32)


def grippers(robot: Embodiment) -> tuple[int, ...]:
    """Axes that are commanded absolutely: what opens and closes."""
    return tuple(k for k, axis in enumerate(robot.axes) if axis.action == "absolute")


@dataclass(frozen=True)
class Judge:
    """Weighted error between actions [n, H, 32] and the float graph's on the same inputs."""

    wanted: F32
    weight: F32
    dof: int

    @classmethod
    def of(cls, wanted: F32, feeds: Sequence[Feed], robot: Embodiment) -> Judge:
        """Weights [n, H] from what the float graph does on ``feeds``; committed knots count nothing."""
        travel = np.abs(np.diff(wanted[..., list(grippers(robot))], axis=1)).sum((1, 2))
        sample = 1.0 + travel / max(float(travel.mean()), 1e-6)
        free = 1.0 - np.concatenate([feed["prefix_mask"] for feed in feeds])
        weight = sample[:, None] * knot_weights(wanted.shape[1]) * free
        return cls(wanted, weight.astype(np.float32), robot.dof)

    def error(self, actions: F32) -> float:
        """Fraction of q01..q99 (normalised actions span 2)."""
        off = np.abs(actions - self.wanted)[..., : self.dof].mean(-1) / 2.0
        return float((off * self.weight).sum() / self.weight.sum())


Graphs = Mapping[str, onnx.ModelProto]


def actions_of(passes: Graphs, feeds: Sequence[Feed]) -> F32:
    """Actions [n, H, 32] of a student on inputs of its ``step``, through ``refine`` where it has one."""
    wanted = [output.name for output in passes["step"].graph.output]
    first = [dict(zip(wanted, values, strict=True)) for values in run_feeds(passes["step"], wanted, feeds)]
    if "refine" not in passes:
        return np.concatenate([np.asarray(values["action"], np.float32) for values in first])
    names = [value.name for value in passes["refine"].graph.input]
    later = [
        {name: given[name] for name in names}
        for feed, made in zip(feeds, first, strict=True)
        for given in ({**feed, "new_kv": made["new_kv"], "noisy_action": made["action"], "noisy_video": made["video"]},)
    ]
    return np.concatenate([np.asarray(v[0], np.float32) for v in run_feeds(passes["refine"], ["action"], later)])


def left_to_quantise(graph: onnx.ModelProto, keep: Sequence[str], back: Iterable[str]) -> list[onnx.NodeProto]:
    """Products of ``graph`` that neither the keep-list nor the scan holds back."""
    put_back = set(back)
    return [node for node in quantisable(graph.graph, keep) if group_of(node.input[1]) not in put_back]


def scan(
    passes: Graphs, feeds: Sequence[Feed], clip: Mapping[str, Mapping[str, float]], keep: Sequence[str], judge: Judge,
    report: Callable[[int, int, str], None],
) -> list[Cost]:  # fmt: skip
    """Quantise one group at a time, in every pass; dearest first. What the keep-list protects is scanned, too."""
    groups: dict[str, dict[str, list[onnx.NodeProto]]] = {}
    for name, graph in passes.items():
        for node in quantisable(graph.graph, ()):
            groups.setdefault(group_of(node.input[1]), {}).setdefault(name, []).append(node)
    sizes = {t.name: int(np.prod(t.dims)) for t in passes["step"].graph.initializer}
    out = []
    for index, (group, nodes) in enumerate(groups.items()):
        made = {name: insert_qdq(graph, nodes.get(name, []), clip[name]) for name, graph in passes.items()}
        error = judge.error(actions_of(made, feeds))
        weights = [node.input[1] for node in nodes.get("step", [])]
        kept = any(part in weight for part in keep for weight in weights)
        out.append(Cost(group, sum(sizes[weight] for weight in weights), error, kept))
        report(index + 1, len(groups), f"{group}: {error:.3%} of range")
    return sorted(out, key=lambda cost: -cost.action_error)


def restore(
    passes: Graphs, feeds: Sequence[Feed], clip: Mapping[str, Mapping[str, float]], keep: Sequence[str],
    costs: Sequence[Cost], judge: Judge, limit: float,
) -> tuple[list[str], float]:  # fmt: skip
    """Groups to put back to float, dearest first, until all the others together stay within ``limit``; their error."""
    back: list[str] = []
    order = [cost.group for cost in costs if not cost.kept]
    while True:
        left = {name: left_to_quantise(graph, keep, back) for name, graph in passes.items()}
        made = {name: insert_qdq(graph, left[name], clip[name]) for name, graph in passes.items()}
        error = judge.error(actions_of(made, feeds))
        if error <= limit or not order:
            return back, error
        back.append(order.pop(0))


def write_table(path: Path, costs: Sequence[Cost]) -> None:
    """As CSV, dearest first."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("group", "weights", "action_error", "kept"))
        rows.writerows((c.group, c.weights, f"{c.action_error:.6g}", int(c.kept)) for c in costs)


def picture(costs: Sequence[Cost], title: str) -> str:
    """Horizontal bars, one for each group, as SVG; what stays float is grey."""
    left, width, row = 180, 420, 18
    most = max([cost.action_error for cost in costs], default=0.0) or 1.0
    height = 40 + row * len(costs)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" font-family="sans-serif" '
        f'font-size="11"><rect width="100%" height="100%" fill="#fff"/><text x="8" y="20" font-size="13">'
        f"{html.escape(title)}</text>"
    ]
    for index, cost in enumerate(costs):
        y = 34 + row * index
        long = width * cost.action_error / most
        colour = "#9a9a9a" if cost.kept else "#2a6fb0"
        parts.append(
            f'<text x="{left - 6}" y="{y + 11}" text-anchor="end">{html.escape(cost.group)}</text>'
            f'<rect x="{left}" y="{y + 1}" width="{long:.1f}" height="{row - 5}" fill="{colour}"/>'
            f'<text x="{left + long + 5:.1f}" y="{y + 11}">{100 * cost.action_error:.3f} %</text>'
        )
    return "".join(parts) + "</svg>\n"
