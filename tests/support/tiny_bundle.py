"""A real, tiny, hand-made bundle for tests: true graph names and shapes, real INT8, milliseconds to write and run.

    directory, policy = make_tiny_bundle(tmp_path), ...
    bundle = open_tiny_bundle(directory)

Its motion is harmless: knots ramp away from the observed position by less than 3 cm in 0.8 s. ``fault`` builds one
that misbehaves instead: ``nan`` (every action is NaN) or ``far`` (metres outside the limits). ``passes=2`` has a second
graph that halves what is left of the noise; ``imagines=False`` gives actions alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edge_wam.bundle import Bundle, BundleParts, Model, TrustStore, demo_private_key, open_bundle, write_bundle
from edge_wam.contracts import ACTION_WIDTH, STATE_WIDTH, Frame, Observation
from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.golden import GoldenStep
from edge_wam.policy import golden_recorder
from edge_wam.text import VOCABULARY

Fault = Literal["none", "nan", "far"]
ROBOT_FILE = Path(__file__).parents[2] / "robots" / "metaworld_sawyer.toml"
PATCH = 16  # pixels: a 64x128 canvas becomes 4x8 tokens
ROWS, COLUMNS = 4, 8
MODEL = Model(
    layers=2,
    width=16,
    tokens_per_frame=ROWS * COLUMNS,
    channels=4,
    knots=16,
    past_frames=3,
    past_stride_knots=2,
    future_knots=(4, 8),
    text_tokens=8,
    vocabulary=VOCABULARY,
    steps=1,
    noise_seed=7,
    latent_scale=(0.5, 0.5, 0.5, 0.5),
)
_NUMPY_TO_ONNX = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


class GraphBuilder:
    """Just enough of a graph writer: constants, nodes, and a matrix product that is INT8 Q/DQ or float."""

    def __init__(self, *, int8: bool, seed: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.int8 = int8
        self.random = np.random.default_rng(seed)
        self._count = 0

    def name(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"

    def constant(self, value: NDArray[np.generic], stem: str = "c") -> str:
        name = self.name(stem)
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def ints(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def f32(self, value: object) -> str:
        return self.constant(np.asarray(value, np.float32))

    def node(self, op: str, *inputs: str, out: str | None = None, **attributes: object) -> str:
        out = out or self.name(op.lower())
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=out, **attributes))
        return out

    def linear(self, x: str, rows: int, columns: int, *, scale: float = 1 / 32) -> str:
        """x @ W with a random W [rows, columns]; quantised per output channel, activation scale ``scale``."""
        weight = self.random.normal(size=(rows, columns)).astype(np.float32) / np.float32(rows**0.5)
        if not self.int8:
            return self.node("MatMul", x, self.f32(weight))
        weight_scale = (np.abs(weight).max(0) / 127).astype(np.float32)
        codes = np.clip(np.rint(weight / weight_scale), -127, 127).astype(np.int8)
        s, zero = self.f32(scale), self.constant(np.array(0, np.int8))
        q = self.node("QuantizeLinear", x, s, zero)
        left = self.node("DequantizeLinear", q, s, zero)
        right = self.node("DequantizeLinear", self.constant(codes), self.constant(weight_scale), axis=1)
        return self.node("MatMul", left, right)

    def model(self, inputs: Mapping[str, tuple[str, tuple[int, ...]]], outputs: Mapping[str, tuple[int, ...]]) -> bytes:
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [helper.make_tensor_value_info(n, _NUMPY_TO_ONNX[t], s) for n, (t, s) in inputs.items()],
            [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
            self.constants,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(proto)
        return bytes(proto.SerializeToString())


def _text(m: Model) -> bytes:
    g = GraphBuilder(int8=False, seed=1)
    table = g.f32(g.random.normal(size=(VOCABULARY, m.layers * 2 * m.width)))
    rows = g.node("Gather", table, "tokens")
    split = g.node("Reshape", rows, g.ints(m.text_tokens, m.layers, 2, m.width))
    g.node("Transpose", split, out="cross_kv", perm=[1, 2, 0, 3])
    return g.model({"tokens": ("int64", (1, m.text_tokens))}, {"cross_kv": (m.layers, 2, m.text_tokens, m.width)})


def _encode(m: Model, robot: Embodiment) -> bytes:
    g = GraphBuilder(int8=False, seed=2)
    kernel = g.f32(g.random.normal(size=(m.channels, 3, PATCH, PATCH)) / PATCH)
    maps = g.node("Conv", "canvas", kernel, strides=[PATCH, PATCH])
    flat = g.node("Reshape", maps, g.ints(1, m.channels, m.tokens_per_frame))
    g.node("Transpose", flat, out="latent", perm=[0, 2, 1])
    canvas = (1, 3, robot.canvas_height, robot.canvas_width)
    return g.model({"canvas": ("float32", canvas)}, {"latent": (1, m.tokens_per_frame, m.channels)})


def _decode(m: Model, robot: Embodiment) -> bytes:
    g = GraphBuilder(int8=False, seed=3)
    maps = g.node("Reshape", g.node("Transpose", "latent", perm=[0, 2, 1]), g.ints(1, m.channels, ROWS, COLUMNS))
    kernel = g.f32(g.random.normal(size=(m.channels, 3, PATCH, PATCH)) / 4)
    g.node("Tanh", g.node("ConvTranspose", maps, kernel, strides=[PATCH, PATCH]), out="canvas")
    canvas = (1, 3, robot.canvas_height, robot.canvas_width)
    return g.model({"latent": ("float32", (1, m.tokens_per_frame, m.channels))}, {"canvas": canvas})


def _refine(m: Model, *, int8: bool) -> bytes:
    """Nine tenths of the first pass' action; committed knots unchanged. Every input is read: none may be left out."""
    g = GraphBuilder(int8=int8, seed=5)
    future, frame = len(m.future_knots), m.tokens_per_frame + 1
    cached = [
        g.node("ReduceMean", name, g.ints(0, 1, 2, 3), keepdims=0) for name in ("past_kv", "new_kv", "cross_kv")
    ]
    words = g.node("Mul", cached[2], g.node("ReduceSum", "past_mask", keepdims=0))
    seen = g.node("Add", g.node("Add", *cached[:2]), words)
    nudge = g.node("Mul", g.node("Tanh", seen), g.f32(1e-3))
    mask = g.node("Reshape", "prefix_mask", g.ints(1, m.knots, 1))
    less = g.node("Add", g.node("Mul", "noisy_action", g.f32(0.9)), nudge)
    turned = g.node("Mul", g.linear(less, ACTION_WIDTH, ACTION_WIDTH), g.f32(1e-3))
    free = g.node("Mul", g.node("Add", less, turned), g.node("Sub", g.f32(1.0), mask))
    g.node("Add", g.node("Mul", "prefix_action", mask), free, out="action")
    action = ("float32", (1, m.knots, ACTION_WIDTH))
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {
        "noisy_action": action,
        "prefix_action": action,
        "prefix_mask": ("float32", (1, m.knots)),
        "past_kv": ("float32", (m.layers, 2, m.past_frames * frame, m.width)),
        "past_mask": ("float32", (1, m.past_frames)),
        "new_kv": ("float32", (m.layers, 2, frame, m.width)),
        "cross_kv": ("float32", (m.layers, 2, m.text_tokens, m.width)),
    }
    outputs = {"action": action[1]}
    if future:
        video = (1, future, m.tokens_per_frame, m.channels)
        inputs["noisy_video"] = ("float32", video)
        g.node("Mul", "noisy_video", g.f32(0.5), out="video")
        outputs["video"] = video
    return g.model(inputs, outputs)


def _step(m: Model, *, int8: bool, fault: Fault) -> bytes:
    g = GraphBuilder(int8=int8, seed=4)
    future, frame = len(m.future_knots), m.tokens_per_frame + 1
    tokens = g.node(
        "Concat",
        g.linear("latent", m.channels, m.width),
        g.node("Reshape", g.linear("state", STATE_WIDTH, m.width), g.ints(1, 1, m.width)),
        axis=1,
    )
    kv = g.node("Reshape", g.linear(tokens, m.width, m.layers * 2 * m.width), g.ints(frame, m.layers, 2, m.width))
    g.node("Transpose", kv, out="new_kv", perm=[1, 2, 0, 3])
    # The context: this frame, the past frames that exist, and the instruction, each averaged to one token.
    slots = g.node("Reshape", "past_kv", g.ints(m.layers * 2, m.past_frames, frame, m.width))
    seen = g.node("Mul", slots, g.node("Reshape", "past_mask", g.ints(1, m.past_frames, 1, 1)))
    past = g.node("ReduceMean", seen, g.ints(0, 1, 2), keepdims=0)
    words = g.node("ReduceMean", "cross_kv", g.ints(0, 1, 2), keepdims=0)
    now = g.node("ReduceMean", tokens, g.ints(1), keepdims=0)
    context = g.node("Add", g.node("Add", now, past), words)
    direction = g.node("Tanh", g.linear(context, m.width, ACTION_WIDTH))
    ramp = g.f32((0.1 * np.arange(m.knots) / m.knots)[None, :, None])
    made = g.node("Mul", ramp, g.node("Reshape", direction, g.ints(1, 1, ACTION_WIDTH)))
    made = g.node("Add", made, g.node("Mul", "noise_action", g.f32(1e-4)))
    if fault == "far":
        made = g.node("Add", made, g.f32(50.0))
    mask = g.node("Reshape", "prefix_mask", g.ints(1, m.knots, 1))
    kept = g.node("Mul", "prefix_action", mask)
    free = g.node("Mul", made, g.node("Sub", g.f32(1.0), mask))
    action = g.node("Add", kept, free)
    if fault == "nan":
        action = g.node("Sqrt", g.node("Sub", g.node("Mul", action, action), g.f32(1e6)))
    g.node("Identity", action, out="action")
    if future:
        _imagine(g, m)
    inputs: dict[str, tuple[str, tuple[int, ...]]] = {
        "latent": ("float32", (1, m.tokens_per_frame, m.channels)),
        "state": ("float32", (1, STATE_WIDTH)),
        "noise_video": ("float32", (1, future, m.tokens_per_frame, m.channels)),
        "noise_action": ("float32", (1, m.knots, ACTION_WIDTH)),
        "prefix_action": ("float32", (1, m.knots, ACTION_WIDTH)),
        "prefix_mask": ("float32", (1, m.knots)),
        "past_kv": ("float32", (m.layers, 2, m.past_frames * frame, m.width)),
        "past_mask": ("float32", (1, m.past_frames)),
        "cross_kv": ("float32", (m.layers, 2, m.text_tokens, m.width)),
    }
    outputs = {
        "action": (1, m.knots, ACTION_WIDTH),
        "video": (1, future, m.tokens_per_frame, m.channels),
        "new_kv": (m.layers, 2, frame, m.width),
    }
    if not future:
        del inputs["noise_video"], outputs["video"]
    return g.model(inputs, outputs)


def _imagine(g: GraphBuilder, m: Model) -> None:
    future = len(m.future_knots)
    drift = g.node("Reshape", g.linear("latent", m.channels, m.channels), g.ints(1, 1, m.tokens_per_frame, m.channels))
    still = g.node("Reshape", "latent", g.ints(1, 1, m.tokens_per_frame, m.channels))
    imagined = g.node("Add", still, g.node("Mul", drift, g.f32((np.arange(future) + 1)[None, :, None, None] * 0.01)))
    g.node("Add", imagined, g.node("Mul", "noise_video", g.f32(1e-3)), out="video")


def tiny_robot() -> Embodiment:
    """The robot that the tiny bundle is for."""
    return load_embodiment(ROBOT_FILE)


def observation(robot: Embodiment, at_ns: int, *, seed: int = 0, instruction: str = "open the drawer") -> Observation:
    """A valid observation at rest with random pictures, everything captured at ``at_ns``."""
    random = np.random.default_rng([seed, at_ns])
    frames = {
        c.name: Frame(random.integers(0, 256, (c.height, c.width, 3), np.uint8), at_ns, index=at_ns)
        for c in robot.cameras
    }
    rest = robot.vector("rest")
    return Observation(frames, rest + 0.001 * seed, rest, at_ns, instruction)


def golden_steps(robot: Embodiment) -> list[GoldenStep]:
    """Three calls 100 ms apart: without memory and prefix, then with both."""
    rest = robot.vector("rest")
    return [
        GoldenStep(observation(robot, 10**9 + k * 10**8), np.tile(rest, (k, 1)).astype(np.float64), k) for k in range(3)
    ]


def _symmetric(robot_file: str) -> str:
    """The robot file with action statistics around zero on its three relative axes: a zero output then is no motion."""
    text = re.sub(r"action_q01 = .*", "action_q01 = -0.3", robot_file, count=3)
    return re.sub(r"action_q99 = .*", "action_q99 = 0.3", text, count=3)


def tiny_parts(
    *, int8: bool = True, fault: Fault = "none", passes: int = 1, imagines: bool = True
) -> BundleParts:
    """The parts, for tests that want to change one."""
    robot = tiny_robot()
    model = MODEL.model_copy(update={"steps": passes, "future_knots": MODEL.future_knots if imagines else ()})
    more = {"refine": _refine(model, int8=int8)} if passes == 2 else {}
    return BundleParts(
        name="tiny",
        description="hand-made graphs for tests; knows nothing",
        embodiment=_symmetric(ROBOT_FILE.read_text(encoding="utf-8")),
        model=model,
        graphs={
            "text": _text(model),
            "encode": _encode(model, robot),
            "decode": _decode(model, robot),
            "step": _step(model, int8=int8, fault=fault),
            **more,
        },
        card={"made_by": "tests"},
    )


def make_tiny_bundle(
    folder: Path, *, int8: bool = True, fault: Fault = "none", passes: int = 1, imagines: bool = True
) -> Path:
    """Write and sign ``folder/tiny.wam`` with the demo key and return its path.

    A bundle with a fault carries the golden run of the faultless one, so that only running it shows the fault.
    """
    directory = folder / "tiny.wam"
    golden = golden_recorder(golden_steps(tiny_robot()))
    if fault != "none":
        sound = open_tiny_bundle(make_tiny_bundle(folder / "sound", int8=int8)).golden()
        write_bundle(directory, tiny_parts(int8=int8, fault=fault), golden=lambda _: sound, key=demo_private_key())
    else:
        parts = tiny_parts(int8=int8, passes=passes, imagines=imagines)
        write_bundle(directory, parts, golden=golden, key=demo_private_key())
    return directory


def open_tiny_bundle(directory: Path) -> Bundle:
    """Open it as a simulated robot does: demo key allowed, robot checked."""
    return open_bundle(directory, trust=TrustStore(allow_demo_key=True), embodiment=tiny_robot())
