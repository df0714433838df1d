"""Every rule of the quantisation contract, each with a graph that breaks only it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_wam.engines import open_engine
from edge_wam.engines.qdq_lint import lint
from edge_wam.errors import EngineError
from tests.support.tiny_bundle import tiny_parts

Edit = Callable[[onnx.ModelProto], None]


def good() -> onnx.ModelProto:
    return onnx.load_model_from_string(tiny_parts().graphs["step"])


def _of(proto: onnx.ModelProto, op: str, index: int = 0) -> onnx.NodeProto:
    return [node for node in proto.graph.node if node.op_type == op][index]


def _replace(proto: onnx.ModelProto, name: str, value: object, dtype: type) -> None:
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value, dtype), name))


def _weight_node(proto: onnx.ModelProto) -> onnx.NodeProto:
    return next(n for n in proto.graph.node if n.op_type == "DequantizeLinear" and len(n.input) == 2)


def _codes(proto: onnx.ModelProto) -> np.ndarray:
    name = _weight_node(proto).input[0]
    return np.array(numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == name)))


def _attribute(node: onnx.NodeProto, name: str, value: object) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _unsigned_zero(p: onnx.ModelProto) -> None:
    _replace(p, _of(p, "QuantizeLinear").input[2], 128, np.uint8)


def _shifted_zero(p: onnx.ModelProto) -> None:
    _replace(p, _of(p, "QuantizeLinear").input[2], 3, np.int8)


def _no_zero(p: onnx.ModelProto) -> None:
    del _of(p, "QuantizeLinear").input[2]


def _negative_scale(p: onnx.ModelProto) -> None:
    _replace(p, _of(p, "QuantizeLinear").input[1], -0.1, np.float32)


def _zero_scale(p: onnx.ModelProto) -> None:
    _replace(p, _of(p, "QuantizeLinear").input[1], 0.0, np.float32)


def _nan_scale(p: onnx.ModelProto) -> None:
    _replace(p, _weight_node(p).input[1], np.full(16, np.nan), np.float32)


def _half_scale(p: onnx.ModelProto) -> None:
    _replace(p, _of(p, "QuantizeLinear").input[1], 0.1, np.float16)


def _computed_scale(p: onnx.ModelProto) -> None:
    _of(p, "QuantizeLinear").input[1] = "computed"


def _channel_activation(p: onnx.ModelProto) -> None:
    _replace(p, _of(p, "QuantizeLinear").input[1], np.full(4, 0.1), np.float32)


def _unpaired(p: onnx.ModelProto) -> None:
    quantised = _of(p, "QuantizeLinear").output[0]
    p.graph.node.append(helper.make_node("Cast", [quantised], ["cast"], to=TensorProto.FLOAT))


def _other_scale_back(p: onnx.ModelProto) -> None:
    quantised = _of(p, "QuantizeLinear").output[0]
    other = numpy_helper.from_array(np.float32(0.7), "other_scale")
    p.graph.initializer.append(other)
    reader = next(n for n in p.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == quantised)
    reader.input[1] = "other_scale"


def _feeds_add(p: onnx.ModelProto) -> None:
    quantised = _of(p, "QuantizeLinear").output[0]
    reader = next(n for n in p.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == quantised)
    p.graph.node.append(helper.make_node("Add", [reader.output[0], reader.output[0]], ["twice"]))


def _most_negative_weight(p: onnx.ModelProto) -> None:
    codes = _codes(p)
    codes[0, 0] = -128
    _replace(p, _weight_node(p).input[0], codes, np.int8)


def _unsigned_weight(p: onnx.ModelProto) -> None:
    _replace(p, _weight_node(p).input[0], np.abs(_codes(p)), np.uint8)


def _summed_axis(p: onnx.ModelProto) -> None:
    node = _weight_node(p)
    _attribute(node, "axis", 0)
    _replace(p, node.input[1], np.full(_codes(p).shape[0], 0.1), np.float32)


def _wrong_count(p: onnx.ModelProto) -> None:
    _replace(p, _weight_node(p).input[1], np.full(3, 0.1), np.float32)


def _blocked(p: onnx.ModelProto) -> None:
    _attribute(_weight_node(p), "block_size", 2)


def _float_activation(p: onnx.ModelProto) -> None:
    product = _of(p, "MatMul")
    product.input[0] = "latent"


def _integer_bias(p: onnx.ModelProto) -> None:
    p.graph.initializer.append(numpy_helper.from_array(np.zeros(16, np.int32), "bias"))
    p.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "bias_scale"))
    p.graph.node.append(helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["bias_dq"]))


def _dynamic(p: onnx.ModelProto) -> None:
    p.graph.node.append(helper.make_node("DynamicQuantizeLinear", ["latent"], ["dq", "ds", "dz"]))


def _runtime_weight(p: onnx.ModelProto) -> None:
    p.graph.initializer.append(numpy_helper.from_array(np.ones((4, 4), np.float32), "float_weight"))
    _of(p, "QuantizeLinear").input[0] = "float_weight"


def _made_weight(p: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.ones((4, 4), np.float32))
    p.graph.node.insert(0, helper.make_node("Constant", [], ["held"], value=value))
    p.graph.node.insert(1, helper.make_node("Transpose", ["held"], ["turned"]))
    _of(p, "QuantizeLinear").input[0] = "turned"


def _float_weight(p: onnx.ModelProto) -> None:
    product = _of(p, "MatMul")
    rows = _codes(p).shape
    p.graph.initializer.append(numpy_helper.from_array(np.ones(rows, np.float32), "float_weight"))
    product.input[1] = "float_weight"


def _attention(p: onnx.ModelProto) -> None:
    quantised = _of(p, "QuantizeLinear").output[0]
    reader = next(n for n in p.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == quantised)
    p.graph.node.append(helper.make_node("MatMul", [reader.output[0], reader.output[0]], ["scores"]))


def _attention_operator(p: onnx.ModelProto) -> None:
    quantised = _of(p, "QuantizeLinear").output[0]
    reader = next(n for n in p.graph.node if n.op_type == "DequantizeLinear" and n.input[0] == quantised)
    p.graph.node.append(helper.make_node("Attention", [reader.output[0]] * 3, ["attended"]))


def _turned_weight(p: onnx.ModelProto) -> None:
    product = _of(p, "MatMul")
    p.graph.node.append(helper.make_node("Transpose", [product.input[1]], ["turned"]))
    product.input[1] = "turned"


def _three_axes(p: onnx.ModelProto) -> None:
    left = _of(p, "MatMul").input[0]
    p.graph.initializer.append(numpy_helper.from_array(np.ones((2, 2, 1, 1, 1), np.int8), "kernel"))
    p.graph.initializer.append(numpy_helper.from_array(np.full(2, 0.1, np.float32), "kernel_scale"))
    p.graph.node.append(helper.make_node("DequantizeLinear", ["kernel", "kernel_scale"], ["kernel_dq"], axis=0))
    p.graph.node.append(helper.make_node("Conv", [left, "kernel_dq"], ["filmed"]))


def _subnormal_scale(p: onnx.ModelProto) -> None:
    _replace(p, _of(p, "QuantizeLinear").input[1], 1e-40, np.float32)


def _table_of_scales(p: onnx.ModelProto) -> None:
    _replace(p, _weight_node(p).input[1], np.full((1, _codes(p).shape[1]), 0.1), np.float32)


def _one_zero_for_all(p: onnx.ModelProto) -> None:
    p.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.int8), "zero_of_weight"))
    _weight_node(p).input.append("zero_of_weight")


def _unread_weight(p: onnx.ModelProto) -> None:
    node = _weight_node(p)
    p.graph.node.append(helper.make_node("DequantizeLinear", [*node.input], ["unread"], axis=1))


def _half_graph(p: onnx.ModelProto) -> None:
    for value in (*p.graph.input, *p.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16


def _old_opset(p: onnx.ModelProto) -> None:
    p.opset_import[0].version = 12


def _quantised_output(p: onnx.ModelProto) -> None:
    node = next(n for n in p.graph.node if n.output[0] == "action")
    dequantised = next(n for n in p.graph.node if n.op_type == "DequantizeLinear" and len(n.input) == 3)
    p.graph.node.remove(node)
    dequantised.output[0] = "action"


RULES: dict[str, tuple[Edit, str]] = {
    "unsigned": (_unsigned_zero, "is not symmetric int8"),
    "shifted": (_shifted_zero, "is not symmetric int8"),
    "zero point left out": (_no_zero, "which ONNX reads as unsigned"),
    "negative scale": (_negative_scale, "not positive and finite"),
    "zero scale": (_zero_scale, "not positive and finite"),
    "NaN scale": (_nan_scale, "not positive and finite"),
    "half scale": (_half_scale, "float16 scale"),
    "computed scale": (_computed_scale, "no constant scale"),
    "activation scale per channel": (_channel_activation, "4 activation scales"),
    "quantised and not undone": (_unpaired, "not followed by DequantizeLinear alone"),
    "undone differently": (_other_scale_back, "another scale"),
    "feeds no product": (_feeds_add, "feeds Add, which has no integer kernel"),
    "weight -128": (_most_negative_weight, "weight of -128"),
    "unsigned weight": (_unsigned_weight, "weight of ONNX type 2"),
    "scale along the sum": (_summed_axis, "scales axis 0 of the weight; expected axis 1"),
    "wrong number of scales": (_wrong_count, "3 scales for"),
    "blocked": (_blocked, "is blocked"),
    "half quantised": (_float_activation, "multiplied with a float activation"),
    "integer bias": (_integer_bias, "biases stay float32"),
    "dynamic": (_dynamic, "computes in integers by itself"),
    "weight quantised at run time": (_runtime_weight, "quantises a constant at run time"),
    "constant quantised at run time": (_made_weight, "quantises a constant at run time"),
    "half quantised, the other half": (_float_weight, "multiplies a quantised activation with a float weight"),
    "attention in integers": (_attention, "multiplies two quantised activations"),
    "attention operator on integers": (_attention_operator, "feeds Attention, which has no integer kernel"),
    "weight turned after its scale": (_turned_weight, "feeds Transpose other than as its weight"),
    "convolution over time": (_three_axes, "is a quantised convolution over 3 axes"),
    "subnormal scale": (_subnormal_scale, "subnormal scale"),
    "scale of two axes": (_table_of_scales, "a scale of 2 axes"),
    "zero points unlike scales": (_one_zero_for_all, "1 zero points for"),
    "weight that nothing reads": (_unread_weight, "feeds nothing"),
    "float32 scales in a float16 graph": (_half_graph, "float32 scale; expected float16"),
    "scales per channel before they existed": (_old_opset, "scales per channel in opset 12"),
    "quantised interface": (_quantised_output, "is an output of the graph"),
}


def test_a_good_graph_has_no_problem() -> None:
    assert lint(good()) == []
    assert lint(onnx.load_model_from_string(tiny_parts(int8=False).graphs["step"])) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_named(rule: str) -> None:
    edit, message = RULES[rule]
    proto = good()
    edit(proto)
    assert any(message in problem for problem in lint(proto)), lint(proto)


@pytest.mark.parametrize(("opset", "said"), [(19, []), (18, ["float16 scale in opset 18"])])
def test_a_graph_in_halves_has_scales_in_halves(opset: int, said: list[str]) -> None:
    half = np.float16
    constants = {"s": half(0.1), "z": np.int8(0), "w": np.ones((4, 6), np.int8), "ws": np.full(6, 0.1, half)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT16, [3, w]) for n, w in (("x", 4), ("y", 6))]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "half", ends[:1], ends[1:], tensors)
    found = lint(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)]))
    assert bool(found) == bool(said) and all(said[0] in problem for problem in found)


def test_the_engine_refuses_a_graph_that_breaks_a_rule() -> None:
    proto = good()
    _most_negative_weight(proto)
    with pytest.raises(EngineError, match="weight of -128"):
        open_engine("step", proto.SerializeToString())


def test_a_scale_per_output_channel_of_a_convolution_is_on_axis_0() -> None:
    def conv(axis: int) -> list[str]:
        constants = {
            "s": np.float32(0.1),
            "z": np.int8(0),
            "w": np.ones((6, 3, 2, 2), np.int8),
            "ws": np.ones(6 if axis == 0 else 3, np.float32),
        }
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["xd"]),
            helper.make_node("DequantizeLinear", ["w", "ws"], ["wd"], axis=axis),
            helper.make_node("Conv", ["xd", "wd"], ["y"]),
        ]
        tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
        return lint(helper.make_model(helper.make_graph(nodes, "conv", [], [], tensors)))

    assert conv(0) == []
    assert "expected axis 0" in conv(1)[0]
