"""Two ways around a wall: either side is taken, what has been begun is gone on with, and both arrive."""

import numpy as np
import pytest

from distill.data.detours import MOVING_M_S, WALLS
from distill.data.expert import Expert, advance
from edge_wam.sim.world import MAX_EPISODE_NS, World
from tests.distill.tiny import ROBOT

WALL = WALLS["reach-wall"]
BEFORE = np.array([0.1, 0.6, 0.2])
GOAL = np.array([0.0, 0.88, 0.1])


@pytest.mark.parametrize("x", [-0.1, 0.0, 0.1, 0.2])
@pytest.mark.parametrize("velocity", [-0.3, 0.3])
def test_a_hand_that_moves_before_the_wall_goes_on_to_that_side(x: float, velocity: float) -> None:
    sides = {WALL.side(x, velocity, np.random.default_rng(seed)) for seed in range(20)}
    beyond = x < WALL.left - WALL.margin / 2
    assert sides == {-1 if beyond else int(np.sign(velocity))}


def test_a_hand_at_rest_before_the_wall_takes_either_side() -> None:
    rng = np.random.default_rng(0)
    left = sum(WALL.side(0.05, MOVING_M_S / 2, rng) < 0 for _ in range(400))
    assert 160 <= left <= 240  # 200 and four standard deviations


@pytest.mark.parametrize("side", [-1, 1])
def test_the_way_leads_beside_the_wall_then_past_it_and_then_is_the_experts_own(side: int) -> None:
    first = WALL.waypoint(BEFORE, GOAL, side)
    assert first is not None and first[1] < WALL.y
    assert first[0] < WALL.left if side < 0 else first[0] > WALL.right
    past = WALL.waypoint(first, GOAL, side)
    assert past is not None and past[0] == first[0] and past[1] > WALL.y and past[2] == WALL.low
    assert WALL.waypoint(past, GOAL, side) is None
    assert WALL.waypoint(BEFORE, BEFORE, side) is None, "nothing to pass"


def test_demonstrations_take_both_ways_and_arrive_by_both() -> None:
    crossed = set()
    world = World("reach-wall", 0)
    for seed in range(4):
        world.reset(seed)
        expert = Expert(world, ROBOT, np.random.default_rng(seed))
        x = np.nan
        while not world.succeeded and world.time_ns < MAX_EPISODE_NS:
            advance(world, expert, 20)
            hand = world.position()
            if np.isnan(x) and hand[1] > WALL.y:
                x = hand[0]
        assert world.succeeded
        assert x < WALL.left or x > WALL.right
        crossed.add(x < WALL.left)
    assert crossed == {True, False}
    world.close()
