"""The degrade ladder only goes down by itself; every source that is gone, frozen or late is found in its time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_wam.config import MonitorConfig
from edge_wam.contracts import DegradeState, Imagination
from edge_wam.faults import FAULTS, Fault
from edge_wam.monitor import Monitor
from edge_wam.shm import FrameInfo
from tests.runtime.robot import robot

MS = 1_000_000
ROBOT = robot()
HOME = np.array([0.0, 0.6, 0.2, 0.0])


class World:
    """A monitor fed every 10 ms with healthy cameras, encoder and policy; tests break one of them."""

    def __init__(self, **settings: float) -> None:
        self.monitor = Monitor(ROBOT, MonitorConfig(**settings), 10.0)  # type: ignore[arg-type]
        self.now = 1_000 * MS
        self.index = 0
        self.crc = 0
        self.position = HOME.copy()
        self.plan_end = 0
        self.dead: set[str] = set()
        self.frozen = False
        self.run(300)
        assert self.monitor.unwell(self.now) == []
        self.monitor.operator_reset(self.now)

    def run(self, ms: int) -> None:
        for _ in range(ms // 10):
            self.now += 10 * MS
            if self.now // MS % 50 == 0:
                self.index += 1
                self.crc += not self.frozen
                for name in ("corner2", "topview"):
                    if name not in self.dead:
                        self.monitor.frame(self.now, name, FrameInfo(self.index, self.now, self.crc))
            if "mcu" not in self.dead:
                self.monitor.mcu(self.now, self.position, True)
            if "policy" not in self.dead and self.now // MS % 100 == 0:
                self.monitor.accepted(self.now)
                self.plan_end = self.now + 750 * MS
            self.monitor.step(self.now, self.plan_end, planning=True)

    @property
    def raised(self) -> list[Fault]:
        return [fault for _, fault, _ in self.monitor.faults]


def test_a_healthy_robot_stays_nominal() -> None:
    world = World()
    world.run(5000)
    assert world.monitor.state is DegradeState.NOMINAL and world.raised == []
    assert all(source.ok for source in world.monitor.health(world.now).sources.values())


def test_a_camera_that_is_gone_coasts_then_holds_then_stops() -> None:
    world = World()
    world.dead = {"topview", "policy"}
    world.run(300)
    assert world.raised == [Fault.CAMERA_GONE] and world.monitor.state is DegradeState.COAST
    world.run(600)
    assert world.monitor.state is DegradeState.HOLD
    world.run(2100)
    assert world.monitor.state is DegradeState.SOFT_STOP


def test_a_frozen_camera_is_found_only_when_the_arm_moves() -> None:
    world = World()
    world.frozen = True
    world.run(3000)
    assert world.raised == []
    world.position += [0.05, 0, 0, 0]
    world.run(200)
    assert world.raised[0] is Fault.CAMERA_FROZEN and world.monitor.state is DegradeState.COAST
    assert any("not valid" in text for text in world.monitor.unwell(world.now))


def test_a_silent_link_holds_at_once() -> None:
    world = World()
    world.dead = {"mcu"}
    world.run(120)
    assert world.raised == [Fault.LINK_SILENT] and world.monitor.state is DegradeState.HOLD


def test_a_policy_that_answers_but_is_never_accepted_is_found_before_the_plan_ends() -> None:
    world = World()
    world.dead = {"policy"}
    world.run(600)
    assert Fault.POLICY_SILENT in world.raised and world.monitor.state is DegradeState.COAST


def test_running_out_of_knots_holds() -> None:
    world = World()
    world.plan_end = world.now + 20 * MS
    world.dead = {"policy"}
    world.run(50)
    assert world.raised == [Fault.PLAN_RAN_OUT] and world.monitor.state is DegradeState.HOLD


def test_an_arm_that_never_got_a_plan_holds_its_place_and_says_why() -> None:
    world = World()
    world.plan_end, world.dead = 0, {"policy"}
    world.run(700)
    assert world.monitor.state is DegradeState.HOLD and Fault.POLICY_SILENT in world.raised


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(sorted(FAULTS)), st.integers(10, 400)), max_size=30))
def test_the_ladder_never_goes_up_by_itself(happenings: list[int]) -> None:
    world = World()
    worst = world.monitor.state
    for what in happenings:
        if what in FAULTS:
            world.monitor.raise_fault(world.now, Fault(what))
            assert world.monitor.state >= FAULTS[what].descends_to
        else:
            world.run(what)
        assert world.monitor.state >= worst
        worst = world.monitor.state


def test_every_fault_has_a_row_a_cause_and_a_remedy() -> None:
    assert set(FAULTS) == {int(fault) for fault in Fault}
    for row in FAULTS.values():
        assert row.fault >= 1000 and len(row.cause) > 10 and row.remedy


def imagination(value: float, for_ns: int) -> Imagination:
    return Imagination(np.full((1, 3, 2), value, np.float32), (for_ns,), 0, 1)


def test_surprise_compares_only_what_was_imagined_for_that_time() -> None:
    monitor = Monitor(ROBOT, MonitorConfig(), 10.0)
    monitor.latent_scale = np.array([2.0, 2.0], np.float32)
    monitor.imagine(imagination(1.0, 500 * MS))
    seen = np.full((3, 2), 3.0, np.float32)
    assert monitor.observe(0, seen, 600 * MS, 25 * MS) is None and monitor.surprise is None
    assert monitor.observe(0, seen, 520 * MS, 25 * MS) == pytest.approx(1.0)
    monitor.imagine(imagination(3.0, 500 * MS))
    assert monitor.observe(0, seen, 500 * MS, 25 * MS) == pytest.approx(0.0), "the newest imagination counts"


def test_lasting_surprise_coasts_and_one_blink_does_not() -> None:
    world = World(surprise_limit=0.5)
    world.monitor.latent_scale = np.ones(2, np.float32)
    seen = np.zeros((3, 2), np.float32)
    for k in range(40):
        value = 2.0 if k == 5 or k >= 20 else 0.0
        world.monitor.imagine(imagination(value, k * 100 * MS))
        world.monitor.observe(world.now, seen, k * 100 * MS, 25 * MS)
        if k < 20:
            assert world.monitor.state is DegradeState.NOMINAL
    assert world.raised == [Fault.SURPRISE_HIGH]
