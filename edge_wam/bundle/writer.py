"""Writing and signing bundles. A bundle appears under its name complete and signed, or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

import edge_wam
from edge_wam.bundle.manifest import (
    FileEntry,
    Graph,
    Manifest,
    Model,
    Tensor,
    check_path,
    graph_contract,
    identity,
    parse_manifest,
)
from edge_wam.bundle.reader import (
    CARD,
    EMBODIMENT,
    GOLDEN,
    MANIFEST,
    SIGNATURE,
    Bundle,
    assemble,
    wire_schema,
)
from edge_wam.bundle.signing import signature_bytes
from edge_wam.embodiment import parse_embodiment
from edge_wam.engines.engine import TensorSpec
from edge_wam.engines.onnx_graph import graph_io, parse_graph
from edge_wam.engines.qdq_lint import activation_quantisers, lint
from edge_wam.errors import BundleError

GoldenRecorder = Callable[[Bundle], Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class BundleParts:
    """What goes into a bundle.

    Attributes:
        name: of the model; letters, digits, ``.``, ``_``, ``-``.
        embodiment: the text of the robot file with the statistics of the training data.
        model: the sizes.
        graphs: ONNX bytes by name: text, encode, decode, step, and refine where the sizes say two passes.
        card: what was measured, with seeds and machine; plain JSON values.
    """

    name: str
    description: str
    embodiment: str
    model: Model
    graphs: Mapping[str, bytes]
    card: Mapping[str, Any]
    golden_tolerance: float = 0.02


def write_bundle(
    directory: Path, parts: BundleParts, *, golden: GoldenRecorder, key: Ed25519PrivateKey, replace: bool = False
) -> str:
    """Check the parts, record the golden run, hash, sign, move the finished bundle into place; return the model hash.

    Args:
        directory: where it will be, by convention ``NAME.wam``.
        golden: runs the unsigned bundle and returns the arrays that every robot must reproduce
            (see :func:`edge_wam.policy.golden_recorder`).
        replace: an existing bundle at ``directory`` is replaced; without it that is refused.

    Raises:
        BundleError: parts that do not fit each other, bad quantisation, or ``directory`` exists.
        EngineError: a graph that is not self-contained and static.
    """
    if directory.exists() and not replace:
        raise BundleError(f"{directory} exists", remedy="choose another name, or say that it may be replaced")
    robot = parse_embodiment(parts.embodiment, f"{parts.name}/{EMBODIMENT}")
    contract = graph_contract(parts.model, robot)
    try:
        card = _json(dict(parts.card))
    except (TypeError, ValueError) as error:
        raise BundleError(f"card: {error}", expected="plain JSON values, every number finite") from error
    files: dict[str, bytes] = {EMBODIMENT: parts.embodiment.encode(), CARD: card}
    graphs: dict[str, Graph] = {}
    for name, data in parts.graphs.items():
        path = f"graphs/{name}.onnx"
        check_path(path, "graphs")
        files[path] = data
        if name not in contract:
            raise BundleError(f"unknown graph {name!r}", expected=", ".join(contract))
        graphs[name] = _graph(name, path, data, contract[name])

    def manifest() -> Manifest:
        return Manifest(
            schema_version=1,
            name=parts.name,
            description=parts.description,
            min_runtime=edge_wam.__version__,
            wire_schema=wire_schema(),
            robot=identity(robot),
            model=parts.model,
            graphs=graphs,
            golden_tolerance=parts.golden_tolerance,
            files={
                path: FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
                for path, data in sorted(files.items())
            },
        )

    files[GOLDEN] = _arrays({})
    draft = manifest_bytes(manifest())
    files[GOLDEN] = _arrays(golden(assemble(directory, draft, parse_manifest(draft), files, None)))
    final = manifest_bytes(manifest())
    assemble(directory, final, parse_manifest(final), files, None)
    files[MANIFEST] = final
    files[SIGNATURE] = signature_bytes(final, key)
    _place(directory, files)
    return hashlib.sha256(final).hexdigest()


def sign(directory: Path, key: Ed25519PrivateKey) -> None:
    """Sign the manifest that is in ``directory`` as it stands. The files must match it; open the bundle to check.

    Raises:
        BundleError: there is no valid manifest.
    """
    path = directory / MANIFEST
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}", remedy="name a bundle directory") from error
    parse_manifest(data)
    _replace_file(directory / SIGNATURE, signature_bytes(data, key))


def accept(bundle: Bundle, key: Ed25519PrivateKey) -> str:
    """Declare that ``bundle`` works with this release's wire protocol, and sign that; return the new model hash.

    For a bundle that only the wire schema keeps out, opened with ``any_wire=True``: the caller has verified its golden
    run on this machine.

    Raises:
        BundleError: the directory cannot be written.
    """
    manifest = bundle.manifest.model_copy(update={"wire_schema": wire_schema(), "min_runtime": edge_wam.__version__})
    data = manifest_bytes(manifest)
    _place(bundle.directory, {**bundle.files, MANIFEST: data, SIGNATURE: signature_bytes(data, key)})
    return hashlib.sha256(data).hexdigest()


def rewrite_card(bundle: Bundle, card: Mapping[str, Any], key: Ed25519PrivateKey) -> str:
    """Put measured results into ``bundle`` and sign it again; return the new model hash. Graphs and golden run stay.

    Raises:
        BundleError: the card is no plain JSON, or the directory cannot be written.
    """
    try:
        data = _json(dict(card))
    except (TypeError, ValueError) as error:
        raise BundleError(f"card: {error}", expected="plain JSON values, every number finite") from error
    entry = FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    manifest = bundle.manifest.model_copy(update={"files": {**bundle.manifest.files, CARD: entry}})
    text = manifest_bytes(manifest)
    _place(bundle.directory, {**bundle.files, CARD: data, MANIFEST: text, SIGNATURE: signature_bytes(text, key)})
    return hashlib.sha256(text).hexdigest()


def manifest_bytes(manifest: Manifest) -> bytes:
    """The canonical text of a manifest: sorted keys, two spaces, one final newline."""
    return _json(manifest.model_dump(mode="json"))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()


def _arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _graph(
    name: str, path: str, data: bytes, wanted: tuple[dict[str, TensorSpec], dict[str, TensorSpec]]
) -> Graph:
    """Describe one graph by what is really in the file."""
    proto = parse_graph(name, data)
    found = graph_io(name, proto)
    for kind, specs, contract in (("input", found[0], wanted[0]), ("output", found[1], wanted[1])):
        if specs != contract:
            odd = next(t for t in sorted(specs.keys() | contract.keys()) if specs.get(t) != contract.get(t))
            raise BundleError(
                f"graph {name!r}: {kind} {odd!r} is {specs.get(odd, 'missing')}",
                expected=str(contract.get(odd, "no such tensor")),
                remedy="export it with the sizes that the manifest states",
            )
    if problems := lint(proto):
        raise BundleError(f"graph {name!r}: {problems[0]}", remedy="quantise it again")
    return Graph(
        file=path,
        precision="int8" if activation_quantisers(proto) else "float32",
        inputs={tensor: Tensor(dtype=s.dtype, shape=s.shape) for tensor, s in found[0].items()},  # type: ignore[arg-type]
        outputs={tensor: Tensor(dtype=s.dtype, shape=s.shape) for tensor, s in found[1].items()},  # type: ignore[arg-type]
    )


def _write_synced(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _replace_file(path: Path, data: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        _write_synced(part, data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise BundleError(f"{path}: {error.strerror}", remedy="check free space and permissions") from error


def _place(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write everything beside the destination, then rename: the name never shows a half-written bundle."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    except OSError as error:
        raise BundleError(f"{directory}: {error.strerror}", remedy="check free space and permissions") from error
    try:
        fresh = scratch / "new"
        for name, data in files.items():
            _write_synced(fresh / name, data)
        fresh.chmod(0o755)
        if directory.exists():
            directory.rename(scratch / "old")
        fresh.rename(directory)
    except OSError as error:
        raise BundleError(f"{directory}: {error.strerror}", remedy="check free space and permissions") from error
    finally:
        # Also on Ctrl-C between the two renames: the old bundle goes back rather than away.
        if not directory.exists() and (scratch / "old").exists():
            (scratch / "old").rename(directory)
        shutil.rmtree(scratch, ignore_errors=True)
