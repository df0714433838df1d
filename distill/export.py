"""Student to bundle: four ONNX graphs, INT8 for the step, golden run, card, signature."""

from __future__ import annotations

import ast
import io
import logging
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray
from torch import Tensor, nn

from distill.models.codec import FrameCodec
from distill.models.config import StudentConfig
from distill.models.wam import WorldActionTransformer
from distill.quantise import calibrate, insert_qdq, quantisable
from edge_wam.bundle import BundleParts, Model, write_bundle
from edge_wam.bundle.writer import GoldenRecorder
from edge_wam.text import VOCABULARY

OPSET = 20
Feed = Mapping[str, NDArray[np.generic]]
_REGISTRATION = "torch.onnx._internal.exporter._registration"
"""Its only message here is that torchvision, which nothing of ours uses, is not installed."""


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


class _Step(nn.Module):
    def __init__(self, wam: WorldActionTransformer) -> None:
        super().__init__()
        self.wam = wam
        with torch.no_grad():
            e, time = wam.fixed_levels()
        self.register_buffer("e", e)
        self.register_buffer("time", time)

    e: Tensor
    time: Tensor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.wam.step(*inputs, noise_level=(self.e, self.time))


def model_sizes(config: StudentConfig, noise_seed: int) -> Model:
    """The manifest's view of a student. Latents are calibrated to unit variance, so their scale is 1."""
    return Model(
        layers=config.depth, width=config.width, tokens_per_frame=config.tokens, channels=config.token_channels,
        knots=config.horizon, past_frames=config.past_frames, past_stride_knots=config.past_stride,
        future_knots=config.future_knots, text_tokens=config.text_length, vocabulary=VOCABULARY, steps=1,
        noise_seed=noise_seed, latent_scale=(1.0,) * config.token_channels,
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


def export_graphs(codec: FrameCodec, wam: WorldActionTransformer) -> dict[str, onnx.ModelProto]:
    """The four float32 graphs with the bundle's interface."""
    c = wam.config
    height, width = c.grid[0] * 8, c.grid[1] * 8
    latent = torch.zeros(1, c.tokens, c.token_channels)
    tokens = torch.zeros(1, c.text_length, dtype=torch.int64)
    return {
        "text": _onnx(_Text(wam), {"tokens": tokens}, ["cross_kv"]),
        "encode": _onnx(_Encode(codec), {"canvas": torch.zeros(1, 3, height, width)}, ["latent"]),
        "decode": _onnx(_Decode(codec), {"latent": latent}, ["canvas"]),
        "step": _onnx(_Step(wam), step_inputs(c), ["action", "video", "new_kv"]),
    }


def keep_float(config: StudentConfig) -> tuple[str, ...]:
    """Weights that stay float32, by parts of their names: embeddings, noise level, heads, first and last block."""
    ends = (f"blocks.{0}.", f"blocks.{config.depth - 1}.")
    return (
        "patch_embed", "future_embed", "state_encoder", "action_encoder", "time_embed", "time_project", "video_head",
        "action_head", *ends,
    )  # fmt: skip


def quantise_step(step: onnx.ModelProto, config: StudentConfig, feeds: Iterable[Feed]) -> onnx.ModelProto:
    """The INT8 step graph, calibrated on ``feeds`` (closed-loop inputs of the student itself)."""
    nodes = quantisable(step.graph, keep_float(config))
    return insert_qdq(step, nodes, calibrate(step, nodes, feeds))


def bundle(
    directory: Path, *, name: str, description: str, embodiment_text: str, config: StudentConfig,
    graphs: Mapping[str, onnx.ModelProto], card: Mapping[str, Any], golden: GoldenRecorder, key: Ed25519PrivateKey,
    noise_seed: int = 20_260, replace: bool = False,
) -> str:  # fmt: skip
    """Write and sign ``NAME.wam``; returns the model hash."""
    parts = BundleParts(
        name=name, description=description, embodiment=embodiment_text, model=model_sizes(config, noise_seed),
        graphs={graph: model.SerializeToString() for graph, model in graphs.items()}, card=card,
    )  # fmt: skip
    return write_bundle(directory, parts, golden=golden, key=key, replace=replace)
