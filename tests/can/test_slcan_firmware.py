"""The ARM firmware on a CAN bus: real Cortex-M instructions, frames as slcan on its third UART, classic and FD."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import can
import numpy as np
import pytest

from firmware_bridge.errors import FirmwareError, LinkBusy
from firmware_bridge.host.can_segments import frame_id
from firmware_bridge.host.messages import CAN_ID_ESTOP, Ack, Hello, McuState, ResetCause, Stats, StopCause
from tests.can.bench import CanBench
from tests.link.bench import assert_lawful

OnABench = Callable[[Callable[[CanBench], None]], None]


@pytest.fixture(params=[False, True], ids=["classic", "fd"])
def on_a_bench(request: pytest.FixtureRequest, firmware: Path) -> OnABench:
    """Runs a test on a bench of its own, at most three times: the emulator needs 14 us of a processor for a byte, a
    classic line most of one, and whoever else wants that processor silences the host for the microcontroller."""

    def run(test: Callable[[CanBench], None]) -> None:
        for attempt in (1, 2, 3):
            try:
                with CanBench(firmware, fd=request.param) as bench:
                    return test(bench)
            except (AssertionError, FirmwareError) as error:
                if attempt == 3:
                    raise
                print(f"attempt {attempt}: {error}")
        return None

    return run


def _ready(bench: CanBench) -> None:
    bench.link.connect()
    bench.link.configure()
    bench.link.arm()


def _move(bench: CanBench) -> None:
    """Axis x at 0.1 m/s along one straight line, in three chunks that are early enough for a busy machine."""
    lead_ns, dt_ns = 200_000_000, 50_000_000
    begin_ns = time.monotonic_ns() + lead_ns
    home = bench.plant.position.copy()
    for chunk_id in range(1, 4):
        t0_ns = time.monotonic_ns() + lead_ns
        q = np.tile(home, (16, 1))
        q[:, 0] += 0.1 * (t0_ns - begin_ns + dt_ns * np.arange(16)) * 1e-9
        with contextlib.suppress(LinkBusy):
            bench.link.send_chunk(t0_ns, dt_ns, q, chunk_id)
        bench.run(0.3)


def _armed_moved_and_stopped(bench: CanBench) -> None:
    _ready(bench)
    assert bench.link.state.mcu_state is McuState.ARMED
    start = bench.plant.position[0]
    _move(bench)
    assert bench.link.state.mcu_state is McuState.RUN
    assert bench.link.state.counters.chunks_accepted >= 1
    assert bench.plant.position[0] > start + 0.02
    bench.link.estop()
    bench.run(0.4)
    state = bench.link.state
    assert state.mcu_state is McuState.ESTOP and state.stop_cause is StopCause.ESTOP and not state.drive_on
    held = bench.plant.trace().setpoint[-50:, 0]
    assert np.ptp(held) == 0.0
    assert_lawful(bench.plant.trace())
    bench.run(0.7)
    stats = [message for message in bench.heard if isinstance(message, Stats)]
    # A host that stalls in the middle of a transfer loses it; a line is never damaged.
    assert stats and stats[-1].transfers_bad < 3 and stats[-1].can_errors == 0
    assert bench.transport.counters.segments.bad < 3 and bench.transport.counters.error_frames == 0


def test_the_arm_firmware_is_armed_moved_and_stopped_over_slcan(on_a_bench: OnABench) -> None:
    on_a_bench(_armed_moved_and_stopped)


def _reset_is_noticed(bench: CanBench) -> None:
    _ready(bench)
    session = bench.link.state.session
    bench.emulator.reset_mcu()
    bench.run(0.5)
    state = bench.link.state
    assert state.reset_seen and state.session != session and state.mcu_state is McuState.DISARMED
    assert state.reset_cause is ResetCause.UNKNOWN
    assert any(isinstance(message, Hello) for message in bench.heard)


def test_a_reset_of_the_arm_firmware_is_noticed_over_slcan(on_a_bench: OnABench) -> None:
    on_a_bench(_reset_is_noticed)


def _pythons_own_bus(bench: CanBench) -> None:
    bench.link.close()
    bus = can.Bus(
        interface="slcan", channel=bench.emulator.can_tty, bitrate=1_000_000, sleep_after_open=0.0,
        tty_baudrate=3_000_000,
    )
    try:
        bus.send(can.Message(arbitration_id=CAN_ID_ESTOP, is_extended_id=False, data=b""))
        deadline = time.monotonic() + 20.0
        wanted, seen = frame_id(Ack.TYPE, 1, to_host=True), set[int]()
        while time.monotonic() < deadline and wanted not in seen:
            message = bus.recv(0.1)
            if message is not None:
                seen.add(message.arbitration_id)
    finally:
        bus.shutdown()
    assert wanted in seen, "no answer to the emergency stop"


@pytest.mark.parametrize("on_a_bench", [True], indirect=True, ids=["fd"])
def test_pythons_own_slcan_bus_talks_to_the_firmware_too(on_a_bench: OnABench) -> None:
    on_a_bench(_pythons_own_bus)
