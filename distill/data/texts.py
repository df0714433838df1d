"""A teacher's reading of every instruction, computed once: its text encoder is larger than most students."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from distill.data.targets import Column, Spec, TensorSpec, build_targets
from edge_wam.errors import ConfigError, nearest


class StoredTexts:
    """Embeddings [L, width] by instruction."""

    def __init__(self, texts: Sequence[str], column: Column) -> None:
        self._row = {text: k for k, text in enumerate(texts)}
        self._column = column

    def __getitem__(self, texts: Sequence[str]) -> Tensor:
        """[len(texts), L, width].

        Raises:
            ConfigError: an instruction that was not read.
        """
        for text in texts:
            if text not in self._row:
                raise ConfigError(
                    f"instruction {text!r} has no embedding{nearest(text, self._row)}",
                    expected="an instruction of the data that the targets were computed for",
                    remedy="compute them again with this instruction among the texts",
                )  # fmt: skip
        return self._column[torch.tensor([self._row[text] for text in texts])]


def cached_texts(
    folder: Path, texts: Sequence[str], encode: Callable[[list[str]], Tensor], *, teacher_hash: str,
    batch: int = 16, rebuild: bool = False, report: Callable[[int, int], None] = lambda done, total: None,
) -> StoredTexts:  # fmt: skip
    """Embeddings of ``texts``, each once, in bfloat16 as the encoders give them.

    Args:
        encode: some instructions to [n, L, width].
        teacher_hash: SHA-256 of the text encoder's weights.

    Raises:
        ConfigError: no text, or the folder holds those of other texts or another encoder.
    """
    each = sorted(set(texts))
    if not each:
        raise ConfigError("no instruction to read", expected="at least one")
    shape = tuple(encode(each[:1]).shape[1:])
    spec = Spec(
        kind="text", teacher=teacher_hash, data=hashlib.sha256(json.dumps(each).encode()).hexdigest(),
        samples=len(each), rows_per_shard=batch, tensors={"text": TensorSpec(dtype="bfloat16", shape=shape)},
    )  # fmt: skip

    def compute(rows: range) -> dict[str, Tensor]:
        return {"text": encode(each[rows.start : rows.stop]).to(torch.bfloat16)}

    return StoredTexts(each, build_targets(folder, spec, compute, rebuild=rebuild, report=report)["text"])
