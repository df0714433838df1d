"""ONNX Runtime on the CPU, set up so that an INT8 graph runs in INT8 and no worker burns the control loop's core."""

from __future__ import annotations

import platform
from collections.abc import Mapping

import onnxruntime as ort

from edge_wam.engines.engine import Array, EngineInfo, TensorSpec, check_buffers
from edge_wam.engines.onnx_graph import graph_io, parse_graph
from edge_wam.engines.qdq_lint import activation_quantisers
from edge_wam.engines.requantise import to_unsigned_activations
from edge_wam.errors import EngineError

# Turns MatMul + Add back into Gemm, for which there is no integer kernel: the dequantised weights then run in float32.
DISABLED_OPTIMISERS = ("MatMulAddFusion",)
_UNSIGNED_MACHINES = {"x86_64", "AMD64"}


def session_options(threads: int) -> ort.SessionOptions:
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


class OnnxCpuEngine:
    """One graph in one session. Reads and writes the caller's buffers without copies.

    Args:
        name: what error messages and reports call it.
        model: ONNX bytes, float32 or explicit symmetric INT8.
        threads: worker threads, 1 or more.
        unsigned: feed activations as unsigned 8 bit (None: decided by the processor, True on x86).

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
        self._unsigned = platform.machine() in _UNSIGNED_MACHINES if unsigned is None else unsigned
        if self._quantised and self._unsigned:
            to_unsigned_activations(name, proto)
            model = proto.SerializeToString()
        del proto
        try:
            self._session = ort.InferenceSession(
                model,
                session_options(threads),
                providers=["CPUExecutionProvider"],
                disabled_optimizers=list(DISABLED_OPTIMISERS),
            )
        except Exception as error:  # onnxruntime raises its own C++-bound types, one per status code
            raise EngineError(
                f"graph {name!r} is refused by ONNX Runtime {ort.__version__}: {error}", remedy="export the graph again"
            ) from error
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
