"""How often an activation runs out of codes, layer by layer, on the INT8 student's own episodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from distill.quantise.graph import Feed, probe, run_feeds
from edge_wam.engines.qdq_lint import activation_quantisers

ALLOWED = 1e-3
"""Calibrated to 99.99 % on the float student's episodes, one in ten thousand is expected; ten times that is drift."""


@dataclass(frozen=True, slots=True)
class Saturation:
    """``saturated`` of ``values`` codes of one activation were +-127 or beyond."""

    activation: str
    values: int
    saturated: int

    @property
    def share(self) -> float:
        return self.saturated / self.values if self.values else 0.0


def saturation(model: onnx.ModelProto, feeds: Iterable[Feed]) -> list[Saturation]:
    """Count over ``feeds``, worst first. ``model`` is the INT8 step graph as it is in the bundle."""
    quantisers = activation_quantisers(model)
    names = [node.output[0] for node in quantisers]
    values, saturated = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)
    for codes in run_feeds(probe(model, names, TensorProto.INT8), names, feeds):
        for index, code in enumerate(codes):
            values[index] += code.size
            saturated[index] += int((np.abs(code.astype(np.int16)) >= 127).sum())
    rows = [
        Saturation(node.input[0], int(v), int(s)) for node, v, s in zip(quantisers, values, saturated, strict=True)
    ]
    return sorted(rows, key=lambda row: -row.share)
