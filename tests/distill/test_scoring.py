"""What is compared in closed loop is compared alike: the bundle's own pixels, memory and noise, and passes counted."""

from pathlib import Path

import numpy as np
import pytest
import torch

from distill.planner import TorchPlanner
from distill.scoring import open_scores, score
from edge_wam.contracts import Frame, Observation
from edge_wam.errors import ConfigError, ContractError
from edge_wam.sim.world import TRAIN_SEED_LIMIT
from tests.distill.tiny import EXPORTED, ROBOT, make_student

DT_NS = ROBOT.chunk_dt_ms * 1_000_000
NONE = np.zeros((0, ROBOT.dof))


def planner(passes: int, seed: int = 0) -> TorchPlanner:
    return TorchPlanner(*make_student(EXPORTED, seed), ROBOT, passes=passes, noise_seed=5)


def look(index: int) -> Observation:
    rng = np.random.default_rng(index)
    frames = {c.name: Frame(rng.integers(0, 256, (c.height, c.width, 3), np.uint8), index * DT_NS, index)
              for c in ROBOT.cameras}  # fmt: skip
    position = ROBOT.vector("rest") + rng.normal(0, 0.01, ROBOT.dof)
    return Observation(frames, position, position + 0.001, index * DT_NS, "open the drawer")


@torch.no_grad()
def test_many_passes_are_the_flow_followed_from_noise_to_the_sample() -> None:
    p = planner(4)
    for index in range(6):
        chunk, imagined, latents = p.infer(look(index), NONE, index)
    wam = p.wam
    kept = (5 - EXPORTED.past_stride, 5)
    states = [ROBOT.normalise_state(look(i).joint_position, look(i).joint_setpoint) for i in kept]
    frames = [p.codec.encode(torch.from_numpy(p._canvas(look(i)))[None]) for i in kept]
    np.testing.assert_array_equal(frames[1][0].numpy(), latents.values)
    video, action = p._noise(5)
    level = torch.ones(1)
    for _ in range(4):
        v_video, v_action = wam(
            torch.stack(frames, 1), torch.from_numpy(np.stack(states))[None], torch.ones(1, 1), video, action, level,
            level, torch.zeros(1, EXPORTED.horizon), p._cross[:, None],
        )  # fmt: skip
        video, action, level = video - 0.25 * v_video, action - 0.25 * v_action, level - 0.25
    np.testing.assert_allclose(imagined.latents, video[0].numpy(), atol=1e-4)
    q01, q99 = ROBOT.vector("action_q01"), ROBOT.vector("action_q99")
    raw = q01 + (action[0, :, : ROBOT.dof].numpy() + 1) / 2 * (q99 - q01)
    base = np.where(ROBOT.relative, look(5).joint_position, 0.0)
    np.testing.assert_allclose(chunk.q, raw + base, atol=1e-4)


def test_passes_are_counted_where_they_happen() -> None:
    for passes in (1, 2, 5):
        p = planner(passes)
        p.infer(look(0), NONE, 0)
        assert p.executed == passes
    with pytest.raises(ConfigError, match="0 passes"):
        planner(0)


def test_committed_knots_are_carried_and_steer_the_rest() -> None:
    p = planner(2)
    free, *_ = p.infer(look(0), NONE, 0)
    p.reset()
    prefix = free.q[:3] + 0.02
    chunk, *_ = p.infer(look(0), prefix, 0)
    np.testing.assert_array_equal(chunk.q[:3], prefix)
    assert np.abs(chunk.q[3:] - free.q[3:]).max() > 1e-6


def test_the_same_call_gets_the_noise_of_the_bundle() -> None:
    a, b = planner(1), planner(1)
    first, second = a.infer(look(3), NONE, 3)[0], b.infer(look(3), NONE, 3)[0]
    np.testing.assert_array_equal(first.q, second.q)
    b.reset()
    assert np.abs(b.infer(look(3), NONE, 4)[0].q - first.q).max() > 1e-6


def test_scores_go_on_where_they_were_and_only_with_the_same_settings(tmp_path: Path) -> None:
    said: list[tuple[int, int]] = []
    run = {"first_seed": TRAIN_SEED_LIMIT, "replan_knots": 8,
           "report": lambda done, total, _: said.append((done, total))}  # fmt: skip
    results = open_scores(tmp_path / "s.jsonl", {"passes": 2})
    p = planner(2)
    score(p, ROBOT, results, ("reach",), episodes=1, **run)
    results.close()
    again = open_scores(tmp_path / "s.jsonl", {"passes": 2})
    score(p, ROBOT, again, ("reach",), episodes=2, **run)
    again.close()
    assert said == [(1, 1), (2, 2)]
    first, second = again.rows
    assert first == results.rows[0] and (first.seed, second.seed) == (TRAIN_SEED_LIMIT, TRAIN_SEED_LIMIT + 1)
    assert first.passes == 2 * first.plans and first.plans >= 15
    assert first.border_mm > 0 and first.foreseen > 0
    assert first.imagined_mse > first.copied_mse, "random weights foresee nothing"
    assert first.refused == first.plans and not first.success, "the guard lets no such chunk through"
    with pytest.raises(ContractError, match="passes = 2"):
        open_scores(tmp_path / "s.jsonl", {"passes": 1})


def test_training_seeds_are_never_scored(tmp_path: Path) -> None:
    results = open_scores(tmp_path / "s.jsonl", {})
    with pytest.raises(ConfigError, match="belongs to training"):
        score(planner(1), ROBOT, results, ("reach",), episodes=1, replan_knots=8, first_seed=TRAIN_SEED_LIMIT - 1,
              report=lambda *_: None)  # fmt: skip
    results.close()
