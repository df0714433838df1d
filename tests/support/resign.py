"""Bundles that are wrong and yet correctly signed: what an honest exporter with a bug, or an insider, would deliver."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_wam.bundle.signing import demo_private_key, signature_bytes


def resign(
    directory: Path,
    edit: Callable[[dict[str, Any]], None] = lambda manifest: None,
    *,
    key: Ed25519PrivateKey | None = None,
    text: Callable[[str], str] = lambda text: text,
) -> None:
    """Update the hashes of all listed files, apply ``edit`` to the manifest and ``text`` to its JSON, and sign."""
    path = directory / "manifest.json"
    manifest = json.loads(path.read_bytes())
    for name, entry in manifest["files"].items():
        if (directory / name).is_file():
            data = (directory / name).read_bytes()
            entry.update(size=len(data), sha256=hashlib.sha256(data).hexdigest())
    edit(manifest)
    path.write_text(text(json.dumps(manifest)))
    (directory / "signature").write_bytes(signature_bytes(path.read_bytes(), key or demo_private_key()))
