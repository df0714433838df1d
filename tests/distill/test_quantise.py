"""Calibration: the streaming histogram is numpy's percentile to one bin, and refuses what is no number."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from distill.quantise import BINS, Histogram, calibrate, insert_qdq, quantisable
from edge_wam.engines.qdq_lint import lint
from edge_wam.errors import ContractError


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000), scales=st.lists(st.floats(1e-3, 1e4), min_size=1, max_size=5),
    percent=st.sampled_from([50.0, 90.0, 99.0, 99.99, 100.0]),
)  # fmt: skip
def test_percentile_is_numpys_to_one_bin(seed: int, scales: list[float], percent: float) -> None:
    rng = np.random.default_rng(seed)
    batches = [(rng.standard_normal(400) * scale).astype(np.float32) for scale in scales]
    histogram = Histogram()
    for batch in batches:
        histogram.add(batch)
    values = np.abs(np.concatenate(batches))
    assert histogram.counts.sum() == values.size, "no value is lost when the range grows"
    assert histogram.top < 2.0 * max(values.max(), 1e-6)
    wanted = np.percentile(values, percent, method="inverted_cdf")
    assert abs(histogram.percentile(percent) - wanted) <= 1.01 * histogram.top / BINS + 1e-7 * wanted


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(ContractError, match="a number that is none"):
        Histogram().add(np.array([1.0, bad], np.float32))


def _two_layers() -> onnx.ModelProto:
    rng = np.random.default_rng(3)
    weights = {name: rng.standard_normal((8, 8)).astype(np.float32) for name in ("keep.weight", "int.weight")}
    nodes = [
        helper.make_node("MatMul", ["x", "keep.weight"], ["h"], name="keep"),
        helper.make_node("MatMul", ["h", "int.weight"], ["y"], name="int"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 8])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_only_what_is_not_kept_becomes_int8() -> None:
    model = _two_layers()
    nodes = quantisable(model.graph, ["keep"])
    assert [node.name for node in nodes] == ["int"]
    feeds = [{"x": np.random.default_rng(k).standard_normal((1, 4, 8)).astype(np.float32)} for k in range(4)]
    out = insert_qdq(model, nodes, calibrate(model, nodes, feeds))
    tensors = {t.name: numpy_helper.to_array(t) for t in out.graph.initializer}
    assert tensors["keep.weight"].dtype == np.float32 and tensors["int.weight.int8"].dtype == np.int8
    assert "int.weight" not in tensors, "the float copy is gone"
    original = numpy_helper.to_array(model.graph.initializer[1])
    restored = tensors["int.weight.int8"] * tensors["int.weight.scale"]
    assert (np.abs(restored - original) <= tensors["int.weight.scale"] / 2 + 1e-7).all()
    assert (np.abs(tensors["int.weight.int8"]).max(0) == 127).all(), "every output channel uses its whole range"
    assert lint(out) == []
    assert len(model.graph.node) == 2, "the float model stays as it was"


def test_nothing_to_calibrate_on_is_refused() -> None:
    model = _two_layers()
    with pytest.raises(ContractError, match="nothing to calibrate on"):
        calibrate(model, quantisable(model.graph, []), [])
