"""Engines run one graph each: fixed shapes, given buffers, no allocation that the caller did not ask for.

:func:`open_engine` is the only way in. The artefact is always the same ONNX graph (explicit symmetric Q/DQ where it is
INT8); what a backend makes of it is the backend's affair and must not change the numbers.
"""

from __future__ import annotations

from collections.abc import Callable

from edge_wam.engines.engine import Engine, EngineInfo, TensorSpec
from edge_wam.errors import EngineError, nearest

__all__ = ["BACKENDS", "Engine", "EngineInfo", "TensorSpec", "open_engine"]


def _onnx_cpu(name: str, model: bytes, threads: int) -> Engine:
    from edge_wam.engines.onnx_cpu import OnnxCpuEngine

    return OnnxCpuEngine(name, model, threads=threads)


BACKENDS: dict[str, Callable[[str, bytes, int], Engine]] = {"onnx-cpu": _onnx_cpu}


def open_engine(name: str, model: bytes, *, backend: str = "onnx-cpu", threads: int = 1) -> Engine:
    """Load the graph ``model`` (ONNX bytes, already verified by the bundle) under ``name``.

    Raises:
        EngineError: no such backend here, or the backend refuses the graph.
    """
    try:
        make = BACKENDS[backend]
    except KeyError:
        raise EngineError(
            f"engine backend {backend!r} is not part of this release{nearest(backend, BACKENDS)}",
            expected=" or ".join(sorted(BACKENDS)),
            remedy="choose an available backend; a TensorRT plan is built on the device that runs it",
        ) from None
    return make(name, model, threads)
