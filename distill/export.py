"""Student to bundle: ONNX graphs, INT8 for what runs for every chunk, golden run, card, signature."""

from __future__ import annotations

import ast
import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from edge_wam.bundle import BundleParts, Model, write_bundle
from edge_wam.bundle.writer import GoldenRecorder
from edge_wam.errors import ConfigError
from edge_wam.text import VOCABULARY

OPSET = 20
HALF_WAY = 0.5
"""The noise level at which the first of two passes hands over to the second."""
NOISE_SEED = 20_260
Feed = Mapping[str, NDArray[np.generic]]
_REGISTRATION = "torch.onnx._internal.exporter._registration"
"""Its only message here is that torchvision, which nothing of ours uses, is not installed."""


@dataclass(frozen=True, slots=True)
class Way:
    """How a bundle makes a chunk.

    Attributes:
        passes: 1, or 2 with ``refine`` behind the cache of ``step``. Two need a student that knows target times to be
            worth more than a curiosity, and work with any.
        video: ``imagined``: beside every chunk. ``noise``: the chunk sees the video tokens of one fixed noise and no
            frame is made of them; a student that was trained jointly needs no more training for it. ``absent``: there
            are none, for a student that was trained without in a part of its batches.
    """

    passes: Literal[1, 2] = 1
    video: Literal["imagined", "noise", "absent"] = "imagined"

    @property
    def target(self) -> float:
        """The noise level that the first pass leaves."""
        return HALF_WAY if self.passes == 2 else 0.0

    def __post_init__(self) -> None:
        if self.passes == 2 and self.video != "imagined":
            raise ConfigError(
                f"two passes with video {self.video!r}", expected="one pass",
                remedy="the second pass reads what the first made of the video: export the joint student",
            )  # fmt: skip


class _Text(nn.Module):
    def __init__(self, wam: WorldActionTransformer) -> None:
        super().__init__()
        self.wam = wam

    def forward(self, tokens: Tensor) -> Tensor:
        return self.wam.text_kv(tokens)[:, 0]


class _Encode(nn.Module):
    def __init__(self, codec: FrameCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, canvas: Tensor) -> Tensor:
        return self.codec.encode(canvas)


class _Decode(nn.Module):
    def __init__(self, codec: FrameCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, latent: Tensor) -> Tensor:
        return self.codec.decode(latent)


class _Levels(nn.Module):
    """Constants of one pass from one noise level to another."""

    e: Tensor
    time: Tensor

    def __init__(self, wam: WorldActionTransformer, level: float, target: float) -> None:
        super().__init__()
        self.wam, self.level, self.target = wam, level, target
        with torch.no_grad():
            e, time = wam.fixed_levels(level, target)
        self.register_buffer("e", e)
        self.register_buffer("time", time)


class _Step(_Levels):
    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.wam.step(*inputs, noise_level=(self.e, self.time), target=self.target)


class _Refine(_Levels):
    def forward(
        self, video: Tensor, action: Tensor, prefix_action: Tensor, prefix_mask: Tensor, past_kv: Tensor,
        past_mask: Tensor, new_kv: Tensor, cross_kv: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        return self.wam.refine(
            video, action, prefix_action, prefix_mask, past_kv, past_mask, new_kv, cross_kv,
            noise_level=(self.e, self.time), level=self.level, target=self.target,
        )  # fmt: skip


class _Act(_Levels):
    """The joint pass behind one fixed noise of the video; what it makes of that noise is not computed."""

    noise: Tensor

    def __init__(self, wam: WorldActionTransformer, way: Way) -> None:
        super().__init__(wam, 1.0, 0.0)
        self.absent = way.video == "absent"
        self.register_buffer("noise", fixed_noise(wam.config))

    def forward(
        self, latent: Tensor, state: Tensor, noise_action: Tensor, prefix_action: Tensor, prefix_mask: Tensor,
        past_kv: Tensor, past_mask: Tensor, cross_kv: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        video = self.noise[:, :0] if self.absent else self.noise
        action, _, new_kv = self.wam.step(
            latent, state, video, noise_action, prefix_action, prefix_mask, past_kv, past_mask, cross_kv,
            noise_level=(self.e, self.time),
        )  # fmt: skip
        return action, new_kv


def fixed_noise(config: StudentConfig) -> Tensor:
    """The one noise [1, F, Nv, C] behind which an action-only export acts."""
    shape = (1, len(config.future_knots), config.tokens, config.token_channels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(NOISE_SEED))


def model_sizes(config: StudentConfig, noise_seed: int, way: Way | None = None) -> Model:
    """The manifest's view of a student. Latents are calibrated to unit variance, so their scale is 1."""
    how = way or Way()
    return Model(
        layers=config.depth, width=config.width, tokens_per_frame=config.tokens, channels=config.token_channels,
        knots=config.horizon, past_frames=config.past_frames, past_stride_knots=config.past_stride,
        future_knots=config.future_knots if how.video == "imagined" else (), text_tokens=config.text_length,
        vocabulary=VOCABULARY, steps=how.passes, noise_seed=noise_seed, latent_scale=(1.0,) * config.token_channels,
    )  # fmt: skip


def step_inputs(config: StudentConfig) -> dict[str, Tensor]:
    """Zero inputs of the step graph, in its order."""
    c = config
    f = len(c.future_knots)
    shapes = {
        "latent": (1, c.tokens, c.token_channels), "state": (1, c.state_width),
        "noise_video": (1, f, c.tokens, c.token_channels), "noise_action": (1, c.horizon, c.action_width),
        "prefix_action": (1, c.horizon, c.action_width), "prefix_mask": (1, c.horizon),
        "past_kv": (c.depth, 2, c.past_frames * (c.tokens + 1), c.width), "past_mask": (1, c.past_frames),
        "cross_kv": (c.depth, 2, c.text_length, c.width),
    }  # fmt: skip
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def step_arguments(feed: Feed, config: StudentConfig, way: Way | None = None) -> list[Tensor]:
    """Inputs of a step graph as :meth:`WorldActionTransformer.step` takes them: with the video that the graph holds."""
    given = {name: torch.from_numpy(np.array(value)) for name, value in feed.items()}
    if way is not None and way.video != "imagined":
        noise = fixed_noise(config)
        given["noise_video"] = noise[:, :0] if way.video == "absent" else noise
    return [given[name] for name in step_inputs(config)]


def refine_inputs(config: StudentConfig) -> dict[str, Tensor]:
    """Zero inputs of the second pass' graph, in its order."""
    first, c = step_inputs(config), config
    return {
        "noisy_video": first["noise_video"], "noisy_action": first["noise_action"],
        **{name: first[name] for name in ("prefix_action", "prefix_mask", "past_kv", "past_mask")},
        "new_kv": torch.zeros(c.depth, 2, c.tokens + 1, c.width), "cross_kv": first["cross_kv"],
    }  # fmt: skip


def _onnx(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> onnx.ModelProto:
    buffer = io.BytesIO()
    logging.getLogger(_REGISTRATION).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*treespec, LeafSpec", FutureWarning)  # PyTorch about itself
        program = torch.onnx.export(
            module.eval(), tuple(inputs.values()), dynamo=True, opset_version=OPSET, input_names=list(inputs),
            output_names=outputs, external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    program.save(buffer)
    model = onnx.load_model_from_string(buffer.getvalue())
    _name_by_module(model)
    _strip(model)
    return model


def _name_by_module(model: onnx.ModelProto) -> None:
    """Give the weights of linear layers the name of their module; the exporter calls a transposed weight ``val_17``."""
    constants = {t.name: t for t in model.graph.initializer}
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"), "[]")
        path = [part for part in ast.literal_eval(scopes)[:-1] if part]
        if node.op_type == "MatMul" and node.input[1] in constants and path and uses[node.input[1]] == 1:
            weight = constants[node.input[1]]
            weight.name = node.input[1] = f"{path[-1]}.weight"
            node.name = path[-1]


def _strip(model: onnx.ModelProto) -> None:
    """Drop what the exporter writes about the source tree: it names files of the machine that exported."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        del value.metadata_props[:]


def export_graphs(
    codec: FrameCodec, wam: WorldActionTransformer, way: Way | None = None
) -> dict[str, onnx.ModelProto]:  # fmt: skip
    """The float32 graphs with the bundle's interface."""
    c = wam.config
    latent = torch.zeros(1, c.tokens, c.token_channels)
    height, width = codec.canvas
    return {
        "encode": _onnx(_Encode(codec), {"canvas": torch.zeros(1, 3, height, width)}, ["latent"]),
        "decode": _onnx(_Decode(codec), {"latent": latent}, ["canvas"]),
        **export_student(wam, way),
    }


def export_student(wam: WorldActionTransformer, way: Way | None = None) -> dict[str, onnx.ModelProto]:
    """Those of :func:`export_graphs` that the transformer is in: text, step, and refine for two passes."""
    c, how = wam.config, way or Way()
    tokens = torch.zeros(1, c.text_length, dtype=torch.int64)
    graphs = {"text": _onnx(_Text(wam), {"tokens": tokens}, ["cross_kv"])}
    inputs = step_inputs(c)
    if how.video != "imagined":
        del inputs["noise_video"]
        return {**graphs, "step": _onnx(_Act(wam, how), inputs, ["action", "new_kv"])}
    first = _Step(wam, 1.0, how.target)
    graphs["step"] = _onnx(first, inputs, ["action", "video", "new_kv"])
    if how.passes == 2:
        graphs["refine"] = _onnx(_Refine(wam, HALF_WAY, 0.0), refine_inputs(c), ["action", "video"])
    return graphs


def bundle(
    directory: Path, *, name: str, description: str, embodiment_text: str, config: StudentConfig,
    graphs: Mapping[str, onnx.ModelProto], card: Mapping[str, Any], golden: GoldenRecorder, key: Ed25519PrivateKey,
    noise_seed: int = NOISE_SEED, way: Way | None = None, replace: bool = False,
) -> str:  # fmt: skip
    """Write and sign ``NAME.wam``; returns the model hash."""
    parts = BundleParts(
        name=name, description=description, embodiment=embodiment_text, model=model_sizes(config, noise_seed, way),
        graphs={graph: model.SerializeToString() for graph, model in graphs.items()}, card=card,
    )  # fmt: skip
    return write_bundle(directory, parts, golden=golden, key=key, replace=replace)
