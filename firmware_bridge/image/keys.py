"""Signing keys on disk. A secret key's file counts its signatures, and is written before a signature is given out.

A copy of the file, or a backup put back, would sign twice with one leaf and give the key away: keep one file only.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.errors import FirmwareError
from firmware_bridge.image import lms

FORMAT = "edge-wam firmware key 1"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What a key file says of itself."""

    path: Path
    public: lms.PublicKey
    used: int
    left: int


def generate(path: Path, tree: int = lms.TREE) -> SigningKey:
    """A new key: ``path`` (secret, only for its owner) and ``path`` with ``.pub`` added (56 bytes in hex).

    Raises:
        FirmwareError: a file is already there.
    """
    public_path = path.with_name(path.name + ".pub")
    for there in (path, public_path):
        if there.exists():
            raise FirmwareError(f"{there} exists", expected="a new name", remedy="a key is never written over")
    identifier, seed = secrets.token_bytes(lms.ID_BYTES), secrets.token_bytes(lms.N)
    public = lms.PublicKey(tree, lms.ONE_TIME, identifier, lms.tree_nodes(identifier, seed, tree)[1])
    text = json.dumps({"format": FORMAT, "public": public.pack().hex(), "seed": seed.hex(), "used": 0}, indent=1)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    public_path.write_text(public.pack().hex() + "\n")
    return SigningKey(path, public, 0, _capacity(public))


def _capacity(public: lms.PublicKey) -> int:
    return {5: 1 << 5, 6: 1 << 10, 7: 1 << 15, 8: 1 << 20, 9: 1 << 25}[public.tree]


def load_public(path: Path) -> lms.PublicKey:
    """A public key file.

    Raises:
        FirmwareError: it is not there, or is none.
    """
    try:
        return lms.PublicKey.unpack(bytes.fromhex(path.read_text().strip()))
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FirmwareError(
            f"{path}: {error}", expected="a file that `edge-wam firmware keygen` wrote, ending in .pub"
        ) from error


def _read(path: Path) -> tuple[lms.PublicKey, bytes, int]:
    try:
        data = json.loads(path.read_text())
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        public = lms.PublicKey.unpack(bytes.fromhex(data["public"]))
        seed, used = bytes.fromhex(data["seed"]), int(data["used"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FirmwareError(
            f"{path}: {error}", expected="a secret key that `edge-wam firmware keygen` wrote"
        ) from error
    if len(seed) != lms.N or not 0 <= used <= _capacity(public):
        raise FirmwareError(f"{path}: a seed of {len(seed)} bytes, {used} signatures", expected="a whole key file")
    return public, seed, used


def load(path: Path) -> SigningKey:
    """What a secret key file says of itself.

    Raises:
        FirmwareError: it is not there, or is none.
    """
    public, _, used = _read(path)
    return SigningKey(path, public, used, _capacity(public) - used)


def _count_up(path: Path, used: int) -> None:
    """Writes the new count and makes sure that it is on the disk. A crash leaves the old file or the new one."""
    data = json.loads(path.read_text())
    data["used"] = used
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(json.dumps(data, indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def sign(path: Path, message: bytes) -> bytes:
    """Sign with the next leaf; it counts as used before the signature exists, even if nothing comes of it.

    Raises:
        FirmwareError: no key, no leaf left, or the seed and the public key do not belong together.
    """
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise FirmwareError(f"{path}: {error}", expected="a folder that can be written: the key counts") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        public, seed, used = _read(path)
        if used >= _capacity(public):
            raise FirmwareError(
                f"{path} has signed {used} times and can no more",
                remedy="make a new key, and build a bootloader that trusts both, before the last signature",
            )
        nodes = lms.tree_nodes(public.identifier, seed, public.tree, public.one_time)
        if nodes[1] != public.root:
            raise FirmwareError(f"{path}: seed and public key do not belong together", remedy="use the original file")
        _count_up(path, used + 1)
    finally:
        os.close(lock)
    randomizer = secrets.token_bytes(lms.N)
    return lms.sign(message, used, public.identifier, seed, nodes, randomizer, public.tree, public.one_time)
