"""Opening a bundle: everything is verified before anything in it is used, and what was verified is what is used.

The files are read once into memory and hashed there, so a file that changes on disk afterwards changes nothing.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import edge_wam
from edge_wam.bundle.manifest import (
    Manifest,
    check_graphs,
    identity,
    parse_json,
    parse_manifest,
    robot_difference,
)
from edge_wam.bundle.signing import Signer, TrustStore, verify_signature
from edge_wam.embodiment import Embodiment, parse_embodiment
from edge_wam.errors import BundleError, ConfigError
from firmware_bridge.host import messages

MANIFEST = "manifest.json"
SIGNATURE = "signature"
EMBODIMENT = "embodiment.toml"
GOLDEN = "golden.npz"
CARD = "card.json"
_REQUIRED_FILES = (EMBODIMENT, GOLDEN, CARD)
_MANIFEST_LIMIT = 1 << 20
_SIGNATURE_LIMIT = 4096


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. ``files`` holds the verified bytes; ``model_hash`` is the SHA-256 of the manifest's."""

    directory: Path
    manifest: Manifest
    embodiment: Embodiment
    model_hash: str
    signer: Signer | None
    """None only for a bundle that is being written and is not yet signed; such a bundle may not move a robot."""
    files: Mapping[str, bytes]

    def graph(self, name: str) -> bytes:
        """The ONNX bytes of a graph of the manifest."""
        return self.files[self.manifest.graphs[name].file]

    def golden(self) -> dict[str, NDArray[Any]]:
        """The arrays of ``golden.npz``.

        Raises:
            BundleError: not an archive of plain arrays (a pickle is never loaded).
        """
        return load_arrays(self.files[GOLDEN])

    def card(self) -> dict[str, Any]:
        """What was measured of this model, by whom it was made."""
        return parse_json(self.files[CARD], CARD)


def wire_schema() -> str:
    """Schema hash of the microcontroller protocol of this runtime, 8 hex digits."""
    return f"{messages.SCHEMA_HASH:08x}"


def load_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Read an npz archive without pickle; see :meth:`Bundle.golden`."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise BundleError(f"{GOLDEN}: not an archive of plain arrays: {error}", remedy="export it again") from error


def open_bundle(
    directory: Path, *, trust: TrustStore, embodiment: Embodiment | None = None, any_wire: bool = False
) -> Bundle:
    """Read and verify ``directory`` completely.

    Args:
        directory: the ``NAME.wam`` directory.
        trust: the keys this robot accepts.
        embodiment: the robot it is for; None only to look at a bundle without a robot.
        any_wire: open it although it was accepted with another wire protocol: to inspect or accept it, never to run it.

    Raises:
        BundleError: a changed, missing, additional or linked file; an unknown, forbidden or missing signature; a newer
            schema or a needed runtime that is newer; another wire protocol; another robot; an unknown key.
    """
    listed = _list_files(directory)
    manifest_bytes = _manifest(directory, listed)
    if SIGNATURE not in listed:
        raise BundleError(
            f"{directory}: has no {SIGNATURE}", expected="a signed bundle", remedy="sign it (edge-wam bundle sign)"
        )
    signer = verify_signature(manifest_bytes, _read_small(directory, SIGNATURE, _SIGNATURE_LIMIT), trust)
    manifest = parse_manifest(manifest_bytes)
    files = _verified_files(directory, manifest, listed)
    bundle = assemble(directory, manifest_bytes, manifest, files, signer)
    check_runtime(manifest)
    if not any_wire:
        check_wire(manifest)
    if embodiment is not None and (difference := robot_difference(bundle.embodiment, embodiment)):
        raise BundleError(
            f"bundle {manifest.name!r} is for another robot: {difference}",
            expected=f"a bundle for {embodiment.name!r} with this robot's limits and cameras",
            remedy="use a bundle made for this robot",
        )
    return bundle


def look_at(directory: Path) -> Bundle:
    """Check everything but who signed it: to inspect or to sign, never to run (its ``signer`` is None).

    Raises:
        BundleError: as :func:`open_bundle`, signature, wire protocol and robot left out.
    """
    listed = _list_files(directory)
    manifest_bytes = _manifest(directory, listed)
    manifest = parse_manifest(manifest_bytes)
    bundle = assemble(directory, manifest_bytes, manifest, _verified_files(directory, manifest, listed), None)
    check_runtime(manifest)
    return bundle


def _manifest(directory: Path, listed: set[str]) -> bytes:
    if MANIFEST not in listed:
        raise BundleError(
            f"{directory}: has no {MANIFEST}", expected="a signed bundle", remedy="name a bundle directory"
        )
    return _read_small(directory, MANIFEST, _MANIFEST_LIMIT)


def assemble(
    directory: Path, manifest_bytes: bytes, manifest: Manifest, files: Mapping[str, bytes], signer: Signer | None
) -> Bundle:
    """Check that the parts agree with each other (robot, graphs, golden run, card) and put them together.

    Raises:
        BundleError: they do not.
    """
    for name in _REQUIRED_FILES:
        if name not in files:
            raise BundleError(f"manifest.json: does not list {name}", remedy="export the bundle again")
    try:
        robot = parse_embodiment(files[EMBODIMENT].decode("utf-8"), f"{directory.name}/{EMBODIMENT}")
    except ConfigError as error:
        raise BundleError(error.what, expected=error.expected, remedy="export the bundle again") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{EMBODIMENT}: not UTF-8", remedy="export the bundle again") from error
    if identity(robot) != manifest.robot:
        raise BundleError(
            f"{EMBODIMENT} is not the robot that manifest.json names ({manifest.robot.name!r})",
            expected="the same name, axes and limits in both",
            remedy="export the bundle again",
        )
    check_graphs(manifest, robot)
    parse_json(files[CARD], CARD)
    load_arrays(files[GOLDEN])
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    return Bundle(directory, manifest, robot, digest, signer, dict(files))


def check_runtime(manifest: Manifest) -> None:
    """Refuse a bundle that needs a newer runtime than this (BundleError names both versions)."""
    here = tuple(int(part) for part in edge_wam.__version__.split("."))
    if tuple(int(part) for part in manifest.min_runtime.split(".")) > here:
        raise BundleError(
            f"bundle {manifest.name!r} needs edge-wam {manifest.min_runtime}, this is {edge_wam.__version__}",
            expected=f"edge-wam {manifest.min_runtime} or newer",
            remedy="update edge-wam on this robot",
        )


def check_wire(manifest: Manifest) -> None:
    """Refuse a bundle that was accepted with another firmware protocol (BundleError names both schema hashes)."""
    if manifest.wire_schema != wire_schema():
        raise BundleError(
            f"bundle {manifest.name!r} was accepted with wire protocol {manifest.wire_schema}, this runtime speaks "
            f"{wire_schema()}",
            expected=f"wire protocol {wire_schema()}",
            remedy="use the bundle made for this release, or accept it again and sign it (edge-wam bundle sign)",
        )


def _list_files(directory: Path) -> set[str]:
    """Relative paths of all files; refuses links and everything that is neither file nor directory."""
    if directory.is_symlink() or not directory.is_dir():
        raise BundleError(f"{directory}: not a directory", expected="a bundle directory (NAME.wam)")
    found: set[str] = set()
    for base, folders, names in os.walk(directory, followlinks=False):
        for name in (*folders, *names):
            path = Path(base, name)
            relative = path.relative_to(directory).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISREG(mode):
                found.add(relative)
            elif not stat.S_ISDIR(mode):
                kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither file nor directory"
                raise BundleError(f"{relative} is {kind}", expected="plain files", remedy="get the bundle again")
    return found


def _read(directory: Path, name: str, limit: int) -> bytes:
    """Read at most ``limit`` + 1 bytes, without following a link that appeared after the listing."""
    try:
        handle = os.open(directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"{name}: {error.strerror}", remedy="get the bundle again") from error


def _read_small(directory: Path, name: str, limit: int) -> bytes:
    data = _read(directory, name, limit)
    if len(data) > limit:
        raise BundleError(f"{name} is larger than {limit} bytes", remedy="get the bundle again")
    return data


def _verified_files(directory: Path, manifest: Manifest, present: set[str]) -> dict[str, bytes]:
    present = present - {MANIFEST, SIGNATURE}
    if extra := sorted(present - manifest.files.keys()):
        raise BundleError(
            f"{extra[0]} is not listed in manifest.json", expected="only signed files", remedy="get the bundle again"
        )
    if missing := sorted(manifest.files.keys() - present):
        raise BundleError(f"{missing[0]} is missing", expected="every listed file", remedy="get the bundle again")
    files: dict[str, bytes] = {}
    for name, entry in manifest.files.items():
        data = _read(directory, name, entry.size)
        if len(data) != entry.size or hashlib.sha256(data).hexdigest() != entry.sha256:
            found = "longer" if len(data) > entry.size else f"{len(data)} bytes, another SHA-256"
            raise BundleError(
                f"{name} was changed: {found}",
                expected=f"{entry.size} bytes, SHA-256 {entry.sha256}",
                remedy="get the bundle again; do not run this one",
            )
        files[name] = data
    return files
