"""A student's size as a recipe says it, and as a run directory remembers it."""

from __future__ import annotations

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from distill.models.config import StudentConfig, config_named
from edge_wam.errors import ConfigError

SHAPE_FILE = "student.json"
Count = Annotated[int, Field(ge=1)]


class Shape(BaseModel):
    """A size of the table, and what of it is otherwise.

    Attributes:
        size: its name in the table. The others as in :class:`StudentConfig`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: str = "nano"
    depth: Count | None = None
    width: Count | None = None
    ffn: Count | None = None
    heads: Count | None = None
    grid: tuple[Count, Count] | None = None
    past_frames: Annotated[int, Field(ge=0)] | None = None
    positions: Literal["cells", "wan"] | None = None
    predicts: Literal["clean", "velocity"] | None = None

    def config(self) -> StudentConfig:
        """Raises ConfigError for an unknown size or heads that do not divide the width."""
        changes = {key: value for key, value in self.model_dump(exclude={"size"}).items() if value is not None}
        config = replace(config_named(self.size), **changes)
        if config.width % (2 * config.heads):
            raise ConfigError(
                f"width {config.width} over {config.heads} heads", expected="an even number of channels in every head"
            )
        return config


def write_shape(folder: Path, config: StudentConfig) -> None:
    """Put a student's configuration beside its weights, whole or not at all."""
    path = folder / SHAPE_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(config), indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_shape(folder: Path, otherwise: StudentConfig) -> StudentConfig:
    """The configuration of the student in a run directory; ``otherwise`` where none was written.

    Raises:
        ConfigError: a file that is no configuration, named with the key.
    """
    path = folder / SHAPE_FILE
    if not path.exists():
        return otherwise
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        lists = {key: tuple(value) for key, value in document.items() if isinstance(value, list)}
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", remedy="run the stage that wrote it again") from error
    known = {field.name: type(getattr(otherwise, field.name)) for field in fields(StudentConfig)}
    values = document | lists
    for key in set(known) ^ set(values):
        raise ConfigError(f"{path}: {key} is {'missing' if key in known else 'unknown'}", expected=", ".join(known))
    for key, kind in known.items():
        if type(values[key]) is not kind:
            raise ConfigError(f"{path}: {key} is {values[key]!r}", expected=kind.__name__)
    return StudentConfig(**values)
