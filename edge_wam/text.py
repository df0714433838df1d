"""Instructions to token numbers, without a vocabulary file: lower-cased words, each hashed into a fixed table.

A robot without a network cannot fetch a tokenizer, and six to some hundred commands need none. The hash is FNV-1a
(32 bit), so the same words give the same numbers on every machine. Unknown words still get a bucket of their own.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from edge_wam.errors import ContractError

VOCABULARY = 512
PAD = 0
_RESERVED = 2


def _bucket(word: str) -> int:
    value = 0x811C9DC5
    for byte in word.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return _RESERVED + value % (VOCABULARY - _RESERVED)


def encode_text(instruction: str, length: int) -> NDArray[np.int64]:
    """Token numbers int64 [length], padded with 0.

    Raises:
        ContractError: the instruction has no word, or more than ``length`` words (nothing is cut off in silence).
    """
    words = re.findall(r"[a-z0-9]+", instruction.lower())
    if not 1 <= len(words) <= length:
        raise ContractError(
            f"instruction {instruction!r} has {len(words)} words", expected=f"1 to {length} words",
            remedy="rephrase it",
        )
    out = np.full(length, PAD, np.int64)
    out[: len(words)] = [_bucket(word) for word in words]
    return out
