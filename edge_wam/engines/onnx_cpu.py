"""ONNX Runtime on the CPU, set up so that an INT8 graph runs in INT8 and no worker burns the control loop's core."""

from __future__ import annotations

import functools
import platform
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edge_wam.engines.engine import Array, EngineInfo, TensorSpec, check_buffers
from edge_wam.engines.onnx_graph import graph_io, parse_graph
from edge_wam.engines.qdq_lint import activation_quantisers
from edge_wam.engines.requantise import require_lint, to_unsigned
from edge_wam.errors import EngineError

# Turns MatMul + Add back into Gemm, for which there is no integer kernel: the dequantised weights then run in float32.
DISABLED_OPTIMISERS = ("MatMulAddFusion",)
_X86 = {"x86_64", "AMD64"}
Encoding = Literal["s8s8", "u8s8", "u8u8"]
"""Signedness of 8-bit activations and weights."""


def _session_options(threads: int, encoding: Encoding) -> ort.SessionOptions:
    """Options of every session: ``threads`` workers that sleep instead of spinning, repeatable sums."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.use_deterministic_compute = True
    options.log_severity_level = 3
    # A spinning worker takes a core from the 100 Hz loop for as long as it waits for work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if encoding == "s8s8":
        # Otherwise x86 leaves products that share an activation (query, key, value) in float, which rounds differently.
        options.add_session_config_entry("session.qdqisint8allowed", "1")
    return options


def _open_session(name: str, model: bytes, options: ort.SessionOptions) -> ort.InferenceSession:
    try:
        return ort.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(DISABLED_OPTIMISERS)
        )
    except Exception as error:  # onnxruntime raises its own C++-bound types, one per status code
        raise EngineError(
            f"graph {name!r} is refused by ONNX Runtime {ort.__version__}: {error}", remedy="export the graph again"
        ) from error


@functools.cache
def best_encoding() -> Encoding:
    """The fastest encoding whose integer products this processor computes without losing any.

    x86 before VNNI adds pairs of unsigned by signed products in 16 bits: 2 * 255 * 127 = 64770 saturates at 32767,
    silently. It is tried out here rather than read from a list of processors. Others than x86 have signed kernels.
    """
    if platform.machine() not in _X86:
        return "s8s8"
    return "u8s8" if _mixed_products_are_exact() else "u8u8"


def _mixed_products_are_exact() -> bool:
    terms = 64
    constants: dict[str, Array] = {
        "w": np.full((terms, 16), 127, np.int8),
        "zero": np.zeros((), np.uint8),
        "one": np.ones((), np.float32),
        "signed": np.zeros((), np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "one", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["w", "one", "signed"], ["b"]),
        helper.make_node("MatMul", ["a", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [16, terms])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16, 16])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = _open_session("probe", proto.SerializeToString(), _session_options(1, "u8s8"))
    (product,) = session.run(["y"], {"x": np.full((16, terms), 255, np.float32)})
    return bool((product == 255 * 127 * terms).all())


def executed_operators(name: str, model: bytes) -> Counter[str]:
    """The operators that remain after ONNX Runtime's optimisation, counted: what really runs for ``model``.

    ``MatMulIntegerToFloat`` is an integer product; a ``MatMul`` is a float one.

    Raises:
        EngineError: as :class:`OnnxCpuEngine`.
    """
    proto = parse_graph(name, model)
    encoding = best_encoding()
    _encode(name, proto, encoding)
    options = _session_options(1, encoding)
    with tempfile.TemporaryDirectory(prefix="edge-wam-") as folder:
        optimised = Path(folder, "optimised.onnx")
        options.optimized_model_filepath = str(optimised)
        _open_session(name, proto.SerializeToString(), options)
        return Counter(node.op_type for node in onnx.load(optimised).graph.node)


def _encode(name: str, proto: onnx.ModelProto, encoding: Encoding) -> None:
    require_lint(name, proto)
    if encoding != "s8s8":
        to_unsigned(name, proto, weights=encoding == "u8u8")


class OnnxCpuEngine:
    """One graph in one session. Reads and writes the caller's buffers without copies.

    Args:
        name: what error messages and reports call it.
        model: ONNX bytes, float32 or explicit symmetric INT8.
        threads: worker threads, 1 or more.
        encoding: how 8-bit activations and weights are fed to the kernels; None: :func:`best_encoding`. All give the
            same numbers where the processor does not saturate.

    Raises:
        EngineError: not a self-contained static graph, bad quantisation, or refused by the runtime.
    """

    def __init__(self, name: str, model: bytes, *, threads: int = 1, encoding: Encoding | None = None) -> None:
        if threads < 1:
            raise EngineError(f"engine {name!r}: {threads} threads", expected="1 or more")
        proto = parse_graph(name, model)
        self._name = name
        self._threads = threads
        self._inputs, self._outputs = graph_io(name, proto)
        self._quantised = len(activation_quantisers(proto))
        self._encoding: Encoding = best_encoding() if encoding is None else encoding
        if self._quantised:
            _encode(name, proto, self._encoding)
            model = proto.SerializeToString()
        del proto
        self._session = _open_session(name, model, _session_options(threads, self._encoding))
        self._binding = self._session.io_binding()

    @property
    def inputs(self) -> Mapping[str, TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Mapping[str, TensorSpec]:
        return self._outputs

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """See :meth:`edge_wam.engines.Engine.run`.

        Raises:
            EngineError: a buffer is not what the graph needs, or the runtime failed.
        """
        check_buffers(self._name, "input", self._inputs, inputs)
        check_buffers(self._name, "output", self._outputs, outputs)
        binding = self._binding
        for name, array in inputs.items():
            binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for name, array in outputs.items():
            binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # as above: every native failure becomes ours
            raise EngineError(f"engine {self._name!r} failed: {error}", remedy="do not use its outputs") from error
        finally:
            # The session must not keep pointers to buffers whose owner may go away before the next call.
            binding.clear_binding_inputs()
            binding.clear_binding_outputs()

    def warm_up(self, runs: int = 3) -> None:
        inputs = {name: spec.empty() for name, spec in self._inputs.items()}
        outputs = {name: spec.empty() for name, spec in self._outputs.items()}
        for _ in range(runs):
            self.run(inputs, outputs)

    def describe(self) -> EngineInfo:
        encoding = self._encoding if self._quantised else "float32"
        return EngineInfo(self._name, "onnx-cpu", ort.__version__, self._threads, self._quantised, encoding)
