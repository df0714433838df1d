"""Noise, sampling, checkpoints, averages and curves."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from distill import checkpoint
from distill.batch import Batch, NoiseLevels, draw_noise, generator, masked_mean
from distill.checkpoint import load_checkpoint, save_checkpoint
from distill.curves import Curves
from distill.feed import choose, instruction_tokens
from distill.trainer import Training
from edge_wam.errors import ConfigError
from edge_wam.sim.world import TASKS


def _batch(size: int, masked_from: int = 16) -> Batch:
    mask = (torch.arange(16) < masked_from).float()[None, :, None].expand(size, 16, 32)
    return Batch(
        latents=torch.zeros(size, 3, 8, 16), states=torch.zeros(size, 3, 64), past_mask=torch.ones(size, 2),
        action=torch.zeros(size, 16, 32), action_mask=mask, video=torch.zeros(size, 2, 8, 16),
        video_mask=torch.ones(size, 2), tokens=torch.zeros(size, 10, dtype=torch.int64),
        source=torch.zeros(size, dtype=torch.int64), index=torch.arange(size),
    )  # fmt: skip


def test_noise_levels_of_video_and_action_are_drawn_apart() -> None:
    noise = draw_noise(_batch(8000), np.random.default_rng(0))
    video, action = noise.sigma_video.numpy(), noise.sigma_action.numpy()
    assert ((video >= 0) & (video <= 1) & (action >= 0) & (action <= 1)).all()
    assert abs(np.corrcoef(video, action)[0, 1]) < 0.05
    one_video, one_action = video == 1.0, action == 1.0
    assert one_video.mean() > 0.4 and one_action.mean() > 0.4, "the runtime's own level is trained most"
    both = one_video.mean() * one_action.mean()
    assert abs((one_video & one_action).mean() - both) < 0.03
    assert (~one_video & one_action).any() and (one_video & ~one_action).any()


def test_a_teacher_follows_the_whole_way_with_video_and_actions_together() -> None:
    levels = NoiseLevels(action_at_one=0.0, video_at_one=0.0, coupled=0.5)
    noise = draw_noise(_batch(8000), np.random.default_rng(0), levels)
    video, action = noise.sigma_video.numpy(), noise.sigma_action.numpy()
    assert abs((video == action).mean() - 0.5) < 0.03 and (action < 1.0).all()
    assert np.abs(np.histogram(action, 10, (0, 1))[0] / 800 - 1).max() < 0.15, "every level alike"
    assert video[video != action].mean() > 0.8, "and else the video is near noise"


def test_committed_knots_are_a_prefix_of_real_knots() -> None:
    noise = draw_noise(_batch(2000), np.random.default_rng(1))
    counts = noise.committed.sum(1)
    assert set(counts.tolist()) == {0.0, 1.0, 2.0, 3.0, 4.0}
    assert (noise.committed == (torch.arange(16) < counts[:, None]).float()).all()
    short = draw_noise(_batch(2000, masked_from=2), np.random.default_rng(1))
    assert short.committed.sum(1).max() == 2, "a knot without label is never committed"


def test_half_of_a_batch_is_on_policy_once_there_is_some() -> None:
    rng = np.random.default_rng(0)
    only = choose([100], 64, rng)
    assert (only.source == 0).all() and len(only.index) == 64 and only.index.max() < 100
    sizes = np.zeros(3)
    for _ in range(50):
        drawn = choose([100, 10, 30], 64, rng)
        assert len(drawn.source) == len(drawn.index) == len(drawn.way) == 64
        assert (drawn.index < np.array([100, 10, 30])[drawn.source]).all()
        sizes += np.bincount(drawn.source, minlength=3)
        assert 0 < (drawn.source[:32] == 0).sum() < 32, "every process has some of each"
    assert sizes[0] == 50 * 32
    assert 0.6 < sizes[2] / sizes[1:].sum() < 0.9, "in proportion to their frames"


def test_a_process_draws_its_part_of_the_global_batch() -> None:
    whole, rows = _batch(8), slice(2, 6)
    every = draw_noise(whole, generator(3, 5))
    part = draw_noise(whole.rows(rows), generator(3, 5), rows=rows, size=8)
    for name in ("sigma_video", "sigma_action", "video", "action", "committed"):
        assert torch.equal(getattr(every, name)[rows], getattr(part, name)), name
    assert not torch.equal(every.video, draw_noise(whole, generator(3, 6)).video)
    assert not torch.equal(every.video[0], every.video[1])


def test_a_mean_counts_what_is_weighted_and_is_zero_where_nothing_is() -> None:
    values = torch.arange(12.0).reshape(3, 4)
    assert masked_mean(values, torch.tensor([[0.0], [1.0], [0.0]])) == 5.5
    assert masked_mean(values, torch.zeros(3, 1)) == 0.0
    torch.testing.assert_close(masked_mean(values, torch.tensor([3.0, 1.0, 0.0, 0.0])), torch.tensor(4.25))


def test_rows_of_a_batch_stay_together() -> None:
    part = _batch(8).rows(slice(2, 5))
    assert len(part) == 3 and part.index.tolist() == [2, 3, 4] and part.latents.shape == (3, 3, 8, 16)
    alone = part.without_past()
    assert alone.latents.shape == (3, 1, 8, 16) and alone.states.shape == (3, 1, 64) and alone.past_mask.shape == (3, 0)


def test_every_way_of_saying_a_task_can_be_tokenised() -> None:
    tokens = instruction_tokens(10)
    assert set(tokens) == {task.instruction for task in TASKS.values()}
    rows = [tuple(row.tolist()) for variants in tokens.values() for row in variants]
    assert len(rows) == len(set(rows)), "two instructions with the same tokens cannot be told apart"
    other = tokens["fold the towel"]
    assert other.shape == (1, 10) and tuple(other[0].tolist()) not in rows, "what others taught is read as it is said"


def test_the_learning_rate_warms_up_and_cools_down() -> None:
    t = Training(steps=1000, warmup=100, cooldown=0.3, learning_rate=1.0)
    rates = [t.rate(step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.01) and rates[99] == rates[500] == 1.0
    assert rates[-1] == pytest.approx(0.02, abs=0.01) and min(rates) > 0
    assert all(a >= b for a, b in pairwise(rates[700:]))


def test_a_checkpoint_comes_back_with_its_step(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    save_checkpoint(tmp_path / "a.pt", {"model": model, "optimiser": optimiser}, 7)
    other = torch.nn.Linear(3, 2)
    again = torch.optim.AdamW(other.parameters())
    assert load_checkpoint(tmp_path / "a.pt", {"model": other, "optimiser": again}) == 7
    assert torch.equal(other.weight, model.weight)
    assert again.state_dict()["state"][0]["step"] == 1
    assert load_checkpoint(tmp_path / "none.pt", {"model": other}) == 0


def test_a_checkpoint_of_another_size_or_without_a_part_is_refused(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", {"model": torch.nn.Linear(3, 2)}, 1)
    with pytest.raises(ConfigError, match="does not fit"):
        load_checkpoint(tmp_path / "a.pt", {"model": torch.nn.Linear(4, 2)})
    with pytest.raises(ConfigError, match="lacks 'probe'"):
        load_checkpoint(tmp_path / "a.pt", {"model": torch.nn.Linear(3, 2), "probe": torch.nn.Linear(1, 1)})


def test_a_broken_save_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(3, 2)
    save_checkpoint(tmp_path / "a.pt", {"model": model}, 1)

    def full_disk(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint.torch, "save", full_disk)
    with pytest.raises(ConfigError, match="no space"):
        save_checkpoint(tmp_path / "a.pt", {"model": model}, 2)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "a.pt", {"model": model}) == 1


def test_a_checkpoint_cannot_carry_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("boom",)

    torch.save({"step": 1, "model": Bomb()}, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_checkpoint(tmp_path / "a.pt", {"model": torch.nn.Linear(1, 1)})
    (tmp_path / "a.pt").write_bytes(b"half a file")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_checkpoint(tmp_path / "a.pt", {"model": torch.nn.Linear(1, 1)})


def test_curves_go_on_without_a_second_header(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "c.csv"
    third = float(np.float32(1 / 3))
    Curves(path).add(1, {"loss": 0.5})
    Curves(path).add(2, {"loss": third})
    assert Curves(path).rows() == (["step", "loss"], [[1.0, 0.5], [2.0, pytest.approx(third, abs=1e-9)]])
    assert np.float32(Curves(path).rows()[1][1][1]) == np.float32(third), "a float32 comes back to the bit"
    with pytest.raises(ConfigError, match="has the curves step, loss"):
        Curves(path).add(3, {"loss": 1.0, "more": 2.0})
    with path.open("a") as file:
        file.write("3,0.1")
    assert Curves(path).rewind(1) == 2, "a line that a kill cut short is none"
    assert path.read_text() == "step,loss\n1,0.5\n"
