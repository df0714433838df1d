"""Who vouches for a bundle: Ed25519 keys, the robot's list of keys it trusts, and the signature file."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge_wam.errors import BundleError

# The prefix keeps a signature over a manifest from being one over anything else that the key may sign.
_DOMAIN = b"edge-wam bundle manifest, schema 1\n"
# One spelling only: a signature file with one byte changed is another file, also where the change would mean nothing.
_SIGNATURE = re.compile(rb'\{"algorithm":"ed25519","key":"([0-9a-f]{16})","signature":"([0-9a-f]{128})"\}\n')
DEMO_KEY_NAME = "demo (INSECURE, its private half is public)"


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def key_id(key: Ed25519PublicKey) -> str:
    """The first 16 hex digits of the SHA-256 of the raw public key."""
    return hashlib.sha256(_raw(key)).hexdigest()[:16]


def _public_from_pem(pem: bytes, source: str) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise BundleError(f"{source}: not a public key in PEM form", remedy="use the signer's .pub file") from error
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError(f"{source}: is a {type(key).__name__}", expected="an Ed25519 public key")
    return key


def demo_public_key() -> Ed25519PublicKey:
    """The key of the bundles that ship with the source. Anybody can sign with it."""
    return _public_from_pem(resources.files("edge_wam.bundle").joinpath("keys/demo.pub").read_bytes(), "demo.pub")


def demo_private_key() -> Ed25519PrivateKey:
    """The public private half of the demo key: proves nothing about who signed, only that the files are whole."""
    pem = resources.files("edge_wam.bundle").joinpath("keys/demo-INSECURE.key").read_bytes()
    return _private_from_pem(pem, "demo-INSECURE.key")


def _private_from_pem(pem: bytes, source: str) -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{source}: not a private key in plain PEM form", remedy="use an Ed25519 key") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError(f"{source}: is a {type(key).__name__}", expected="an Ed25519 private key")
    return key


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a PEM private key.

    Raises:
        BundleError: unreadable, not Ed25519, or readable by others than its owner.
    """
    try:
        pem = path.read_bytes()
        mode = path.stat().st_mode
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror}", remedy="name the signing key") from error
    key = _private_from_pem(pem, str(path))
    if mode & 0o077 and key_id(key.public_key()) != key_id(demo_public_key()):
        raise BundleError(
            f"{path}: other users of this machine may read it (mode {mode & 0o777:o})",
            expected="mode 600",
            remedy=f"chmod 600 {path}",
        )
    return key


def create_key(private: Path, public: Path) -> str:
    """Make a key pair, the private half readable by its owner only; return the key id. Never overwrites.

    Raises:
        BundleError: one of the files exists or cannot be written.
    """
    key = Ed25519PrivateKey.generate()
    halves = (
        (private, 0o600, key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())),
        (public, 0o644, key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)),
    )
    written: list[Path] = []
    for path, mode, pem in halves:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            written.append(path)
            with os.fdopen(handle, "wb") as file:
                file.write(pem)
        except OSError as error:
            for half in written:
                half.unlink(missing_ok=True)
            raise BundleError(f"{path}: {error.strerror}", remedy="choose a new file name") from error
    return key_id(key.public_key())


@dataclass(frozen=True)
class TrustStore:
    """The keys that this robot accepts, by key id, each with the name that its owner gave it."""

    keys: Mapping[str, tuple[str, Ed25519PublicKey]] = field(default_factory=dict)
    allow_demo_key: bool = False

    @classmethod
    def load(cls, files: Iterable[Path], *, allow_demo_key: bool = False) -> TrustStore:
        """Trust the public keys (PEM) in ``files``; a key's name is its file's name without ending.

        Raises:
            BundleError: a file is unreadable or holds no Ed25519 public key.
        """
        keys: dict[str, tuple[str, Ed25519PublicKey]] = {}
        for path in files:
            try:
                key = _public_from_pem(path.read_bytes(), str(path))
            except OSError as error:
                raise BundleError(f"{path}: {error.strerror}", remedy="correct the list of trusted keys") from error
            keys[key_id(key)] = (path.stem, key)
        return cls(keys, allow_demo_key)

    def find(self, wanted: str) -> tuple[str, Ed25519PublicKey]:
        """The name and key for a key id.

        Raises:
            BundleError: the demo key where it is not allowed (even if listed), or a key that is not trusted.
        """
        demo = demo_public_key()
        if wanted == key_id(demo):
            if not self.allow_demo_key:
                raise BundleError(
                    f"bundle is signed with the demo key {wanted}, whose private half is public",
                    expected="a key that only its owner has",
                    remedy="sign it with your own key (edge-wam bundle sign), or for a simulated robot set "
                    "allow_demo_key = true in the run configuration",
                )
            return DEMO_KEY_NAME, demo
        try:
            return self.keys[wanted]
        except KeyError:
            known = ", ".join(f"{name} ({key})" for key, (name, _) in self.keys.items()) or "none"
            raise BundleError(
                f"bundle is signed with the unknown key {wanted}",
                expected=f"a trusted key: {known}",
                remedy="add the signer's .pub file to this robot's trusted keys if you trust the signer",
            ) from None


@dataclass(frozen=True, slots=True)
class Signer:
    """Whose signature a bundle carries."""

    key_id: str
    name: str

    @property
    def is_demo(self) -> bool:
        return self.key_id == key_id(demo_public_key())


def signature_bytes(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """The content of the file ``signature``: one line of JSON."""
    made = key.sign(_DOMAIN + manifest).hex()
    return f'{{"algorithm":"ed25519","key":"{key_id(key.public_key())}","signature":"{made}"}}\n'.encode()


def verify_signature(manifest: bytes, signature: bytes, trust: TrustStore) -> Signer:
    """Who signed ``manifest``.

    Raises:
        BundleError: malformed, unknown or forbidden key, or the signature is not over these bytes.
    """
    match = _SIGNATURE.fullmatch(signature)
    if match is None:
        raise BundleError(
            "signature: malformed", expected='{"algorithm":"ed25519","key":...,"signature":...}',
            remedy="get the bundle again, or sign it (edge-wam bundle sign)",
        )
    signed_by = match[1].decode()
    name, key = trust.find(signed_by)
    try:
        key.verify(bytes.fromhex(match[2].decode()), _DOMAIN + manifest)
    except InvalidSignature:
        raise BundleError(
            "manifest.json does not match its signature: it was changed after signing",
            expected=f"the bytes that {name} ({signed_by}) signed",
            remedy="get the bundle again; do not run this one",
        ) from None
    return Signer(signed_by, name)
