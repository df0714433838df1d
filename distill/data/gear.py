"""GEAR's ``meta/modality.json``: names for slices of the state and action columns, for videos and for annotations.

DreamZero and GR00T read LeRobot v2 datasets through it (reference: NVIDIA Isaac-GR00T, gr00t/data/schema.py).
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Entry(BaseModel):
    """What else such a file says (rotation types, ranges) is not needed here."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    original_key: str | None = None


class Slice(_Entry):
    """Numbers ``start`` to ``end`` (exclusive) of a column."""

    start: Annotated[int, Field(ge=0)]
    end: int
    absolute: bool = True

    @model_validator(mode="after")
    def _some(self) -> Slice:
        if self.end <= self.start:
            raise ValueError(f"end {self.end} must be above start {self.start}")
        return self


class Modality(BaseModel):
    """The file. Without ``original_key`` the column is GEAR's default, or carries the entry's own name."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    state: dict[str, Slice] = {}
    action: dict[str, Slice] = {}
    video: dict[str, _Entry] = {}
    annotation: dict[str, _Entry] = {}

    def vector(self, name: str) -> tuple[str, Slice] | None:
        """(column, slice) that ``state.KEY`` or ``action.KEY`` stands for; None when it is neither."""
        kind, _, key = name.partition(".")
        table, column = {"state": (self.state, "observation.state"), "action": (self.action, "action")}.get(
            kind, ({}, "")
        )
        return None if key not in table else (table[key].original_key or column, table[key])

    def video_column(self, name: str) -> str | None:
        """The feature of the video ``name``; None when there is none of that name."""
        return None if name not in self.video else self.video[name].original_key or f"observation.images.{name}"

    def annotation_column(self, name: str) -> str | None:
        """The column of the annotation ``name``, whose numbers are task indices; None when there is none."""
        return None if name not in self.annotation else self.annotation[name].original_key or f"annotation.{name}"
