"""The loader fills a model that no process holds whole."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.multiprocessing

from distill.teacher.dit import Clip
from tests.teacher.published import full
from tests.teacher.sharded import BLOCKS, work
from tests.teacher.tiny import TINY_14B, inputs, tiny


def test_two_processes_load_half_each_and_answer_as_one(tmp_path: Path) -> None:
    folder = full(tmp_path / "published", TINY_14B)
    torch.multiprocessing.spawn(work, (2, folder, tmp_path / "rendezvous", tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    held = [torch.load(tmp_path / f"held-{rank}.pt", weights_only=True)["held"] for rank in range(2)]
    model = tiny(TINY_14B)
    whole = sum(p.numel() for p in model.parameters())
    assert sum(held) == whole
    assert 0.45 * whole < held[1] <= held[0] < 0.55 * whole
    with torch.no_grad():
        video, action = model(Clip(**inputs(TINY_14B, BLOCKS)))
    answer = torch.load(tmp_path / "answer.pt", weights_only=True)
    torch.testing.assert_close(answer["video"], video)
    torch.testing.assert_close(answer["action"], action)
