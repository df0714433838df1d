"""A bundle that is not exactly what its signer signed, for exactly this robot and release, is refused by name."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_wam.bundle import TrustStore, open_bundle, sign, wire_schema
from edge_wam.bundle.signing import demo_public_key, key_id
from edge_wam.embodiment import Embodiment
from edge_wam.errors import BundleError
from tests.support.resign import resign
from tests.support.tiny_bundle import ROBOT_FILE, make_tiny_bundle, open_tiny_bundle, tiny_robot

Edit = Callable[[dict[str, Any]], None]


def files_of(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def test_the_undamaged_bundle_opens(pristine: Path) -> None:
    bundle = open_tiny_bundle(pristine)
    assert bundle.signer is not None and bundle.signer.is_demo
    assert bundle.manifest.wire_schema == wire_schema()
    assert bundle.card() == {"made_by": "tests"}


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_one_changed_bit_anywhere_is_refused(
    pristine: Path, tmp_path_factory: pytest.TempPathFactory, data: Any
) -> None:
    name = data.draw(st.sampled_from(files_of(pristine)))
    good = (pristine / name).read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    bit = data.draw(st.integers(0, 7))
    copy = tmp_path_factory.mktemp("bit") / "tiny.wam"
    try:
        shutil.copytree(pristine, copy)
        bad = bytearray(good)
        bad[position] ^= 1 << bit
        (copy / name).write_bytes(bad)
        with pytest.raises(BundleError) as refusal:
            open_tiny_bundle(copy)
        if name != "signature":  # a flipped digit of the key id rightly reads as an unknown key
            assert name in refusal.value.what
    finally:
        shutil.rmtree(copy.parent)


@pytest.mark.parametrize("change", ["shorter", "longer", "empty"])
@pytest.mark.parametrize("name", ["graphs/step.onnx", "golden.npz", "card.json", "embodiment.toml"])
def test_another_length_is_refused(bundle_dir: Path, name: str, change: str) -> None:
    data = (bundle_dir / name).read_bytes()
    (bundle_dir / name).write_bytes({"shorter": data[:-1], "longer": data + b"\0", "empty": b""}[change])
    with pytest.raises(BundleError, match=f"{name} was changed"):
        open_tiny_bundle(bundle_dir)


@pytest.mark.parametrize("name", ["manifest.json", "signature", "golden.npz", "graphs/encode.onnx"])
def test_a_missing_file_is_named(bundle_dir: Path, name: str) -> None:
    (bundle_dir / name).unlink()
    with pytest.raises(BundleError, match=name):
        open_tiny_bundle(bundle_dir)


@pytest.mark.parametrize("name", ["graphs/more.onnx", "engines/sm110/step.plan", ".hidden", "golden.npz.bak"])
def test_an_unlisted_file_is_named(bundle_dir: Path, name: str) -> None:
    (bundle_dir / name).parent.mkdir(parents=True, exist_ok=True)
    (bundle_dir / name).write_bytes(b"x")
    with pytest.raises(BundleError, match=r"is not listed"):
        open_tiny_bundle(bundle_dir)


def test_a_link_is_refused_even_to_the_very_same_bytes(bundle_dir: Path, tmp_path: Path) -> None:
    target = tmp_path / "step.onnx"
    (bundle_dir / "graphs/step.onnx").rename(target)
    (bundle_dir / "graphs/step.onnx").symlink_to(target)
    with pytest.raises(BundleError, match=r"graphs/step\.onnx is a symbolic link"):
        open_tiny_bundle(bundle_dir)


def test_a_linked_folder_and_a_linked_bundle_are_refused(bundle_dir: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.wam"
    link.symlink_to(bundle_dir)
    with pytest.raises(BundleError, match="not a directory"):
        open_tiny_bundle(link)
    (bundle_dir / "graphs").rename(tmp_path / "elsewhere")
    (bundle_dir / "graphs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="graphs is a symbolic link"):
        open_tiny_bundle(bundle_dir)


def test_a_pipe_is_refused_and_not_waited_for(bundle_dir: Path) -> None:
    (bundle_dir / "card.json").unlink()
    os.mkfifo(bundle_dir / "card.json")
    with pytest.raises(BundleError, match="neither file nor directory"):
        open_tiny_bundle(bundle_dir)


def _set(*path: str, to: object) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        manifest[path[-1]] = to

    return edit


def _move(name: str, new: str) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        manifest["files"][new] = manifest["files"].pop(name)

    return edit


def _drop(*path: str) -> Edit:
    def edit(manifest: dict[str, Any]) -> None:
        for key in path[:-1]:
            manifest = manifest[key]
        del manifest[path[-1]]

    return edit


SIGNED_BUT_WRONG: dict[str, tuple[Edit, str]] = {
    "newer schema": (_set("schema_version", to=2), "schema version 2 is newer than this runtime's 1"),
    "schema is text": (_set("schema_version", to="1"), "schema_version"),
    "newer runtime": (_set("min_runtime", to="99.0.0"), "needs edge-wam 99.0.0"),
    "runtime version with a tail": (_set("min_runtime", to="0.1.0; true"), "min_runtime"),
    "other wire": (_set("wire_schema", to="00000000"), "wire protocol 00000000"),
    "unknown key": (_set("descripton", to="x"), r"unknown key 'descripton' \(did you mean 'description'"),
    "unknown model key": (_set("model", "layer", to=1), r"unknown key 'model.layer' \(did you mean 'layers'"),
    "number as text": (_set("model", "layers", to="2"), "model.layers"),
    "negative size": (_set("model", "width", to=-16), "model.width"),
    "other tokenizer": (_set("model", "vocabulary", to=100), "vocabulary is 100"),
    "scale per channel": (_set("model", "latent_scale", to=[1.0]), "latent_scale"),
    "future goes back": (_set("model", "future_knots", to=[8, 4]), "future_knots must increase"),
    "no future, and a graph that imagines": (_set("model", "future_knots", to=[]), "'step' input 'noise_video'"),
    "golden may differ by anything": (_set("golden_tolerance", to=10.0), "golden_tolerance"),
    "climbs out": (_move("card.json", "../card.json"), "file path '../card.json'"),
    "climbs inside": (_move("card.json", "graphs/../card.json"), "file path"),
    "absolute": (_move("card.json", "/etc/passwd"), "file path '/etc/passwd'"),
    "backslash": (_move("card.json", "graphs\\card.json"), "file path"),
    "hidden": (_move("card.json", ".card.json"), "file path"),
    "double slash": (_move("card.json", "graphs//card.json"), "file path"),
    "graph climbs out": (_set("graphs", "step", "file", to="../step.onnx"), "file path"),
    "graph not listed": (_set("graphs", "step", "file", to="graphs/other.onnx"), "graph 'step' names"),
    "graph missing": (_drop("graphs", "encode"), "graph 'encode' is missing"),
    "other shape": (_set("graphs", "step", "inputs", "state", "shape", to=[1, 63]), "'step' input 'state'"),
    "other sizes": (_set("model", "knots", to=17), "graph 'step'"),
    "missing output": (_drop("graphs", "step", "outputs", "video"), "'step' output 'video' is missing"),
    "no card": (_drop("files", "card.json"), "card.json is not listed"),
    "other robot inside": (_set("robot", "name", to="someone"), "embodiment.toml is not the robot"),
    "other limits inside": (_set("robot", "limits_sha256", to="0" * 64), "embodiment.toml is not the robot"),
}


@pytest.mark.parametrize("case", SIGNED_BUT_WRONG)
def test_a_good_signature_does_not_excuse_a_wrong_manifest(bundle_dir: Path, case: str) -> None:
    edit, message = SIGNED_BUT_WRONG[case]
    resign(bundle_dir, edit)
    with pytest.raises(BundleError, match=message):
        open_tiny_bundle(bundle_dir)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lambda t: t.replace('"name"', '"name": "a", "name"', 1), "appears twice"),
        (lambda t: t.replace("0.02", "NaN"), "not a number"),
        (lambda t: t.replace("0.02", "Infinity"), "not a number"),
        (lambda t: t[:-5], "not valid JSON"),
        (lambda t: "[]", "expected: a JSON object"),
        (lambda t: "[" * 100_000, "not valid JSON"),
        (lambda t: t.replace('"tiny"', '"tiny/../.."'), "name"),
    ],
)
def test_loose_json_is_refused(bundle_dir: Path, text: Callable[[str], str], message: str) -> None:
    resign(bundle_dir, text=text)
    with pytest.raises(BundleError, match=message):
        open_tiny_bundle(bundle_dir)


def test_a_manifest_that_does_not_end_is_not_read_to_its_end(bundle_dir: Path) -> None:
    with (bundle_dir / "manifest.json").open("ab") as file:
        file.truncate(1 << 32)
    with pytest.raises(BundleError, match=r"manifest\.json is larger than"):
        open_tiny_bundle(bundle_dir)


class Payload:
    """Unpickling it makes a folder: if a pickle is ever loaded, the folder is there."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.path,)


def test_a_pickle_in_the_golden_run_is_never_loaded(bundle_dir: Path, tmp_path: Path) -> None:
    proof = tmp_path / "was_run"
    array = np.empty(1, object)
    array[0] = Payload(str(proof))
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=True, q=array)
    (bundle_dir / "golden.npz").write_bytes(buffer.getvalue())
    resign(bundle_dir)
    with pytest.raises(BundleError, match="not an archive of plain arrays"):
        open_tiny_bundle(bundle_dir)
    assert not proof.exists()


@pytest.mark.parametrize("junk", [b"", b"PK\x03\x04", b"\x93NUMPY", bytes(range(256))], ids=repr)
def test_junk_as_golden_run_is_refused(bundle_dir: Path, junk: bytes) -> None:
    (bundle_dir / "golden.npz").write_bytes(junk)
    resign(bundle_dir)
    with pytest.raises(BundleError, match=r"golden\.npz"):
        open_tiny_bundle(bundle_dir)


def _robot(**changes: object) -> Embodiment:
    return tiny_robot().model_copy(update=changes)


def _axis(**changes: object) -> Embodiment:
    robot = tiny_robot()
    return robot.model_copy(update={"axes": (robot.axes[0].model_copy(update=changes), *robot.axes[1:])})


def _camera(**changes: object) -> Embodiment:
    robot = tiny_robot()
    return robot.model_copy(update={"cameras": (robot.cameras[0].model_copy(update=changes), *robot.cameras[1:])})


OTHER_ROBOTS = {
    "name": (lambda: _robot(name="other_arm"), "name is 'metaworld_sawyer' in the bundle and 'other_arm'"),
    "knot spacing": (lambda: _robot(chunk_dt_ms=40), "chunk_dt_ms"),
    "canvas": (lambda: _robot(canvas_width=256), "canvas_width"),
    "fewer axes": (lambda: _robot(axes=tiny_robot().axes[:3]), "axes are"),
    "swapped axes": (lambda: _robot(axes=tiny_robot().axes[::-1]), "axes are"),
    "position_min": (lambda: _axis(position_min=-0.4), "axis x: position_min"),
    "position_max": (lambda: _axis(position_max=0.4), "axis x: position_max"),
    "velocity_max": (lambda: _axis(velocity_max=0.1), "axis x: velocity_max is 0.8 in the bundle and 0.1"),
    "acceleration_max": (lambda: _axis(acceleration_max=1.0), "axis x: acceleration_max"),
    "following_error_max": (lambda: _axis(following_error_max=0.01), "axis x: following_error_max"),
    "unit": (lambda: _axis(unit="rad"), "axis x: unit"),
    "action": (lambda: _axis(action="absolute"), "axis x: action"),
    "camera": (lambda: _camera(name="wrist"), "cameras"),
    "crop": (lambda: _camera(crop_x=1, crop_width=63), "cameras"),
}


@pytest.mark.parametrize("case", OTHER_ROBOTS)
def test_a_bundle_for_another_robot_is_refused(pristine: Path, case: str) -> None:
    make, message = OTHER_ROBOTS[case]
    with pytest.raises(BundleError, match=f"is for another robot: .*{message}"):
        open_bundle(pristine, trust=TrustStore(allow_demo_key=True), embodiment=make())


def test_other_statistics_are_no_other_robot(pristine: Path) -> None:
    bundle = open_bundle(pristine, trust=TrustStore(allow_demo_key=True), embodiment=_axis(action_q99=0.7))
    assert bundle.embodiment.axes[0].action_q99 == 0.3  # the statistics of the training data count


def test_the_demo_key_is_refused_unless_the_robot_allows_it(pristine: Path) -> None:
    with pytest.raises(BundleError, match="demo key") as refusal:
        open_bundle(pristine, trust=TrustStore())
    assert "allow_demo_key = true" in refusal.value.remedy


def test_listing_the_demo_key_as_trusted_does_not_allow_it(pristine: Path) -> None:
    demo = demo_public_key()
    with pytest.raises(BundleError, match="demo key"):
        open_bundle(pristine, trust=TrustStore({key_id(demo): ("mine", demo)}))


def test_an_unknown_key_is_refused_and_a_trusted_one_is_not(bundle_dir: Path) -> None:
    key = Ed25519PrivateKey.generate()
    sign(bundle_dir, key)
    with pytest.raises(BundleError, match=f"unknown key {key_id(key.public_key())}"):
        open_bundle(bundle_dir, trust=TrustStore(allow_demo_key=True))
    trust = TrustStore({key_id(key.public_key()): ("lab", key.public_key())})
    signer = open_bundle(bundle_dir, trust=trust).signer
    assert signer is not None and signer.name == "lab" and not signer.is_demo


def test_a_signature_by_another_key_under_a_trusted_name_is_refused(bundle_dir: Path) -> None:
    trusted, attacker = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    trust = TrustStore({key_id(trusted.public_key()): ("lab", trusted.public_key())})
    sign(bundle_dir, attacker)
    path = bundle_dir / "signature"
    forged = path.read_text().replace(key_id(attacker.public_key()), key_id(trusted.public_key()))
    path.write_text(forged)
    with pytest.raises(BundleError, match="does not match its signature"):
        open_bundle(bundle_dir, trust=trust)


def test_the_signature_of_another_bundle_is_refused(bundle_dir: Path, tmp_path: Path) -> None:
    other = make_tiny_bundle(tmp_path / "other", int8=False)
    shutil.copy(other / "signature", bundle_dir / "signature")
    with pytest.raises(BundleError, match="does not match its signature"):
        open_tiny_bundle(bundle_dir)


def test_the_robot_inside_must_be_readable(bundle_dir: Path) -> None:
    text = ROBOT_FILE.read_text().replace("velocity_max", "velocty_max", 1)
    (bundle_dir / "embodiment.toml").write_text(text)
    resign(bundle_dir)
    with pytest.raises(BundleError, match="did you mean 'velocity_max'"):
        open_tiny_bundle(bundle_dir)


def test_what_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a directory"):
        open_tiny_bundle(tmp_path / "nothing.wam")
    with pytest.raises(BundleError, match=r"has no manifest\.json"):
        open_tiny_bundle(tmp_path)
