"""The policy: one observation in, one chunk of motion and one look ahead out. Deterministic: it can be replayed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_wam import golden, kernels
from edge_wam.bundle.manifest import graph_contract
from edge_wam.bundle.reader import Bundle
from edge_wam.bundle.writer import GoldenRecorder
from edge_wam.contracts import F32, F64, ActionChunk, Imagination, Observation
from edge_wam.engines import Engine, EngineInfo, open_engine
from edge_wam.engines.engine import Array
from edge_wam.errors import BundleError, PolicyError
from edge_wam.golden import GoldenResult, GoldenStep
from edge_wam.history import FrameHistory, context_buffers
from edge_wam.text import encode_text


@dataclass(frozen=True, slots=True)
class Latents:
    """What the encoder made of the frames now: float32 [tokens, channels], and when the oldest of them was captured."""

    values: F32
    captured_at_ns: int


@dataclass(frozen=True, slots=True)
class InferenceTiming:
    """Where the time of the last call went, ns (monotonic clock)."""

    encode_ns: int
    step_ns: int
    total_ns: int


class Policy:
    """A bundle, loaded. One caller at a time; the memory of past frames lives in here.

    Args:
        bundle: verified by :func:`edge_wam.bundle.open_bundle`.
        threads: engine worker threads.
        backend: see :data:`edge_wam.engines.BACKENDS`.

    Raises:
        EngineError: a graph cannot be loaded.
        BundleError: a graph is not what the manifest says.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1, backend: str = "onnx-cpu") -> None:
        self._bundle = bundle
        self._robot = bundle.embodiment
        self._model = bundle.manifest.model
        self._dt_ns = self._robot.chunk_dt_ms * 1_000_000
        self._threads = threads
        self._backend = backend
        self._contract = graph_contract(self._model, self._robot)
        self._running = tuple(name for name in self._contract if name != "decode")
        self._engines = {name: self._open(name) for name in self._running}
        self._runs: Counter[str] = Counter()
        self._q01, self._q99 = self._robot.vector("action_q01"), self._robot.vector("action_q99")
        self._instruction: str | None = None
        self._history = FrameHistory(self._model, self._dt_ns)
        self._last_sequence = -1
        self._timing: InferenceTiming | None = None
        self._buffers: dict[str, Array] = {
            name: spec.empty() for graph in self._running for specs in self._contract[graph]
            for name, spec in specs.items()
        }
        self._buffers["past_kv"], self._buffers["past_mask"] = context_buffers(self._model)

    def _open(self, name: str) -> Engine:
        engine = open_engine(name, self._bundle.graph(name), backend=self._backend, threads=self._threads)
        inputs, outputs = self._contract[name]
        if dict(engine.inputs) != inputs or dict(engine.outputs) != outputs:
            raise BundleError(
                f"graph {name!r} has another interface than manifest.json states", expected=f"{inputs} -> {outputs}",
                remedy="export the bundle again",
            )
        stated = self._bundle.manifest.graphs[name].precision
        if (engine.describe().quantised_inputs > 0) != (stated == "int8"):
            raise BundleError(
                f"graph {name!r} is not {stated}, as manifest.json states", remedy="export the bundle again"
            )
        return engine

    @property
    def bundle(self) -> Bundle:
        return self._bundle

    @property
    def instruction(self) -> str | None:
        """The instruction in force, None before the first."""
        return self._instruction

    @property
    def last_timing(self) -> InferenceTiming | None:
        """Timing of the last successful :meth:`infer`."""
        return self._timing

    def describe(self) -> list[EngineInfo]:
        """The loaded engines."""
        return [engine.describe() for engine in self._engines.values()]

    @property
    def graph_runs(self) -> Mapping[str, int]:
        """How often each graph has been run for answers since this policy was made: counted where the engine is called,
        not read from the manifest. ``step`` and ``refine`` together over chunks are the evaluations of the network."""
        return dict(self._runs)

    def warm_up(self, runs: int = 3) -> None:
        """Run every loaded graph on zeros, so that the first real call is not the slow one."""
        for engine in self._engines.values():
            engine.warm_up(runs)

    def reset(self) -> None:
        """Forget the past: a new episode. The instruction stays."""
        self._history.clear()
        self._last_sequence = -1

    def set_instruction(self, text: str) -> None:
        """Compute the cross-attention keys and values once; a changed instruction clears the memory of past frames,
        whose keys and values were computed under the old one.

        Raises:
            ContractError: no words, or too many.
            PolicyError: the text graph produced a number that is none.
        """
        if text == self._instruction:
            return
        tokens = encode_text(text, self._model.text_tokens)
        self._instruction = None
        self._buffers["tokens"][0] = tokens
        self._run("text")
        self._history.clear()
        self._instruction = text

    def infer(
        self, observation: Observation, prefix: F64, sequence: int
    ) -> tuple[ActionChunk, Imagination, Latents]:
        """One fused forward pass, and a second one where the bundle has it.

        Knot k of the chunk is at ``observation.state_at_ns + (k + 1) * dt``; frame ages count from the oldest frame's
        capture. The noise depends on the bundle and ``sequence`` alone.

        Args:
            observation: newest frames of every camera of the embodiment, and the state.
            prefix: absolute positions [d, D] of knots 0..d-1 that are already on their way, 0 <= d < H; the chunk
                carries them unchanged.
            sequence: strictly increasing since the last :meth:`reset`.

        Raises:
            PolicyError: a camera is missing or of another size, time or sequence ran backwards, a bad prefix, or the
                model produced a number that is none. No chunk comes out and the memory stays as it was.
            ContractError: the instruction cannot be tokenised.
        """
        started_ns = time.monotonic_ns()
        captured_ns = self._check(observation, prefix, sequence)
        self.set_instruction(observation.instruction)
        buffers = self._buffers
        for camera in self._robot.cameras:
            kernels.camera_to_canvas(
                observation.frames[camera.name].image,
                (camera.crop_x, camera.crop_y, camera.crop_width, camera.crop_height),
                buffers["canvas"][0],
                (camera.canvas_x, camera.canvas_y, camera.canvas_width, camera.canvas_height),
            )
        self._run("encode")
        encoded_ns = time.monotonic_ns()
        position = observation.joint_position
        buffers["state"][0] = self._robot.normalise_state(position, observation.joint_setpoint)
        self._draw_noise(sequence)
        d = len(prefix)
        buffers["prefix_action"][...] = 0.0
        buffers["prefix_mask"][...] = 0.0
        if d:
            buffers["prefix_action"][0, :d] = self._robot.normalise_action(prefix, position)
            buffers["prefix_mask"][0, :d] = 1.0
        self._history.fill(captured_ns, buffers["past_kv"], buffers["past_mask"])
        step_ns = time.monotonic_ns()
        self._run("step")
        if "refine" in self._engines:
            for name in ("action", "video"):
                if f"noisy_{name}" in buffers:
                    buffers[f"noisy_{name}"][...] = buffers[name]
            self._run("refine")
        done_ns = time.monotonic_ns()
        q = kernels.decode_chunk(buffers["action"][0], position, self._q01, self._q99, self._robot.relative)
        q[:d] = prefix
        self._history.append(captured_ns, buffers["new_kv"])
        self._last_sequence = sequence
        chunk = ActionChunk(
            t0_ns=observation.state_at_ns + self._dt_ns,
            dt_ns=self._dt_ns,
            q=q,
            observed_at_ns=observation.observed_at_ns,
            sequence=sequence,
            model_hash=self._bundle.model_hash,
            prefix=d,
        )
        imagination = Imagination(
            latents=self._imagined(),
            for_ns=tuple(captured_ns + knots * self._dt_ns for knots in self._model.future_knots),
            observed_at_ns=observation.observed_at_ns,
            sequence=sequence,
        )
        latent = buffers["latent"][0].copy()
        latent.setflags(write=False)
        self._timing = InferenceTiming(encoded_ns - started_ns, done_ns - step_ns, time.monotonic_ns() - started_ns)
        return chunk, imagination, Latents(latent, captured_ns)

    def _imagined(self) -> F32:
        """Imagined latents [F, tokens, channels]; F is 0 for an action-only bundle."""
        if "video" in self._buffers:
            imagined: F32 = self._buffers["video"][0].copy()
            return imagined
        return np.zeros((0, self._model.tokens_per_frame, self._model.channels), np.float32)

    def step_inputs(self) -> dict[str, Array]:
        """Copies of what the last :meth:`infer` fed to the step graph, by name: what a quantiser calibrates on."""
        return {name: self._buffers[name].copy() for name in self._contract["step"][0]}

    def decode_latents(self, latents: F32) -> NDArray[np.uint8]:
        """What latents [tokens, channels] look like: uint8 RGB [canvas height, canvas width, 3]. For reports only.

        Raises:
            PolicyError: wrong shape, or the decoder produced a number that is none.
        """
        wanted = (self._model.tokens_per_frame, self._model.channels)
        if latents.shape != wanted:
            raise PolicyError(f"latents are {latents.shape}", expected=f"{wanted}")
        if "decode" not in self._engines:
            self._engines["decode"] = self._open("decode")
        canvas = self._contract["decode"][1]["canvas"].empty()
        self._engines["decode"].run({"latent": np.ascontiguousarray(latents[None], np.float32)}, {"canvas": canvas})
        if not np.isfinite(canvas).all():
            raise PolicyError("the decoder produced a number that is none", remedy="do not trust this bundle")
        levels = np.clip(np.rint((canvas[0].transpose(1, 2, 0) + 1.0) * 127.5), 0, 255)
        pixels: NDArray[np.uint8] = levels.astype(np.uint8)
        return pixels

    def verify_golden(self) -> GoldenResult:
        """Repeat the recorded run; leaves the policy reset and without an instruction.

        Raises:
            PolicyError: this machine's answers are further off than the manifest allows. It must not arm.
        """
        recorded = self._bundle.golden()
        result = golden.compare(recorded, self._golden_run(golden.unpack(recorded)), self._robot)
        allowed = self._bundle.manifest.golden_tolerance
        if not result.worst <= allowed:
            raise PolicyError(
                f"golden run of {self._bundle.manifest.name!r} is off by {result.worst:.4g} "
                f"(actions {result.action:.4g} of range, latents {result.latent:.4g}, imagination {result.video:.4g})",
                expected=f"at most {allowed:g}",
                remedy="this processor or runtime does not compute what the model was accepted with; do not arm",
            )
        return result

    def _golden_run(self, steps: Sequence[GoldenStep]) -> golden.Arrays:
        def answer(step: GoldenStep) -> tuple[ActionChunk, Imagination, F32]:
            chunk, imagination, latents = self.infer(step.observation, step.prefix, step.sequence)
            return chunk, imagination, latents.values

        self.reset()
        try:
            return golden.pack(steps, self._model.knots, answer)
        finally:
            self.reset()
            self._instruction = None

    def _check(self, observation: Observation, prefix: F64, sequence: int) -> int:
        """Refuse what must not reach the model; return the capture time of the oldest frame in use."""
        if sequence <= self._last_sequence:
            raise PolicyError(f"sequence {sequence} after {self._last_sequence}", expected="strictly increasing")
        dof, knots = self._robot.dof, self._model.knots
        if len(observation.joint_position) != dof:
            raise PolicyError(f"observation has {len(observation.joint_position)} axes", expected=f"{dof}")
        if prefix.dtype != np.float64 or prefix.ndim != 2 or prefix.shape[1] != dof or len(prefix) >= knots:
            raise PolicyError(
                f"prefix is {prefix.dtype} {prefix.shape}", expected=f"float64 [0..{knots - 1}, {dof}] absolute knots"
            )
        if not np.isfinite(prefix).all():
            raise PolicyError("prefix holds a number that is none", expected="finite positions")
        for camera in self._robot.cameras:
            frame = observation.frames.get(camera.name)
            if frame is None:
                raise PolicyError(
                    f"camera {camera.name!r} has no frame", expected="a frame of every camera",
                    remedy="check the camera; nothing is filled in for it",
                )
            wanted = (camera.height, camera.width, 3)
            if frame.image.shape != wanted:
                raise PolicyError(f"camera {camera.name!r} sends {frame.image.shape}", expected=f"{wanted}")
        captured_ns = min(observation.frames[camera.name].captured_at_ns for camera in self._robot.cameras)
        newest_ns = self._history.newest_ns
        if newest_ns is not None and captured_ns < newest_ns:
            raise PolicyError(
                f"frames captured at {captured_ns} ns come after frames of {newest_ns} ns",
                expected="time runs forwards",
                remedy="reset the policy between episodes",
            )
        return captured_ns

    def _draw_noise(self, sequence: int) -> None:
        """Standard normal noise from Philox, keyed by bundle and sequence: the same call always gets the same noise."""
        generator = np.random.Generator(np.random.Philox(key=[self._model.noise_seed, sequence]))
        for name in ("noise_video", "noise_action"):
            if name in self._buffers:
                generator.standard_normal(dtype=np.float32, out=self._buffers[name])

    def _run(self, graph: str) -> None:
        """Run one graph on the policy's buffers and refuse outputs that are not finite."""
        inputs, outputs = self._contract[graph]
        self._engines[graph].run({n: self._buffers[n] for n in inputs}, {n: self._buffers[n] for n in outputs})
        self._runs[graph] += 1
        for name in outputs:
            if not np.isfinite(self._buffers[name]).all():
                raise PolicyError(
                    f"graph {graph!r}: output {name!r} holds a number that is none",
                    expected="finite numbers",
                    remedy="nothing of this answer is used; if it repeats, do not trust this bundle",
                )


def golden_recorder(steps: Sequence[GoldenStep]) -> GoldenRecorder:
    """For :func:`edge_wam.bundle.write_bundle`: records the golden run over ``steps`` with one thread."""

    def record(bundle: Bundle) -> golden.Arrays:
        return Policy(bundle)._golden_run(steps)

    return record
