"""What every engine promises, whatever runs underneath."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from edge_wam.errors import EngineError

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output: numpy dtype name and the fixed shape."""

    dtype: str
    shape: tuple[int, ...]

    def empty(self) -> Array:
        """A zeroed C-contiguous buffer of this dtype and shape."""
        return np.zeros(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What is loaded, for reports and the doctor."""

    name: str
    backend: str
    version: str
    threads: int
    quantised_inputs: int
    """Activation tensors that the graph quantises to 8 bits (0: a float graph)."""
    encoding: str
    """Signedness of 8-bit activations and weights in the kernels (``u8s8``, ``u8u8``, ``s8s8``), or ``float32``."""


class Engine(Protocol):
    """One loaded graph. Not thread-safe: one caller at a time."""

    @property
    def inputs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]: ...

    def run(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Read ``inputs``, write ``outputs`` in place; every buffer exactly as its :class:`TensorSpec` says."""

    def warm_up(self, runs: int = 3) -> None:
        """Run on zeros so that the first real call is not the slow one."""

    def describe(self) -> EngineInfo: ...


def check_buffers(engine: str, kind: str, specs: Mapping[str, TensorSpec], given: Mapping[str, Array]) -> None:
    """Refuse a missing, extra, mistyped, mis-shaped or non-contiguous buffer before native code sees its pointer.

    Raises:
        EngineError: names the buffer and what it should have been.
    """
    if given.keys() != specs.keys():
        odd = sorted(given.keys() ^ specs.keys())
        raise EngineError(f"{engine}: {kind} {odd} missing or unknown", expected=", ".join(sorted(specs)))
    for name, spec in specs.items():
        array = given[name]
        if array.dtype.name != spec.dtype or array.shape != spec.shape:
            raise EngineError(
                f"{engine}: {kind} {name!r} is {array.dtype.name} {array.shape}", expected=f"{spec.dtype} {spec.shape}"
            )
        if not array.flags.c_contiguous or (kind == "output" and not array.flags.writeable):
            raise EngineError(f"{engine}: {kind} {name!r} is not plain memory", expected="contiguous, writeable")
