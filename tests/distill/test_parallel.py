"""Two processes compute what one computes, whoever of them is killed, and go on in any number."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing

from distill.curves import Curves
from distill.sharded import newest
from tests.distill.training import TRAINING, process, train, weights

pytestmark = pytest.mark.timeout(900)
SHORT = TRAINING.model_copy(update={"steps": 5, "checkpoint_every": 2, "curve_every": 1, "recompute": True})


def curve(folder: Path) -> np.ndarray:
    return np.array(Curves(folder / "curves.csv").rows()[1])


def agree(one: Path, other: Path) -> None:
    np.testing.assert_allclose(curve(one), curve(other), rtol=1e-5, atol=1e-6)
    for name, value in weights(one).items():
        torch.testing.assert_close(value, weights(other)[name], rtol=1e-4, atol=1e-5)


def two(folders: list[Path], kill_at: int = -1) -> None:
    rendezvous = folders[0].with_name(f"rendezvous{kill_at}")
    torch.multiprocessing.spawn(process, (2, folders, rendezvous, SHORT, kill_at), nprocs=2)  # type: ignore[no-untyped-call]


def test_two_processes_compute_what_one_computes_whoever_began(tmp_path: Path) -> None:
    """One of two is killed; then two go on, and so does one alone; and two go on with what one began."""
    one, both, alone, begun = (tmp_path / name for name in ("one", "both", "alone", "begun"))
    train(one, training=SHORT)
    with pytest.raises(torch.multiprocessing.ProcessExitedException, match="SIGKILL"):
        two([both], kill_at=3)
    state = newest(both / "state")
    assert state is not None and state.name == "step-000000002"
    assert len(list(state.glob("*.safetensors"))) == 2, "each wrote its part"
    shutil.copytree(both, alone)
    train(alone, training=SHORT)
    agree(one, alone)

    with pytest.raises(KeyboardInterrupt):
        train(begun, training=SHORT, before=_interrupt)
    two([both, begun, tmp_path / "uncut"])
    agree(one, both)
    agree(one, begun)
    np.testing.assert_allclose(curve(one), curve(tmp_path / "uncut"), rtol=1e-5, atol=1e-6)


def _interrupt(step: int) -> None:
    if step == 3:
        raise KeyboardInterrupt
