"""Pictures for a page that needs no other file: PNG by the standard library, as a data URI."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

from edge_wam.contracts import U8
from edge_wam.errors import ContractError


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(image: U8) -> bytes:
    """uint8 RGB [h, w, 3] -> the bytes of a PNG file (8-bit truecolour, rows filtered by difference to the left).

    Raises:
        ContractError: another type or shape.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ContractError(f"image is {image.dtype} {image.shape}", expected="uint8 [height, width, 3]")
    height, width, _ = image.shape
    rows = image.reshape(height, width * 3)
    filtered = np.empty((height, 1 + width * 3), np.uint8)
    filtered[:, 0] = 1  # "Sub": smooth renderings compress to about half
    filtered[:, 1:4] = rows[:, :3]
    filtered[:, 4:] = rows[:, 3:] - rows[:, :-3]
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(filtered.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def data_uri(image: U8) -> str:
    """``src`` of an ``<img>``."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")
