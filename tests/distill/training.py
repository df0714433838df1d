"""A training that takes milliseconds a step, and what two processes do in test_parallel.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from distill.batch import Batch, Noise
from distill.data.windows import Windows
from distill.feed import Sampling, WindowFeed
from distill.losses.flow_matching import FlowMatching, FlowMatchingWeights
from distill.models.wam import WorldActionTransformer
from distill.parallel import Place
from distill.run import Run
from distill.trainer import Artefact, Trainer, Training
from tests.distill.tiny import TINY

WAM = Artefact("wam.pt", "wam")
TOKENS = {"open it": torch.arange(20).reshape(2, 10)}
TRAINING = Training(
    steps=12, batch=4, warmup=3, learning_rate=3e-3, precision="float32", curve_every=2, checkpoint_every=5
)  # fmt: skip


def windows(count: int, seed: int) -> Windows:
    """Samples of random numbers, some of whose knots and frames are no labels."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=g)

    index = torch.arange(count)
    return Windows(
        latent=normal(TINY.tokens, TINY.token_channels).half(), state=normal(64), action=normal(16, 32).clamp(-1, 1),
        action_mask=(torch.rand(count, 16, 1, generator=g) < 0.7).float().expand(-1, -1, 32).contiguous(),
        past=(index[:, None] - torch.tensor([4, 2])).clamp_min(0), past_mask=(index[:, None] >= 4).float().repeat(1, 2),
        future=(index[:, None] + torch.tensor([4, 8])).clamp_max(count - 1),
        future_mask=(torch.rand(count, 2, generator=g) < 0.7).float(),
        task=torch.zeros(count, dtype=torch.int64), tasks=["open it"],
    )  # fmt: skip


def dataset(folder: Path, seed: int) -> None:
    """A finished dataset of which :func:`load` makes windows."""
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(str(seed))


def load(folder: Path) -> Windows:
    return windows(6, int((folder / "meta" / "info.json").read_text()))


class WithProbe(nn.Module):
    """An objective with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Linear(32, 1)
        self.inner = FlowMatching(FlowMatchingWeights(), 100.0)

    def loss(self, model: WorldActionTransformer, batch: Batch, noise: Noise, step: int) -> dict[str, Tensor]:
        parts = self.inner.loss(model, batch, noise, step)
        probe = (self.probe(batch.action[:, 0]) - batch.states[:, -1, :1]).pow(2).mean()
        return {**parts, "total": parts["total"] + probe, "probe": probe}


class Hidden(nn.Module):
    """A model that shows no blocks: every process holds it whole."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = WorldActionTransformer(TINY)
        self.text_kv = self.inner.text_kv

    def forward(self, *inputs: Tensor) -> Any:
        return self.inner(*inputs)


def train(
    folder: Path, *, training: Training = TRAINING, objective: Any = None, place: Place | None = None,
    arriving: Path | None = None, before: Callable[[int], None] = lambda step: None,
    stop: Callable[[], bool] = lambda: False, cut: bool = True,
) -> Trainer:  # fmt: skip
    """Train (or resume) in ``folder``. ``before`` is called with every step, before its samples are drawn."""
    here = place or Place()
    run = Run(folder, leads=here.leads)
    try:
        run.begin("test", training, {"data": "d", "seed": training.seed})
        here.wait()
        torch.manual_seed(training.seed)
        model = WorldActionTransformer(TINY) if cut else Hidden()
        trainer = Trainer(run, model, WithProbe() if objective is None else objective, training, WAM, here)
        feed = WindowFeed(
            run, windows(40, 1), load, arriving, TOKENS, Sampling(), training.batch, training.seed, here
        )  # fmt: skip
        draw = feed.draw

        def watched(step: int) -> Any:
            before(step)
            return draw(step)

        feed.draw = watched  # type: ignore[method-assign]
        trainer.fit(feed, lambda done, total, remark: None, stop)
        return trainer
    finally:
        run.end()


def weights(folder: Path) -> dict[str, Tensor]:
    """What a run hands on."""
    return dict(torch.load(folder / "wam.pt", weights_only=True)["wam"])


def process(rank: int, world: int, folders: list[Path], rendezvous: Path, training: Training, kill_at: int) -> None:
    """One of ``world`` processes, for one run after the other; the last kills itself before step ``kill_at``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)

    def before(step: int) -> None:
        if step == kill_at and rank == world - 1:
            os.kill(os.getpid(), signal.SIGKILL)

    for folder in folders:
        train(folder, training=training, place=Place(rank, world), before=before, cut=folder.name != "uncut")
    dist.destroy_process_group()


def alone(folder: Path, kill_at: int) -> None:
    """The only process; it kills itself before step ``kill_at``."""

    def before(step: int) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    train(folder, before=before)
