"""The float step graph in, the explicit symmetric INT8 Q/DQ graph out.

What TensorRT wants is the artefact: int8 weights with one scale per output channel, activations with one static scale
per tensor, zero points 0, everything else float32. What stays float is :mod:`distill.quantise.keep`'s affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from distill.quantise.histogram import Histogram
from edge_wam.errors import ContractError

PERCENTILE = 99.99
SMALLEST_SCALE = 1e-9
"""A channel of zeros needs a scale, too, and a GPU takes subnormal numbers for zero."""
Feed = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class Levels:
    """Largest magnitudes of the integer codes of weights and activations. INT8 is 127; 7 is what 4 bits would leave."""

    weight: int = 127
    activation: int = 127


def quantisable(graph: onnx.GraphProto, keep: Iterable[str]) -> list[onnx.NodeProto]:
    """MatMul nodes with a constant weight whose name contains none of ``keep``."""
    constants = {t.name for t in graph.initializer}
    skip = tuple(keep)
    return [
        node for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in constants and not any(s in node.input[1] for s in skip)
    ]  # fmt: skip


def probe(model: onnx.ModelProto, names: Sequence[str], elem_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """A copy of ``model`` that also gives out the tensors ``names``."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    there = {o.name for o in out.graph.output}
    out.graph.output.extend(helper.make_tensor_value_info(n, elem_type, None) for n in names if n not in there)
    return out


def run_feeds(
    model: onnx.ModelProto, names: Sequence[str], feeds: Iterable[Feed]
) -> Iterator[list[NDArray[np.generic]]]:
    """The tensors ``names`` for every feed in turn, on one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"],
        disabled_optimizers=["MatMulAddFusion"],  # it would take the integer products of a Q/DQ graph back to float
    )  # fmt: skip
    for feed in feeds:
        yield session.run(list(names), dict(feed))


def observe(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], feeds: Iterable[Feed]) -> dict[str, Histogram]:
    """Histogram of every tensor that ``nodes`` multiply, from running ``feeds`` through the float graph.

    Raises:
        ContractError: no feeds, or a value in the graph is not finite.
    """
    names = sorted({node.input[0] for node in nodes})
    out = {name: Histogram() for name in names}
    for values in run_feeds(probe(model, names), names, feeds):
        for name, value in zip(names, values, strict=True):
            out[name].add(value.astype(np.float32, copy=False))
    if not all(h.counts.any() for h in out.values()):
        raise ContractError("nothing to calibrate on", expected="inputs from the student's own episodes")
    return out


def clipping(histograms: Mapping[str, Histogram], percent: float = PERCENTILE) -> dict[str, float]:
    """The magnitude at which every tensor is clipped."""
    return {name: max(h.percentile(percent), 1e-6) for name, h in histograms.items()}


def weight_codes(values: NDArray[np.float32], levels: int = 127) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Symmetric codes of a weight [in, out] and the scale of every output channel."""
    scale = np.maximum(np.abs(values).max(0) / levels, SMALLEST_SCALE).astype(np.float32)
    return np.clip(np.rint(values / scale), -levels, levels).astype(np.int8), scale


def insert_qdq(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], clip: Mapping[str, float], levels: Levels | None = None
) -> onnx.ModelProto:
    """A copy of ``model`` in which ``nodes`` multiply dequantised int8 by dequantised int8.

    Args:
        clip: magnitude at which each activation is clipped (:func:`clipping`).
        levels: fewer than 127 only as a negative control: a quantiser in the path must be felt.
    """
    depth = levels or Levels()
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    weights = {t.name: t for t in graph.initializer}
    chosen = {node.name for node in nodes}
    made: dict[str, str] = {}
    fresh: list[onnx.NodeProto] = []
    zero = "int8_zero"

    def constant(name: str, value: NDArray[np.generic]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    constant(zero, np.array(0, np.int8))
    for node in list(graph.node):
        if node.name in chosen:
            x, w = node.input[0], node.input[1]
            if w not in made:
                codes, scale = weight_codes(numpy_helper.to_array(weights[w]).astype(np.float32), depth.weight)
                inputs = [constant(f"{w}.int8", codes), constant(f"{w}.scale", scale)]
                fresh.append(helper.make_node("DequantizeLinear", inputs, [f"{w}.dq"], name=f"{w}.DQ", axis=1))
                made[w] = f"{w}.dq"
            if x not in made:
                scale = constant(f"{x}.scale", np.array(clip[x] / depth.activation, np.float32))
                source = x
                if depth.activation < 127:  # the operator itself clips at 127 codes
                    low, high = np.array(-clip[x], np.float32), np.array(clip[x], np.float32)
                    bounds = [constant(f"{x}.min", low), constant(f"{x}.max", high)]
                    source = f"{x}.clipped"
                    fresh.append(helper.make_node("Clip", [x, *bounds], [source], name=f"{x}.Clip"))
                fresh += [
                    helper.make_node("QuantizeLinear", [source, scale, zero], [f"{x}.q"], name=f"{x}.Q"),
                    helper.make_node("DequantizeLinear", [f"{x}.q", scale, zero], [f"{x}.dq"], name=f"{x}.DQ"),
                ]
                made[x] = f"{x}.dq"
            node.input[0], node.input[1] = made[x], made[w]
        fresh.append(node)
    used = {name for node in fresh for name in node.input}
    kept = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.node[:]
    graph.node.extend(fresh)
    del graph.value_info[:]
    onnx.checker.check_model(out)
    return out
