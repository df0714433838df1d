"""Looking at bundles, verifying and signing them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_wam.bundle import (
    Bundle,
    TrustStore,
    accept,
    key_id,
    load_private_key,
    open_bundle,
    sign,
    wire_schema,
)
from edge_wam.bundle.reader import check_wire, look_at
from edge_wam.embodiment import load_embodiment
from edge_wam.errors import BundleError


def _who(bundle: Bundle) -> str:
    signer = bundle.signer
    return "nobody" if signer is None else f"{signer.name}, key {signer.key_id}"


def inspect_bundle(directory: Path) -> dict[str, Any]:
    """What is in it, as plain values. Every file is checked against the manifest; nothing is run.

    Raises:
        BundleError: changed, incomplete or malformed.
    """
    bundle = look_at(directory)
    try:
        signed_by = _who(open_bundle(directory, trust=TrustStore(allow_demo_key=True), any_wire=True))
    except BundleError as error:
        signed_by = f"not verified: {error.what}"
    manifest = bundle.manifest
    return {
        "name": manifest.name,
        "description": manifest.description,
        "directory": str(directory),
        "model_hash": bundle.model_hash,
        "signed_by": signed_by,
        "robot": manifest.robot.name,
        "axes": list(manifest.robot.axes),
        "wire_schema": manifest.wire_schema,
        "wire_schema_here": wire_schema(),
        "min_runtime": manifest.min_runtime,
        "size_mb": round(sum(entry.size for entry in manifest.files.values()) / 1e6, 2),
        "files": {name: entry.model_dump() for name, entry in manifest.files.items()},
        "graphs": {
            name: {"file": graph.file, "precision": graph.precision, "size": manifest.files[graph.file].size}
            for name, graph in manifest.graphs.items()
        },
        "model": manifest.model.model_dump(mode="json"),
        "golden_tolerance": manifest.golden_tolerance,
        "card": bundle.card(),
    }


def verify_bundle(
    directory: Path, *, robot: Path | None, trusted: Sequence[Path], allow_demo_key: bool, golden: bool
) -> Iterator[str]:
    """The checks a robot makes, one line for each that passed.

    Raises:
        EdgeWamError: the first one that did not.
    """
    trust = TrustStore.load(trusted, allow_demo_key=allow_demo_key)
    embodiment = load_embodiment(robot) if robot is not None else None
    bundle = open_bundle(directory, trust=trust, embodiment=embodiment)
    manifest = bundle.manifest
    yield f"signature of {_who(bundle)}"
    yield f"{len(manifest.files)} files, every byte as signed; model hash {bundle.model_hash[:16]}"
    yield f"schema {manifest.schema_version}, runtime {manifest.min_runtime} or newer, protocol {manifest.wire_schema}"
    if embodiment is not None:
        yield f"for this robot: {embodiment.name}, its axes, limits and cameras"
    if golden:
        from edge_wam.policy import Policy  # loads the engine

        result = Policy(bundle).verify_golden()
        how = "equal to the last bit" if result.exact else f"off by {result.worst:.2g} of {manifest.golden_tolerance:g}"
        yield f"golden run of {result.steps} steps: {how}"


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed, with which key."""

    key_id: str
    model_hash: str


def sign_bundle(directory: Path, key_file: Path, *, accept_here: bool) -> Signed:
    """Sign ``directory`` as it stands, or (``accept_here``) for this release's wire protocol after its golden run.

    Nothing is written before every check has passed.

    Raises:
        EdgeWamError: bad key, files that do not match the manifest, another wire protocol, a failed golden run.
    """
    key = load_private_key(key_file)
    public = key.public_key()
    bundle = look_at(directory)
    if accept_here:
        from edge_wam.policy import Policy  # loads the engine

        Policy(bundle).verify_golden()
        return Signed(key_id(public), accept(bundle, key))
    check_wire(bundle.manifest)
    sign(directory, key)
    return Signed(key_id(public), bundle.model_hash)
