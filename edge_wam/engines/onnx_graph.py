"""Reading ONNX graphs safely: nothing outside the given bytes is ever opened, and every shape is fixed."""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, ValueInfoProto

from edge_wam.engines.engine import TensorSpec
from edge_wam.errors import EngineError

_DTYPES: dict[int, str] = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64"}
_DOMAINS = {"", "ai.onnx"}


def parse_graph(name: str, model: bytes) -> onnx.ModelProto:
    """Parse ``model`` and refuse what a self-contained, portable, static graph never has.

    Refused: bytes that are no ONNX, tensors stored in other files (a path out of the bundle), operators outside the
    standard ONNX domain (they exist in one runtime only), local functions, and subgraphs.

    Raises:
        EngineError: names the graph and the offending node or tensor.
    """
    try:
        proto = onnx.load_model_from_string(model)
    except DecodeError as error:
        raise EngineError(f"graph {name!r} is not ONNX: {error}", remedy="export it again") from error
    if not proto.graph.node:
        raise EngineError(f"graph {name!r} has no node", remedy="export it again")
    if proto.functions:
        raise EngineError(f"graph {name!r} has local functions", expected="plain nodes", remedy="inline them at export")
    for tensor in proto.graph.initializer:
        _refuse_external(name, tensor)
    for node in proto.graph.node:
        if node.domain not in _DOMAINS:
            raise EngineError(
                f"graph {name!r}: node {node.name or node.op_type!r} is of domain {node.domain!r}",
                expected="operators of the standard ONNX domain",
                remedy="export without fused or vendor operators",
            )
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise EngineError(
                    f"graph {name!r}: node {node.name or node.op_type!r} holds a subgraph",
                    expected="no control flow: one fixed amount of work per call",
                )
            if attribute.HasField("t"):
                _refuse_external(name, attribute.t)
    return proto


def _refuse_external(name: str, tensor: TensorProto) -> None:
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise EngineError(
            f"graph {name!r}: tensor {tensor.name!r} is stored in another file",
            expected="weights inside the graph, where the bundle's hash covers them",
            remedy="export without external data",
        )


def graph_io(name: str, proto: onnx.ModelProto) -> tuple[dict[str, TensorSpec], dict[str, TensorSpec]]:
    """Inputs and outputs with fixed shapes; initialisers listed as inputs do not count.

    Raises:
        EngineError: a dynamic dimension, or a type other than float32 and int64.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    inputs = (value for value in proto.graph.input if value.name not in constants)
    return _specs(name, inputs), _specs(name, proto.graph.output)


def _specs(name: str, values: Iterable[ValueInfoProto]) -> dict[str, TensorSpec]:
    specs: dict[str, TensorSpec] = {}
    for value in values:
        tensor = value.type.tensor_type
        dtype = _DTYPES.get(tensor.elem_type)
        if dtype is None:
            raise EngineError(
                f"graph {name!r}: {value.name!r} has ONNX type {tensor.elem_type}", expected="float32 or int64"
            )
        shape = []
        for axis, dim in enumerate(tensor.shape.dim):
            if not dim.HasField("dim_value") or dim.dim_value < 1:
                raise EngineError(
                    f"graph {name!r}: {value.name!r} axis {axis} is dynamic ({dim.dim_param or 'unnamed'})",
                    expected="fixed shapes: the time of a call must not depend on its input",
                    remedy="export with static shapes",
                )
            shape.append(int(dim.dim_value))
        specs[value.name] = TensorSpec(dtype, tuple(shape))
    return specs
