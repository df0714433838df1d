"""One process or many: who this is, a model cut over all of them (FSDP2), and numbers that all agree on.

Processes are started by torchrun, which tells each its number in the environment; without it there is one process and
nothing here costs anything. Every block of a transformer is a unit of its own: gathered to compute, freed after.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.utils.checkpoint import checkpoint

from edge_wam.errors import ConfigError

Precision = Literal["float32", "bfloat16"]
DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Place:
    """This process among all."""

    rank: int = 0
    world: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Writes what is written once."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This process' part of a global batch.

        Raises:
            ConfigError: the batch cannot be shared out evenly.
        """
        if batch % self.world:
            raise ConfigError(f"batch {batch} over {self.world} processes", expected=f"a multiple of {self.world}")
        share = batch // self.world
        return slice(self.rank * share, (self.rank + 1) * share)

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()

    def mean(self, values: list[float]) -> list[float]:
        """The mean of each number over the processes, the same in all of them."""
        if self.world == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return (total / self.world).tolist()  # type: ignore[no-any-return]


@contextmanager
def joined(device: str = "cpu") -> Iterator[Place]:
    """The place that torchrun gave this process; the only one if it was started by hand.

    Args:
        device: ``cpu`` (processes talk by gloo) or ``cuda`` (by NCCL, one GPU each).

    Raises:
        ConfigError: no such device here.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda'", expected="a machine with an NVIDIA GPU and its driver")
    if not dist.is_torchelastic_launched():
        yield Place(device=torch.device(device))
        return
    mine = torch.device(device)
    if device == "cuda":
        mine = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(mine)
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Place(dist.get_rank(), dist.get_world_size(), mine)
    finally:
        dist.destroy_process_group()


def spread(model: nn.Module, place: Place, *, recompute: bool) -> None:
    """Cut the parameters of a ``model`` that has ``blocks`` over all processes, in place.

    With one process nothing is cut, nor is a model without blocks: it is small, and every process holds it whole.

    Parameters are gathered and gradients added up in float32; autocast rounds what products take. Gathering bfloat16
    would halve the traffic, but a norm of float32 numbers refuses bfloat16 weights on a CPU, and inputs must not be
    rounded: a noise level times 1000 in bfloat16 is off by up to 4.

    Args:
        recompute: keep only the inputs of blocks and compute the rest again in the backward pass.
    """
    blocks = list(getattr(model, "blocks", ()))
    if hasattr(model, "checkpoint_activations"):
        model.checkpoint_activations = recompute  # DreamZero does it itself
    elif recompute:
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    if place.world == 1 or not blocks:
        return
    mesh = dist.device_mesh.init_device_mesh(place.device.type, (place.world,))
    for unit in (*blocks, model):
        fully_shard(unit, mesh=mesh)
        if hasattr(unit, "text_kv"):  # called beside forward: its parameters must be gathered for it as well
            register_fsdp_forward_method(unit, "text_kv")


def add_up(parameters: list[nn.Parameter], place: Place) -> None:
    """Mean of the gradients of parameters that are whole in every process (codecs, probes, projections)."""
    if place.world == 1:
        return
    for parameter in parameters:
        if not isinstance(parameter, DTensor):
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= place.world


def whole(tensor: Tensor) -> Tensor:
    """A tensor as it is outside of any process, on the CPU. Every process must ask for it."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().cpu()


def norm_of(gradients: list[Tensor]) -> float:
    """Euclidean norm over all processes."""
    if not gradients:
        return 0.0
    norm = torch.nn.utils.get_total_norm(gradients)
    return float(whole(norm))
