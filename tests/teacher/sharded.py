"""What two processes do in test_sharded.py: build the teacher without memory, shard it, load it, and answer."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard

from distill.teacher.checkpoint import load_into, open_checkpoint
from distill.teacher.config import config_from_checkpoint
from distill.teacher.dit import Clip, DreamZero
from tests.teacher.tiny import TINY_14B, inputs

BLOCKS = 1


def work(rank: int, world: int, folder: Path, rendezvous: Path, out: Path) -> None:
    """One process of ``world``; process 0 writes its answer, and each writes how many numbers it held."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    try:
        with torch.device("meta"):
            model = DreamZero(config_from_checkpoint(folder))
        for block in model.blocks:
            fully_shard(block)
        fully_shard(model)
        model.to_empty(device="cpu")
        load_into(model, open_checkpoint(folder))
        held = sum(p.to_local().numel() for p in model.parameters())  # type: ignore[attr-defined]
        with torch.no_grad():
            video, action = model.eval()(Clip(**inputs(TINY_14B, BLOCKS)))
        torch.save({"held": held}, out / f"held-{rank}.pt")
        if rank == 0:
            torch.save({"video": video, "action": action}, out / "answer.pt")
    finally:
        dist.destroy_process_group()
