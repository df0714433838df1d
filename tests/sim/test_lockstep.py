"""Lockstep: what a planner says passes guard, wire and microcontroller before it moves the world; nonsense does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_wam.contracts import F64, ActionChunk, Imagination, Observation
from edge_wam.errors import ContractError, PolicyError
from edge_wam.sim import lockstep
from edge_wam.sim.lockstep import Episode, mcu_library, run_episode
from edge_wam.sim.plant import TICK_NS, Plant
from edge_wam.sim.world import MAX_EPISODE_NS, World
from firmware_bridge.host.plant_port import DriveCommand
from tests.distill.tiny import ROBOT

DT_NS = ROBOT.chunk_dt_ms * 1_000_000
KNOTS = 16


class Scripted:
    """A planner without a model: every chunk goes at ``speed`` (m/s) from the setpoint it sees, or says nonsense."""

    def __init__(self, speed: tuple[float, float, float] = (0.0, 0.0, 0.0), nonsense: str = "") -> None:
        self.speed, self.nonsense = np.array([*speed, 0.0]), nonsense
        self.resets = 0
        self.saw: list[Observation] = []

    def reset(self) -> None:
        self.resets += 1

    def infer(self, observation: Observation, prefix: F64, sequence: int) -> tuple[ActionChunk, Imagination, object]:
        self.saw.append(observation)
        ahead = np.arange(1, KNOTS + 1)[:, None] * (DT_NS * 1e-9)
        q = observation.joint_setpoint + ahead * self.speed
        if self.nonsense == "":
            q = np.clip(q, ROBOT.vector("position_min"), ROBOT.vector("position_max"))
        if self.nonsense == "refuses":
            raise PolicyError("output 'action' holds a number that is none")
        if self.nonsense == "nan":
            q[3, 1] = np.nan
        if self.nonsense == "far":
            q = q + 5.0
        chunk = ActionChunk(observation.state_at_ns + DT_NS, DT_NS, q, observation.observed_at_ns, sequence, "none")
        dream = Imagination(np.zeros((1, 1, 1), np.float32), (observation.state_at_ns,), 0, sequence)
        return chunk, dream, None


@pytest.fixture(scope="module")
def library() -> Path:
    return mcu_library()


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    w = World("reach", 4)
    yield w
    w.close()


@pytest.fixture(autouse=True)
def _short_and_blind(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.8 s of the episode, and no drawing: these planners do not look."""
    monkeypatch.setattr(lockstep, "MAX_EPISODE_NS", 800_000_000)
    monkeypatch.setattr(World, "render", lambda self, camera: np.zeros((128, 128, 3), np.uint8))


def _run(planner: Scripted, world: World, library: Path, **options: int) -> Episode:
    world.reset(4)
    ticks = iter(range(1_000_000))
    return run_episode(planner, world, ROBOT, library, clock_ns=lambda: next(ticks), **options)


def test_a_planner_moves_the_arm_through_the_microcontroller(world: World, library: Path) -> None:
    planner = Scripted((0.0, 0.2, 0.1))
    episode = _run(planner, world, library)
    way = episode.setpoint[-1] - episode.setpoint[0]
    assert 0.10 < way[1] < 0.17 and 0.05 < way[2] < 0.09 and abs(way[0]) < 0.002, "0.8 s at (0, 0.2, 0.1) m/s"
    moved = episode.position[-1] - episode.position[0]
    np.testing.assert_allclose(moved[:3], way[:3], atol=0.03)
    assert planner.resets == 1 and not episode.refused
    assert len(episode.latency_ns) == 16 and set(episode.latency_ns) == {1}
    seen = [o.state_at_ns for o in planner.saw]
    assert np.diff(seen).tolist() == [DT_NS] * 15, "inference costs no simulated time"


def test_replanning_seldom_asks_seldom(world: World, library: Path) -> None:
    planner = Scripted((0.0, 0.1, 0.0))
    _run(planner, world, library, replan_knots=4)
    assert len(planner.saw) == 4


def test_the_same_seed_and_planner_give_the_same_episode(world: World, library: Path) -> None:
    first, again = (_run(Scripted((0.05, 0.2, 0.1)), world, library) for _ in range(2))
    np.testing.assert_array_equal(first.position, again.position)
    np.testing.assert_array_equal(first.setpoint, again.setpoint)
    assert first.jerk == again.jerk > 0.0


@pytest.mark.parametrize("speed", [(0.7, 0.0, 0.0), (0.0, 0.0, -1.5), (-2.0, 2.0, 2.0)])
def test_the_arm_stays_in_its_limits_wherever_it_is_sent(
    world: World, library: Path, speed: tuple[float, float, float]
) -> None:
    """Up to 2.5 times too fast and into the end stops: slowed and stopped, not refused."""
    episode = _run(Scripted(speed), world, library)
    assert not episode.refused
    q = episode.setpoint
    low, high = ROBOT.vector("position_min"), ROBOT.vector("position_max")
    assert (q >= low - 2e-6).all() and (q <= high + 2e-6).all()
    velocity = np.diff(q, axis=0) / 0.01
    assert (np.abs(velocity) <= ROBOT.vector("velocity_max") * 1.001 + 1e-4).all()
    acceleration = np.diff(velocity, axis=0) / 0.01
    # Setpoints are whole micro-units: +-1 um over (10 ms)^2 is 0.04 m/s^2 at most.
    assert (np.abs(acceleration) <= ROBOT.vector("acceleration_max") * 1.01 + 0.05).all()
    assert np.abs(q[-1] - q[0])[:3].max() > 0.02, "it did move"


def test_a_chunk_far_outside_is_refused_and_moves_nothing(world: World, library: Path) -> None:
    episode = _run(Scripted(nonsense="far"), world, library)
    assert sum(episode.refused.values()) == 16
    assert np.ptp(episode.setpoint, axis=0).max() == 0.0


@pytest.mark.parametrize(("nonsense", "error"), [("nan", ContractError), ("refuses", PolicyError)])
def test_a_nan_from_the_planner_moves_nothing(
    world: World, library: Path, nonsense: str, error: type[Exception]
) -> None:
    """No chunk can hold a NaN, so the planner's call fails; the plant never sees an order that differs."""
    orders: list[np.ndarray] = []
    plain = Plant.order

    def watched(self: Plant, command: DriveCommand) -> None:
        if command.setpoint.size:  # before the limits are committed the drive has no axes
            orders.append(command.setpoint.copy())
        plain(self, command)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plant, "order", watched)
        with pytest.raises(error):
            _run(Scripted(nonsense=nonsense), world, library)
    assert world.steps == 0, "the world had not begun to run"
    assert len(orders) > 10 and np.isfinite(orders).all()
    assert np.ptp(orders, axis=0).max() <= 1e-6


def test_a_nan_in_mid_motion_stops_nothing_halfway_into_nonsense(world: World, library: Path) -> None:
    """The third answer is NaN: the episode ends with the error, and no order ever left the motion before it."""
    planner = Scripted((0.0, 0.2, 0.0))
    orders: list[np.ndarray] = []
    plain, infer = Plant.order, planner.infer

    def watched(self: Plant, command: DriveCommand) -> None:
        if command.setpoint.size:  # before the limits are committed the drive has no axes
            orders.append(command.setpoint.copy())
        plain(self, command)

    def third_time_wrong(observation: Observation, prefix: F64, sequence: int) -> object:
        planner.nonsense = "nan" if sequence == 3 else ""
        return infer(observation, prefix, sequence)

    planner.infer = third_time_wrong  # type: ignore[method-assign, assignment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plant, "order", watched)
        with pytest.raises(ContractError):
            _run(planner, world, library)
    q = np.array(orders)
    assert np.isfinite(q).all() and np.ptp(q[:, [0, 2, 3]], axis=0).max() < 1e-3
    assert 0.002 < q[-1, 1] - q[0, 1] < 0.03


def test_a_drive_that_is_off_or_of_another_arm_moves_nothing(world: World) -> None:
    world.reset(4)
    plant = Plant(world)
    held = plant.position()
    elsewhere = np.array([0.3, 0.9, 0.4, 1.0])
    plant.order(DriveCommand(1, True, elsewhere))
    plant.advance(100 * TICK_NS)
    assert world.steps == 0, "paused: the episode has not begun"
    plant = Plant(world)
    plant.paused = False
    plant.order(DriveCommand(1, False, elsewhere))
    plant.order(DriveCommand(2, True, elsewhere[:3]))
    plant.advance(100 * TICK_NS)
    assert world.time_ns == 100 * TICK_NS
    np.testing.assert_allclose(plant.position()[:3], held[:3], atol=0.01)


def test_the_episode_ends_at_the_protocols_length(world: World) -> None:
    assert MAX_EPISODE_NS == 500 * 5 * 2_500_000
    episode = Episode("reach", 1, False, 1.0, np.zeros((3, 4)), np.zeros((3, 4)), [])
    assert episode.jerk == 0.0
    k = np.arange(8.0)[:, None] * 0.01
    cubic = replace(episode, setpoint=np.hstack([k**3, k**3, k**3, k]))
    assert cubic.jerk == pytest.approx(6.0)
