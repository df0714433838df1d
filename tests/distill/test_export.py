"""The exported graphs: equal to PyTorch, with the bundle's interface, and INT8 where and only where it is meant."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from distill.export import model_sizes
from distill.models.config import config_named
from distill.models.wam import WorldActionTransformer
from distill.quantise.keep import keep_float
from edge_wam.bundle import graph_contract
from edge_wam.engines import open_engine
from edge_wam.engines.onnx_graph import graph_io, parse_graph
from edge_wam.engines.qdq_lint import lint
from tests.distill.tiny import EXPORTED, ROBOT, Exported, step_feed

pytestmark = pytest.mark.timeout(900)  # the exporter alone takes 20 CPU-seconds, and CI shares its cores
Feed = dict[str, NDArray[np.generic]]
ELSEWHERE = ("cross_k", "cross_v", "text.", "time_")
"""Linear layers that the step graph does not have: their outputs are inputs or constants of it."""


def run(model: onnx.ModelProto, inputs: Feed) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, inputs)  # type: ignore[no-any-return]


def test_graphs_have_the_interface_of_the_bundle(exported: Exported) -> None:
    contract = graph_contract(model_sizes(EXPORTED, 1), ROBOT)
    assert set(exported.graphs) == set(contract)
    for name, model in {**exported.graphs, "step": exported.quantised}.items():
        assert graph_io(name, parse_graph(name, model.SerializeToString())) == contract[name]
    assert [i.name for i in exported.quantised.graph.input] == list(contract["step"][0])


@torch.no_grad()
def test_the_step_graph_equals_pytorch(exported: Exported) -> None:
    for seed in (0, 3, 7):
        inputs = step_feed(seed)
        wanted = exported.wam.step(*(torch.from_numpy(value) for value in inputs.values()))
        for name, a, b in zip(("action", "video", "new_kv"), run(exported.graphs["step"], inputs), wanted, strict=True):
            np.testing.assert_allclose(a, b.numpy(), atol=2e-4, rtol=1e-3, err_msg=f"{name}, seed {seed}")


@torch.no_grad()
def test_text_encoder_and_decoder_equal_pytorch(exported: Exported) -> None:
    canvas = torch.rand(1, 3, ROBOT.canvas_height, ROBOT.canvas_width) * 2 - 1
    (latent,) = run(exported.graphs["encode"], {"canvas": canvas.numpy()})
    np.testing.assert_allclose(latent, exported.codec.encode(canvas), atol=1e-4)
    (seen,) = run(exported.graphs["decode"], {"latent": latent})
    np.testing.assert_allclose(seen, exported.codec.decode(torch.from_numpy(latent)), atol=1e-4)
    tokens = torch.tensor([[5, 9, 40, 7, 0, 0, 0, 0, 0, 0]])
    (cross,) = run(exported.graphs["text"], {"tokens": tokens.numpy()})
    np.testing.assert_allclose(cross, exported.wam.text_kv(tokens)[:, 0], atol=1e-4)


def test_nothing_of_the_exporting_machine_is_in_the_graphs(exported: Exported) -> None:
    for model in (*exported.graphs.values(), exported.quantised):
        data = model.SerializeToString()
        for trace in (b"/root", b"/work", b"/home", b".py", b"site-packages"):
            assert trace not in data
        assert not model.metadata_props and not any(node.doc_string for node in model.graph.node)


def _linears(wam: WorldActionTransformer) -> dict[str, nn.Linear]:
    return {
        name: module for name, module in wam.named_modules()
        if isinstance(module, nn.Linear) and not any(part in name for part in ELSEWHERE)
    }  # fmt: skip


def test_weights_of_the_step_graph_are_named_by_their_module(exported: Exported) -> None:
    """The keep-list works on names: a weight called ``val_17`` would be quantised whatever the list says."""
    tensors = {t.name: numpy_helper.to_array(t) for t in exported.graphs["step"].graph.initializer}
    for name, module in _linears(exported.wam).items():
        weight = module.weight.detach().numpy()
        found = tensors[f"wam.{name}.weight"]
        assert np.array_equal(found, weight.T) or np.array_equal(found, weight), name
    named = {f"wam.{name}.weight" for name in _linears(exported.wam)}
    for node in exported.graphs["step"].graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            assert node.input[1] in named, f"a matrix product with the nameless constant {node.input[1]}"


def test_the_keep_list_is_really_float_and_the_rest_is_int8(exported: Exported) -> None:
    tensors = {t.name: numpy_helper.to_array(t) for t in exported.quantised.graph.initializer}
    keep = keep_float(EXPORTED)
    kept, made = [], []
    for name in _linears(exported.wam):
        float_there, int_there = f"wam.{name}.weight" in tensors, f"wam.{name}.weight.int8" in tensors
        assert float_there != int_there, name
        assert int_there == (not any(part in name for part in keep)), name
        (made if int_there else kept).append(name)
        if int_there:
            assert tensors[f"wam.{name}.weight.int8"].dtype == np.int8
    for part in keep:
        assert any(part in name for name in kept) or part.startswith("time_"), f"{part} keeps nothing"
    assert {name.split(".")[1] for name in made} == {"1"} and len(made) == 8


def test_most_linear_weights_of_the_shipped_size_are_int8() -> None:
    """Counted on the modules, which the test above ties to the graph."""
    nano = config_named("nano")
    sizes = {name: m.weight.numel() for name, m in _linears(WorldActionTransformer(nano)).items()}
    int8 = sum(n for name, n in sizes.items() if not any(part in name for part in keep_float(nano)))
    assert int8 >= 0.5 * sum(sizes.values())


def test_the_quantised_step_keeps_the_contract_and_stays_close(exported: Exported) -> None:
    assert lint(exported.quantised) == []
    engine = open_engine("step", exported.quantised.SerializeToString())
    outputs = {name: spec.empty() for name, spec in engine.outputs.items()}
    for seed in range(4):
        inputs = step_feed(seed)
        wanted = dict(zip(("action", "video", "new_kv"), run(exported.graphs["step"], inputs), strict=True))
        engine.run(inputs, outputs)
        for name, value in wanted.items():
            error = np.linalg.norm(outputs[name] - value) / np.linalg.norm(value)
            assert error < 0.05, f"{name} is off by {error:.1%}"
        d = seed % 5
        assert np.array_equal(outputs["action"][0, :d], inputs["prefix_action"][0, :d]), "committed knots are exact"
    assert engine.describe().quantised_inputs > 0
