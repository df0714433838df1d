"""A bundle appears complete and signed or not at all, and what cannot work is refused while it is written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_wam.bundle import BundleParts, Model, TrustStore, accept, demo_private_key, open_bundle, write_bundle
from edge_wam.errors import BundleError, EdgeWamError
from edge_wam.policy import golden_recorder
from tests.support.resign import resign
from tests.support.tiny_bundle import golden_steps, make_tiny_bundle, open_tiny_bundle, tiny_parts, tiny_robot


def write(directory: Path, parts: BundleParts, *, replace: bool = False) -> str:
    recorder = golden_recorder(golden_steps(tiny_robot()))
    return write_bundle(directory, parts, golden=recorder, key=demo_private_key(), replace=replace)


def test_the_same_parts_give_the_same_manifest(tmp_path: Path) -> None:
    assert write(tmp_path / "a.wam", tiny_parts()) == write(tmp_path / "b.wam", tiny_parts())


def test_the_hash_is_that_of_the_opened_bundle_and_changes_with_the_card(tmp_path: Path) -> None:
    first = write(tmp_path / "a.wam", tiny_parts())
    assert open_tiny_bundle(tmp_path / "a.wam").model_hash == first
    assert write(tmp_path / "b.wam", dataclasses.replace(tiny_parts(), card={"made_by": "me"})) != first


def test_an_existing_bundle_is_kept_unless_told(tmp_path: Path) -> None:
    first = write(tmp_path / "a.wam", tiny_parts())
    changed = dataclasses.replace(tiny_parts(), description="second")
    with pytest.raises(BundleError, match="exists"):
        write(tmp_path / "a.wam", changed)
    assert open_tiny_bundle(tmp_path / "a.wam").model_hash == first
    write(tmp_path / "a.wam", changed, replace=True)
    assert open_tiny_bundle(tmp_path / "a.wam").manifest.description == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["a.wam"]


class Interrupted:
    """Lets ``allowed`` calls pass and breaks the next one, the way a full disk or Ctrl-C does."""

    def __init__(self, call: Callable[..., Any], allowed: int, error: type[BaseException]) -> None:
        self.call, self.allowed, self.error, self.broke = call, allowed, error, False

    def __call__(self, *args: Any) -> Any:
        if self.allowed == 0 and not self.broke:
            self.broke = True
            raise self.error(28, "No space left on device")
        self.allowed -= 1
        return self.call(*args)


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("operation", ["fsync", "rename"])
@pytest.mark.parametrize("existing", [False, True])
def test_wherever_writing_stops_the_old_bundle_or_none_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], operation: str, existing: bool
) -> None:
    directory = tmp_path / "a.wam"
    first = write(directory, tiny_parts()) if existing else ""
    changed = dataclasses.replace(tiny_parts(), description="second")
    for allowed in range(20):
        with monkeypatch.context() as patch:
            target: Any = os if operation == "fsync" else Path
            broken = Interrupted(getattr(target, operation), allowed, error)
            patch.setattr(target, operation, broken if operation == "fsync" else lambda *a, b=broken: b(*a))
            with contextlib.suppress(BundleError, KeyboardInterrupt):
                write(directory, changed, replace=existing)
        if not broken.broke:
            break
        assert [p.name for p in tmp_path.iterdir()] == (["a.wam"] if existing else [])
        if existing:
            assert open_tiny_bundle(directory).model_hash == first
    assert not broken.broke and allowed > 0
    assert open_tiny_bundle(directory).manifest.description == "second"


def _with_graph(name: str, edit: Callable[[onnx.ModelProto], None]) -> BundleParts:
    parts = tiny_parts()
    proto = onnx.load_model_from_string(parts.graphs[name])
    edit(proto)
    return dataclasses.replace(parts, graphs={**parts.graphs, name: proto.SerializeToString()})


def _external(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def _hidden_external(proto: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.zeros(3, np.float32), "v")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="../secret")
    proto.graph.node.append(helper.make_node("Constant", [], ["hidden"], value=value))


def _dynamic(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def _half(proto: onnx.ModelProto) -> None:
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _vendor(proto: onnx.ModelProto) -> None:
    proto.graph.node[0].domain = "com.microsoft"


def _branch(proto: onnx.ModelProto) -> None:
    body = helper.make_graph([helper.make_node("Identity", ["latent"], ["t"])], "t", [], [])
    proto.graph.node.append(helper.make_node("If", ["c"], ["t2"], then_branch=body, else_branch=body))


def _wider(proto: onnx.ModelProto) -> None:
    proto.graph.input[1].type.tensor_type.shape.dim[1].dim_value = 65


def _unsigned(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and not tensor.dims:
            tensor.CopyFrom(numpy_helper.from_array(np.array(128, np.uint8), tensor.name))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_external, "stored in another file"),
        (_hidden_external, "stored in another file"),
        (_dynamic, "axis 0 is dynamic"),
        (_half, "has ONNX type 10"),
        (_vendor, "domain 'com.microsoft'"),
        (_branch, "subgraph"),
        (_wider, "input 'state'"),
        (_unsigned, "not symmetric int8"),
    ],
)
def test_a_graph_that_no_robot_could_run_is_refused(
    tmp_path: Path, edit: Callable[[onnx.ModelProto], None], message: str
) -> None:
    with pytest.raises(EdgeWamError, match=message):
        write(tmp_path / "a.wam", _with_graph("step", edit))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("junk", [b"", b"not onnx", b"\x08\x0a"])
def test_what_is_not_onnx_is_refused(tmp_path: Path, junk: bytes) -> None:
    parts = tiny_parts()
    with pytest.raises(EdgeWamError, match="graph 'step'"):
        write(tmp_path / "a.wam", dataclasses.replace(parts, graphs={**parts.graphs, "step": junk}))


def _without(graphs: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    return {key: value for key, value in graphs.items() if key != name}


def test_graphs_must_be_the_four_that_are_known(tmp_path: Path) -> None:
    parts = tiny_parts()
    with pytest.raises(BundleError, match="graph 'decode' is missing"):
        write(tmp_path / "a.wam", dataclasses.replace(parts, graphs=_without(parts.graphs, "decode")))
    with pytest.raises(BundleError, match="unknown graph 'refine'"):
        write(tmp_path / "a.wam", dataclasses.replace(parts, graphs={**parts.graphs, "refine": parts.graphs["step"]}))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), Path("card"), {1, 2}])
def test_a_card_must_be_plain_values(tmp_path: Path, value: object) -> None:
    with pytest.raises(BundleError, match="card"):
        write(tmp_path / "a.wam", dataclasses.replace(tiny_parts(), card={"success": value}))


def test_the_precision_is_what_the_graph_really_is(tmp_path: Path) -> None:
    for int8 in (True, False):
        graphs = open_tiny_bundle(make_tiny_bundle(tmp_path / str(int8), int8=int8)).manifest.graphs
        assert graphs["step"].precision == ("int8" if int8 else "float32")
        assert graphs["encode"].precision == "float32"


def test_a_bundle_of_another_wire_can_be_looked_at_and_accepted(tmp_path: Path) -> None:
    directory = make_tiny_bundle(tmp_path)
    resign(directory, lambda manifest: manifest.update(wire_schema="00000000"))
    trust = TrustStore(allow_demo_key=True)
    with pytest.raises(BundleError, match="wire protocol"):
        open_bundle(directory, trust=trust)
    old = open_bundle(directory, trust=trust, any_wire=True)
    accepted = accept(old, demo_private_key())
    assert open_tiny_bundle(directory).model_hash == accepted != old.model_hash


def test_model_sizes_are_checked_where_they_are_written() -> None:
    with pytest.raises(ValueError, match="latent_scale"):
        Model(**{**tiny_parts().model.model_dump(), "latent_scale": (0.0, 1.0, 1.0, 1.0)})
