"""What a teacher says, computed once: latents, text and endpoints in shards on disk, read back by sample number.

A target belongs to one teacher, one set of data and one way of asking. The manifest holds the hashes of all three, and
of every shard; whatever changes makes the targets of before worthless, and they are refused. A shard counts once the
manifest names it, which happens after its bytes are on the disk: a build that was killed goes on behind the last one.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill.data.files import replacing, sha256_of, write_json
from distill.data.info import parse, read_json
from edge_wam.errors import ConfigError

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "int64": torch.int64}
MANIFEST = "manifest.json"
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorSpec(_Strict):
    """One sample's tensor."""

    dtype: Literal["float32", "float16", "bfloat16", "int64"]
    shape: tuple[Annotated[int, Field(ge=1)], ...]


class Spec(_Strict):
    """What targets are.

    Attributes:
        kind: ``latents``, ``text``, ``endpoints``, ...
        teacher, data: SHA-256 of the teacher's weights and of the data (``sources.sources_hash``).
        samples: how many; shards hold ``rows_per_shard`` of them, the last one what is left.
        tensors: by name.
        settings: everything else that the numbers depend on: steps, guidance, seed, texts.
    """

    kind: str
    teacher: Hash
    data: Hash
    samples: Annotated[int, Field(ge=1)]
    rows_per_shard: Annotated[int, Field(ge=1)]
    tensors: Annotated[dict[str, TensorSpec], Field(min_length=1)]
    settings: dict[str, Any] = {}

    def shards(self) -> Iterator[range]:
        """The sample numbers of each shard."""
        for first in range(0, self.samples, self.rows_per_shard):
            yield range(first, min(first + self.rows_per_shard, self.samples))


class Manifest(_Strict):
    """``manifest.json``: SHA-256 of the finished shards, in order."""

    schema_version: Literal[1] = 1
    spec: Spec
    shards: tuple[Hash, ...] = ()


def build_targets(
    folder: Path, spec: Spec, compute: Callable[[range], Mapping[str, Tensor]], *, rebuild: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Targets:  # fmt: skip
    """Compute what is missing in ``folder`` and open it.

    Args:
        compute: the targets of some samples, [rows, ...] each; the same for the same samples, whenever it is asked.
        rebuild: targets of another teacher, data or setting that lie there are deleted instead of refused.
        report: called with the samples done and their number, first with what an earlier run left.

    Raises:
        ConfigError: other targets lie there, another process is writing them, a shard was damaged, or the teacher gave
            something else than the specification says, or a number that is not finite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if _complete(folder, spec):  # needs no writer: several processes may come here at once
        report(spec.samples, spec.samples)
        return Targets(folder, spec)
    with _alone(folder):
        manifest = _begun(folder, spec, rebuild)
        ranges = list(spec.shards())
        report(sum(len(r) for r in ranges[: len(manifest.shards)]), spec.samples)
        for number in range(len(manifest.shards), len(ranges)):
            rows = ranges[number]
            tensors = _checked(compute(rows), spec, rows, folder)
            path = _shard(folder, number)
            with replacing(path) as partial:
                save_file(tensors, partial)
            manifest = manifest.model_copy(update={"shards": (*manifest.shards, sha256_of(path))})
            _write(folder, manifest)
            report(rows.stop, spec.samples)
    return Targets(folder, spec)


class Targets:
    """Finished targets. ``targets["latents"][index]`` takes an index tensor of any shape.

    Shards are mapped, not loaded: what is read stays in memory as long as the system has room for it.

    Args:
        spec: what they have to be; None: whatever they are.
        verify: hash every shard before it is used for the first time.

    Raises:
        ConfigError: there are none, they are unfinished or of another teacher, data or setting.
    """

    def __init__(self, folder: Path, spec: Spec | None = None, *, verify: bool = True) -> None:
        self.folder, self._verify = folder, verify
        self._manifest = _read(folder)
        self.spec = self._manifest.spec
        if spec is not None:
            _same(folder, self.spec, spec)
        if (have := len(self._manifest.shards)) < (want := len(list(self.spec.shards()))):
            raise ConfigError(
                f"{folder} holds {have} of {want} shards of targets", expected="all of them",
                remedy="run the stage that computes them again: it goes on where it stopped",
            )  # fmt: skip
        self._open: dict[int, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        return self.spec.samples

    def __getitem__(self, name: str) -> Column:
        if name not in self.spec.tensors:
            raise ConfigError(f"{self.folder} has no target {name!r}", expected=", ".join(self.spec.tensors))
        return Column(self, name)

    def shard(self, number: int) -> dict[str, Tensor]:
        """The mapped tensors of one shard.

        Raises:
            ConfigError: the file is missing or is not what was written.
        """
        if number not in self._open:
            path = _shard(self.folder, number)
            if self._verify and sha256_of(path) != self._manifest.shards[number]:
                raise _damaged(path)
            try:
                with safe_open(path, framework="pt") as file:
                    found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            except (SafetensorError, OSError) as error:
                raise _damaged(path) from error
            rows = len(list(self.spec.shards())[number])
            for name, tensor in self.spec.tensors.items():
                if name not in found or found[name].shape != (rows, *tensor.shape):
                    raise _damaged(path)
            self._open[number] = found
        return self._open[number]


class Column:
    """One tensor of all samples."""

    def __init__(self, targets: Targets, name: str) -> None:
        self._targets, self._name = targets, name
        self._spec = targets.spec.tensors[name]

    def __len__(self) -> int:
        return len(self._targets)

    def __getitem__(self, index: Tensor) -> Tensor:
        """[*index.shape, *shape of a sample].

        Raises:
            IndexError: a number that no sample has.
        """
        flat = index.reshape(-1).numpy()
        if flat.size and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"samples {flat.min()} to {flat.max()} of {len(self)}")
        out = torch.empty(len(flat), *self._spec.shape, dtype=DTYPES[self._spec.dtype])
        shard = flat // self._targets.spec.rows_per_shard
        for number in np.unique(shard):
            places = np.flatnonzero(shard == number)
            rows = flat[places] - number * self._targets.spec.rows_per_shard
            out[torch.from_numpy(places)] = self._targets.shard(int(number))[self._name][torch.from_numpy(rows)]
        return out.reshape(*index.shape, *self._spec.shape)


def _shard(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:06d}.safetensors"


def _damaged(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} is not what was written", expected="the content that the manifest names",
        remedy=f"delete {MANIFEST} beside it and compute the targets again",
    )  # fmt: skip


def _read(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not path.exists():
        raise ConfigError(f"{folder} holds no targets", expected=MANIFEST, remedy="run the stage that computes them")
    return parse(Manifest, read_json(path), path)


def _write(folder: Path, manifest: Manifest) -> None:
    write_json(folder / MANIFEST, manifest.model_dump(mode="json"))


def _complete(folder: Path, spec: Spec) -> bool:
    """Are all shards of just these targets there?"""
    if not (folder / MANIFEST).exists():
        return False
    manifest = _read(folder)
    return manifest.spec == spec and len(manifest.shards) == len(list(spec.shards()))


def _same(folder: Path, found: Spec, wanted: Spec) -> None:
    """Refuse targets that are of something else, by the first key that differs."""
    have, want = found.model_dump(mode="json"), wanted.model_dump(mode="json")
    for key, value in want.items():
        if have[key] != value:
            raise ConfigError(
                f"{folder} holds targets of another {key}: {_short(have[key])}", expected=_short(value),
                remedy="have them rebuilt (the old ones are deleted), or give another folder",
            )  # fmt: skip


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:80] + "..."


def _begun(folder: Path, spec: Spec, rebuild: bool) -> Manifest:
    """The manifest to go on with; its shards have been verified, so that nothing is built on a damaged one."""
    if not (folder / MANIFEST).exists():
        manifest = Manifest(spec=spec)
    else:
        manifest = _read(folder)
        try:
            _same(folder, manifest.spec, spec)
        except ConfigError:
            if not rebuild:
                raise
            (folder / MANIFEST).unlink()  # first: without it no shard counts
            manifest = Manifest(spec=spec)
    known = {_shard(folder, number) for number in range(len(manifest.shards))}
    for path in sorted(folder.glob("shard-*.safetensors")):
        if path not in known:
            path.unlink()
    for number, sha256 in enumerate(manifest.shards):
        if sha256_of(_shard(folder, number)) != sha256:
            raise _damaged(_shard(folder, number))
    _write(folder, manifest)
    return manifest


def _checked(given: Mapping[str, Tensor], spec: Spec, rows: range, folder: Path) -> dict[str, Tensor]:
    what = f"{folder}: {spec.kind} of samples {rows.start} to {rows.stop - 1}"
    if set(given) != set(spec.tensors):
        raise ConfigError(f"{what} came as {sorted(given)}", expected=f"{sorted(spec.tensors)}")
    out = {}
    for name, tensor in spec.tensors.items():
        value = given[name].detach().to("cpu")
        shape = (len(rows), *tensor.shape)
        if tuple(value.shape) != shape or value.dtype != DTYPES[tensor.dtype]:
            found = f"{tuple(value.shape)} {value.dtype}"
            raise ConfigError(f"{what}: {name} is {found}", expected=f"{shape} {tensor.dtype}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            bad = int((~value.isfinite()).reshape(len(rows), -1).any(1).nonzero()[0])
            raise ConfigError(f"{what}: {name} of sample {rows[bad]}", expected="finite numbers")
        out[name] = value.contiguous()
    return out


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder against a second writer; the lock goes with the process, however it ends."""
    with (folder / ".lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"{folder} is being written by another process", remedy="wait for it") from error
        yield
