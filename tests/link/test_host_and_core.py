"""Any host against the core, over a cable that loses, repeats, reorders, cuts and corrupts: what holds in every order.

A hypothesis machine drives the real :class:`Link` and the real core in lockstep. It does what operators, planners and
bad luck do, in any order, and after every millisecond the orders to the drive are looked at from outside.
"""

from __future__ import annotations

import random

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.host.messages import HOST_SILENT_US, Degrade, McuState, ResetCause
from firmware_bridge.mcu.build import DEFAULT_OUT, build
from tests.link.fake_mcu import LIMITS

HOME = np.array([0.0, 0.7, 0.2, 0.0])
DT = 50_000_000
MOVING = (McuState.ARMED, McuState.RUN, McuState.STARVED)
LATCHED = (McuState.ESTOP, McuState.FAULT)
STEP_MAX = np.array([axis.velocity_max for axis in LIMITS.axes]) / 1e6 / 1000 + 2e-6
"""Of one tick, with the rounding of both ends to a micro-unit."""
LOW = np.array([axis.position_min for axis in LIMITS.axes]) / 1e6 - 0.6e-6
HIGH = np.array([axis.position_max for axis in LIMITS.axes]) / 1e6 + 0.6e-6


class BadCable:
    """A transport in front of the core's. Each frame of the host may be lost, repeated, held back, cut or corrupted."""

    def __init__(self, mcu: LibraryTransport) -> None:
        self.mcu = mcu
        self.random = random.Random(1)
        self.badness = 0.0
        self.held: list[bytes] = []
        self.history: list[bytes] = []
        self.dropped_frames = 0
        self.backlog = 0
        self.connected = True

    def write(self, frame: bytes) -> None:
        self.history.append(frame)
        if not self.connected:
            return
        luck = self.random.random() / self.badness if self.badness else 1.0
        if luck < 0.2:
            return
        if luck < 0.4:
            self.held.append(frame)
            return
        if luck < 0.6:
            self.mcu.write(frame)
        elif luck < 0.8:
            frame = frame[: self.random.randrange(len(frame))]
        elif luck < 1.0:
            at = self.random.randrange(len(frame))
            frame = frame[:at] + bytes([frame[at] ^ self.random.randrange(1, 256)]) + frame[at + 1 :]
        self.mcu.write(frame)

    def release(self) -> None:
        """What was held back arrives now, newest first."""
        while self.held:
            self.mcu.write(self.held.pop())

    def read(self) -> bytes:
        data = self.mcu.read()
        if not self.connected or (self.badness and self.random.random() < self.badness / 4):
            return data[: len(data) // 2] if self.connected else b""
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        return self.mcu.wait(timeout_s, gather_s)

    def close(self) -> None:
        """The core goes on without a host."""


class HostAndCore(RuleBasedStateMachine):
    """See the module."""

    @initialize(seed=st.integers(1, 1 << 30))
    def power_on(self, seed: int) -> None:
        self.position = HOME.copy()
        self.last: np.ndarray | None = None
        self.armed_by_operator = False
        self.latched = False
        self.heard_us = -(1 << 40)
        self.was = McuState.BOOT
        self.chunk_id = 0
        self.policy = 0
        self.beating = True
        self.degrade = Degrade.NOMINAL
        self.mcu = LibraryTransport(build("lib", DEFAULT_OUT), seed=seed, on_tick=self.watch)
        self.cable = BadCable(self.mcu)
        self.cable.random.seed(seed)
        self.new_host()
        self.try_to(self.link.connect)
        if seed % 2:  # from rest it takes luck to come to motion
            self.operator_arms()
            self.planner_sends_a_chunk(0.3, 40, 16)
            self.time_passes(5)

    def new_host(self) -> None:
        self.link = Link(self.cable, LIMITS, clock=self.mcu.now_ns)

    def try_to(self, act: object) -> bool:
        try:
            act()  # type: ignore[operator]
        except FirmwareError:
            return False
        return True

    def watch(self) -> None:
        """After every millisecond, whoever let it pass."""
        order, state = self.mcu.setpoint(), self.mcu.mcu_state
        assert not (self.was in LATCHED and state in MOVING), f"{self.was.name} -> {state.name}"
        if state in MOVING and self.was not in MOVING:
            assert self.armed_by_operator, "armed by itself"
            self.armed_by_operator = False
        if state is McuState.RUN or state is McuState.STARVED:
            age = self.mcu.mcu_us - self.heard_us
            assert age <= HOST_SILENT_US + 2000, f"moves {age} us after the last heartbeat that was sent"
        if order.enabled and len(order.setpoint):
            assert (order.setpoint >= LOW).all() and (order.setpoint <= HIGH).all(), order.setpoint
            if self.last is not None and len(self.last) == len(order.setpoint):
                assert (np.abs(order.setpoint - self.last) <= STEP_MAX).all(), order.setpoint - self.last
            self.position = order.setpoint
        self.last = order.setpoint if order.enabled else None
        self.was = state
        self.mcu.encoder(self.position)

    # -- what a host and its operator do -----------------------------------------------------------------------------

    def beat(self) -> None:
        self.policy += 1
        try:
            self.link.heartbeat(self.policy, int(self.degrade))
        except FirmwareError:
            return
        self.heard_us = self.mcu.mcu_us

    @rule(cycles=st.integers(1, 40))
    def time_passes(self, cycles: int) -> None:
        for _ in range(cycles):
            if self.beating:
                self.beat()
            self.link.poll()
            for _ in range(10):
                self.mcu.tick()

    @rule()
    def operator_arms(self) -> None:
        self.armed_by_operator = True
        self.beat()
        arming = self.try_to(self.link.configure) and self.try_to(self.link.arm)
        self.heard_us = self.mcu.mcu_us  # arming keeps the heartbeat going
        if arming:
            self.chunk_id = 0

    @rule(speed=st.floats(-1.5, 1.5), lead_ms=st.integers(-80, 300), knots=st.integers(2, 16))
    def planner_sends_a_chunk(self, speed: float, lead_ms: int, knots: int) -> None:
        q = np.tile(self.position, (knots, 1))
        q[:, 0] += speed * np.arange(knots) * DT / 1e9
        self.chunk_id += 1
        self.try_to(lambda: self.link.send_chunk(self.mcu.now_ns() + lead_ms * 1_000_000, DT, q, self.chunk_id))

    @rule()
    def operator_disarms(self) -> None:
        self.try_to(self.link.disarm)
        self.armed_by_operator = False

    @rule()
    def operator_stops(self) -> None:
        self.link.estop()
        self.armed_by_operator = False

    @rule()
    def operator_clears(self) -> None:
        self.link.acknowledge_reset()
        self.try_to(self.link.clear_estop)
        self.try_to(self.link.clear_fault)
        self.armed_by_operator = False

    @rule()
    def host_holds(self) -> None:
        self.try_to(self.link.hold)

    @rule(degrade=st.sampled_from(list(Degrade)))
    def host_degrades(self, degrade: Degrade) -> None:
        self.degrade = degrade

    @rule()
    def host_falls_silent_or_speaks_again(self) -> None:
        self.beating = not self.beating

    @rule()
    def host_restarts(self) -> None:
        self.new_host()
        self.armed_by_operator = False
        self.try_to(self.link.connect)

    @rule()
    def host_connects_again(self) -> None:
        self.try_to(self.link.connect)

    # -- bad luck ----------------------------------------------------------------------------------------------------

    @rule(badness=st.sampled_from([0.0, 0.05, 0.3, 0.8]))
    def cable_gets_better_or_worse(self, badness: float) -> None:
        self.cable.badness = badness

    @rule()
    def cable_is_plugged_or_unplugged(self) -> None:
        self.cable.connected = not self.cable.connected

    @precondition(lambda self: self.cable.held)
    @rule()
    def what_was_held_back_arrives(self) -> None:
        self.cable.release()

    @precondition(lambda self: self.cable.history)
    @rule(data=st.data())
    def an_old_frame_comes_again(self, data: st.DataObject) -> None:
        self.mcu.write(data.draw(st.sampled_from(self.cable.history[-200:])))

    @precondition(lambda self: self.was in MOVING)
    @rule()
    def host_dies_and_a_buffer_hands_over_what_it_had_said(self) -> None:
        """Its last words, every 20 ms, as if it still lived."""
        for _ in range(20):
            for frame in self.cable.history[-3:]:
                self.mcu.write(frame)
            for _ in range(20):
                self.mcu.tick()

    @rule(noise=st.binary(max_size=80))
    def noise_comes(self, noise: bytes) -> None:
        self.mcu.write(noise + b"\0")

    @rule(cause=st.sampled_from([ResetCause.WATCHDOG, ResetCause.SOFTWARE, ResetCause.HARD_FAULT, ResetCause.UNKNOWN]))
    def mcu_is_reset(self, cause: ResetCause) -> None:
        self.mcu.reset(cause)
        self.armed_by_operator = False
        self.was = McuState.BOOT if self.was not in LATCHED else self.was
        self.last = None

    @invariant()
    def an_emergency_stop_that_is_latched_holds_until_it_is_cleared(self) -> None:
        if hasattr(self, "mcu") and self.mcu.mcu_state in LATCHED:
            self.armed_by_operator = False

    def teardown(self) -> None:
        if hasattr(self, "mcu"):
            self.mcu.close()


TestHostAndCore = HostAndCore.TestCase
TestHostAndCore.settings = settings(
    max_examples=30, stateful_step_count=25, deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)  # fmt: skip


def test_the_machine_reaches_motion_and_latches() -> None:
    """What is checked above is not checked in an arm that never moved."""
    machine = HostAndCore()
    machine.power_on(7)
    machine.operator_arms()
    machine.planner_sends_a_chunk(0.5, 40, 16)
    machine.time_passes(30)
    assert machine.was is McuState.RUN and abs(machine.position[0]) > 0.05
    machine.operator_stops()
    machine.time_passes(10)
    assert machine.was is McuState.ESTOP
    machine.operator_clears()
    machine.time_passes(2)
    assert machine.was is McuState.DISARMED
    machine.teardown()

