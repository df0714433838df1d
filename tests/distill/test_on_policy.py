"""A student acts at its own rhythm and late, and every frame that it reaches is labelled."""

from pathlib import Path

import numpy as np
import pytest

from distill.data import on_policy
from distill.data.on_policy import collect, roll_out
from distill.data.reader import read_episodes
from edge_wam.contracts import F64, ActionChunk, Imagination, Observation
from edge_wam.errors import ConfigError
from edge_wam.sim.world import World
from tests.distill.tiny import ROBOT

DT_NS = ROBOT.chunk_dt_ms * 1_000_000


class Counting:
    """Each chunk tells by its gripper axis who it is and which knot is executed: call + knot / 100."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1

    def infer(self, seen: Observation, prefix: F64, sequence: int) -> tuple[ActionChunk, Imagination, object]:
        self.calls.append(sequence)
        q = np.repeat(seen.joint_position[None], 16, 0)
        q[:, 3] = len(self.calls) - 1 + np.arange(16) / 100
        chunk = ActionChunk(t0_ns=seen.state_at_ns + DT_NS, dt_ns=DT_NS, q=q, observed_at_ns=seen.observed_at_ns,
                            sequence=sequence, model_hash="none", prefix=0)  # fmt: skip
        imagined = Imagination(latents=np.zeros((1, 1, 1), np.float32), for_ns=(1,), observed_at_ns=0, sequence=0)
        return chunk, imagined, None


@pytest.mark.parametrize("replan", [1, 4])
def test_a_chunk_is_executed_from_the_knot_at_which_it_takes_effect(
    replan: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_policy, "EPISODE_CAP_NS", 500_000_000)
    executed: list[float] = []
    monkeypatch.setattr(on_policy.Tracker, "towards", lambda self, world, knot, steps: (
        executed.append(float(knot[3])), setattr(world, "steps", world.steps + steps)))  # fmt: skip
    world, branch = World("reach", 1), World("reach", 1)
    delays = set()
    for seed in range(8):
        world.reset(1)
        executed.clear()
        planner = Counting()
        out, labels = roll_out(planner, world, branch, ROBOT, np.random.default_rng(seed), calls=iter(range(7, 99)),
                               replan_knots=replan)  # fmt: skip
        frames = len(out.action)
        assert frames == len(labels) == 10 and planner.resets == 1
        assert planner.calls == list(range(7, 7 + -(-frames // replan)))
        fits = [d for d in range(on_policy.LATEST_KNOTS + 1) if executed == [_due(t, replan, d) for t in range(frames)]]
        assert fits, executed
        delays.update(fits)
    assert delays == set(range(on_policy.LATEST_KNOTS + 1))
    world.close(), branch.close()


def _due(frame: int, replan: int, delay: int) -> float:
    call = max(0, frame - delay) // replan
    return pytest.approx(call + (frame - call * replan) / 100)  # type: ignore[no-any-return]


def test_a_round_says_what_the_expert_would_have_done_at_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_policy, "EPISODE_CAP_NS", 300_000_000)
    run = {"weights": {"reach-wall": 1.0}, "worlds": {}, "report": lambda *_: None, "first_seed": 3}
    collect(tmp_path / "a", Counting(), ROBOT, episodes=2, replan_knots=4, **run)  # type: ignore[arg-type]
    episodes = list(read_episodes(tmp_path / "a", ()))
    assert [len(e.vectors["action"]) for e in episodes] == [6, 6]
    assert all(e.vectors["expert_chunk_mask"].all() and not e.vectors["expert"].any() for e in episodes)
    with pytest.raises(ConfigError, match="replan_knots is 15"):
        collect(tmp_path / "b", Counting(), ROBOT, episodes=1, replan_knots=15, **run)  # type: ignore[arg-type]
    assert not (tmp_path / "b").exists()
