"""How fast the bundle is on this machine: its INT8 step beside the float32 twin of the same graph, in one run.

Both are run in turn, call by call, so that whatever else the machine does falls on both. The twin is the artefact
itself with its quantisation taken out (same shapes, same operators, float32 products): no second file is needed and
none can be mixed up. Wall time is what the arm waits; processor time is what the call costs, whoever else is running.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from edge_wam import golden
from edge_wam.bundle import Bundle
from edge_wam.contracts import Frame
from edge_wam.engines import Engine, open_engine
from edge_wam.engines.engine import Array
from edge_wam.engines.onnx_cpu import executed_operators
from edge_wam.engines.onnx_graph import parse_graph
from edge_wam.engines.requantise import to_float
from edge_wam.golden import GoldenStep
from edge_wam.machine import machine
from edge_wam.policy import Policy
from firmware_bridge.spread import Spread

_INTEGER = ("MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "QLinearConv")
_FLOAT = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "Conv", "FusedConv")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured.

    Attributes:
        what: ``step int8``, ``step float32`` (the twin) or ``pixels to knots`` (the whole policy, artefact as shipped).
        threads: worker threads of the engine.
        calls: how many, after warming up.
        min_ms, p50_ms, p99_ms: wall time of a call.
        cpu_p50_ms: processor time of a call, all threads together.
    """

    what: str
    threads: int
    calls: int
    min_ms: float
    p50_ms: float
    p99_ms: float
    cpu_p50_ms: float


@dataclass(frozen=True, slots=True)
class BenchReport:
    """All rows with what is needed to read them.

    Attributes:
        model_hash: of the bundle: the same hash stands beside its success rates.
        integer_products, float_products: matrix products and convolutions of the step that run in integers / in float
            (products of two activations, such as attention, stay in float).
        action_difference, video_difference: relative L2 norm between INT8 and twin on the measured inputs (0 for video
            when the bundle imagines none).
        load: 1-minute load average before the run; above the idle cores the wall times are not the machine's.
    """

    model: str
    model_hash: str
    machine: str
    cores: int
    runtime: str
    load: float
    rows: tuple[Row, ...]
    integer_products: int
    float_products: int
    action_difference: float
    video_difference: float

    def speedup(self, threads: int) -> float | None:
        """Median wall time of the twin over that of INT8; None when one of them was not measured."""
        p50 = {row.what: row.p50_ms for row in self.rows if row.threads == threads}
        if "step int8" not in p50 or "step float32" not in p50:
            return None
        return p50["step float32"] / p50["step int8"]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


class _Timed:
    """One call, and what it took each time."""

    def __init__(self, what: str, threads: int, call: Callable[[], None]) -> None:
        self.what, self.threads, self._call = what, threads, call
        self._wall: list[int] = []
        self._cpu: list[int] = []

    def once(self, *, keep: bool) -> None:
        cpu, wall = time.process_time_ns(), time.perf_counter_ns()
        self._call()
        took, spent = time.perf_counter_ns() - wall, time.process_time_ns() - cpu
        if keep:
            self._wall.append(took)
            self._cpu.append(spent)

    def row(self) -> Row:
        wall, cpu = (Spread.of(ns / 1e6 for ns in measured) for measured in (self._wall, self._cpu))
        return Row(self.what, self.threads, wall.count, wall.min, wall.p50, wall.p99, cpu.p50)


def bench(
    bundle: Bundle,
    *,
    threads: Sequence[int] = (1, 2),
    calls: int = 200,
    warm_up: int = 10,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> BenchReport:
    """Measure the step graph (INT8 and twin) and the whole policy, interleaved.

    Args:
        bundle: verified.
        threads: engine worker threads to try.
        calls: measured calls of each row.
        progress: called with (rounds done, rounds in all).

    Raises:
        EngineError: a graph cannot be loaded.
        BundleError: the golden run, whose inputs are used, is incomplete.
    """
    load = os.getloadavg()[0]
    step = bundle.graph("step")
    quantised = bundle.manifest.graphs["step"].precision == "int8"
    graphs = {"step float32": _twin(step)}
    if quantised:
        graphs["step int8"] = step
    inputs: dict[str, Array] | None = None
    outputs: dict[str, dict[str, Array]] = {}
    timed: list[_Timed] = []
    for count in threads:
        for what, model in graphs.items():
            engine = open_engine(what, model, threads=count)
            inputs = inputs or _inputs(engine)
            outputs[what] = {name: spec.empty() for name, spec in engine.outputs.items()}
            timed.append(_Timed(what, count, _step_call(engine, inputs, outputs[what])))
        timed.append(_Timed("pixels to knots", count, _whole_call(bundle, count)))
    rounds = warm_up + calls
    for index in range(rounds):
        shift = index % len(timed)  # nobody always runs after the same neighbour
        for item in timed[shift:] + timed[:shift]:
            item.once(keep=index >= warm_up)
        progress(index + 1, rounds)
    ran = executed_operators("step", step)
    return BenchReport(
        model=bundle.manifest.name,
        model_hash=bundle.model_hash,
        machine=machine(),
        cores=len(os.sched_getaffinity(0)),
        runtime=f"onnxruntime {onnxruntime.__version__}",
        load=load,
        rows=tuple(item.row() for item in timed),
        integer_products=sum(ran[op] for op in _INTEGER),
        float_products=sum(ran[op] for op in _FLOAT),
        action_difference=_difference(outputs, "action") if quantised else 0.0,
        video_difference=_difference(outputs, "video") if quantised and bundle.manifest.model.future_knots else 0.0,
    )


def _twin(step: bytes) -> bytes:
    proto = parse_graph("step", step)
    to_float("step", proto)
    return bytes(proto.SerializeToString())


def _inputs(engine: Engine) -> dict[str, Array]:
    """Standard normal numbers everywhere, every mask at 1: full context, no zeros that would be cheap."""
    random = np.random.default_rng(0)
    out: dict[str, Array] = {}
    for name, spec in engine.inputs.items():
        out[name] = spec.empty()
        out[name][...] = 1.0 if name.endswith("_mask") else random.standard_normal(spec.shape)
    out["prefix_mask"][:, 2:] = 0.0
    return out


def _step_call(engine: Engine, inputs: dict[str, Array], outputs: dict[str, Array]) -> Callable[[], None]:
    return lambda: engine.run(inputs, outputs)


def _whole_call(bundle: Bundle, threads: int) -> Callable[[], None]:
    """The whole policy on the golden observations over and over, at the pace of its memory."""
    policy = Policy(bundle, threads=threads)
    steps = golden.unpack(bundle.golden())
    pace_ns = bundle.manifest.model.past_stride_knots * bundle.embodiment.chunk_dt_ms * 1_000_000
    number = 0

    def call() -> None:
        nonlocal number
        step = _moved(steps[number % len(steps)], number * pace_ns)
        policy.infer(step.observation, step.prefix, number)
        number += 1

    return call


def _moved(step: GoldenStep, at_ns: int) -> GoldenStep:
    """The same observation, captured at ``at_ns``."""
    frames = {name: Frame(frame.image, at_ns, frame.index) for name, frame in step.observation.frames.items()}
    observation = dataclasses.replace(step.observation, frames=frames, state_at_ns=at_ns)
    return dataclasses.replace(step, observation=observation)


def _difference(outputs: dict[str, dict[str, Array]], name: str) -> float:
    exact, here = outputs["step float32"][name], outputs["step int8"][name]
    scale = float(np.linalg.norm(exact))
    return float(np.linalg.norm(here - exact)) / scale if scale else 0.0
