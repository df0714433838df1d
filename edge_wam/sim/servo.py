"""A servo drive per joint, as sold: position and speed loop, current loop, torque limit, encoder with steps and delay.

It knows its motor, not the arm: the feedforward covers friction and rotor inertia, never gravity or the payload. What
the arm weighs shows as a lag of the position loop, as on a real machine.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from edge_wam.contracts import F64
from edge_wam.sim.arm_model import DOF, LINKS

TICK_S = 1e-3


@dataclass(frozen=True, slots=True)
class ServoSpec:
    """Of all joints alike, except the gains.

    Attributes:
        kp [D], kd [D]: Nm/rad and Nms/rad; stiff enough for 8 Hz with the arm stretched out.
        ki [D]: Nm/(rad s); takes out the lag of a standing load in about half a second.
        encoder_counts: steps per turn of the joint (2^19: a 13 bit motor encoder behind 1:64, or 19 bit at the output).
        latency_ticks: from the shaft to the controller and to the microcontroller, whole milliseconds.
        current_s: time constant of the current loop.
        speed_filter_s: of the speed that is derived from the encoder.
    """

    kp: tuple[float, ...] = (22000.0, 22000.0, 12000.0, 1500.0, 1500.0, 900.0)
    kd: tuple[float, ...] = (700.0, 700.0, 320.0, 28.0, 28.0, 18.0)
    ki: tuple[float, ...] = (30000.0, 30000.0, 16000.0, 2500.0, 2500.0, 1500.0)
    encoder_counts: int = 1 << 19
    latency_ticks: int = 1
    current_s: float = 0.8e-3
    speed_filter_s: float = 2e-3


class Servos:
    """State of all six drives. One call per control tick."""

    def __init__(self, spec: ServoSpec, position: F64) -> None:
        self._spec = spec
        self._kp, self._kd, self._ki = (np.array(gains) for gains in (spec.kp, spec.kd, spec.ki))
        self.limit = np.array([link.torque_nm for link in LINKS])
        """Peak torque of each joint [D], Nm."""
        self._coulomb = np.array([link.coulomb_nm for link in LINKS])
        self._viscous = np.array([link.viscous_nms for link in LINKS])
        self._rotor = np.array([link.rotor_kgm2 for link in LINKS])
        self._step = 2.0 * np.pi / spec.encoder_counts
        self._seen: deque[F64] = deque(maxlen=spec.latency_ticks + 1)
        self.restart(position)

    def restart(self, position: F64) -> None:
        """Enable from standstill at ``position`` [D], rad."""
        self._seen.clear()
        reading = self.quantise(position)
        self._seen.extend([reading] * (self._spec.latency_ticks + 1))
        self._before = reading
        self._speed = np.zeros(DOF)
        self._order_before: F64 | None = None
        self._order_speed = np.zeros(DOF)
        self._sum = np.zeros(DOF)
        self.torque = np.zeros(DOF)

    def quantise(self, position: F64) -> F64:
        """What an encoder of so many steps shows."""
        out: F64 = np.round(position / self._step) * self._step
        return out

    def sense(self, shaft: F64) -> F64:
        """This tick's shaft angles [D] in, the reading out: ``latency_ticks`` old and in whole steps."""
        self._seen.append(self.quantise(shaft))
        return self._seen[0].copy()

    def drive(self, order: F64, reading: F64) -> F64:
        """Torques [D] for the next tick; ``order`` [D] rad is the newest setpoint, ``reading`` [D] the encoder's."""
        blend = TICK_S / (self._spec.speed_filter_s + TICK_S)
        self._speed += blend * ((reading - self._before) / TICK_S - self._speed)
        self._before = reading
        order_speed = np.zeros(DOF) if self._order_before is None else (order - self._order_before) / TICK_S
        order_acceleration = np.clip((order_speed - self._order_speed) / TICK_S, -50.0, 50.0)
        self._order_before, self._order_speed = order, order_speed
        error = order - reading
        forward = (
            self._viscous * order_speed
            + self._coulomb * np.clip(order_speed / 0.02, -1.0, 1.0)
            + self._rotor * order_acceleration
        )
        wanted = self._kp * error + self._kd * (order_speed - self._speed) + self._sum + forward
        given = np.clip(wanted, -self.limit, self.limit)
        # The integrator stands still while the torque is at its limit, or it would wind up against a collision.
        self._sum += np.where(wanted == given, self._ki * error * TICK_S, 0.0)
        self._sum = np.clip(self._sum, -0.8 * self.limit, 0.8 * self.limit)
        self.torque = self.torque + (1.0 - np.exp(-TICK_S / self._spec.current_s)) * (given - self.torque)
        return self.torque

    def off(self, reading: F64) -> None:
        """No current; the loops begin anew when the drive comes back."""
        self._before = reading
        self._speed = np.zeros(DOF)
        self._order_before = None
        self._sum = np.zeros(DOF)
        self.torque = np.zeros(DOF)
