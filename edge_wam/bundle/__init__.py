"""``NAME.wam``: a model with its robot, its golden run, its card and a signature, verified before it is used.

A bundle holds only what its signer signed. Engines compiled on the device are not part of it: a cache of them belongs
outside the directory, where it can be rebuilt and need not be trusted.
"""

from edge_wam.bundle.manifest import Manifest, Model, graph_contract
from edge_wam.bundle.reader import Bundle, open_bundle, wire_schema
from edge_wam.bundle.signing import (
    Signer,
    TrustStore,
    create_key,
    demo_private_key,
    key_id,
    load_private_key,
)
from edge_wam.bundle.writer import BundleParts, accept, rewrite_card, sign, write_bundle

__all__ = [
    "Bundle",
    "BundleParts",
    "Manifest",
    "Model",
    "Signer",
    "TrustStore",
    "accept",
    "create_key",
    "demo_private_key",
    "graph_contract",
    "key_id",
    "load_private_key",
    "open_bundle",
    "rewrite_card",
    "sign",
    "wire_schema",
    "write_bundle",
]
