"""Datasets in a recipe: a folder's name, or a table that says how the folder is read (distill/data/sources.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator

from distill.data.mixture import Part
from distill.data.sources import Source, sources_hash
from distill.stages.frame import Context
from edge_wam.embodiment import Embodiment, load_embodiment


def _named(value: Any) -> Any:
    return {"root": value} if isinstance(value, str) else value


Dataset = Annotated[Part, BeforeValidator(_named)]


def placed(parts: Sequence[Part], context: Context) -> list[Part]:
    """Datasets where they are: folders below the work folder, robot files beside the recipe."""
    return [
        part.model_copy(
            update={
                "root": context.work / part.root, "robot": None if part.robot is None else context.recipe / part.robot
            }
        )
        for part in parts
    ]  # fmt: skip


def hash_of(parts: Sequence[Part], own: Embodiment) -> str:
    """SHA-256 over everything that the samples of ``parts``, already placed, are made from.

    Raises:
        ConfigError: a dataset is missing, damaged or does not fit its robot.
    """
    digest = hashlib.sha256()
    for part in parts:
        source = Source(**part.model_dump(exclude={"robot"}))
        digest.update(sources_hash([source], own if part.robot is None else load_embodiment(part.robot)).encode())
    return digest.hexdigest()
