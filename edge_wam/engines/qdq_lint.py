"""Is a graph's INT8 quantisation of the one kind that every backend maps to integer kernels?

Parsers accept more than hardware can multiply: TensorRT's takes weight scales along the reduced axis and per-channel
activation scales without a word and then computes in float; ONNX itself defaults an omitted zero point to *unsigned*.
So the contract is checked here, on the artefact, before anybody relies on its speed or its numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

_FOREIGN = {
    "DynamicQuantizeLinear",
    "MatMulInteger",
    "ConvInteger",
    "QLinearMatMul",
    "QLinearConv",
}
# The operators with integer kernels, and which axis of their constant weight is the output channel.
_WEIGHT_AXIS = {"MatMul": -1, "Conv": 0, "ConvTranspose": 1, "Gemm": 1}
_SMALLEST_NORMAL = {np.dtype(np.float32): 2.0**-126, np.dtype(np.float16): 2.0**-14}
_OPSET_PER_CHANNEL = 13
_OPSET_HALF_SCALE = 19


def activation_quantisers(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The QuantizeLinear nodes (weights are stored quantised and have none)."""
    return [node for node in proto.graph.node if node.op_type == "QuantizeLinear"]


def lint(proto: onnx.ModelProto) -> list[str]:
    """Every broken rule as a sentence that names the node; an empty list for a float graph or a good INT8 graph."""
    return _Lint(proto).problems()


class _Lint:
    def __init__(self, proto: onnx.ModelProto) -> None:
        self.graph = proto.graph
        self.opset = max((o.version for o in proto.opset_import if o.domain in {"", "ai.onnx"}), default=1)
        interface = {v.type.tensor_type.elem_type for v in (*proto.graph.input, *proto.graph.output)}
        half = TensorProto.FLOAT16 in interface and TensorProto.FLOAT not in interface
        self.float_type: np.dtype[np.generic] = np.dtype(np.float16 if half else np.float32)
        self.constants: Mapping[str, TensorProto] = {t.name: t for t in proto.graph.initializer}
        self.producer = {out: node for node in proto.graph.node for out in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in proto.graph.node:
            for value in node.input:
                self.consumers[value].append(node)
        self.found: list[str] = []

    def problems(self) -> list[str]:
        for node in self.graph.node:
            if node.op_type in _FOREIGN:
                self._say(node, "computes in integers by itself", "only QuantizeLinear / DequantizeLinear pairs")
            elif node.op_type == "QuantizeLinear":
                self._quantise(node)
            elif node.op_type == "DequantizeLinear":
                self._dequantise(node)
            elif node.op_type in _WEIGHT_AXIS:
                self._product(node)
        return self.found

    def _product(self, node: onnx.NodeProto) -> None:
        """An operator that has an integer kernel: what it multiplies must be of one kind, and of a kind that exists."""
        made_by = [self.producer.get(value) for value in node.input[:2]]
        quantised = [m is not None and m.op_type == "DequantizeLinear" for m in made_by]
        if not any(quantised):
            return
        weight = made_by[1]
        if all(quantised) and weight is not None and weight.input[0] not in self.constants:
            self._say(node, "multiplies two quantised activations", "float products in attention: it is fused as one")
        elif quantised[0] and not quantised[1]:
            self._say(node, "multiplies a quantised activation with a float weight", "both sides quantised, or neither")
        shape = self._weight_shape(weight)
        if node.op_type in {"Conv", "ConvTranspose"} and len(shape) > 4:
            self._say(node, f"is a quantised convolution over {len(shape) - 2} axes", "at most 2: more have no kernel")

    def _weight_shape(self, dequantise: onnx.NodeProto | None) -> tuple[int, ...]:
        tensor = None if dequantise is None else self.constants.get(dequantise.input[0])
        return () if tensor is None else tuple(tensor.dims)

    def _say(self, node: onnx.NodeProto, what: str, expected: str) -> None:
        label = node.name or (node.output[0] if node.output else node.op_type)
        self.found.append(f"{node.op_type} {label!r} {what}; expected {expected}")

    def _is_constant(self, value: str) -> bool:
        """Whether a value is the same in every call: an initialiser, or made of nothing else."""
        made_by = self.producer.get(value)
        if made_by is None:
            return value in self.constants
        if made_by.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            return False
        return all(map(self._is_constant, made_by.input))

    def _constant(self, node: onnx.NodeProto, index: int) -> NDArray[np.generic] | None:
        if len(node.input) <= index or not node.input[index]:
            return None
        tensor = self.constants.get(node.input[index])
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _common(self, node: onnx.NodeProto) -> NDArray[np.float32] | None:
        """The scale, once it and the zero point are sound; else says why and returns None."""
        scale = self._constant(node, 1)
        complaint = self._scale_complaint(scale) or self._type_complaint(node) or self._opset_complaint(scale)
        if complaint is not None:
            self._say(node, *complaint)
            return None
        assert scale is not None
        return scale.astype(np.float32, copy=False)

    def _scale_complaint(self, scale: NDArray[np.generic] | None) -> tuple[str, str] | None:
        if scale is None:
            return "has no constant scale", "a scale in the file"
        if scale.dtype != self.float_type:
            return f"has a {scale.dtype} scale", f"{self.float_type} like the graph"
        if scale.ndim > 1:
            return f"has a scale of {scale.ndim} axes", "one number, or one for each channel"
        values = scale.astype(np.float64)
        if not np.isfinite(values).all() or not (values > 0).all():
            return "has a scale that is not positive and finite", "a positive number"
        least = _SMALLEST_NORMAL[self.float_type]
        if (values < least).any():
            return "has a subnormal scale, which a GPU takes for zero", f"{least:.3g} or more"
        return None

    def _opset_complaint(self, scale: NDArray[np.generic] | None) -> tuple[str, str] | None:
        if self.opset < _OPSET_PER_CHANNEL and scale is not None and scale.size > 1:
            return f"has scales per channel in opset {self.opset}", f"opset {_OPSET_PER_CHANNEL} or later"
        if self.opset < _OPSET_HALF_SCALE and self.float_type == np.float16:
            return f"has a float16 scale in opset {self.opset}", f"opset {_OPSET_HALF_SCALE} or later"
        return None

    def _type_complaint(self, node: onnx.NodeProto) -> tuple[str, str] | None:
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        output = attributes.get("output_dtype", 0)
        if attributes.get("block_size", 0):
            return "is blocked", "one scale per tensor or per output channel"
        if node.op_type == "QuantizeLinear" and output not in (0, TensorProto.INT8):
            return "does not produce int8", "int8"
        if len(node.input) > 2 and node.input[2] != "":
            zero = self._constant(node, 2)
            if zero is None or zero.dtype != np.int8 or zero.any():
                return "is not symmetric int8", "int8 zero point 0"
        elif node.op_type == "QuantizeLinear" and output != TensorProto.INT8:
            return "has no zero point, which ONNX reads as unsigned", "an explicit int8 zero point 0"
        return None

    def _quantise(self, node: onnx.NodeProto) -> None:
        scale = self._common(node)
        if scale is None:
            return
        if scale.size != 1:
            self._say(node, f"has {scale.size} activation scales", "one per tensor: it must factor out of the sum")
        if self._is_constant(node.input[0]):
            self._say(node, "quantises a constant at run time", "weights stored as int8")
        readers = self.consumers[node.output[0]]
        if not readers or any(r.op_type != "DequantizeLinear" for r in readers):
            self._say(node, "is not followed by DequantizeLinear alone", "a Q/DQ pair")
        elif any(r.input[1] != node.input[1] for r in readers):
            self._say(node, "is undone with another scale", "the same scale on both sides")
        if any(out.name == node.output[0] for out in self.graph.output):
            self._say(node, "is an output of the graph", "a float32 interface")

    def _dequantise(self, node: onnx.NodeProto) -> None:
        scale = self._common(node)
        if scale is None:
            return
        source = node.input[0]
        weight = self.constants.get(source)
        if any(out.name == node.output[0] for out in self.graph.output):
            self._say(node, "is an output of the graph", "a result computed in float32")
        if weight is None:
            made_by = self.producer.get(source)
            if made_by is None or made_by.op_type != "QuantizeLinear":
                self._say(node, "dequantises neither a weight nor a quantised activation", "a Q/DQ pair")
            elif scale.size != 1:
                self._say(node, f"has {scale.size} activation scales", "one per tensor")
            elif any(r.op_type not in _WEIGHT_AXIS for r in self.consumers[node.output[0]]):
                odd = next(r.op_type for r in self.consumers[node.output[0]] if r.op_type not in _WEIGHT_AXIS)
                self._say(node, f"feeds {odd}, which has no integer kernel", " or ".join(sorted(_WEIGHT_AXIS)))
            return
        self._weight(node, weight, scale)

    def _weight(self, node: onnx.NodeProto, weight: TensorProto, scale: NDArray[np.float32]) -> None:
        if weight.data_type != TensorProto.INT8:
            self._say(node, f"has a weight of ONNX type {weight.data_type}", "int8 (biases stay float32)")
            return
        codes = numpy_helper.to_array(weight)
        if codes.size and int(codes.min()) < -127:
            self._say(node, "has a weight of -128", "-127..127, so that the negative of every weight exists")
        zero = self._constant(node, 2)
        if zero is not None and zero.size != scale.size:
            self._say(node, f"has {zero.size} zero points for {scale.size} scales", "as many as scales")
        if not self.consumers[node.output[0]]:
            self._say(node, "feeds nothing", "no weight that nothing reads")
        for reader in self.consumers[node.output[0]]:
            if reader.op_type not in _WEIGHT_AXIS or list(reader.input).index(node.output[0]) != 1:
                self._say(node, f"feeds {reader.op_type} other than as its weight", " or ".join(sorted(_WEIGHT_AXIS)))
                continue
            self._weight_axis(node, reader, codes.shape, scale)
            made_by = self.producer.get(reader.input[0])
            if made_by is None or made_by.op_type != "DequantizeLinear":
                self._say(node, "is multiplied with a float activation", "both sides quantised, or neither")

    def _weight_axis(
        self, node: onnx.NodeProto, reader: onnx.NodeProto, shape: tuple[int, ...], scale: NDArray[np.float32]
    ) -> None:
        if scale.size == 1:
            return
        channel = _WEIGHT_AXIS[reader.op_type] % len(shape)
        if reader.op_type == "Gemm" and any(a.name == "transB" and a.i for a in reader.attribute):
            channel = 0
        axis = next((a.i for a in node.attribute if a.name == "axis"), 1) % len(shape)
        if axis != channel:
            self._say(node, f"scales axis {axis} of the weight", f"axis {channel}, the output channel")
        elif scale.size != shape[channel]:
            self._say(node, f"has {scale.size} scales for {shape[channel]} channels", "one per output channel")
