"""Hash-based signatures: the C verifier and the Python signer against RFC 8554, each other, and damage."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_bridge.errors import FirmwareError
from firmware_bridge.image import lms
from tests.image.native import Native

VECTORS = json.loads((Path(__file__).parent / "rfc8554.json").read_text())
"""Appendix F: public key, message and signature of test cases 1 and 2; seed and identifier of case 2's lower tree."""
SEED, IDENTIFIER = bytes(range(32)), bytes(range(16))
NATIVE: list[Native] = []


@pytest.fixture(scope="module", autouse=True)
def _native(tmp_path_factory: pytest.TempPathFactory) -> None:
    NATIVE[:] = [Native(tmp_path_factory.mktemp("boot"))]


def _levels(case: dict[str, str]) -> list[tuple[lms.PublicKey, bytes, bytes]]:
    """The two LMS signatures in an HSS one: over the lower key, and over the message (section 6)."""
    public, message, signature = (bytes.fromhex(case[name]) for name in ("public", "message", "signature"))
    upper = lms.PublicKey.unpack(public[4:])
    end = 4 + lms.signature_bytes(upper.tree, upper.one_time)
    lower_key = signature[end : end + 56]
    return [(upper, lower_key, signature[4:end]), (lms.PublicKey.unpack(lower_key), message, signature[end + 56 :])]


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
def test_the_vectors_of_the_standard_verify_in_both_languages_and_nothing_near_them_does(case: dict[str, str]) -> None:
    for key, message, signature in _levels(case):
        assert lms.verify(key, message, signature) and NATIVE[0].verify(key, message, signature)
        for bad in (message[:-1], message + b"\0", bytes([message[0] ^ 1]) + message[1:]):
            assert not lms.verify(key, bad, signature) and not NATIVE[0].verify(key, bad, signature)
        for at in (*range(12), len(signature) // 2, len(signature) - 1):
            bad = bytearray(signature)
            bad[at] ^= 4
            assert not lms.verify(key, message, bytes(bad)) and not NATIVE[0].verify(key, message, bytes(bad)), at
        for cut in (0, 4, len(signature) - 1):
            assert not lms.verify(key, message, signature[:cut]) and not NATIVE[0].verify(key, message, signature[:cut])


@given(st.binary(max_size=300))
def test_sha256_is_sha256(data: bytes) -> None:
    assert NATIVE[0].sha256(data) == hashlib.sha256(data).digest()


@pytest.mark.parametrize("one_time", [1, 2, 3, 4])
def test_what_is_signed_here_verifies_in_both_for_every_digit_width(one_time: int) -> None:
    nodes = lms.tree_nodes(IDENTIFIER, SEED, 5, one_time)
    key = lms.PublicKey(5, one_time, IDENTIFIER, nodes[1])
    for leaf in (0, 1, 31):
        signature = lms.sign(b"firmware", leaf, IDENTIFIER, SEED, nodes, bytes(32), 5, one_time)
        assert len(signature) == lms.signature_bytes(5, one_time)
        assert lms.verify(key, b"firmware", signature) and NATIVE[0].verify(key, b"firmware", signature)
        assert not NATIVE[0].verify(key, b"Firmware", signature)


@settings(max_examples=60)
@given(st.data())
def test_one_flipped_bit_anywhere_in_a_signature_or_a_key_is_refused(data: st.DataObject) -> None:
    nodes = lms.tree_nodes(IDENTIFIER, SEED, 5, 3)
    key = lms.PublicKey(5, 3, IDENTIFIER, nodes[1])
    signature = lms.sign(b"m", 7, IDENTIFIER, SEED, nodes, bytes(32), 5, 3)
    bit = data.draw(st.integers(0, 8 * len(signature) - 1))
    bad = bytearray(signature)
    bad[bit // 8] ^= 1 << bit % 8
    assert not NATIVE[0].verify(key, b"m", bytes(bad)) and not lms.verify(key, b"m", bytes(bad))
    packed = bytearray(key.pack())
    bit = data.draw(st.integers(64, 8 * 56 - 1))  # the types are judged by the key's reader
    packed[bit // 8] ^= 1 << bit % 8
    wrong = lms.PublicKey.unpack(bytes(packed))
    assert not NATIVE[0].verify(wrong, b"m", signature) and not lms.verify(wrong, b"m", signature)


@pytest.mark.parametrize("types", [(4, 3), (10, 3), (5, 0), (5, 5)])
def test_a_key_of_an_unknown_type_verifies_nothing(types: tuple[int, int]) -> None:
    key = lms.PublicKey(*types, IDENTIFIER, bytes(32))
    assert NATIVE[0].lib.lms_signature_bytes(key.pack()) == 0
    assert not NATIVE[0].verify(key, b"m", bytes(2000))
    with pytest.raises(FirmwareError, match="no LMS public key"):
        lms.PublicKey.unpack(key.pack())
