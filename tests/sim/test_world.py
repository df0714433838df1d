"""The plant: deterministic, seeded, drawn alike in two processes, and its experts can do every task."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distill.calibration import closed_loop_feeds
from distill.collector import collect_rounds
from distill.data.expert import Expert, advance
from distill.data.generate import generate
from distill.data.on_policy import collect
from edge_wam.app.eval import FIRST_SEED, check_request
from edge_wam.errors import ConfigError
from edge_wam.sim.world import IMAGE_SIZE, MAX_EPISODE_NS, PHYSICS_STEP_NS, TASKS, TRAIN_SEED_LIMIT, World
from tests.distill.tiny import ROBOT, TINY

_NOWHERE = Path("/nonexistent")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    w = World("drawer-open", 3)
    yield w
    w.close()


def _wander(world: World, steps: int) -> list[np.ndarray]:
    """Drive somewhere and write down every state."""
    states = []
    for k in range(steps):
        t = k * PHYSICS_STEP_NS * 1e-9
        world.step_setpoint(np.array([0.1 * np.sin(3 * t), 0.6 + 0.1 * t, 0.2 - 0.05 * np.sin(5 * t), np.sin(9 * t)]))
        states.append(np.concatenate([world.dynamic_state(), world.full_observation, world.position()]))
    return states


def test_same_seed_and_setpoints_same_states(world: World) -> None:
    world.reset(3)
    first = _wander(world, 200)
    world.reset(11)
    _wander(world, 50)
    world.reset(3)
    again = _wander(world, 200)
    other = World("drawer-open", 3)
    fresh = _wander(other, 200)
    for a, b, c in zip(first, again, fresh, strict=True):
        np.testing.assert_array_equal(a, b, "a reset leaves nothing of the episode before")
        np.testing.assert_array_equal(a, c)


@pytest.mark.parametrize("task", list(TASKS))
def test_seeds_differ(task: str) -> None:
    w = World(task, 0)
    starts = []
    for seed in range(4):
        w.reset(seed)
        starts.append(tuple(np.round(w.full_observation[[4, 5, 6, 36, 37, 38]], 6)))
    assert len(set(starts)) == 4, "object and goal are drawn by the seed"


def test_time_runs_by_physics_steps_and_the_referee_judges_every_fifth(world: World) -> None:
    world.reset(3)
    seen = []
    for k in range(1, 11):
        world.step_setpoint(world.setpoint())
        assert world.time_ns == k * PHYSICS_STEP_NS
        seen.append(world.full_observation)
    changes = [k + 2 for k in range(9) if not np.array_equal(seen[k], seen[k + 1])]
    assert set(changes) <= {5, 10} and changes, "observations change when the referee looks: every 12.5 ms"
    assert MAX_EPISODE_NS == 6_250_000_000


def test_the_gripper_axis_is_open_at_minus_one_and_closed_at_plus_one(world: World) -> None:
    world.reset(3)
    found = []
    for command in (-1.0, 1.0):
        for _ in range(300):
            world.step_setpoint(np.append(world.setpoint()[:3], command))
        found.append(world.position()[3])
    assert -1.0 <= found[0] < 0.0 < found[1] <= 1.0


def test_cameras_have_the_size_and_geometry_of_the_protocol(world: World) -> None:
    world.reset(3)
    for camera in ROBOT.cameras:
        image = world.render(camera.name)
        assert image.shape == (camera.height, camera.width, 3) == (IMAGE_SIZE, IMAGE_SIZE, 3)
        assert image.dtype == np.uint8 and image.std() > 10
    model = world.env.model
    np.testing.assert_allclose(model.cam_pos[model.camera("corner2").id], (0.75, 0.075, 0.7))
    renderer = world._renderer
    renderer.update_scene(world.env.data, camera="corner2")
    np.testing.assert_array_equal(world.render("corner2"), renderer.render()[::-1, ::-1], "turned by 180 degrees")
    # Turned so, up is up: the arm comes from above the table.
    before = world.render("corner2").astype(int)
    for _ in range(200):
        world.step_setpoint(np.append(world.setpoint()[:2], [0.45, -1.0]))
    moved = np.abs(world.render("corner2").astype(int) - before).sum(-1) > 60
    assert moved.any()


def test_another_world_of_the_same_seed_draws_the_same_picture(world: World) -> None:
    """What the camera process does: it is handed the plant's state and draws it."""
    world.reset(3)
    _wander(world, 150)
    twin = World("drawer-open", 3)
    try:
        start = {c.name: twin.render(c.name) for c in ROBOT.cameras}
        twin.set_dynamic_state(world.dynamic_state())
        for camera in ROBOT.cameras:
            picture = world.render(camera.name)
            np.testing.assert_array_equal(twin.render(camera.name), picture, camera.name)
            assert not np.array_equal(start[camera.name], picture)
        np.testing.assert_array_equal(twin.position(), world.position())
    finally:
        twin.close()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("task", list(TASKS))
def test_experts_behind_the_robots_limits_do_every_task(task: str, seed: int) -> None:
    w = World(task, seed)
    expert = Expert(w, ROBOT, np.random.default_rng(0))
    while not w.succeeded and w.time_ns < MAX_EPISODE_NS:
        advance(w, expert, 20)
    assert w.succeeded, f"{task} seed {seed}"


def test_training_and_evaluation_seeds_cannot_meet() -> None:
    assert FIRST_SEED == TRAIN_SEED_LIMIT
    with pytest.raises(ConfigError, match="belongs to the training seeds"):
        check_request(["reach"], TRAIN_SEED_LIMIT - 1, 1)
    refused = [
        lambda: generate(_NOWHERE, ROBOT, per_task=2, seed=TRAIN_SEED_LIMIT - 1, tasks=("reach",)),
        lambda: generate(_NOWHERE, ROBOT, per_task=1, seed=-1, tasks=("reach",)),
        lambda: collect(_NOWHERE, None, ROBOT, episodes=2, first_seed=TRAIN_SEED_LIMIT - 1, weights={}, worlds={},
                        report=print),
        lambda: collect_rounds(_NOWHERE, _NOWHERE, TINY, ROBOT, tag="a", first_seed=TRAIN_SEED_LIMIT - 5, episodes=2,
                               rounds=3, tasks=("reach",), report=print),
        lambda: closed_loop_feeds(None, ROBOT, _NOWHERE, episodes=2, feeds=12, seed=TRAIN_SEED_LIMIT - 1,
                                  clock_ns=lambda: 0, report=print),
    ]  # fmt: skip
    for attempt in refused:
        with pytest.raises(ConfigError, match="seed"):
            attempt()


def test_an_unknown_task_is_named_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="drawer-open"):
        World("drawer-opn", 0)


def test_drawing_needs_no_environment_and_leaves_no_noise_at_exit() -> None:
    """A bare environment: no display, no MUJOCO_GL. An unclosed world must not end in a traceback either, and an arm
    that draws nothing, made before it in the same process, must not decide that nothing is drawn."""
    code = (
        "from edge_wam.sim.arm import ArmPlant\nfrom edge_wam.sim.world import World\nimport os\nArmPlant()\n"
        "w = World('reach', 0)\nassert w.render('topview').std() > 10\n"
        "print(os.environ['MUJOCO_GL'], os.environ['LP_NUM_THREADS'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["egl", "1"]
