"""Every way in which a host, a cable or the microcontroller can fail, done for real; asserted is what the axis did.

Times are taken from the MCU's own stamps: a busy test machine delays the observer, not the observed.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import time

import numpy as np
import pytest

from firmware_bridge.errors import LinkBusy, LinkError, TransportClosed
from firmware_bridge.hil.cable import BitErrors, Tamper, intact
from firmware_bridge.hil.gdb_stub import MASKED_SPIN, SPIN, GdbStub
from firmware_bridge.host.framing import FrameReceiver, LinkFrame, encode_frame
from firmware_bridge.host.messages import (
    HOST_GONE_US,
    HOST_SILENT_US,
    POLICY_FROZEN_US,
    SCHEMA_HASH,
    TICK_US,
    Arm,
    Chunk,
    Fault,
    McuState,
    ResetCause,
    StopCause,
)
from tests.link.bench import Bench, assert_braked_then_held, assert_lawful

STAMP_US = 1500
"""STATE gives the age of the heartbeat in whole milliseconds, and a stop happens at a tick: half a tick of slack."""
STEP_M = 31e-6
"""Of the short encoding of chunks on the coarsest axis."""
CHUNK_IDS = itertools.count(1)
FREE_RAM = 0x2030_0000
"""In the emulated board's 4 MB of RAM, far from the firmware's data and stack."""


# -- the host dies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_dead_or_frozen_host_stops_the_arm_in_100_ms_and_disarms_it_in_2_s(
    bench: Bench, number: signal.Signals
) -> None:
    host = bench.start_host()
    bench.travel(0.5)
    bench.kill(host, number)
    event = bench.stop_event(StopCause.HOST_SILENT)
    silent_us = event.at_us - bench.last_heartbeat_us(event.at_us)
    assert HOST_SILENT_US - STAMP_US <= silent_us <= HOST_SILENT_US + TICK_US + STAMP_US + lost_ticks(bench)
    disarmed = bench.wait_state(McuState.DISARMED, 5.0)
    assert disarmed.stop_cause == StopCause.HOST_GONE
    assert not disarmed.flags & 1
    gone_us = bench.stop_event(StopCause.HOST_GONE).at_us - event.at_us + silent_us
    assert gone_us == pytest.approx(HOST_GONE_US, abs=20_000 + lost_ticks(bench))
    assert_braked_then_held(bench.plant.trace(), bench.tick_of(event.at_us) + 1)
    assert_lawful(bench.plant.trace())


def lost_ticks(bench: Bench) -> int:
    """Microseconds that the emulator may have been late with a tick: the host port and QEMU are not a real-time MCU."""
    return max((s.tick_gap_max_us for s in bench.relay.messages() if hasattr(s, "tick_gap_max_us")), default=0)


def test_a_host_that_wakes_up_again_does_not_move_the_arm(bench: Bench) -> None:
    host = bench.start_host()
    bench.travel(0.3)
    bench.kill(host, signal.SIGSTOP)
    bench.stop_event(StopCause.HOST_SILENT)
    stopped_at = bench.last.tick
    time.sleep(0.5)
    bench.kill(host, signal.SIGCONT)
    time.sleep(0.7)
    after = bench.plant.trace().after(stopped_at + 50).setpoint
    assert np.ptp(after[:, 0]) == 0.0
    assert bench.last.state in (McuState.STOP, McuState.DISARMED)


def test_a_hung_planner_behind_a_living_heartbeat_stops_the_arm_in_250_ms(bench: Bench) -> None:
    bench.start_host("--freeze-policy-after", "0.5")
    event = bench.stop_event(StopCause.POLICY_FROZEN)
    report = [r for r in bench.relay.states() if r.now_us <= event.at_us][-1]
    frozen_us = event.at_us - report.now_us + report.policy_age_ms * 1000
    assert frozen_us == pytest.approx(POLICY_FROZEN_US, abs=TICK_US + STAMP_US + lost_ticks(bench))
    assert report.heartbeat_age_ms < 100
    stop_tick = bench.tick_of(event.at_us)
    time.sleep(0.4)
    assert bench.last.state == McuState.STOP
    assert_braked_then_held(bench.plant.trace(), stop_tick + 1)


def test_a_new_host_takes_over_only_by_disarming_configuring_and_arming(bench: Bench) -> None:
    host = bench.start_host()
    bench.travel(0.4)
    bench.kill(host, signal.SIGKILL)
    host.wait()
    link = bench.open_link()
    with pytest.raises(LinkError, match="not armed"):
        link.send_chunk(time.monotonic_ns() + 50_000_000, 50_000_000, np.tile(link.state.position, (4, 1)), 1)
    link.heartbeat(1, 0)
    bench.relay.until(lambda: bench.last.state in (McuState.STOP, McuState.DISARMED), 1.0, "STOP")
    stopped_at = bench.last.tick
    if bench.last.state == McuState.STOP:
        with pytest.raises(LinkError, match="disarm"):
            link.configure()
    time.sleep(0.1)
    assert np.ptp(bench.plant.trace().after(stopped_at + 50).setpoint[:, 0]) == 0.0
    link.disarm()
    bench.wait_state(McuState.DISARMED, 1.0)
    link.configure()
    link.arm()
    link.service(time.monotonic_ns() + 50_000_000)
    assert link.state.mcu_state is McuState.ARMED
    link.disarm()
    link.close()


def test_a_pulled_cable_stops_the_arm_and_ends_the_host(bench: Bench) -> None:
    host = bench.start_host()
    bench.travel(0.4)
    bench.relay.drop_host()
    event = bench.stop_event(StopCause.HOST_SILENT)
    assert event.at_us - bench.last_heartbeat_us(event.at_us) <= HOST_SILENT_US + TICK_US + STAMP_US + lost_ticks(bench)
    bench.wait_state(McuState.DISARMED, 4.0)
    assert_braked_then_held(bench.plant.trace(), bench.tick_of(event.at_us) + 1)
    assert host.wait(timeout=5.0) != 0
    assert host.stdout is not None and TransportClosed.__name__ in host.stdout.read()


# -- the cable lies -------------------------------------------------------------------------------------------------


def test_garbage_between_the_frames_is_counted_and_the_arm_moves_on(bench: Bench) -> None:
    bench.start_host()
    noise = random.Random(1)
    for _ in range(40):
        # Ends with a delimiter: what is tested is that garbage is refused, not that a frame glued to it is lost.
        bench.relay.inject(b"\x00" + noise.randbytes(noise.randrange(1, 60)) + b"\x00")
        time.sleep(0.02)
    bench.travel(0.3)
    assert bench.last.state == McuState.RUN
    assert_lawful(bench.plant.trace())
    assert_on_plan(bench)


@pytest.mark.parametrize("way", ["truncate", "duplicate", "reorder", "flip"])
def test_tampered_frames_never_move_the_arm_off_its_plan(bench: Bench, way: str) -> None:
    tamper = Tamper(way)
    bench.start_host()
    bench.relay.to_mcu = tamper
    bench.travel(1.5)
    assert tamper.touched > 20
    assert_lawful(bench.plant.trace())
    assert_on_plan(bench)
    assert bench.last.fault == Fault.NONE
    if way == "duplicate":
        assert bench.last.state == McuState.RUN


def assert_on_plan(bench: Bench) -> None:
    """Axis x has moved, but never beyond the ends of the triangle; the other axes stand."""
    trace = bench.plant.trace().while_enabled()
    x = trace.setpoint[:, 0]
    assert np.ptp(x) > 0.02
    assert x.min() >= -STEP_M and x.max() <= 0.4 + STEP_M
    assert np.ptp(trace.setpoint[:, 1:], axis=0).max() <= STEP_M


def test_bit_errors_in_both_directions_at_one_in_a_thousand_bytes(bench: Bench) -> None:
    corrupt = BitErrors(1e-3 / 8, seed=2)
    bench.start_host()
    bench.relay.to_mcu = bench.relay.to_host = corrupt
    bench.travel(2.0)
    assert corrupt.flipped > 5
    assert_lawful(bench.plant.trace())
    assert_on_plan(bench)
    assert bench.last.fault == Fault.NONE


def test_frames_of_another_session_do_nothing(bench: Bench) -> None:
    bench.start_host()
    bench.travel(0.2)
    (session,) = bench.relay.sessions
    samples = np.tile([-400_000, 600_000, 200_000, 0], (4, 1)).astype("<i4").tobytes()
    for number in range(20):
        chunk = Chunk(
            chunk_id=1000 + number, t0_us=(bench.last.now_us + 30_000) & 0xFFFFFFFF, dt_10us=5000, n=4, axes=4,
            encoding=0, mode=0, blend_ms=20, interpolation=0, samples=samples,
        )
        for message in (chunk, Arm(0, SCHEMA_HASH)):
            bench.relay.inject(encode_frame(LinkFrame(message.TYPE, number, session ^ 1, message.pack()).pack()))
        time.sleep(0.02)
    assert bench.last.state == McuState.RUN
    assert bench.last.chunk_id < 1000
    assert_on_plan(bench)


def test_frames_that_come_300_ms_late_stop_the_arm_and_do_not_move_it_afterwards(bench: Bench) -> None:
    bench.start_host()
    bench.travel(0.4)
    kept: list[bytes] = []

    def keep(data: bytes) -> bytes:
        kept.append(data)
        return b""

    bench.relay.to_mcu = keep
    event = bench.stop_event(StopCause.HOST_SILENT)
    time.sleep(0.2)
    stopped_at = bench.last.tick
    bench.relay.to_mcu = intact
    bench.relay.inject(b"".join(kept))
    time.sleep(0.5)
    assert len(kept) > 5
    assert bench.last.state in (McuState.STOP, McuState.DISARMED)
    assert np.ptp(bench.plant.trace().after(stopped_at).setpoint[:, 0]) == 0.0
    assert_braked_then_held(bench.plant.trace(), bench.tick_of(event.at_us) + 1)


# -- the drive fails ------------------------------------------------------------------------------------------------


def test_a_plant_that_falls_silent_is_a_fault_and_drops_the_drive(bench: Bench) -> None:
    bench.start_host()
    bench.travel(0.3)
    bench.plant.silent = True
    fault = bench.wait_state(McuState.FAULT, 2.0)
    assert fault.fault == Fault.ENCODER_LOST
    bench.relay.until(lambda: not bench.last.flags & 1, 1.0, "drive off")


# -- the microcontroller fails --------------------------------------------------------------------------------------


def hang(bench: Bench, code: bytes) -> int:
    """Hang the MCU from outside. Returns the program counter at which it hangs, 0 if that is not ours to say."""
    if bench.kind == "host":
        bench.emulator.send_signal(signal.SIGUSR1)
        return 0
    with GdbStub(bench.emulator.gdb_path) as gdb:
        gdb.hang(FREE_RAM, code)
    return FREE_RAM + len(code) - len(SPIN)


@pytest.mark.parametrize("code", [SPIN, MASKED_SPIN], ids=["main loop", "interrupts masked"])
def test_a_hung_microcontroller_is_reset_comes_up_disarmed_and_the_host_does_not_arm_it_again(
    bench: Bench, code: bytes
) -> None:
    if bench.kind == "host" and code is not SPIN:
        return  # a process has no interrupt mask: the other case is all there is
    link = armed_in_this_process(bench)
    drive_along(link, 0.5)
    arms = count_arms(bench)
    pc = hang(bench, code)
    drive_along(link, 2.0)
    state = link.state
    assert state.reset_seen and state.reset_cause is ResetCause.WATCHDOG
    assert state.fault is Fault.WATCHDOG and state.mcu_state is McuState.FAULT
    assert not state.drive_on and not state.armed
    if pc:
        assert state.reset_pc == pc
    else:
        assert state.reset_pc != 0
    assert count_arms(bench) == arms
    assert not any(command.enabled for command in bench.plant.commands()[-300:])
    assert np.ptp(bench.plant.trace().setpoint[:, 0]) == 0.0
    with pytest.raises(LinkError, match="reset"):
        link.arm()
    if bench.kind == "qemu":
        assert bench.emulator.qmp_events().count("WATCHDOG") == 1

    assert link.clear_fault() is Fault.WATCHDOG
    link.acknowledge_reset()
    link.configure()
    link.arm()
    drive_along(link, 0.3)
    assert link.state.mcu_state in (McuState.ARMED, McuState.RUN)
    link.disarm()
    link.close()


def test_the_emergency_stop_stays_latched_through_a_watchdog_reset(bench: Bench) -> None:
    link = armed_in_this_process(bench)
    drive_along(link, 0.4)
    link.estop()
    bench.wait_state(McuState.ESTOP, 1.0)
    estop_tick = bench.last.tick
    bench.relay.until(lambda: not bench.last.flags & 1, 1.0, "drive off")
    before = bench.plant.trace().while_enabled().after(estop_tick)
    assert before.speed[-2:, 0].max(initial=0.0) == 0.0  # braked before the drive went off
    hang(bench, SPIN)
    bench.relay.until(lambda: len(bench.relay.sessions) == 2, 3.0, "reset")
    link.service(time.monotonic_ns() + 200_000_000)
    state = link.state
    assert state.reset_seen and state.estop_latched and state.mcu_state is McuState.ESTOP
    with pytest.raises(LinkError, match="emergency"):
        link.configure()
    link.clear_estop()
    assert link.state.mcu_state is McuState.FAULT  # the watchdog's own latch was hidden behind it
    link.clear_fault()
    assert link.state.mcu_state is McuState.DISARMED and not link.state.drive_on
    link.close()


def test_a_microcontroller_that_vanishes_is_reported_and_the_host_sends_nothing_more(bench: Bench) -> None:
    link = armed_in_this_process(bench)
    drive_along(link, 0.2)
    bench.emulator.close()
    bench.relay.drop_host()
    link.service(time.monotonic_ns() + 100_000_000)
    assert not link.state.connected
    link.heartbeat(99, 0)
    with pytest.raises(TransportClosed):
        link.send_chunk(time.monotonic_ns() + 50_000_000, 50_000_000, np.tile(link.state.position, (4, 1)), 999)
    link.close()


def armed_in_this_process(bench: Bench):  # type: ignore[no-untyped-def]
    link = bench.open_link()
    link.configure()
    link.arm()
    return link


def drive_along(link, seconds: float) -> None:  # type: ignore[no-untyped-def]
    """A control loop that moves axis x at 0.1 m/s while it may, and goes on beating when it may not."""
    cycle = time.monotonic_ns()
    end = cycle + round(seconds * 1e9)
    step = 0
    while cycle < end:
        link.poll()
        step += 1
        if step % 20 == 1 and link.state.armed and not link.state.reset_seen:
            q = np.tile(link.state.setpoint, (16, 1))
            q[:, 0] += 0.1 * (np.arange(16) * 0.05 + 0.06)
            with contextlib.suppress(LinkBusy):  # the microcontroller may just have been hung
                link.send_chunk(cycle + 60_000_000, 50_000_000, np.minimum(q, 0.5), next(CHUNK_IDS))
        link.heartbeat(step, 0)
        cycle += 10_000_000
        link.service(cycle)


def count_arms(bench: Bench) -> int:
    """ARM commands that have gone over the cable."""
    bodies = FrameReceiver().feed(b"".join(bench.relay.passed))
    return sum(body[0] == Arm.TYPE for body in bodies)
