"""Published checkpoints: sharded safetensors, full or LoRA, onto a model that was never allocated twice.

Every key is accounted for: a tensor of the transformer, or of one of the frozen encoders, or the checkpoint is refused.
Tensors go one by one from the memory-mapped shard to the parameter, cut to this process' part where the parameter is
sharded (FSDP2), so that a machine needs its own part of the weights and one tensor more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from edge_wam.errors import ConfigError

PREFIX = "action_head.model."
LORA_PREFIX = PREFIX + "base_model.model."
ENCODERS = ("action_head.text_encoder.", "action_head.image_encoder.", "action_head.vae.")
"""Frozen encoders that a full checkpoint carries along: :mod:`distill.teacher.encoders` reads them."""
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
DTYPES = ("BF16", "F16", "F32")
LORA_A, LORA_B, LORA_BASE = ".lora_A.default.weight", ".lora_B.default.weight", ".base_layer."
REMEDY = "download the checkpoint again, or choose the teacher it belongs to"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor lies, as its shard's header says; the numbers are not read."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Lora:
    """A low-rank addition: W + scale * B @ A."""

    a: Place
    b: Place


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a folder holds.

    Attributes:
        tensors: of the transformer, by the transformer's own names. Empty of the base weights in an adapter.
        lora: additions by the name of the weight they are added to.
        encoders: of the frozen encoders, by full key.
        lora_scale: alpha / rank.
    """

    folder: Path
    tensors: dict[str, Place]
    lora: dict[str, Lora]
    encoders: dict[str, Place]
    lora_scale: float


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the headers of a checkpoint folder.

    Raises:
        ConfigError: a shard is missing or damaged, a key stands in another shard than the index says, a key belongs to
            nothing, a dtype is none of bfloat16, float16, float32, or a LoRA addition lacks its half.
    """
    places = _places(folder)
    tensors: dict[str, Place] = {}
    encoders: dict[str, Place] = {}
    halves: dict[str, dict[str, Place]] = {}
    for key, place in places.items():
        if key.startswith(ENCODERS):
            encoders[key] = place
            continue
        if not key.startswith(PREFIX):
            raise ConfigError(f"{folder}: unexpected key {key!r}", expected=f"{PREFIX}... or an encoder", remedy=REMEDY)
        name = key.removeprefix(LORA_PREFIX).removeprefix(PREFIX)
        for half, ending in (("a", LORA_A), ("b", LORA_B)):
            if name.endswith(ending):
                halves.setdefault(name.removesuffix(ending) + ".weight", {})[half] = place
                break
        else:
            name = name.replace(LORA_BASE, ".")
            if name in tensors:
                raise ConfigError(f"{folder}: {name} is there twice", expected="one key for a tensor", remedy=REMEDY)
            tensors[name] = place
    lora = {name: _pair(folder, name, pair) for name, pair in halves.items()}
    return Checkpoint(folder, tensors, lora, encoders, _lora_scale(folder) if lora else 1.0)


def load_into(
    model: nn.Module,
    checkpoint: Checkpoint,
    adapter: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Fill a model's parameters, merging LoRA additions in float32.

    ``model`` may be on the meta device (its parameters are then made in the checkpoint's dtype), or sharded by FSDP2
    and allocated (``to_empty``). ``adapter``: a checkpoint of additions and of the tensors that were trained with them,
    laid over ``checkpoint``. ``progress`` is told the tensors done, and how many there are.

    Raises:
        ConfigError: a tensor is missing, unexpected, of another shape, or holds a number that is none. The model is
            then partly filled: throw it away.
    """
    sources = dict(checkpoint.tensors)
    lora = {name: (pair, checkpoint.lora_scale) for name, pair in checkpoint.lora.items()}
    folder = checkpoint.folder
    if adapter is not None:
        sources |= adapter.tensors
        lora |= {name: (pair, adapter.lora_scale) for name, pair in adapter.lora.items()}
        folder = adapter.folder
    wanted = dict(model.named_parameters())
    _same_names(folder, wanted, sources, lora)
    for name, place in sources.items():
        if place.shape != tuple(wanted[name].shape):
            expected = str(tuple(wanted[name].shape))
            raise ConfigError(f"{place.file}: {name} {place.shape}", expected=expected, remedy=REMEDY)
    for done, (name, place) in enumerate(_by_file(sources)):
        parameter = wanted[name]
        window = _window(parameter)
        value = _read(place, window)
        if name in lora:
            pair, scale = lora[name]
            value = _merge(name, value, pair, scale, window)
        if not torch.isfinite(value).all():
            raise ConfigError(f"{place.file}: {name} holds a number that is none (NaN or infinite)", remedy=REMEDY)
        _put(model, name, parameter, value)
        if progress is not None:
            progress(done + 1, len(sources))


def _places(folder: Path) -> dict[str, Place]:
    index, single = folder / INDEX, folder / SINGLE
    if not index.exists():
        if not single.exists():
            raise ConfigError(f"{folder}: neither {INDEX} nor {SINGLE}", expected="a checkpoint folder", remedy=REMEDY)
        return dict(_headers(single))
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        assert all(isinstance(part, str) for pair in weight_map.items() for part in pair)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        raise ConfigError(f"{index} cannot be read: {error}", expected="a weight_map", remedy=REMEDY) from error
    found: dict[str, Place] = {}
    for name in sorted(set(weight_map.values())):
        if Path(name).name != name:
            raise ConfigError(f"{index}: shard {name!r}", expected="the name of a file beside the index")
        if not (folder / name).exists():
            raise ConfigError(f"{folder}: shard {name} is missing", expected=f"all that {INDEX} names", remedy=REMEDY)
        for key, place in _headers(folder / name):
            if weight_map.get(key) != name:
                raise ConfigError(
                    f"{folder / name}: key {key!r}", expected=f"what {INDEX} says: {weight_map.get(key)}", remedy=REMEDY
                )
            found[key] = place
    if lost := sorted(set(weight_map) - set(found)):
        raise ConfigError(f"{folder}: {lost[0]} is not in {weight_map[lost[0]]}{_more(lost)}", remedy=REMEDY)
    return found


def _headers(file: Path) -> Iterator[tuple[str, Place]]:
    try:
        with safe_open(file, "pt") as shard:
            for key in shard.keys():  # noqa: SIM118
                part = shard.get_slice(key)
                place = Place(file, key, tuple(part.get_shape()), part.get_dtype())
                if place.dtype not in DTYPES:
                    raise ConfigError(f"{file}: {key} is {place.dtype}", expected=", ".join(DTYPES), remedy=REMEDY)
                yield key, place
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{file} is damaged: {error}", expected="a whole safetensors file", remedy=REMEDY) from error


def _pair(folder: Path, name: str, pair: dict[str, Place]) -> Lora:
    if len(pair) < 2:
        raise ConfigError(f"{folder}: LoRA addition to {name} lacks a half", expected="its A and its B", remedy=REMEDY)
    a, b = pair["a"], pair["b"]
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise ConfigError(f"{folder}: LoRA addition to {name}: {b.shape} x {a.shape}", expected="[out, r] x [r, in]")
    return Lora(a, b)


def _lora_scale(folder: Path) -> float:
    """alpha / rank of the folder's ``config.json``."""
    try:
        head = json.loads((folder / "config.json").read_text(encoding="utf-8"))["action_head_cfg"]
        head = head.get("config", head)
        return float(head["lora_alpha"]) / float(head["lora_rank"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{folder / 'config.json'} does not say lora_alpha and lora_rank: {error}",
            expected="both, for a checkpoint with LoRA additions",
        ) from error


def _same_names(folder: Path, wanted: dict[str, Any], found: dict[str, Place], lora: dict[str, Any]) -> None:
    if unexpected := sorted((set(found) | set(lora)) - set(wanted)):
        raise ConfigError(f"{folder}: unexpected tensor {unexpected[0]!r}{_more(unexpected)}", remedy=REMEDY)
    if missing := sorted(set(wanted) - set(found)):
        hint = " (an adapter alone: give its base, too)" if lora else ""
        raise ConfigError(f"{folder}: {missing[0]!r} is missing{_more(missing)}{hint}", remedy=REMEDY)


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _by_file(sources: dict[str, Place]) -> list[tuple[str, Place]]:
    """Shard by shard, in the order of the file: each page is read once."""
    return sorted(sources.items(), key=lambda item: (str(item[1].file), item[1].key))


def _window(parameter: Tensor) -> tuple[slice, ...]:
    """The part of the tensor that this process keeps."""
    if not isinstance(parameter, DTensor):
        return tuple(slice(0, size) for size in parameter.shape)
    sizes, offsets = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    return tuple(slice(offset, offset + size) for offset, size in zip(offsets, sizes, strict=True))


def _read(place: Place, window: tuple[slice, ...]) -> Tensor:
    try:
        with safe_open(place.file, "pt") as shard:
            part: Tensor = shard.get_slice(place.key)[window] if window else shard.get_tensor(place.key)
            return part
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{place.file}: {place.key} cannot be read: {error}", remedy=REMEDY) from error


def _merge(name: str, value: Tensor, pair: Lora, scale: float, window: tuple[slice, ...]) -> Tensor:
    rows, columns = window
    a = _read(pair.a, (slice(0, pair.a.shape[0]), columns)).float()
    b = _read(pair.b, (rows, slice(0, pair.b.shape[1]))).float()
    if (len(b), a.shape[1]) != tuple(value.shape):
        raise ConfigError(f"LoRA addition to {name}: {len(b)} x {a.shape[1]}", expected=f"{tuple(value.shape)}")
    return (value.float() + scale * (b @ a)).to(value.dtype)


def _put(model: nn.Module, name: str, parameter: nn.Parameter, value: Tensor) -> None:
    if isinstance(parameter, DTensor):
        parameter.to_local().detach().copy_(value)
    elif parameter.is_meta:
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=parameter.requires_grad))
    else:
        parameter.detach().copy_(value)
