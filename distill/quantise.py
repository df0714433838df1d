"""Explicit symmetric INT8: calibration on the student's own inputs, SmoothQuant-free, one Q/DQ ONNX for every backend.

What TensorRT wants is the artefact: int8 weights with one scale per output channel, activations with one static scale
per tensor, zero points 0, everything else float32. What must stay float: the first and last block by default, the
embeddings, the noise-level path, the heads, attention itself (reference: VLA quantisation studies; a cosine of 0.999
can hide a loss of success, so the gate is the closed loop, not this file).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_wam.errors import ContractError

BINS = 8192
PERCENTILE = 99.99


@dataclass
class Histogram:
    """Streaming histogram of magnitudes whose range doubles when a larger value comes."""

    top: float = 1e-6
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: NDArray[np.float32]) -> None:
        """Count magnitudes.

        Raises:
            ContractError: a value is not finite.
        """
        magnitude = np.abs(values).ravel()
        if not np.isfinite(magnitude).all():
            raise ContractError("calibration met a number that is none", expected="finite activations")
        peak = float(magnitude.max(initial=0.0))
        while peak > self.top:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.top *= 2.0
        index = np.minimum((magnitude * (BINS / self.top)).astype(np.int64), BINS - 1)
        self.counts += np.bincount(index, minlength=BINS)

    def percentile(self, percent: float) -> float:
        """The magnitude below which ``percent`` % of all values lie."""
        total = np.cumsum(self.counts)
        bin_index = int(np.searchsorted(total, total[-1] * percent / 100.0))
        return (bin_index + 1) * self.top / BINS


def quantisable(graph: onnx.GraphProto, keep: Iterable[str]) -> list[onnx.NodeProto]:
    """MatMul nodes with a constant weight whose name contains none of ``keep``."""
    constants = {t.name for t in graph.initializer}
    skip = tuple(keep)
    return [
        node for node in graph.node
        if node.op_type == "MatMul" and node.input[1] in constants and not any(s in node.input[1] for s in skip)
    ]  # fmt: skip


def calibrate(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], feeds: Iterable[Mapping[str, NDArray[np.generic]]]
) -> dict[str, float]:
    """Activation scale of every quantised input, from running ``feeds`` through the float graph.

    Raises:
        ContractError: no feeds, or a value in the graph is not finite.
    """
    import onnxruntime as ort

    names = sorted({node.input[0] for node in nodes})
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    outputs = {o.name for o in probe.graph.output}
    probe.graph.output.extend(
        helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in names if n not in outputs
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(probe.SerializeToString(), options, providers=["CPUExecutionProvider"])
    histograms = {name: Histogram() for name in names}
    for feed in feeds:
        for name, value in zip(names, session.run(names, dict(feed)), strict=True):
            histograms[name].add(value)
    if not all(h.counts.any() for h in histograms.values()):
        raise ContractError("nothing to calibrate on", expected="inputs from the student's own episodes")
    return {name: max(h.percentile(PERCENTILE), 1e-6) / 127.0 for name, h in histograms.items()}


def insert_qdq(model: onnx.ModelProto, nodes: list[onnx.NodeProto], scales: Mapping[str, float]) -> onnx.ModelProto:
    """A copy of ``model`` in which ``nodes`` multiply dequantised int8 by dequantised int8."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    weights = {t.name: t for t in graph.initializer}
    chosen = {node.name for node in nodes}
    made: dict[str, str] = {}
    fresh: list[onnx.NodeProto] = []
    zero = "int8_zero"
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.int8), zero))
    for node in list(graph.node):
        if node.name in chosen:
            x, w = node.input[0], node.input[1]
            if w not in made:
                values = numpy_helper.to_array(weights[w]).astype(np.float32)
                scale = np.maximum(np.abs(values).max(0) / 127.0, 1e-9).astype(np.float32)
                codes = np.clip(np.rint(values / scale), -127, 127).astype(np.int8)
                graph.initializer.extend(
                    [numpy_helper.from_array(codes, f"{w}.int8"), numpy_helper.from_array(scale, f"{w}.scale")]
                )
                fresh.append(
                    helper.make_node(
                        "DequantizeLinear", [f"{w}.int8", f"{w}.scale"], [f"{w}.dq"], name=f"{w}.DQ", axis=1
                    )
                )
                made[w] = f"{w}.dq"
            if x not in made:
                graph.initializer.append(numpy_helper.from_array(np.array(scales[x], np.float32), f"{x}.scale"))
                fresh += [
                    helper.make_node("QuantizeLinear", [x, f"{x}.scale", zero], [f"{x}.q"], name=f"{x}.Q"),
                    helper.make_node("DequantizeLinear", [f"{x}.q", f"{x}.scale", zero], [f"{x}.dq"], name=f"{x}.DQ"),
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
