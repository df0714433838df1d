"""The 6-axis arm as a plant: 1 kHz, torque driven, and it falls when the torque goes away.

Orders in (the microcontroller's setpoints), encoder values out. What can break is a table of :class:`PlantFault`; a
broken drive is broken in its own loop too: one whose encoder stands still pushes against an error that it cannot see.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from edge_wam.contracts import F64
from edge_wam.sim.arm_model import DOF, HOME, JOINT_NAMES, LINKS, PHYSICS_STEP_S, arm_xml
from edge_wam.sim.mujoco_loader import load_mujoco
from edge_wam.sim.servo import TICK_S, Servos, ServoSpec

STEPS_PER_TICK = round(TICK_S / PHYSICS_STEP_S)


class Broken(Enum):
    """What may break. ``value`` of the fault in brackets."""

    ENCODER_STUCK = "encoder_stuck"
    """The reading of a joint stands still."""
    ENCODER_OFFSET = "encoder_offset"
    """The reading of a joint jumps by [rad]."""
    ENCODER_SILENT = "encoder_silent"
    """No encoder values at all; with [ms]: that long out of every twice that long."""
    WRONG_SIGN = "wrong_sign"
    """The drive of a joint pushes the other way: positive feedback."""
    DEAD_MOTOR = "dead_motor"
    """The motor of a joint gives no torque."""
    OVERLOAD = "overload"
    """A force of [N] pulls the flange down: a collision, or a load that nobody weighed."""


@dataclass(frozen=True, slots=True)
class PlantFault:
    """``joint``: 0..5; -1 where it concerns the whole arm."""

    kind: Broken
    joint: int = -1
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class ArmSpec:
    """The arm and its drives.

    Attributes:
        payload_kg: at the flange.
        backlash_rad: of every gear, end to end.
        friction: scales that of the class.
        brakes: holding brakes close when the drive is off or the order says so. Without them the arm falls.
        brake_delay_ms: until a spring-applied brake holds.
        home: joint angles at the beginning [D], rad.
    """

    payload_kg: float = 2.0
    backlash_rad: float = 0.0
    friction: float = 1.0
    brakes: bool = True
    brake_delay_ms: int = 40
    home: tuple[float, ...] = HOME
    servo: ServoSpec = field(default_factory=ServoSpec)


class ArmPlant:
    """One arm. ``position`` and ``motor`` are the truth; :meth:`encoder` is what the drives say."""

    def __init__(self, spec: ArmSpec | None = None) -> None:
        mujoco = load_mujoco()
        self.spec = spec or ArmSpec()
        self._mujoco = mujoco
        self.model = mujoco.MjModel.from_xml_string(
            arm_xml(
                payload_kg=self.spec.payload_kg, backlash_rad=self.spec.backlash_rad, friction=self.spec.friction
            )
        )
        self.data = mujoco.MjData(self.model)
        self._motor_q = np.array([self.model.joint(name).qposadr[0] for name in JOINT_NAMES])
        self._motor_v = np.array([self.model.joint(name).dofadr[0] for name in JOINT_NAMES])
        play = [f"{name}_play" for name in JOINT_NAMES] if self.spec.backlash_rad > 0.0 else []
        self._play_q = np.array([self.model.joint(name).qposadr[0] for name in play], dtype=np.int64)
        self._friction = self.model.dof_frictionloss[self._motor_v].copy()
        self._brake = np.array([link.brake_nm for link in LINKS])
        self._flange = self.model.body(JOINT_NAMES[-1]).id
        self.data.qpos[self._motor_q] = self.spec.home
        mujoco.mj_forward(self.model, self.data)
        self.servos = Servos(self.spec.servo, self.motor)
        self._order = self.motor
        self._enabled = False
        self._parked = True  # rests on its stand until the drive comes on for the first time
        self._brake_order = False
        self._brake_ticks = self.spec.brake_delay_ms  # closed at the beginning: the drive is off
        self._faults: list[PlantFault] = []
        self._held: dict[int, float] = {}
        self._reading = self.servos.quantise(self.motor)
        self.ticks = 0
        self._set_brakes(True)

    @property
    def motor(self) -> F64:
        """Angle of every motor, seen behind its gear [D], rad."""
        out: F64 = np.array(self.data.qpos[self._motor_q], np.float64)
        return out

    @property
    def position(self) -> F64:
        """Where the links really are [D], rad: motor and play."""
        out = self.motor
        if len(self._play_q):
            out += self.data.qpos[self._play_q]
        return out

    @property
    def velocity(self) -> F64:
        """Of the motors, seen behind their gears [D], rad/s."""
        out: F64 = np.array(self.data.qvel[self._motor_v], np.float64)
        return out

    @property
    def flange_m(self) -> F64:
        """Where the flange is [3], m."""
        out: F64 = np.array(self.data.site("flange").xpos, np.float64)
        return out

    @property
    def brakes_closed(self) -> bool:
        return self.spec.brakes and self._brake_ticks >= self.spec.brake_delay_ms

    def break_it(self, fault: PlantFault) -> None:
        """From the next tick on."""
        if fault.kind is Broken.ENCODER_STUCK:
            self._held[fault.joint] = float(self._reading[fault.joint])
        if fault.kind is Broken.OVERLOAD:
            self.data.xfrc_applied[self._flange, 2] = -fault.value
        self._faults.append(fault)

    def order(self, setpoint: F64, *, enabled: bool, brake: bool = False) -> None:
        """The microcontroller's newest order: ``setpoint`` [D], rad. Another number of axes is no order."""
        if len(setpoint) != DOF:
            return
        if enabled and not self._enabled:
            self.servos.restart(self.motor)
            self._parked = False
        self._enabled = enabled
        self._brake_order = brake
        self._order = np.array(setpoint, np.float64)

    def switch_off(self) -> None:
        """The enable goes away; what was ordered last is kept for when it comes back."""
        self._enabled = False

    def tick(self) -> None:
        """One millisecond."""
        self.ticks += 1
        self._reading = self._sense()
        close = not self._enabled or self._brake_order
        self._brake_ticks = self._brake_ticks + 1 if close else 0
        self._set_brakes(self.brakes_closed or self._parked)
        if self._enabled:
            torque = self._sabotage(self.servos.drive(self._order, self._reading))
        else:
            self.servos.off(self._reading)
            torque = np.zeros(DOF)
        self.data.ctrl[:] = torque
        for _ in range(STEPS_PER_TICK):
            self._mujoco.mj_step(self.model, self.data)

    def encoder(self) -> F64 | None:
        """What the drives report [D], rad; None while they are silent."""
        for fault in self._faults:
            if fault.kind is Broken.ENCODER_SILENT and (
                fault.value <= 0.0 or self.ticks % (2 * int(fault.value)) < int(fault.value)
            ):
                return None
        return self._reading.copy()

    def effort(self) -> F64:
        """Torque at the joints by the current that flows, as the drives believe [D], Nm; none flows in a dead motor."""
        out = self.servos.torque.copy() if self._enabled else np.zeros(DOF)
        for fault in self._faults:
            if fault.kind is Broken.DEAD_MOTOR:
                out[fault.joint] = 0.0
        return out

    def _sense(self) -> F64:
        reading = self.servos.sense(self.motor)
        for fault in self._faults:
            if fault.kind is Broken.ENCODER_OFFSET:
                reading[fault.joint] += fault.value
        for joint, value in self._held.items():
            reading[joint] = value
        return reading

    def _sabotage(self, torque: F64) -> F64:
        out = torque.copy()
        for fault in self._faults:
            if fault.kind is Broken.WRONG_SIGN:
                out[fault.joint] = -out[fault.joint]
            elif fault.kind is Broken.DEAD_MOTOR:
                out[fault.joint] = 0.0
        return out

    def _set_brakes(self, closed: bool) -> None:
        # A closed brake is dry friction at the motor's shaft.
        self.model.dof_frictionloss[self._motor_v] = self._friction + (self._brake if closed else 0.0)
