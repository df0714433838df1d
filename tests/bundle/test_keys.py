"""Keys: who may read them, what is one, and that making one never destroys another."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from edge_wam.bundle import TrustStore, create_key, demo_private_key, key_id, load_private_key, open_bundle, sign
from edge_wam.bundle.signing import demo_public_key
from edge_wam.errors import BundleError


def test_a_new_key_signs_and_is_trusted_by_the_name_of_its_file(bundle_dir: Path, tmp_path: Path) -> None:
    private, public = tmp_path / "lab.key", tmp_path / "lab.pub"
    made = create_key(private, public)
    assert private.stat().st_mode & 0o777 == 0o600
    sign(bundle_dir, load_private_key(private))
    signer = open_bundle(bundle_dir, trust=TrustStore.load([public])).signer
    assert signer is not None and (signer.name, signer.key_id) == ("lab", made)


def test_making_a_key_overwrites_nothing(tmp_path: Path) -> None:
    private, public = tmp_path / "lab.key", tmp_path / "lab.pub"
    create_key(private, public)
    before = private.read_bytes(), public.read_bytes()
    with pytest.raises(BundleError, match="File exists"):
        create_key(private, tmp_path / "other.pub")
    with pytest.raises(BundleError, match="File exists"):
        create_key(tmp_path / "other.key", public)
    assert (private.read_bytes(), public.read_bytes()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["lab.key", "lab.pub"]


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    private = tmp_path / "lab.key"
    create_key(private, tmp_path / "lab.pub")
    private.chmod(0o644)
    with pytest.raises(BundleError, match="other users") as refusal:
        load_private_key(private)
    assert refusal.value.remedy == f"chmod 600 {private}"


def test_what_is_no_ed25519_key_is_refused(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1())
    private, public, junk = tmp_path / "ec.key", tmp_path / "ec.pub", tmp_path / "junk"
    pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    private.write_bytes(
        other.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    public.write_bytes(other.public_key().public_bytes(pem, spki))
    junk.write_bytes(b"junk")
    for path in (private, junk, tmp_path / "none"):
        with pytest.raises(BundleError, match=path.name):
            load_private_key(path)
    for path in (public, junk, tmp_path / "none"):
        with pytest.raises(BundleError, match=path.name):
            TrustStore.load([path])


def test_the_demo_key_is_a_pair_and_says_that_it_is_insecure() -> None:
    assert key_id(demo_private_key().public_key()) == key_id(demo_public_key())
    assert TrustStore(allow_demo_key=True).find(key_id(demo_public_key()))[0].startswith("demo (INSECURE")
