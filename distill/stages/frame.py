"""What stages have in common: their configuration, where they run, and recipes.

A recipe is a TOML file with one table for each of its stages; what stands above the tables is common to all stages
that know the key. ``edge-wam distill STAGE --config RECIPE`` runs one of them, ``edge-wam distill all`` those that the
recipe has, in the order of :data:`distill.stages.STAGES`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from distill.parallel import Place
from distill.stages import STAGES
from edge_wam.errors import ConfigError, nearest


class StageConfig(BaseModel):
    """What a stage is told; part of the run's directory, defaults included."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Context:
    """Where a stage runs.

    Attributes:
        work: folder of the chain: the stages' run directories (by their names) and the datasets.
        recipe: folder that paths in a recipe are relative to.
        place: this process among all.
        report: called with the stage, how much is done, of how much, and a remark.
        stop: asked after every step; True saves the state and ends the stage with ``distill.run.Stopped``.
        key: private key that signs; None: the INSECURE demo key.
    """

    work: Path
    recipe: Path
    place: Place
    report: Callable[[str, int, int, str], None]
    stop: Callable[[], bool] = lambda: False
    key: Path | None = None

    def named(self, stage: str) -> Callable[[int, int, str], None]:
        """The report of one stage."""
        return lambda done, total, remark: self.report(stage, done, total, remark)


def read_recipe(path: Path) -> dict[str, Any]:
    """A recipe's stages, in the order of the chain: name to configuration.

    Raises:
        ConfigError: not TOML, an unknown stage or key, or a value out of range; named.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", expected="a recipe in TOML") from error
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    common = {key: value for key, value in document.items() if key not in tables}
    for name in tables:
        if name not in STAGES:
            raise ConfigError(f"{path}: unknown stage {name!r}{nearest(name, STAGES)}", expected=", ".join(STAGES))
    out: dict[str, Any] = {}
    known: set[str] = set()
    for name in STAGES:
        if name in tables:
            model: type[BaseModel] = import_module(f"distill.stages.{name}").Config
            known |= set(model.model_fields)
            shared = {key: value for key, value in common.items() if key in model.model_fields}
            out[name] = _parse(path, name, model, shared | tables[name])
    for key in common:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key!r}{nearest(key, known)}", expected=", ".join(sorted(known)))
    return out


def run_stage(name: str, config: Any, context: Context) -> None:
    """Run one stage, or what is left of it."""
    import_module(f"distill.stages.{name}").run(config, context)


def _parse(path: Path, stage: str, model: type[BaseModel], table: dict[str, Any]) -> Any:
    try:
        return model.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        hint = nearest(str(first["loc"][-1]), _fields(model)) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{path}: {stage}.{key}: {first['msg']}{hint}") from error


def _fields(model: type[BaseModel]) -> set[str]:
    """The names of all keys of a configuration, those of its parts included."""
    found = set(model.model_fields)
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= _fields(field.annotation)
    return found
