"""The INT8 graph runs in integers, and re-encoding it for a processor changes no bit of any result."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_wam.engines.onnx_cpu import Encoding, OnnxCpuEngine, best_encoding, executed_operators
from edge_wam.engines.requantise import to_float, to_unsigned
from tests.support.tiny_bundle import tiny_parts

ROWS, INNER, COLUMNS = 5, 24, 16
# On a processor that saturates mixed products, that encoding is wrong by design and never chosen.
ENCODINGS: tuple[Encoding, ...] = ("u8u8", "s8s8", "u8s8") if best_encoding() == "u8s8" else ("u8u8", best_encoding())


def linear(
    codes: NDArray[np.int8], weight_scale: NDArray[np.float32], scale: float, *, bias: bool = False, rows: int = ROWS
) -> bytes:
    """x [rows, K] -> DQ(Q(x)) @ DQ(codes) (+ 0) as an explicit symmetric Q/DQ graph."""
    inner, columns = codes.shape
    constants = [
        numpy_helper.from_array(np.float32(scale), "s"),
        numpy_helper.from_array(np.int8(0), "zero"),
        numpy_helper.from_array(codes, "w"),
        numpy_helper.from_array(weight_scale, "ws"),
        numpy_helper.from_array(np.zeros(columns, np.float32), "b"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]) if bias else helper.make_node("Identity", ["m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, columns])],
        constants,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return bytes(proto.SerializeToString())


def run(model: bytes, x: NDArray[np.float32], *, encoding: Encoding | None = None) -> NDArray[np.float32]:
    engine = OnnxCpuEngine("linear", model, encoding=encoding)
    y = np.zeros(engine.outputs["y"].shape, np.float32)
    engine.run({"x": x}, {"y": y})
    return y


# Halves of the scale are where rounding decides, multiples of 128 where saturation does.
_INTERESTING = st.one_of(
    st.integers(-300, 300).map(lambda k: k / 2),
    st.floats(-200, 200, width=32),
    st.sampled_from([-0.0, 1e30, -1e30, 3.4e38, 127.5, -128.5, 127.49999, -128.50002]),
)


@given(
    codes=hnp.arrays(np.int8, (INNER, COLUMNS), elements=st.integers(-127, 127)),
    units=hnp.arrays(np.float32, (ROWS, INNER), elements=_INTERESTING.map(np.float32)),
    power=st.integers(-8, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_encoding_and_integer_arithmetic_agree_to_the_last_bit(
    codes: NDArray[np.int8], units: NDArray[np.float32], power: int
) -> None:
    scale = 2.0**power
    with np.errstate(over="ignore"):
        x = (units * np.float32(scale)).astype(np.float32)
    x = np.nan_to_num(x)
    quantised = np.clip(np.rint(x / np.float32(scale)), -128, 127).astype(np.int64)
    exact = (quantised @ codes.astype(np.int64)) * (scale * 2.0**-6)  # powers of two: every product is exact in float32
    model = linear(codes, np.full(COLUMNS, 2.0**-6, np.float32), scale)
    for encoding in ENCODINGS:
        np.testing.assert_array_equal(run(model, x, encoding=encoding), exact.astype(np.float32))


def test_odd_scales_round_alike_in_every_encoding() -> None:
    random = np.random.default_rng(3)
    for _ in range(20):
        codes = random.integers(-127, 128, (96, 64)).astype(np.int8)
        scale = float(np.float32(random.uniform(0.001, 0.1)))
        model = linear(codes, random.uniform(0.001, 0.02, 64).astype(np.float32), scale, rows=33)
        x = (random.normal(size=(33, 96)) * scale * 60).astype(np.float32)
        results = [run(model, x, encoding=encoding) for encoding in ENCODINGS]
        for other in results[1:]:
            np.testing.assert_array_equal(results[0], other)


def test_products_that_share_an_activation_are_integer_products_in_every_encoding() -> None:
    """Query, key and value read one quantised tensor; each must be an integer product, or they round differently."""
    random = np.random.default_rng(5)
    names = ("query", "key", "value")
    constants = {"s": np.float32(0.013), "zero": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "zero"], ["xd"]),
    ]
    for name in names:
        constants[f"{name}.w"] = random.integers(-127, 128, (96, 64)).astype(np.int8)  # type: ignore[assignment]
        constants[f"{name}.s"] = random.uniform(0.001, 0.02, 64).astype(np.float32)  # type: ignore[assignment]
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.w", f"{name}.s"], [f"{name}.d"], axis=1))
        nodes.append(helper.make_node("MatMul", ["xd", f"{name}.d"], [name]))
    graph = helper.make_graph(
        nodes,
        "shared",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [33, 96])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [33, 64]) for name in names],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()
    assert executed_operators("shared", model)["MatMulIntegerToFloat"] == 3
    x = random.normal(size=(33, 96)).astype(np.float32)
    results = []
    for encoding in ENCODINGS:
        engine = OnnxCpuEngine("shared", model, encoding=encoding)
        outputs = {name: spec.empty() for name, spec in engine.outputs.items()}
        engine.run({"x": x}, outputs)
        results.append(outputs)
    for name in names:
        for other in results[1:]:
            np.testing.assert_array_equal(results[0][name], other[name])


def test_the_largest_products_do_not_saturate() -> None:
    """255 * 127 twice does not fit in 16 bits; a processor that adds them there is found out and not used that way."""
    codes = np.full((256, 16), 127, np.int8)
    x = np.full((ROWS, 256), 127, np.float32)
    expected = np.full((ROWS, 16), 127.0 * 127 * 256, np.float32)
    np.testing.assert_array_equal(run(linear(codes, np.ones(16, np.float32), 1.0), x), expected)


@pytest.mark.parametrize("bias", [False, True])
def test_a_quantised_product_runs_in_integers(bias: bool) -> None:
    """With the bias, the fusion that would turn it into a float Gemm is switched off."""
    model = linear(np.ones((64, 64), np.int8), np.ones(64, np.float32), 0.5, bias=bias)
    ran = executed_operators("linear", model)
    assert ran["MatMulIntegerToFloat"] == 1
    assert ran["MatMul"] == ran["Gemm"] == ran["FusedMatMul"] == ran["DequantizeLinear"] == 0


def test_every_product_of_the_step_runs_in_integers_and_its_float_twin_has_none() -> None:
    step = tiny_parts().graphs["step"]
    products = sum(node.op_type == "MatMul" for node in onnx.load_model_from_string(step).graph.node)
    ran = executed_operators("step", step)
    assert ran["MatMulIntegerToFloat"] == products == 5
    assert ran["MatMul"] == ran["Gemm"] == ran["FusedMatMul"] == 0
    twin = onnx.load_model_from_string(step)
    assert to_float("step", twin) == 4 * 2 + 5 + 2  # Q and DQ of five activations, DQ of five weights
    ran = executed_operators("step", twin.SerializeToString())
    assert ran["MatMulIntegerToFloat"] == ran["QuantizeLinear"] == ran["DequantizeLinear"] == 0
    assert ran["MatMul"] + ran["Gemm"] + ran["FusedMatMul"] == 5


def test_the_float_twin_has_the_same_interface_and_nearly_the_same_numbers() -> None:
    codes = np.random.default_rng(0).integers(-127, 128, (64, 64)).astype(np.int8)
    model = linear(codes, np.full(64, 0.01, np.float32), 0.02)
    proto = onnx.load_model_from_string(model)
    to_float("linear", proto)
    x = np.random.default_rng(1).normal(size=(ROWS, 64)).astype(np.float32)
    twin = run(proto.SerializeToString(), x)
    np.testing.assert_allclose(twin, x @ (codes * np.float32(0.01)), rtol=1e-4, atol=1e-5)
    assert 0 < np.abs(twin - run(model, x)).max() < 0.01 * np.abs(codes.astype(int)).sum(0).max() * 0.02


def test_a_float_graph_is_left_alone() -> None:
    proto = onnx.load_model_from_string(tiny_parts(int8=False).graphs["step"])
    before = proto.SerializeToString()
    to_unsigned("step", proto, weights=True)
    assert proto.SerializeToString() == before
    assert to_float("step", proto) == 0 and len(proto.graph.node) == len(onnx.load_model_from_string(before).graph.node)


def test_the_engine_says_how_it_feeds_activations() -> None:
    info = OnnxCpuEngine("step", tiny_parts().graphs["step"]).describe()
    assert info.quantised_inputs == 5
    assert info.encoding == best_encoding()
    assert OnnxCpuEngine("step", tiny_parts(int8=False).graphs["step"]).describe().encoding == "float32"
