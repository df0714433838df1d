"""The spread of answers tells a policy that chooses from one that averages."""

from dataclasses import replace

import numpy as np
import pytest

from distill.modes import measure_spread, moments, spread
from distill.planner import TorchPlanner
from edge_wam.contracts import F64, ActionChunk, Imagination, Observation
from edge_wam.errors import ConfigError
from edge_wam.sim.world import TRAIN_SEED_LIMIT
from tests.distill.tiny import EXPORTED, ROBOT, make_student

SCENE = (TRAIN_SEED_LIMIT,)


class Chooser:
    """Goes 0.1 m to a side that the noise chooses; ``mean`` goes straight, as the average of both."""

    def __init__(self, mean: bool) -> None:
        self.mean = mean

    def reset(self) -> None:
        pass

    def infer(self, seen: Observation, prefix: F64, sequence: int) -> tuple[ActionChunk, Imagination, object]:
        side = 0.0 if self.mean else (-1.0 if np.random.default_rng(sequence).random() < 0.5 else 1.0)
        way = np.linspace(0.0, 0.1, 16)
        q = seen.joint_position + np.stack([side * way, way, 0 * way, 0 * way], 1)
        chunk = ActionChunk(t0_ns=seen.state_at_ns, dt_ns=50_000_000, q=q, observed_at_ns=seen.observed_at_ns,
                            sequence=sequence, model_hash="none", prefix=0)  # fmt: skip
        imagined = Imagination(latents=np.zeros((1, 1, 1), np.float32), for_ns=(1,), observed_at_ns=0, sequence=0)
        return chunk, imagined, None


def test_a_policy_that_averages_has_no_spread_and_one_that_chooses_has() -> None:
    asked = moments("reach-wall", ROBOT, SCENE, 2)
    assert [len(seen) for seen in asked] == [3]
    chosen, averaged = (spread(Chooser(mean), "reach-wall", asked, 64) for mean in (False, True))
    rms = 1e3 * np.sqrt(np.square(np.linspace(0.0, 0.1, 16)).mean())
    assert chosen.spread_mm == pytest.approx(rms, rel=0.05) and 0.3 < chosen.left < 0.7
    assert averaged.spread_mm == pytest.approx(0.0, abs=1e-6)


def test_every_noise_is_asked_about_the_same_moment() -> None:
    asked = moments("reach", ROBOT, SCENE, 3)
    planner = TorchPlanner(*make_student(EXPORTED), ROBOT, passes=2)
    once = spread(planner, "reach", asked, 4)
    again = spread(TorchPlanner(*make_student(EXPORTED), ROBOT, passes=2), "reach", asked, 4)
    assert once == again and once.spread_mm > 0
    still = [[replace(seen, instruction="close the door") for seen in asked[0]]]
    assert spread(planner, "reach", still, 4).spread_mm != once.spread_mm


def test_training_scenes_are_not_asked_about() -> None:
    with pytest.raises(ConfigError, match="belongs to training"):
        measure_spread(Chooser(False), ROBOT, ("reach",), first_seed=5, scenes=1, noises=2, knots=0,
                       report=lambda *_: None)  # fmt: skip
