"""The bundle's table of contents: what is inside, for which robot, and what every graph reads and writes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_wam.contracts import ACTION_WIDTH, STATE_WIDTH
from edge_wam.embodiment import Embodiment
from edge_wam.engines import TensorSpec
from edge_wam.errors import BundleError, nearest
from edge_wam.text import VOCABULARY

SCHEMA_VERSION = 1
ONE_PASS = ("text", "encode", "decode", "step")
"""The graphs of every bundle. A chunk that takes two passes has ``refine`` besides."""
_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_LIMIT_KEYS = (
    "position_min", "position_max", "velocity_max", "acceleration_max", "jerk_max", "following_error_max", "effort_max",
    "move_max", "window_max",
)  # fmt: skip

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=1, le=65536)]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}\.[0-9]{1,4}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileEntry(_Strict):
    """Size in bytes and SHA-256 of one file."""

    size: Annotated[int, Field(ge=0)]
    sha256: Hash


class Tensor(_Strict):
    """One input or output of a graph."""

    dtype: Literal["float32", "int64"]
    shape: tuple[Count, ...]


class Graph(_Strict):
    """One ONNX graph: where it is, its precision, and its whole interface."""

    file: str
    precision: Literal["float32", "int8"]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Model(_Strict):
    """The sizes that fix every shape. One canvas becomes ``tokens_per_frame`` tokens of ``channels`` numbers."""

    layers: Count
    width: Count
    tokens_per_frame: Count
    channels: Count
    knots: Annotated[int, Field(ge=2, le=256)]
    """H: knots of one action chunk, ``chunk_dt_ms`` of the embodiment apart."""
    past_frames: Count
    past_stride_knots: Count
    """Each past frame is this many knots older than the next."""
    future_knots: tuple[Count, ...]
    """The times of the imagined frames, in knots after the observation; none: an action-only export, which gives
    chunks and imagines nothing, so that surprise cannot be watched."""
    text_tokens: Count
    vocabulary: Count
    steps: Annotated[int, Field(ge=1, le=2)]
    """Passes of the network for one chunk: ``step``, and with 2 ``refine`` behind its cache."""
    noise_seed: Annotated[int, Field(ge=0, lt=2**63)]
    latent_scale: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...]
    """Spread of each latent channel in training; surprise is measured in these."""

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if len(self.latent_scale) != self.channels:
            raise ValueError(f"latent_scale has {len(self.latent_scale)} numbers for {self.channels} channels")
        if list(self.future_knots) != sorted(set(self.future_knots)):
            raise ValueError("future_knots must increase")
        if self.vocabulary != VOCABULARY:
            raise ValueError(f"vocabulary is {self.vocabulary}, the tokenizer of this runtime has {VOCABULARY}")
        return self


class RobotIdentity(_Strict):
    """For which robot. The hash covers what makes motion safe and what makes pictures comparable."""

    name: str
    axes: Annotated[tuple[str, ...], Field(min_length=1)]
    limits_sha256: Hash


class Manifest(_Strict):
    """``manifest.json``. The signature covers its bytes; it covers every other file by size and hash."""

    schema_version: Literal[1]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    description: str
    min_runtime: Version
    wire_schema: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    """Schema hash of the microcontroller protocol that the bundle was accepted with."""
    robot: RobotIdentity
    model: Model
    graphs: dict[str, Graph]
    golden_tolerance: Annotated[float, Field(gt=0, le=0.1, allow_inf_nan=False)]
    """How far the golden run may be off on another processor: actions as a fraction of each axis' q01..q99 range,
    latents as relative L2 norm. On the processor that recorded it the difference is zero."""
    files: dict[str, FileEntry]


def limits_sha256(robot: Embodiment) -> str:
    """Hash of axis names, units, action representation, limits, knot spacing, cameras and canvas; not of statistics."""
    table: dict[str, Any] = {
        "chunk_dt_ms": robot.chunk_dt_ms,
        "canvas": [robot.canvas_width, robot.canvas_height],
        "axes": [[a.name, a.unit, a.action, *(getattr(a, key) for key in _LIMIT_KEYS)] for a in robot.axes],
        "cameras": [camera.model_dump() for camera in robot.cameras],
    }
    text = json.dumps(table, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def identity(robot: Embodiment) -> RobotIdentity:
    """What a bundle records of ``robot``."""
    return RobotIdentity(
        name=robot.name, axes=tuple(axis.name for axis in robot.axes), limits_sha256=limits_sha256(robot)
    )


def robot_difference(bundle: Embodiment, robot: Embodiment) -> str | None:
    """The first thing in which two robots differ that must be the same, in words; None when the bundle fits."""
    for key in ("name", "chunk_dt_ms", "canvas_width", "canvas_height"):
        ours, theirs = getattr(robot, key), getattr(bundle, key)
        if ours != theirs:
            return f"{key} is {theirs!r} in the bundle and {ours!r} on this robot"
    names = [[axis.name for axis in e.axes] for e in (bundle, robot)]
    if names[0] != names[1]:
        return f"axes are {names[0]} in the bundle and {names[1]} on this robot"
    for theirs_axis, ours_axis in zip(bundle.axes, robot.axes, strict=True):
        for key in ("unit", "action", *_LIMIT_KEYS):
            ours, theirs = getattr(ours_axis, key), getattr(theirs_axis, key)
            if ours != theirs:
                return f"axis {ours_axis.name}: {key} is {theirs!r} in the bundle and {ours!r} on this robot"
    if bundle.cameras != robot.cameras:
        return "the cameras (names, sizes, rates, crops or places on the canvas) differ"
    return None


def graph_contract(model: Model, robot: Embodiment) -> dict[str, tuple[dict[str, TensorSpec], dict[str, TensorSpec]]]:
    """The one interface (inputs, outputs) of each graph, worked out from the sizes.

    Shapes: canvas [1, 3, height, width]; latent [1, tokens, channels]; a frame's K/V [layers, 2, tokens + 1, width]
    (the additional token is the robot's state); ``past_kv`` holds the past frames oldest first along axis 2.

    With two passes ``step`` gives a chunk that is still noisy, which ``refine`` finishes from the same cache. Without
    imagined frames there is no video anywhere.
    """
    m = model
    future = len(m.future_knots)
    frame = m.tokens_per_frame + 1

    def f32(*shape: int) -> TensorSpec:
        return TensorSpec("float32", shape)

    canvas = f32(1, 3, robot.canvas_height, robot.canvas_width)
    latent = f32(1, m.tokens_per_frame, m.channels)
    cross = f32(m.layers, 2, m.text_tokens, m.width)
    action = f32(1, m.knots, ACTION_WIDTH)
    video = f32(1, future, m.tokens_per_frame, m.channels)
    new_kv = f32(m.layers, 2, frame, m.width)

    def with_video(name: str) -> dict[str, TensorSpec]:
        return {name: video} if future else {}

    context = {
        "prefix_action": action,
        "prefix_mask": f32(1, m.knots),
        "past_kv": f32(m.layers, 2, m.past_frames * frame, m.width),
        "past_mask": f32(1, m.past_frames),
    }
    graphs = {
        "text": ({"tokens": TensorSpec("int64", (1, m.text_tokens))}, {"cross_kv": cross}),
        "encode": ({"canvas": canvas}, {"latent": latent}),
        "decode": ({"latent": latent}, {"canvas": canvas}),
        "step": (
            {
                "latent": latent,
                "state": f32(1, STATE_WIDTH),
                **with_video("noise_video"),
                "noise_action": action,
                **context,
                "cross_kv": cross,
            },
            {"action": action, **with_video("video"), "new_kv": new_kv},
        ),
    }
    if m.steps == 2:
        noisy = {**with_video("noisy_video"), "noisy_action": action}
        graphs["refine"] = (
            {**noisy, **context, "new_kv": new_kv, "cross_kv": cross}, {"action": action, **with_video("video")}
        )  # fmt: skip
    return graphs


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        if key in out:
            raise ValueError(f"key {key!r} appears twice")
        out[key] = value
    return out


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is not a number")


def parse_json(data: bytes, source: str) -> dict[str, Any]:
    """Strict JSON object: UTF-8, no duplicate keys, no NaN or Infinity.

    Raises:
        BundleError: anything else.
    """
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source}: not valid JSON: {error}", remedy="get the bundle again") from error
    if not isinstance(value, dict):
        raise BundleError(f"{source}: holds a {type(value).__name__}", expected="a JSON object")
    return value


def parse_manifest(data: bytes, source: str = "manifest.json") -> Manifest:
    """Parse and check the manifest itself; the files it lists are :mod:`edge_wam.bundle.reader`'s concern.

    Raises:
        BundleError: newer schema, unknown key (the nearest known one is suggested), value out of range, bad path.
    """
    value = parse_json(data, source)
    version = value.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{source}: schema version {version} is newer than this runtime's {SCHEMA_VERSION}",
            expected=f"schema version {SCHEMA_VERSION}",
            remedy="update edge-wam on this robot, or get a bundle made for this version",
        )
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        raise _explain(error, source) from error
    for path in (*manifest.files, *(graph.file for graph in manifest.graphs.values())):
        check_path(path, source)
    return manifest


def check_path(path: str, source: str) -> None:
    """Refuse a path that could mean a place outside the bundle, or two spellings of one file.

    Raises:
        BundleError: absolute, with ``..``, hidden, with a backslash, a space or another unusual character.
    """
    if not _PATH.fullmatch(path) or ".." in path:
        raise BundleError(
            f"{source}: file path {path!r}", expected="a relative path of plain names such as graphs/step.onnx",
            remedy="get the bundle again; this one may be an attack",
        )


def _known_keys() -> list[str]:
    models: tuple[type[BaseModel], ...] = (Manifest, Model, Graph, Tensor, FileEntry, RobotIdentity)
    return sorted({key for model in models for key in model.model_fields})


def _explain(error: ValidationError, source: str) -> BundleError:
    # A mistyped key is reported as missing under its right name, too: the unknown one says more.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        hint = nearest(str(first["loc"][-1]), _known_keys())
        return BundleError(f"{source}: unknown key {where!r}{hint}", expected="only keys that mean something")
    return BundleError(f"{source}: {where or 'file'}: {first['msg']}", remedy="get the bundle again")


def check_graphs(manifest: Manifest, robot: Embodiment) -> None:
    """Every required graph is listed, with exactly the interface that the sizes imply.

    Raises:
        BundleError: names the graph and the tensor.
    """
    contract = graph_contract(manifest.model, robot)
    wanted = ", ".join(contract)
    if missing := [name for name in contract if name not in manifest.graphs]:
        raise BundleError(f"manifest.json: graph {missing[0]!r} is missing", expected=wanted)
    if unknown := [name for name in manifest.graphs if name not in contract]:
        hint = nearest(unknown[0], contract)
        raise BundleError(f"manifest.json: unknown graph {unknown[0]!r}{hint}", expected=wanted)
    for name, (inputs, outputs) in contract.items():
        graph = manifest.graphs[name]
        if graph.file not in manifest.files:
            raise BundleError(f"manifest.json: graph {name!r} names {graph.file!r}", expected="one of the listed files")
        _same(name, "input", graph.inputs, inputs)
        _same(name, "output", graph.outputs, outputs)


def _same(graph: str, kind: str, listed: Mapping[str, Tensor], contract: Mapping[str, TensorSpec]) -> None:
    for tensor in sorted(listed.keys() | contract.keys()):
        found = listed.get(tensor)
        wanted = contract.get(tensor)
        if found is None or wanted is None or (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
            raise BundleError(
                f"manifest.json: graph {graph!r} {kind} {tensor!r} is "
                + ("missing" if found is None else f"{found.dtype} {list(found.shape)}"),
                expected="no such tensor" if wanted is None else f"{wanted.dtype} {list(wanted.shape)}",
                remedy="export the bundle again",
            )
