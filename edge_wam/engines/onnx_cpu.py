"""ONNX Runtime on the CPU, set up so that an INT8 graph runs in INT8 and no worker burns the control loop's core."""

from __future__ import annotations

import functools
import platform
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from edge_wam.engines.engine import Array, EngineInfo, TensorSpec, check_buffers
from edge_wam.engines.onnx_graph import graph_io, parse_graph
from edge_wam.engines.qdq_lint import activation_quantisers
from edge_wam.engines.requantise import require_lint, to_unsigned_activations
from edge_wam.errors import EngineError

# Turns MatMul + Add back into Gemm, for which there is no integer kernel: the dequantised weights then run in float32.
DISABLED_OPTIMISERS = ("MatMulAddFusion",)
_X86 = {"x86_64", "AMD64"}


def _session_options(threads: int) -> ort.SessionOptions:
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
def unsigned_products_are_exact() -> bool:
    """Does this processor multiply unsigned by signed 8-bit numbers without losing any?

    x86 before VNNI adds pairs of products in 16 bits: 2 * 255 * 127 = 64770 saturates at 32767, silently. There the
    graph stays signed, which is slower and exact. Not asked on other processors: they have signed kernels.
    """
    if platform.machine() not in _X86:
        return False
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
    session = _open_session("probe", proto.SerializeToString(), _session_options(1))
    (product,) = session.run(["y"], {"x": np.full((16, terms), 255, np.float32)})
    return bool((product == 255 * 127 * terms).all())


def executed_operators(name: str, model: bytes) -> Counter[str]:
    """The operators that remain after ONNX Runtime's optimisation, counted: what really runs for ``model``.

    ``MatMulIntegerToFloat`` is an integer product; a ``MatMul`` is a float one.

    Raises:
        EngineError: as :class:`OnnxCpuEngine`.
    """
    proto = parse_graph(name, model)
    if activation_quantisers(proto) and unsigned_products_are_exact():
        to_unsigned_activations(name, proto)
    options = _session_options(1)
    with tempfile.TemporaryDirectory(prefix="edge-wam-") as folder:
        optimised = Path(folder, "optimised.onnx")
        options.optimized_model_filepath = str(optimised)
        _open_session(name, proto.SerializeToString(), options)
        return Counter(node.op_type for node in onnx.load(optimised).graph.node)


class OnnxCpuEngine:
    """One graph in one session. Reads and writes the caller's buffers without copies.

    Args:
        name: what error messages and reports call it.
        model: ONNX bytes, float32 or explicit symmetric INT8.
        threads: worker threads, 1 or more.
        unsigned: feed activations as unsigned 8 bit; None: where the processor multiplies those exactly, and fast.

    Raises:
        EngineError: not a self-contained static graph, bad quantisation, or refused by the runtime.
    """

    def __init__(self, name: str, model: bytes, *, threads: int = 1, unsigned: bool | None = None) -> None:
        if threads < 1:
            raise EngineError(f"engine {name!r}: {threads} threads", expected="1 or more")
        proto = parse_graph(name, model)
        self._name = name
        self._threads = threads
        self._inputs, self._outputs = graph_io(name, proto)
        self._quantised = len(activation_quantisers(proto))
        self._unsigned = False
        if self._quantised:
            require_lint(name, proto)
            self._unsigned = unsigned_products_are_exact() if unsigned is None else unsigned
            if self._unsigned:
                to_unsigned_activations(name, proto)
                model = proto.SerializeToString()
        del proto
        self._session = _open_session(name, model, _session_options(threads))
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
        activation = "none"
        if self._quantised:
            activation = "uint8 (zero point 128)" if self._unsigned else "int8"
        return EngineInfo(self._name, "onnx-cpu", ort.__version__, self._threads, self._quantised, activation)
