"""Training state on disk: written whole or not at all, loaded without unpickling code (``weights_only``)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from edge_wam.errors import ConfigError


def save_checkpoint(path: Path, parts: dict[str, Any], step: int) -> None:
    """Write the state of every part and the step reached."""
    save_tensors(path, {name: part.state_dict() for name, part in parts.items()}, step)


def save_tensors(path: Path, states: dict[str, Any], step: int) -> None:
    """Write states of tensors by the name of their part, and the step reached."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        torch.save({"step": step, **states}, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.rename(path)
    except (OSError, RuntimeError) as error:  # torch's own writer says a full disk by RuntimeError
        partial.unlink(missing_ok=True)
        raise ConfigError(f"{path} could not be written: {error}", remedy="make room and start again") from error


def step_of(path: Path) -> int:
    """The step at which a checkpoint was written; -1 if it cannot be read."""
    try:
        return int(torch.load(path, weights_only=True, map_location="cpu", mmap=True)["step"])
    except Exception:  # whatever a damaged file makes the loader say
        return -1


def load_checkpoint(path: Path, parts: dict[str, Any]) -> int:
    """Load every part; returns the step reached, 0 when there is no checkpoint.

    Raises:
        ConfigError: the checkpoint is damaged, holds more than tensors, lacks a part or has other shapes.
    """
    if not path.exists():
        return 0
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever a damaged or hostile file makes the loader say
        raise ConfigError(
            f"{path} cannot be read: {error}", expected="a checkpoint of tensors alone", remedy="delete it"
        ) from error
    for name, part in parts.items():
        if name not in saved:
            raise ConfigError(f"{path} lacks {name!r}", expected=", ".join(parts), remedy="delete it to start anew")
        try:
            part.load_state_dict(saved[name])
        except (RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{path}: {name} does not fit: {error}", remedy="use the size it was trained with, or delete it"
            ) from error
    return int(saved["step"])
