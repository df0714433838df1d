"""The three kernels in numpy: slow, plain, and the oracle of every test. The compiled ones equal it bit for bit.

Bit for bit is possible because the arithmetic is fixed: the resize sums integers, every sum of floats has a stated
order, and products are never fused into sums (a fused multiply-add rounds once where this code rounds twice).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]
"""x, y, width, height in pixels."""

LANES = 32
"""``surprise`` sums in this many interleaved lanes, then folds them in halves: the order of one CUDA warp."""


def coverage(source: int, target: int) -> NDArray[np.int64]:
    """How much of each of ``source`` pixels each of ``target`` pixels covers: [target, source].

    In units of 1/target of a source pixel, so that every overlap is an integer and each row sums to ``source``: source
    pixel j spans [j*target, (j+1)*target), target pixel i spans [i*source, (i+1)*source).
    """
    i = np.arange(target, dtype=np.int64)[:, None]
    j = np.arange(source, dtype=np.int64)[None, :]
    overlap = np.minimum((i + 1) * source, (j + 1) * target) - np.maximum(i * source, j * target)
    return np.asarray(np.maximum(overlap, 0), dtype=np.int64)


def camera_to_canvas(image: U8, crop: Rectangle, out: F32, at: Rectangle) -> None:
    """See :func:`edge_wam.kernels.camera_to_canvas`; arguments are not checked here."""
    x, y, width, height = crop
    to_x, to_y, to_width, to_height = at
    pixels = image[y : y + height, x : x + width].astype(np.int64)
    rows = np.einsum("ij,jkc->ikc", coverage(height, to_height), pixels)
    total = np.einsum("ij,kjc->cki", coverage(width, to_width), rows)  # [3, to_height, to_width], exact
    area = width * height
    # v / 127.5 - 1 with v = total / area, as one division of two exact integers
    normalised = (2 * total - 255 * area).astype(np.float64) / float(255 * area)
    out[:, to_y : to_y + to_height, to_x : to_x + to_width] = normalised.astype(np.float32)


def decode_chunk(x: F32, position: F64, q01: F64, q99: F64, relative: Bool) -> F64:
    """See :func:`edge_wam.kernels.decode_chunk`; arguments are not checked here."""
    base = np.where(relative, position, 0.0)
    with np.errstate(all="ignore"):  # NaN and infinity pass through; the guard refuses them by name
        decoded: F64 = ((x[:, : len(position)].astype(np.float64) + 1.0) * 0.5) * (q99 - q01) + q01 + base
    return decoded


def surprise(predicted: F32, observed: F32, scale: F32) -> float:
    """See :func:`edge_wam.kernels.surprise`; arguments are not checked here."""
    with np.errstate(all="ignore"):
        scaled = (predicted.astype(np.float64) - observed.astype(np.float64)) / scale.astype(np.float64)
        squares = (scaled * scaled).ravel()
        lanes = np.concatenate([squares, np.zeros(-len(squares) % LANES)]).reshape(-1, LANES)
        folded = np.cumsum(lanes, axis=0)[-1]
        while len(folded) > 1:
            half = len(folded) // 2
            folded = folded[:half] + folded[half:]
        return float(np.sqrt(folded[0] / predicted.size))
