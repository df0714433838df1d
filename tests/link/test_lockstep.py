"""Link and MCU core in one process and simulated time: the whole path, deterministic, without a sleep."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.errors import FirmwareError, LinkError, TransportClosed
from firmware_bridge.hil.echo_plant import HOME
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.host.link_session import HEARTBEAT_NS
from firmware_bridge.host.messages import AckCode, ChunkEncoding, Degrade, Fault, McuState, ResetCause, StopCause
from firmware_bridge.mcu.build import build
from tests.link.fake_mcu import LIMITS

DT = 50_000_000
KNOTS = 16


class Rig:
    """A perfect plant, a link and the clock that drives all three."""

    def __init__(self, library: Path, seed: int = 1) -> None:
        self.position = np.array(HOME)
        self.silent = False
        self.stuck = False
        self.policy = 0
        self.degrade = Degrade.NOMINAL
        self.beating = True
        self.trace: list[tuple[bool, np.ndarray]] = []
        self.mcu = LibraryTransport(library, seed=seed, on_tick=self._plant)
        self.start_ns = self.mcu.now_ns()
        self.link = Link(self.mcu, LIMITS, clock=self.mcu.now_ns)

    def _plant(self) -> None:
        order = self.mcu.setpoint()
        self.trace.append((order.enabled, order.setpoint))
        if order.enabled and not self.stuck:
            self.position = order.setpoint
        if not self.silent:
            self.mcu.encoder(self.position)

    def ready(self) -> Rig:
        self.link.connect()
        self.link.configure()
        self.link.arm()
        return self

    def run(self, seconds: float, *, think: bool = True) -> None:
        """The control loop at 100 Hz; ``think`` false: the planner stands still."""
        for _ in range(round(seconds * 100)):
            self.policy += think
            if self.beating:
                self.link.heartbeat(self.policy, self.degrade)
            self.link.poll()
            for _ in range(10):
                self.mcu.tick()

    def send(self, q: np.ndarray, chunk_id: int, lead_ns: int = 20_000_000) -> None:
        self.link.send_chunk(self.mcu.now_ns() + lead_ns, DT, q, chunk_id)

    def ramp(self, speed: float = 0.2, knots: int = KNOTS) -> np.ndarray:
        q = np.tile(self.position, (knots, 1))
        q[:, 0] += speed * np.arange(knots) * DT / 1e9
        return q

    @property
    def x(self) -> np.ndarray:
        """What the drive was told about axis x, one value per millisecond; none before the first encoder value."""
        return np.array([setpoint[0] if len(setpoint) else np.nan for _, setpoint in self.trace])


@pytest.fixture
def library(firmware: Path) -> Path:
    return build("lib", firmware)


@pytest.fixture
def rig(library: Path) -> Iterator[Rig]:
    rig = Rig(library)
    yield rig
    rig.link.close()


def test_connecting_configuring_and_arming_take_simulated_time_only(rig: Rig) -> None:
    begin, simulated = time.monotonic(), rig.mcu.now_ns()
    rig.ready()
    assert rig.link.state.mcu_state is McuState.ARMED
    assert rig.mcu.now_ns() - simulated < 300_000_000
    assert time.monotonic() - begin < 1.0
    assert rig.link.state.clock_bound_ns < 10_000


def test_an_armed_arm_holds_where_it_was(rig: Rig) -> None:
    rig.ready().run(0.3)
    assert rig.link.state.position.tolist() == list(HOME)
    assert np.nanmax(rig.x) == np.nanmin(rig.x)


def test_a_chunk_moves_the_axis_along_its_knots(rig: Rig) -> None:
    rig.ready()
    q = rig.ramp()
    start = len(rig.trace)
    rig.send(q, 1, lead_ns=20_000_000)
    rig.run(0.6)
    answer = rig.link.state.last_chunk
    assert answer is not None and answer.code is AckCode.OK and answer.lead_ns == 20_000_000
    path = np.array([setpoint for _, setpoint in rig.trace[start:]])
    for knot in range(3, 12):
        at = 20 + knot * 50
        assert path[at, 0] == pytest.approx(q[knot, 0], abs=3e-3)
    assert np.ptp(path[:, 1:], axis=0).max() == 0.0
    assert rig.link.state.mcu_state is McuState.RUN


@pytest.mark.parametrize("encoding", list(ChunkEncoding))
def test_both_encodings_reach_the_ends_of_every_axis_and_never_leave_them(
    library: Path, encoding: ChunkEncoding
) -> None:
    rig = Rig(library)
    rig.link.encoding = encoding
    rig.ready()
    number = 0
    for end in ("position_max", "position_min"):
        goal = np.array([getattr(axis, end) for axis in LIMITS.axes]) / 1e6
        for _ in range(14):
            number += 1
            # At 0.7 m/s (17 units/s of the gripper) towards the end of the range.
            way = np.arange(1, KNOTS + 1)[:, None] * np.array([0.7, 0.7, 0.7, 17.0]) * DT / 1e9
            start = rig.link.state.setpoint
            q = np.where(goal > start, np.minimum(start + way, goal), np.maximum(start - way, goal))
            rig.send(q, number, lead_ns=DT)
            rig.run(0.2)
            assert rig.link.state.last_chunk is not None and rig.link.state.last_chunk.accepted
        assert rig.link.state.setpoint == pytest.approx(goal, abs=32e-6)
    path = np.array([setpoint for _, setpoint in rig.trace if len(setpoint)])
    for axis, limits in enumerate(LIMITS.axes):
        assert path[:, axis].min() * 1e6 >= limits.position_min - 0.5
        assert path[:, axis].max() * 1e6 <= limits.position_max + 0.5
    rig.link.close()


def test_the_same_seed_gives_the_same_motion_to_the_last_micrometre(library: Path) -> None:
    paths = []
    for _ in range(2):
        rig = Rig(library, seed=7).ready()
        for number in range(1, 5):
            rig.send(rig.ramp(0.1 * number), number)
            rig.run(0.2)
        paths.append(rig.x)
        rig.link.close()
    assert np.array_equal(*paths, equal_nan=True)


def test_a_dry_timeline_brakes_and_holds_and_nothing_is_extrapolated(rig: Rig) -> None:
    rig.ready()
    q = rig.ramp()
    rig.send(q, 1)
    rig.run(1.2)
    assert rig.link.state.mcu_state is McuState.STARVED
    assert rig.x[-1] <= q[-1, 0] + 0.2**2 / (2 * 10.0) + 1e-3  # v^2 / 2a: the way to brake
    assert np.ptp(rig.x[-100:]) == 0.0
    rig.run(0.5)
    assert rig.link.state.mcu_state is McuState.DISARMED
    assert rig.link.state.stop_cause is StopCause.STARVED
    assert not rig.link.state.drive_on and not rig.link.state.armed


def test_silence_stops_the_arm_after_100_ms_and_disarms_it_after_2_s(rig: Rig) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.3)
    rig.beating = False
    last_beat_tick = (rig.link._beat_due_ns - HEARTBEAT_NS - rig.start_ns) // 1_000_000
    assert last_beat_tick >= len(rig.trace) - 20
    rig.run(0.5)
    speed = np.abs(np.diff(rig.x)) * 1000  # speed[i] is that of tick i + 2
    slower = last_beat_tick + int(np.argmax(speed[last_beat_tick:] < 0.1995)) + 2
    assert last_beat_tick + 100 <= slower <= last_beat_tick + 101  # 100 ms and a tick
    assert speed[slower + 34 :].max() == 0.0  # 0.2 m/s at 10 m/s^2 is 20 ms, and 10 ms more at 1000 m/s^3
    assert rig.link.state.mcu_state is McuState.STOP
    assert rig.link.state.stop_cause is StopCause.HOST_SILENT
    rig.run(1.7)
    assert rig.link.state.mcu_state is McuState.DISARMED
    assert not rig.link.state.drive_on


def test_heartbeats_without_thoughts_stop_the_arm_after_250_ms(rig: Rig) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.2)
    rig.run(0.2, think=False)
    assert rig.link.state.mcu_state is McuState.RUN
    rig.run(0.15, think=False)
    assert rig.link.state.mcu_state is McuState.STOP
    assert rig.link.state.stop_cause is StopCause.POLICY_FROZEN
    assert np.ptp(rig.x[-20:]) == 0.0


@pytest.mark.parametrize(
    ("degrade", "cause"),
    [(Degrade.SOFT_STOP, StopCause.HOST_SOFT_STOP), (Degrade.SAFE_OFF, StopCause.HOST_SAFE_OFF)],
)
def test_the_hosts_degrade_state_stops_the_arm(rig: Rig, degrade: Degrade, cause: StopCause) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.3)
    rig.degrade = degrade
    rig.run(0.1)
    assert rig.link.state.stop_cause is cause
    assert np.ptp(rig.x[-20:]) == 0.0


def test_a_lost_encoder_and_a_stuck_axis_are_faults_and_stay_latched(rig: Rig, library: Path) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.2)
    rig.silent = True
    rig.run(0.2)
    assert rig.link.state.fault is Fault.ENCODER_LOST
    assert not rig.link.state.drive_on and not rig.link.state.armed
    with pytest.raises(LinkError, match="clear"):
        rig.link.configure()
    rig.silent = False
    rig.run(0.1)
    assert rig.link.clear_fault() is Fault.ENCODER_LOST
    assert rig.link.clear_fault() is Fault.NONE
    rig.run(0.1)
    assert rig.link.state.mcu_state is McuState.DISARMED and not rig.link.state.drive_on

    other = Rig(library).ready()
    other.stuck = True
    for number in range(1, 12):
        other.link.send_chunk(other.mcu.now_ns() + 20_000_000, DT, other_ramp(other), number)
        other.run(0.2)
        if other.link.state.fault is not Fault.NONE:
            break
    assert other.link.state.fault is Fault.FOLLOWING_ERROR
    other.link.close()


def other_ramp(rig: Rig) -> np.ndarray:
    """A ramp that goes on from where the setpoint is, whatever the axis does."""
    q = np.tile(HOME, (KNOTS, 1))
    q[:, 0] = np.minimum(0.5, rig.link.state.setpoint[0] + 0.2 * (np.arange(KNOTS) * DT / 1e9 + 0.02))
    return q


def test_the_emergency_stop_is_latched_through_a_reset_and_clearing_it_does_not_arm(rig: Rig) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.3)
    rig.link.estop()
    rig.run(0.2)
    assert rig.link.state.mcu_state is McuState.ESTOP and rig.link.state.estop_latched
    assert not rig.link.state.drive_on
    rig.mcu.reset(ResetCause.POWER_ON)
    rig.run(0.3)
    assert rig.link.state.reset_seen
    assert rig.link.state.mcu_state is McuState.ESTOP and not rig.link.state.drive_on
    with pytest.raises(LinkError):
        rig.link.configure()
    rig.link.clear_estop()
    rig.run(0.1)
    assert rig.link.state.mcu_state is McuState.DISARMED and not rig.link.state.drive_on


def test_a_watchdog_reset_is_seen_with_its_program_counter_and_not_followed_by_arming(rig: Rig) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.3)
    rig.mcu.reset(ResetCause.WATCHDOG, pc=0xCAFE)
    rig.run(2.0)
    state = rig.link.state
    assert state.reset_seen and state.reset_cause is ResetCause.WATCHDOG and state.reset_pc == 0xCAFE
    assert state.fault is Fault.WATCHDOG and not state.drive_on and not state.armed
    with pytest.raises(LinkError, match="the MCU was reset"):
        rig.send(rig.ramp(), 2)
    rig.link.clear_fault()
    rig.link.acknowledge_reset()
    rig.link.configure()
    rig.link.arm()
    assert rig.link.state.mcu_state is McuState.ARMED


def test_disarming_in_motion_brakes_first_and_then_drops_the_drive(rig: Rig) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.3)
    moving_at = len(rig.trace)
    rig.link.disarm()
    rig.run(0.2)
    assert rig.link.state.mcu_state is McuState.DISARMED
    off = next(i for i, (enabled, _) in enumerate(rig.trace[moving_at:]) if not enabled)
    path = np.array([setpoint[0] for _, setpoint in rig.trace[moving_at : moving_at + off]])
    assert off >= 15  # 0.2 m/s at 10 m/s^2 is 20 ms
    assert np.abs(np.diff(path, n=2)).max() * 1e6 <= 10.0 * 1.05
    assert abs(path[-1] - path[-2]) * 1000 < 0.02
    assert not rig.link.state.armed


def test_hold_brakes_and_stays_armed(rig: Rig) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.3)
    rig.link.hold()
    rig.run(0.3)
    assert rig.link.state.mcu_state is McuState.ARMED and rig.link.state.drive_on
    assert np.ptp(rig.x[-100:]) == 0.0
    rig.send(rig.ramp(), 2)
    rig.run(0.2)
    assert rig.link.state.mcu_state is McuState.RUN


def test_a_chunk_that_jumps_is_refused_by_the_mcu_and_the_running_plan_goes_on(rig: Rig) -> None:
    rig.ready()
    q = rig.ramp()
    rig.send(q, 1)
    rig.run(0.2)
    far = q.copy()
    far[:, 0] = -0.4
    rig.send(far, 2)
    rig.run(0.2)
    answer = rig.link.state.last_chunk
    assert answer is not None and answer.code is AckCode.JUMP
    assert rig.link.state.mcu_state is McuState.RUN and rig.link.state.chunk_id == 1
    assert np.nanmin(np.diff(rig.x)) >= 0.0


def test_a_late_chunk_is_trimmed_or_refused_and_never_a_fault(rig: Rig) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.2)
    rig.send(rig.ramp(), 2, lead_ns=-30_000_000)
    rig.run(0.02)
    assert rig.link.state.last_chunk is not None
    assert rig.link.state.last_chunk.code is AckCode.OK_TRIMMED
    rig.send(rig.ramp(), 3, lead_ns=-300_000_000)
    rig.run(0.02)
    assert rig.link.state.last_chunk.code is AckCode.LATE
    assert rig.link.state.fault is Fault.NONE and rig.link.state.mcu_state is McuState.RUN


def test_another_host_that_takes_over_does_not_inherit_the_arm(rig: Rig) -> None:
    rig.ready()
    rig.send(rig.ramp(), 1)
    rig.run(0.3)
    taker = Link(rig.mcu, LIMITS, clock=rig.mcu.now_ns)
    taker.connect()
    with pytest.raises(LinkError, match="not armed"):
        taker.send_chunk(rig.mcu.now_ns() + DT, DT, rig.ramp(), 9)
    for _ in range(30):
        taker.heartbeat(1, 0)
        taker.poll()
        for _ in range(10):
            rig.mcu.tick()
    assert taker.state.mcu_state is McuState.STOP
    assert taker.state.stop_cause in (StopCause.HOST_NOT_ARMED, StopCause.HOST_SILENT)
    assert np.ptp(rig.x[-100:]) == 0.0


def test_a_position_that_is_no_number_is_never_reported(rig: Rig) -> None:
    for bad in ([float("nan"), 0.6, 0.2, 0.0], [float("inf"), 0.6, 0.2, 0.0], [1e9, 0.6, 0.2, 0.0], []):
        with pytest.raises(FirmwareError, match="encoder"):
            rig.mcu.encoder(bad)


def test_a_closed_microcontroller_is_gone(rig: Rig) -> None:
    rig.link.close()
    with pytest.raises(TransportClosed):
        rig.mcu.read()
    assert not rig.link._talk.open


def test_a_missing_library_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FirmwareError, match="firmware build lib"):
        LibraryTransport(tmp_path / "libnothing.so")
