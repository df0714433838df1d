"""Faults injected for real into a running session; each test asserts what the axis did.

Processes are killed and stopped, cameras fall silent or freeze, the policy answers nonsense. The microcontroller is the
host port of the firmware; motion is judged by the microcontroller's own control ticks wherever that is possible.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edge_wam.planner_wire import PlanAnswer, PlanRequest, unpack_answer
from edge_wam.recorder import Recording
from edge_wam.status import Phase
from edge_wam.supervisor import EpisodeResult, Session, SessionError
from firmware_bridge.hil.gdb_stub import GdbStub
from firmware_bridge.host import tap
from tests.runtime.rig import POLICY, Drive, Rig, Running, assert_limits_held, config
from tests.runtime.robot import robot

ROBOT = robot()
CAMERAS = tuple(camera.name for camera in ROBOT.cameras)
FREE_RAM = 0x2030_0000
"""In the emulated board's 4 MB of RAM, far from the firmware's data and stack."""
HORIZON_S = 0.8 + 0.15
"""A chunk's 16 knots, and the time from observation to its first."""


LOADED = ("CONTROL_LATE", "CAMERA_SLOW")
"""What a busy test machine may add to any episode; neither takes anything away from the arm."""


REAL_TIME = True


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Running]:
    """A session of this test alone, for what cannot be made good again."""
    running = Running(tmp_path)
    yield running
    running.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("shared"))
    yield running
    running.close()


@pytest.fixture
def rig(shared: Running) -> Rig:
    return shared.rig


@pytest.fixture
def session(shared: Running) -> Session:
    """The shared session, made good by the operator."""
    rig, session = shared
    rig.mode.put(b"run")
    if not session.status.policy_ready:
        session.restart_policy()
    return session


def run_and(
    session: Session, act: Callable[[], None], instruction: str = "sweep", after_s: float = 1.5, duration_s: float = 8.0
) -> tuple[EpisodeResult, int]:
    """An episode in which ``act`` happens ``after_s`` after the arm got going; returns the result and that time."""
    done_at: list[int] = []

    def later() -> bool:
        if not done_at and session.status.phase is Phase.RUNNING and session.status.running_s > after_s:
            done_at.append(time.monotonic_ns())
            act()
        return False

    for _ in range(3):
        result = session.run_episode(instruction, duration_s=duration_s, done=later)
        if done_at:
            return result, done_at[0]
        # A machine too busy for real time stops the arm before there was anything to inject: that is no result.
        if not session.status.policy_ready:
            session.restart_policy()
    pytest.fail(f"the arm never ran: {result}")


def names(result: EpisodeResult) -> list[str]:
    return [fault.name for fault in result.faults if fault.name not in LOADED]


def test_an_undisturbed_session_runs_several_episodes_and_records_all_of_them(own: Running) -> None:
    rig, session = own
    for _ in range(2):
        result = session.run_episode("sweep", duration_s=1.5)
        assert (result.reason, names(result)) == ("timeout", []), result
    final = session.close()
    assert final.status.chunks >= 20 and final.status.mcu_refused == 0
    assert final.status.golden_exact and final.exits == dict.fromkeys(final.exits, 0)
    drive = rig.drive
    assert_limits_held(drive, ROBOT)
    assert np.ptp(drive.setpoint[:, 0]) > 0.1, "the arm did not move"
    assert not drive.enabled[-1]
    recording = Recording(final.recording)
    messages = list(recording)
    assert recording.complete
    frames = {m.value.index: m.value for m in messages if m.topic == "/camera/corner2"}
    requests = [PlanRequest.unpack(m.value, CAMERAS) for m in messages if m.topic == "/request"]
    answers = [unpack_answer(m.value)[2] for m in messages if m.topic == "/answer"]
    assert len(requests) >= 20 and len(answers) == len(requests)
    apart = []
    for request, answer in zip(requests, answers, strict=True):
        assert isinstance(answer, PlanAnswer) and answer.chunk.sequence == request.sequence
        frame = frames[request.frames["corner2"]]
        apart.append(abs(frame.captured_at_ns - request.state_at_ns))
    assert np.median(apart) < 10_000_000 and max(apart) < 60_000_000, "state and picture are of one moment"
    told = list(tap.decode(tap.from_file(final.recording.with_suffix(".pcapng"))))
    assert not [frame.error for frame in told if frame.error]
    assert sum(frame.name == "Chunk" for frame in told) >= final.status.chunks
    assert final.status.wire_in_bytes_s > 0.0 and final.status.rtt_p99_ms >= final.status.rtt_p50_ms > 0.0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_inference_the_arm_finishes_the_chunk_then_holds(
    number: signal.Signals, rig: Rig, session: Session
) -> None:
    pid = session.children["inference"].pid
    result, at = run_and(session, lambda: os.kill(pid, number))
    assert result.reason in ("POLICY_DIED", "POLICY_DEADLINE_MISSED")
    chunks = session.status.chunks
    if number is signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)  # the late answer comes now
        time.sleep(0.3)
    again = session.run_episode("sweep", duration_s=1.0)
    assert again.reason == "refused" and "policy" in again.text, "the policy is closed until the operator restarts it"
    assert session.status.chunks == chunks, "a late answer was used"
    after = rig.drive.since(at)
    assert_limits_held(after, ROBOT)
    standstill_s = after.ticks_to_standstill() * 1e-3
    assert 0.2 < standstill_s < HORIZON_S + 0.15, "it finishes the running chunk and no more"
    session.restart_policy()
    assert session.run_episode("sweep", duration_s=1.0).reason == "timeout"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_without_control_the_microcontroller_brakes_holds_and_disarms(
    number: signal.Signals, tmp_path: Path
) -> None:
    rig = Rig(tmp_path)
    with Session(config(tmp_path), sources=rig.sources, policy=POLICY) as session:
        pid = session.children["control"].pid
        at: list[int] = []

        def strike() -> bool:
            if not at and session.status.running_s > 1.5:
                at.append(time.monotonic_ns())
                os.kill(pid, number)
            return bool(at) and time.monotonic_ns() - at[0] > 3_500_000_000

        if number is signal.SIGKILL:
            with pytest.raises(SessionError, match="control process ended"):
                session.run_episode("sweep", duration_s=8.0, done=strike)
            time.sleep(2.8)
        else:
            threading.Timer(6.0, lambda: os.kill(pid, signal.SIGCONT)).start()
            session.run_episode("sweep", duration_s=8.0, done=strike)
        after = rig.drive.since(at[0])
        assert_limits_held(after, ROBOT)
        # 100 ms of silence, one tick, braking from 0.4 m/s at 10 m/s^2 (40 ms), and up to 20 ms since the last beat.
        assert after.ticks_to_standstill() <= 100 + 1 + 45
        off = np.nonzero(~after.enabled.astype(bool))[0]
        assert len(off), "it never disarmed"
        assert 1900 <= after.tick[off[0]] - after.tick[0] <= 2100
        if number is signal.SIGSTOP:
            deadline = time.monotonic() + 6
            while session.status.phase is not Phase.READY and time.monotonic() < deadline:
                session._pump()
                time.sleep(0.02)
            later = rig.drive.since(at[0])
            assert not later.enabled[np.nonzero(~later.enabled.astype(bool))[0][0] :].any(), "it armed itself again"
    rig.close()


def test_a_camera_that_is_gone_makes_the_arm_finish_and_hold(rig: Rig, session: Session) -> None:
    result, at = run_and(session, lambda: rig.mode.put(b"gone") and None)
    assert result.reason == "CAMERA_GONE" and names(result)[0] == "CAMERA_GONE"
    after = rig.drive.since(at)
    assert_limits_held(after, ROBOT)
    assert after.ticks_to_standstill() * 1e-3 < 0.25 + HORIZON_S + 0.15
    refused = session.run_episode("sweep", duration_s=1.0)
    assert refused.reason == "refused" and "corner2 is silent" in refused.text
    rig.mode.put(b"run")
    assert session.run_episode("sweep", duration_s=1.0).reason == "timeout"


def test_a_frozen_camera_makes_the_arm_finish_and_hold(rig: Rig, session: Session) -> None:
    result, at = run_and(session, lambda: rig.mode.put(b"freeze") and None)
    assert result.reason == "CAMERA_FROZEN"
    after = rig.drive.since(at)
    assert after.ticks_to_standstill() * 1e-3 < 10 / 20 + HORIZON_S + 0.2, "ten equal frames at 20 Hz, then the chunk"
    assert "not valid" in session.run_episode("sweep", duration_s=1.0).text


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("nan", "CHUNK_NOT_FINITE"), ("outside", "CHUNK_OUTSIDE_LIMITS"), ("slow", "POLICY_DEADLINE_MISSED"),
        ("raise", "POLICY_FAILED"),
    ],
)
def test_a_nonsense_answer_is_refused_and_the_arm_coasts_then_holds(
    script: str, fault: str, rig: Rig, session: Session
) -> None:
    result = session.run_episode(f"{script} 15", duration_s=8.0)
    assert result.reason == fault
    at = next(f.at_ns for f in result.faults if f.name == fault)
    after = rig.drive.since(at)
    assert_limits_held(rig.drive, ROBOT)
    assert 0.1 < after.ticks_to_standstill() * 1e-3 < HORIZON_S + 0.15
    limit = ROBOT.vector("position_max")[2]
    assert (rig.drive.setpoint[:, 2] <= limit).all() and np.isfinite(rig.drive.setpoint).all()


def test_ctrl_c_stops_the_arm_in_order_and_closes_the_recording(own: Running) -> None:
    rig, session = own
    timer = threading.Timer(2.5, session.stop.set)
    timer.start()
    result = session.run_episode("sweep", duration_s=30.0)
    stopped = time.monotonic_ns()
    assert result.reason == "stopped" and result.seconds < 4.0
    assert session.run_episode("sweep", duration_s=1.0).reason == "stopped", "after a stop nothing arms"
    final = session.close()
    drive = rig.drive
    assert_limits_held(drive, ROBOT)
    assert not drive.since(stopped).enabled.any()
    recording = Recording(final.recording)
    assert [m for m in recording if m.topic == "/event"] and recording.complete


def test_sigterm_to_the_control_process_is_a_controlled_stop(own: Running) -> None:
    rig, session = own
    pid = session.children["control"].pid
    with pytest.raises(SessionError, match="ended with 0"):
        run_and(session, lambda: os.kill(pid, signal.SIGTERM))
    drive = rig.drive
    assert_limits_held(drive, ROBOT)
    assert not drive.enabled[-1]
    recording = Recording(session.recording)
    assert len(list(recording)) > 100 and recording.complete


def test_a_dead_camera_process_is_an_event_not_a_silent_restart(own: Running) -> None:
    _, session = own
    pid = session.children["camera"].pid
    result, _ = run_and(session, lambda: os.kill(pid, signal.SIGKILL))
    assert result.reason == "PROCESS_DIED" and session.exits["camera"] == -signal.SIGKILL
    assert session.children["camera"].pid == pid
    assert session.run_episode("sweep", duration_s=1.0).reason == "refused"


def test_an_emergency_stop_is_latched_until_the_operator_acknowledges(rig: Rig, session: Session) -> None:
    _, at = run_and(session, session.estop)
    after = rig.drive.since(at)
    assert after.ticks_to_standstill() <= 60 and not after.enabled[-1]
    assert session.run_episode("sweep", duration_s=1.0).reason == "refused"
    session.acknowledge()
    assert session.run_episode("sweep", duration_s=1.0).reason == "timeout"


def test_a_reset_microcontroller_is_not_armed_again_by_itself(rig: Rig, session: Session) -> None:
    assert session.emulator is not None
    mcu = session.emulator.pid

    def hang() -> None:
        os.kill(mcu, signal.SIGSTOP)
        threading.Timer(0.6, lambda: os.kill(mcu, signal.SIGCONT)).start()

    result, at = run_and(session, hang)
    assert result.reason in ("MCU_RESET", "LINK_SILENT", "MCU_STOPPED")
    time.sleep(0.5)
    after = rig.drive.since(at + 700_000_000)
    assert not after.enabled.any(), "it came up armed"
    refused = session.run_episode("sweep", duration_s=1.0)
    assert refused.reason == "refused" and "reset" in refused.text
    assert session.acknowledge() == "WATCHDOG"
    assert session.run_episode("sweep", duration_s=1.0).reason == "timeout"


def test_a_hung_cortex_m_is_reset_by_its_watchdog_and_stays_disarmed(tmp_path: Path) -> None:
    """Through QEMU: the processor spins with interrupts masked; nothing but the watchdog's NMI runs any more."""
    rig = Rig(tmp_path)
    with Session(config(tmp_path, link={"emulator": "qemu"}), sources=rig.sources, policy=POLICY) as session:
        emulator = session.emulator
        assert emulator is not None and "QEMU" in session.mcu

        def hang() -> None:
            with GdbStub(emulator.gdb_path) as gdb:
                gdb.hang(FREE_RAM)

        result, at = run_and(session, hang)
        assert result.reason in ("MCU_RESET", "LINK_SILENT")
        assert "WATCHDOG" in emulator.qmp_events()
        refused = session.run_episode("sweep", duration_s=1.0)
        assert refused.reason == "refused" and "reset" in refused.text
        booted = rig.drive.since(at + 1_200_000_000)
        assert not booted.enabled.any(), "it came up armed"
        assert session.acknowledge() == "WATCHDOG"
        assert session.run_episode("sweep", duration_s=1.0).reason == "timeout"
    rig.close()


def test_the_control_loop_stays_below_a_quarter_of_a_core(rig: Rig, session: Session) -> None:
    import psutil

    process = psutil.Process(session.children["control"].pid)
    before, began = sum(process.cpu_times()[:2]), time.monotonic()
    assert session.run_episode("sweep", duration_s=4.0).reason == "timeout"
    share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
    assert share < 0.25, f"{share:.0%} of a core"


DEMO = """
import sys
from pathlib import Path
from edge_wam.supervisor import run_session
from tests.runtime.rig import POLICY, Rig, config
folder = Path(sys.argv[1])
rig = Rig(folder)
show = lambda status: print(status.phase, flush=True)
result = run_session(config(folder), sources=rig.sources, duration_s=60.0, on_status=show, policy=POLICY)
print(result.episodes, result.recording, sep="\\n")
"""


def test_ctrl_c_in_the_terminal_twice_still_stops_in_order(tmp_path: Path) -> None:
    """SIGINT to the whole process group of the terminal, as a keyboard sends it."""
    program = subprocess.Popen(
        [sys.executable, "-c", DEMO, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert program.stdout is not None
    running = 0
    while running < 8:
        running += program.stdout.readline().strip() == "running"
    os.killpg(program.pid, signal.SIGINT)
    time.sleep(0.15)
    os.killpg(program.pid, signal.SIGINT)
    out, _ = program.communicate(timeout=30)
    assert program.returncode == 0
    drive = Drive.read(tmp_path / "drive.jsonl")
    assert_limits_held(drive, ROBOT)
    assert drive.enabled.any() and not drive.enabled[-1]
    recording = Recording(Path(out.splitlines()[-1]))
    assert len(list(recording)) > 50 and recording.complete
