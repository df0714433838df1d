"""Training state on disk: every process writes its part, any number of processes reads it again.

Safetensors throughout (``torch.distributed.checkpoint``'s own format for them): nothing in a checkpoint is code. One is
written beside the last good one, synced, renamed, and only then is the older one removed: whatever happens meanwhile, a
whole one is there.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from distill.parallel import Place
from edge_wam.errors import ConfigError

FACTS = "facts.json"
PARTIAL = ".partial"


def newest(folder: Path) -> Path | None:
    """The last whole checkpoint in ``folder``; None if there is none."""
    whole = sorted(path for path in folder.glob("step-*") if path.suffix != PARTIAL)
    return whole[-1] if whole else None


def save_state(folder: Path, step: int, tensors: dict[str, Tensor], facts: dict[str, Any], place: Place) -> None:
    """Write ``folder/step-N`` and remove the one before it.

    Raises:
        ConfigError: the disk is full or not writable; the checkpoint before it is whole.
    """
    final = folder / f"step-{step:09d}"
    partial = final.with_suffix(PARTIAL)
    try:
        if place.leads:
            for left in folder.glob(f"step-*{PARTIAL}"):
                shutil.rmtree(left)
            partial.mkdir(parents=True)
        place.wait()
        writer = HuggingFaceStorageWriter(str(partial), save_distributed=True)
        _quiet(lambda: dcp.save(dict(tensors), storage_writer=writer, no_dist=place.world == 1))
        if place.leads:
            with (partial / FACTS).open("w") as file:
                json.dump({"step": step, **facts}, file)
                file.flush()
                os.fsync(file.fileno())
            _sync(partial)
            partial.rename(final)
            _sync(folder)
    except (OSError, dcp.CheckpointException) as error:
        if place.leads:
            shutil.rmtree(partial, ignore_errors=True)
        last = newest(folder)
        raise ConfigError(
            f"{final} could not be written: {_reason(error)}",
            expected=f"room for {sum(t.numel() * t.element_size() for t in tensors.values()) / 1e9:.2f} GB",
            remedy=f"make room and start again: {last.name if last else 'nothing'} is whole",
        ) from error
    if place.leads:
        for path in folder.glob("step-*"):
            if path != final:
                shutil.rmtree(path)
    place.wait()


def saved_names(path: Path) -> set[str]:
    """What a checkpoint holds.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return set(HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata)
    except Exception as error:  # whatever a damaged file makes the reader say
        raise _damaged(path, error) from error


def load_state(path: Path, tensors: dict[str, Tensor], place: Place) -> dict[str, Any]:
    """Fill ``tensors`` in place from a checkpoint; returns its facts with ``step``.

    Raises:
        ConfigError: it is damaged, lacks a tensor, or one has another shape.
    """
    try:
        facts = json.loads((path / FACTS).read_text())
        held = HuggingFaceStorageReader(str(path)).read_metadata().state_dict_metadata
        for name, tensor in tensors.items():
            if name not in held:
                raise ConfigError(f"{path} lacks {name!r}", remedy="use the size it was trained with, or another run")
            if held[name].size != tensor.shape:  # type: ignore[union-attr]
                raise ConfigError(
                    f"{path}: {name} is {list(held[name].size)}", expected=f"{list(tensor.shape)}",  # type: ignore[union-attr]
                    remedy="use the size it was trained with, or another run",
                )
        reader = HuggingFaceStorageReader(str(path))
        _quiet(lambda: dcp.load(dict(tensors), storage_reader=reader, no_dist=place.world == 1))
        return dict(facts)
    except ConfigError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read: {_reason(error)}", expected="a whole checkpoint", remedy="delete that folder"
    )


def _reason(error: BaseException) -> str:
    """The first line of what was wrong in any process."""
    if isinstance(error, dcp.CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (str(error) or type(error).__name__).splitlines()[0]


def _sync(folder: Path) -> None:
    """A rename is on disk once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _quiet(call: Any) -> None:
    """Without the remark that one process is one process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        call()
