"""Rewrites of an explicit symmetric Q/DQ graph: lossless ones for x86 kernels, and its float twin to compare with.

The artefact quantises activations to signed 8 bits with zero point 0, which is what TensorRT and ARM want. The x86
kernels of ONNX Runtime are fast only for unsigned activations, and before VNNI exact only for unsigned weights as well.
Shifting both the zero point and the stored value by 128 changes neither the rounding (it happens before the zero point
is added) nor the saturation bounds ([-128, 127] becomes [0, 255]), so the dequantised numbers are the same to the
last bit.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edge_wam.engines.qdq_lint import activation_quantisers, lint
from edge_wam.errors import EngineError

_ZERO_128 = "edge_wam_zero_point_128"


def require_lint(name: str, proto: onnx.ModelProto) -> None:
    """Refuse a graph that breaks a rule of :mod:`edge_wam.engines.qdq_lint` (EngineError names the first)."""
    problems = lint(proto)
    if problems:
        raise EngineError(
            f"graph {name!r}: {problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""),
            expected="explicit symmetric INT8 Q/DQ",
            remedy="quantise the graph again with the exporter",
        )


def to_unsigned(name: str, proto: onnx.ModelProto, *, weights: bool = False) -> None:
    """Rewrite every signed activation Q/DQ pair in place as unsigned with zero point 128; with ``weights`` those, too.

    Raises:
        EngineError: the graph breaks a rule of :mod:`edge_wam.engines.qdq_lint`; the rewrite could change numbers.
    """
    require_lint(name, proto)
    codes = {node.output[0] for node in activation_quantisers(proto)}
    if not codes:
        return
    proto.graph.initializer.append(numpy_helper.from_array(np.array(128, np.uint8), _ZERO_128))
    for node in proto.graph.node:
        if codes.intersection(node.output) or (node.op_type == "DequantizeLinear" and node.input[0] in codes):
            _set_inputs(node, node.input[0], node.input[1], _ZERO_128)
            kept = [a for a in node.attribute if a.name != "output_dtype"]
            del node.attribute[:]
            node.attribute.extend(kept)
    if weights:
        _shift_weights(proto)
    # Stale type annotations of the 8-bit tensors would contradict the new type.
    kept_info = [value for value in proto.graph.value_info if value.name not in codes]
    del proto.graph.value_info[:]
    proto.graph.value_info.extend(kept_info)


def _set_inputs(node: onnx.NodeProto, *inputs: str) -> None:
    del node.input[:]
    node.input.extend(inputs)


def _shift_weights(proto: onnx.ModelProto) -> None:
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in [n for n in proto.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants]:
        code, scale = node.input[0], node.input[1]
        if constants[code].data_type == TensorProto.INT8:  # not yet shifted for another reader
            codes = numpy_helper.to_array(constants[code]).astype(np.int16) + 128
            constants[code].CopyFrom(numpy_helper.from_array(codes.astype(np.uint8), code))
        zero = f"{node.output[0]}.{_ZERO_128}"
        zeros = np.full(tuple(constants[scale].dims), 128, np.uint8)
        proto.graph.initializer.append(numpy_helper.from_array(zeros, zero))
        _set_inputs(node, code, scale, zero)


def to_float(name: str, proto: onnx.ModelProto) -> int:
    """Remove quantisation in place: activations pass through, weights become float32; return how many nodes went.

    The result does the same float work as the graph before quantisation (same shapes, same operators), which makes it
    the fair opponent of the INT8 graph in a benchmark. Its numbers differ from both by the rounding of the weights.

    Raises:
        EngineError: as :func:`to_unsigned`.
    """
    require_lint(name, proto)
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    renamed: dict[str, str] = {}
    kept: list[onnx.NodeProto] = []
    removed = 0
    for node in proto.graph.node:
        for index, value in enumerate(node.input):
            node.input[index] = renamed.get(value, value)
        if node.op_type == "QuantizeLinear":
            renamed[node.output[0]] = node.input[0]
        elif node.op_type == "DequantizeLinear" and node.input[0] in constants:
            codes = numpy_helper.to_array(constants[node.input[0]])
            scale = numpy_helper.to_array(constants[node.input[1]])
            shape = [1] * codes.ndim
            if scale.ndim == 1:
                axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
                shape[axis] = len(scale)
            weight = codes.astype(np.float32) * scale.astype(np.float32).reshape(shape)
            proto.graph.initializer.append(numpy_helper.from_array(weight, node.output[0]))
        elif node.op_type == "DequantizeLinear":
            renamed[node.output[0]] = node.input[0]
        else:
            kept.append(node)
            continue
        removed += 1
    del proto.graph.node[:]
    proto.graph.node.extend(kept)
    used = {value for node in kept for value in node.input}
    tensors = [tensor for tensor in proto.graph.initializer if tensor.name in used]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(tensors)
    del proto.graph.value_info[:]
    return removed
