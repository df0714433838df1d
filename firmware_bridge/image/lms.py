"""Leighton-Micali hash-based signatures (RFC 8554): keys, signing, verification, with SHA-256 alone.

A key signs at most ``2 ** height`` times, and never twice with one leaf: whoever sees two signatures of one leaf can
make a third. Who signs keeps count (``keys.py``); this module only computes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from firmware_bridge.errors import FirmwareError

N = 32
ID_BYTES = 16
_PBLC, _MESG, _LEAF, _INTR = (value.to_bytes(2, "big") for value in (0x8080, 0x8181, 0x8282, 0x8383))
_OTS = {1: (1, 265, 7), 2: (2, 133, 6), 3: (4, 67, 4), 4: (8, 34, 0)}
"""Type: width of a digit in bits, number of digits, shift of the checksum. Section 4.1."""
_HEIGHTS = {5: 5, 6: 10, 7: 15, 8: 20, 9: 25}
"""Type: height of the tree. Section 5.1."""

TREE, ONE_TIME = 6, 3
"""As used for firmware: 1024 signatures (height 10), digits of 4 bits: 2.5 kB each, about 540 hashes to verify."""


def _u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def _hash(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Types, identifier and root; 56 bytes on the wire."""

    tree: int
    one_time: int
    identifier: bytes
    root: bytes

    def pack(self) -> bytes:
        return _u32(self.tree) + _u32(self.one_time) + self.identifier + self.root

    @classmethod
    def unpack(cls, data: bytes) -> PublicKey:
        """Raises FirmwareError: not a public key of this kind."""
        tree, one_time = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
        if len(data) != 8 + ID_BYTES + N or tree not in _HEIGHTS or one_time not in _OTS:
            raise FirmwareError(f"{len(data)} bytes that are no LMS public key", expected="56 bytes of RFC 8554")
        return cls(tree, one_time, data[8 : 8 + ID_BYTES], data[8 + ID_BYTES :])


def signature_bytes(tree: int, one_time: int) -> int:
    """Length of a signature."""
    return 12 + N * (1 + _OTS[one_time][1] + _HEIGHTS[tree])


def _digits(digest: bytes, one_time: int) -> list[int]:
    """The digits of a message digest with their checksum. Sections 3.1.3 and 4.4."""
    width, count, shift = _OTS[one_time]
    most = (1 << width) - 1

    def split(data: bytes) -> list[int]:
        per_byte = 8 // width
        return [(data[i // per_byte] >> (width * (per_byte - 1 - i % per_byte))) & most
                for i in range(len(data) * per_byte)]  # fmt: skip

    first = split(digest)
    checksum = (sum(most - digit for digit in first) << shift).to_bytes(2, "big")
    return (first + split(checksum))[:count]


def _chain(prefix: bytes, index: int, start: int, stop: int, value: bytes) -> bytes:
    head = prefix + index.to_bytes(2, "big")
    for step in range(start, stop):
        value = hashlib.sha256(head + bytes((step,)) + value).digest()
    return value


def _secret(prefix: bytes, index: int, seed: bytes) -> bytes:
    """Appendix A: one-time secrets from a seed."""
    return _hash(prefix, index.to_bytes(2, "big"), b"\xff", seed)


def tree_nodes(identifier: bytes, seed: bytes, tree: int = TREE, one_time: int = ONE_TIME) -> list[bytes]:
    """Nodes 1 (the root) to ``2 ** (height + 1) - 1`` of the tree of a secret seed; index 0 is empty.

    About a million hashes at height 10.
    """
    width, count, _ = _OTS[one_time]
    leaves = 1 << _HEIGHTS[tree]
    nodes = [b""] * (2 * leaves)
    for leaf in range(leaves):
        prefix = identifier + _u32(leaf)
        ends = (_chain(prefix, i, 0, (1 << width) - 1, _secret(prefix, i, seed)) for i in range(count))
        nodes[leaves + leaf] = _hash(identifier, _u32(leaves + leaf), _LEAF, _hash(prefix, _PBLC, *ends))
    for number in range(leaves - 1, 0, -1):
        nodes[number] = _hash(identifier, _u32(number), _INTR, nodes[2 * number], nodes[2 * number + 1])
    return nodes


def sign(
    message: bytes, leaf: int, identifier: bytes, seed: bytes, nodes: list[bytes], randomizer: bytes,
    tree: int = TREE, one_time: int = ONE_TIME,
) -> bytes:  # fmt: skip
    """The signature of a message with one leaf, which must never be used again.

    Args:
        nodes: of ``tree_nodes``.
        randomizer: 32 fresh random bytes.
    """
    prefix = identifier + _u32(leaf)
    digits = _digits(_hash(prefix, _MESG, randomizer, message), one_time)
    chains = b"".join(_chain(prefix, i, 0, digit, _secret(prefix, i, seed)) for i, digit in enumerate(digits))
    number = (1 << _HEIGHTS[tree]) + leaf
    path = b"".join(nodes[(number >> level) ^ 1] for level in range(_HEIGHTS[tree]))
    return _u32(leaf) + _u32(one_time) + randomizer + chains + _u32(tree) + path


def verify(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """True for a signature of exactly this message under this key. Sections 4.6 and 5.4.2."""
    width, count, _ = _OTS[key.one_time]
    height = _HEIGHTS[key.tree]
    if len(signature) != signature_bytes(key.tree, key.one_time):
        return False
    leaf = int.from_bytes(signature[:4], "big")
    chains_at = 8 + N
    type_at = chains_at + N * count
    if signature[4:8] != _u32(key.one_time) or signature[type_at : type_at + 4] != _u32(key.tree) or leaf >> height:
        return False
    prefix = key.identifier + _u32(leaf)
    digits = _digits(_hash(prefix, _MESG, signature[8:chains_at], message), key.one_time)
    ends = (
        _chain(prefix, i, digit, (1 << width) - 1, signature[chains_at + N * i : chains_at + N * (i + 1)])
        for i, digit in enumerate(digits)
    )
    number = (1 << height) + leaf
    node = _hash(key.identifier, _u32(number), _LEAF, _hash(prefix, _PBLC, *ends))
    for level in range(height):
        at = type_at + 4 + N * level
        other = signature[at : at + N]
        pair = (other, node) if number & 1 else (node, other)
        number >>= 1
        node = _hash(key.identifier, _u32(number), _INTR, *pair)
    return node == key.root
