"""The joint arm behaves as its class does: it follows, it sags, it falls, its brakes hold, and it breaks as ordered."""

from __future__ import annotations

import numpy as np
import pytest

from edge_wam.sim.arm import ArmPlant, ArmSpec, Broken, PlantFault
from edge_wam.sim.arm_model import DOF, HOME, LINKS
from edge_wam.sim.servo import ServoSpec

HOME_Q = np.array(HOME)
SHOULDER, ELBOW = 1, 2


def held(spec: ArmSpec, seconds: float = 1.0) -> ArmPlant:
    """An arm that has been holding its home pose for a while."""
    arm = ArmPlant(spec)
    arm.order(HOME_Q, enabled=True)
    for _ in range(round(seconds * 1000)):
        arm.tick()
    return arm


def run(arm: ArmPlant, ticks: int, speed: float = 0.0) -> np.ndarray:
    """Order a ramp of the shoulder from home; returns the last order."""
    order = HOME_Q.copy()
    for tick in range(ticks):
        order[SHOULDER] = HOME_Q[SHOULDER] + speed * tick * 1e-3
        arm.order(order, enabled=True)
        arm.tick()
    return order


@pytest.mark.parametrize("payload_kg", [0.0, 2.0, 5.0])
@pytest.mark.parametrize("backlash_rad", [0.0, 1e-3])
def test_it_follows_a_sine_within_5_mrad_whatever_it_carries(payload_kg: float, backlash_rad: float) -> None:
    arm = held(ArmSpec(payload_kg=payload_kg, backlash_rad=backlash_rad))
    worst = 0.0
    for tick in range(2000):
        order = HOME_Q + 0.25 * (1 - np.cos(2 * np.pi * 0.5 * tick * 1e-3)) * np.array([1, 0.6, -0.6, 1, 1, 1])
        arm.order(order, enabled=True)
        arm.tick()
        worst = max(worst, float(np.abs(order - arm.position).max()))
        assert (np.abs(arm.effort()) <= [link.torque_nm for link in LINKS]).all()
    assert 1e-5 < worst < 5e-3 + backlash_rad


def test_the_drives_carry_the_weight_that_the_geometry_says() -> None:
    """Stretched out level, the shoulder carries the sum of mass times lever."""
    level = ArmSpec(payload_kg=5.0, home=(0.0, np.pi / 2, 0.0, 0.0, 0.0, 0.0), friction=0.01)
    arm = ArmPlant(level)
    for _ in range(3000):
        arm.order(np.array(level.home), enabled=True)
        arm.tick()
    levers = {8.0: 0.2125, 5.0: 0.425 + 0.195}
    wrist = 0.425 + 0.39
    moment = sum(mass * lever for mass, lever in levers.items()) + 2.0 * (wrist + 0.0475) + (2.0 + 0.8 + 5.0) * (
        wrist + 0.095
    )
    # Wrist 2 turns about the forearm's axis here, so what hangs on it stays at its joint, to the side.
    assert abs(arm.effort()[SHOULDER]) == pytest.approx(9.81 * moment, rel=0.02)


def test_without_torque_and_brakes_it_falls_to_the_floor() -> None:
    arm = held(ArmSpec(brakes=False))
    height = arm.flange_m[2]
    arm.order(HOME_Q, enabled=False)
    for _ in range(250):
        arm.tick()
    assert arm.flange_m[2] < height - 0.1
    for _ in range(1750):
        arm.tick()
    assert arm.flange_m[2] < 0.2
    assert np.abs(arm.velocity).max() < 0.05
    assert (arm.effort() == 0.0).all()


@pytest.mark.parametrize("payload_kg", [0.0, 5.0])
def test_spring_applied_brakes_catch_it_within_2_degrees(payload_kg: float) -> None:
    arm = held(ArmSpec(payload_kg=payload_kg))
    before = arm.position
    arm.order(HOME_Q, enabled=False)
    for _ in range(2000):
        arm.tick()
    sagged = np.abs(arm.position - before).max()
    assert 1e-4 < sagged < 0.035
    assert arm.brakes_closed


def test_a_brake_that_is_ordered_holds_against_the_drive() -> None:
    arm = held(ArmSpec())
    for tick in range(500):
        arm.order(HOME_Q + 0.002 * (tick > 100), enabled=True, brake=True)
        arm.tick()
    assert np.abs(arm.position - HOME_Q).max() < 1.5e-3


def test_play_hides_the_joint_from_the_encoder() -> None:
    play = 4e-3
    arm = held(ArmSpec(backlash_rad=play, payload_kg=0.0))
    gap = []
    for tick in range(2000):
        arm.order(HOME_Q + np.eye(DOF)[0] * 0.05 * np.sin(2 * np.pi * 1.0 * tick * 1e-3), enabled=True)
        arm.tick()
        gap.append(arm.position[0] - arm.motor[0])
    assert max(gap) == pytest.approx(play / 2, rel=0.2)  # teeth are stiff, not rigid
    assert min(gap) == pytest.approx(-play / 2, rel=0.2)


def test_the_encoder_has_steps_and_is_late_by_its_latency() -> None:
    counts = 4096
    arm = ArmPlant(ArmSpec(servo=ServoSpec(encoder_counts=counts, latency_ticks=3)))
    truth, said = [], []
    for tick in range(600):
        arm.order(HOME_Q + np.eye(DOF)[0] * 0.4 * tick * 1e-3, enabled=True)
        arm.tick()
        truth.append(arm.motor[0])
        reading = arm.encoder()
        assert reading is not None
        said.append(reading[0])
    step = 2 * np.pi / counts
    assert np.abs(np.array(said) / step - np.round(np.array(said) / step)).max() < 1e-6
    # A reading is taken at the beginning of its tick, so the one of tick k shows the shaft after tick k - 4.
    assert np.abs(np.array(said[4:]) - np.array(truth[:-4])).max() <= step / 2 + 1e-9


def test_a_drive_of_the_wrong_sign_runs_away() -> None:
    arm = held(ArmSpec())
    arm.break_it(PlantFault(Broken.WRONG_SIGN, SHOULDER))
    order = run(arm, 300, 0.2)
    assert abs(arm.position[SHOULDER] - order[SHOULDER]) > 0.2
    assert abs(arm.encoder()[SHOULDER] - order[SHOULDER]) > 0.2  # type: ignore[index]


def test_a_stuck_encoder_makes_the_drive_push_against_what_it_cannot_see() -> None:
    arm = held(ArmSpec())
    arm.break_it(PlantFault(Broken.ENCODER_STUCK, SHOULDER))
    stuck_at = arm.encoder()[SHOULDER]  # type: ignore[index]
    order = run(arm, 300, 0.2)
    assert arm.encoder()[SHOULDER] == stuck_at  # type: ignore[index]
    assert abs(arm.position[SHOULDER] - order[SHOULDER]) > 0.2


def test_a_dead_motor_lets_its_joint_sink() -> None:
    arm = held(ArmSpec(brakes=False))
    arm.break_it(PlantFault(Broken.DEAD_MOTOR, ELBOW))
    run(arm, 500)
    assert abs(arm.position[ELBOW] - HOME[ELBOW]) > 0.2
    assert abs(arm.encoder()[ELBOW] - HOME[ELBOW]) > 0.2  # type: ignore[index]


def test_an_offset_encoder_moves_the_joint_by_the_offset_and_looks_well() -> None:
    arm = held(ArmSpec())
    arm.break_it(PlantFault(Broken.ENCODER_OFFSET, ELBOW, 0.05))
    run(arm, 1500)
    assert arm.position[ELBOW] == pytest.approx(HOME[ELBOW] - 0.05, abs=3e-3)
    assert arm.encoder()[ELBOW] == pytest.approx(HOME[ELBOW], abs=3e-3)  # type: ignore[index]


def test_an_overload_saturates_the_drive_and_pulls_the_arm_off_its_order() -> None:
    arm = held(ArmSpec())
    arm.break_it(PlantFault(Broken.OVERLOAD, value=400.0))
    run(arm, 300)
    assert (np.abs(arm.effort()) >= 0.99 * arm.servos.limit).any()
    assert np.abs(arm.position - HOME_Q).max() > 0.1


def test_a_silent_encoder_says_nothing_for_as_long_as_it_is_told() -> None:
    arm = held(ArmSpec(), 0.1)
    arm.break_it(PlantFault(Broken.ENCODER_SILENT, value=30))
    silent = []
    for _ in range(120):
        run(arm, 1)
        silent.append(arm.encoder() is None)
    assert sum(silent) == 60
    assert max(len(part) for part in "".join("x" if s else " " for s in silent).split()) == 30


def test_it_is_deterministic() -> None:
    ends = []
    for _ in range(2):
        arm = held(ArmSpec(backlash_rad=1e-3), 0.2)
        run(arm, 300, 0.3)
        ends.append(np.concatenate([arm.position, arm.velocity]))
    assert (ends[0] == ends[1]).all()


def test_an_order_for_another_arm_is_none() -> None:
    arm = held(ArmSpec(), 0.1)
    arm.order(np.zeros(4), enabled=False)
    arm.tick()
    assert not arm.brakes_closed and np.abs(arm.position - HOME_Q).max() < 1e-2
