"""What lines do to bytes, in simulated time: another baud rate, cuts, repetitions, a plug pulled within a chunk.

The arm never moves by any of it, every loss is counted on one side or the other, and a line that is well again is used
again without a restart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from firmware_bridge.errors import FirmwareError, LinkError
from firmware_bridge.host import messages as m
from firmware_bridge.host.library import LibraryTransport
from firmware_bridge.host.link import Link
from firmware_bridge.host.link_state import mcu_dropped
from firmware_bridge.host.messages import McuState, ResetCause, StopCause
from firmware_bridge.host.sniff import Sniffer
from firmware_bridge.mcu.build import build
from tests.link.fake_mcu import LIMITS

HOME = np.array([0.0, 0.7, 0.2, 0.0])
DT = 50_000_000
ROOT = Path(__file__).resolve().parents[2]


def resampled(data: bytes, sent_baud: int, heard_baud: int) -> bytes:
    """What a UART at ``heard_baud`` makes of bytes sent at ``sent_baud``: start bit, 8 data bits, stop bit, sampled in
    the middle of its own bits; a missing stop bit (framing error) gives the byte that it sampled all the same."""
    line = [bit for byte in data for bit in (0, *((byte >> k) & 1 for k in range(8)), 1)] + [1] * 20
    ratio = sent_baud / heard_baud
    at, end, out = 0.0, len(line) - 10 * ratio, bytearray()
    while at < end:
        if line[int(at)]:
            at += ratio / 16
            continue
        bits = [line[int(min(at + (k + 1.5) * ratio, len(line) - 1))] for k in range(8)]
        out.append(sum(bit << k for k, bit in enumerate(bits)))
        at += 9.5 * ratio
    return bytes(out)


class Line:
    """The core's transport behind a line that can be given a fault per direction."""

    def __init__(self, mcu: LibraryTransport) -> None:
        self.mcu = mcu
        self.to_mcu = self.to_host = lambda data: data
        self.dropped_frames = self.backlog = 0

    def write(self, frame: bytes) -> None:
        self.mcu.write(self.to_mcu(frame))

    def read(self) -> bytes:
        return self.to_host(self.mcu.read())

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        return self.mcu.wait(timeout_s, gather_s)

    def close(self) -> None:
        """The plug is out; the core goes on."""


class Rig:
    def __init__(self, library: Path) -> None:
        self.position = HOME.copy()
        self.moved = 0.0
        self.policy = 0
        self.mcu = LibraryTransport(library, on_tick=self.plant)
        self.line = Line(self.mcu)
        self.link = Link(self.line, LIMITS, clock=self.mcu.now_ns)

    def plant(self) -> None:
        order = self.mcu.setpoint()
        if order.enabled:
            self.moved += float(np.abs(order.setpoint - self.position).sum())
            self.position = order.setpoint
        self.mcu.encoder(self.position)

    def ready(self) -> None:
        self.link.connect()
        self.link.configure()
        self.link.arm()

    def ramp(self, chunk_id: int, speed: float = 0.2) -> None:
        q = np.tile(self.position, (16, 1))
        q[:, 0] += speed * np.arange(16) * DT / 1e9
        self.link.send_chunk(self.mcu.now_ns() + 40_000_000, DT, q, chunk_id)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            self.policy += 1
            self.link.heartbeat(self.policy, 0)
            self.link.poll()
            for _ in range(10):
                self.mcu.tick()

    def lost(self) -> int:
        return self.link.state.counters.dropped + mcu_dropped(self.link.state.stats)


@pytest.fixture
def rig(firmware: Path) -> Iterator[Rig]:
    rig = Rig(build("lib", firmware))
    yield rig
    rig.link.close()


def test_resampling_at_the_same_rate_changes_nothing() -> None:
    data = bytes(range(256))
    assert resampled(data, 921_600, 921_600) == data


@pytest.mark.parametrize("heard", [115_200, 460_800, 1_000_000, 3_000_000])
def test_at_another_baud_rate_nothing_is_understood_and_the_remedy_is_named(rig: Rig, heard: int) -> None:
    rig.line.to_mcu = lambda data: resampled(data, 921_600, heard)
    rig.line.to_host = lambda data: resampled(data, heard, 921_600)
    with pytest.raises(LinkError, match="no HELLO within"):
        rig.link.connect(timeout_s=0.5)
    assert rig.mcu.mcu_state is McuState.DISARMED and rig.moved == 0.0
    rig.line.to_mcu = rig.line.to_host = lambda data: data
    rig.link.connect()
    rig.run(1.1)
    assert rig.lost() > 0


def test_a_line_that_changes_its_rate_under_way_stops_the_arm_and_is_counted(rig: Rig) -> None:
    rig.ready()
    rig.ramp(1)
    rig.run(0.2)
    before = rig.lost()
    rig.line.to_mcu = lambda data: resampled(data, 921_600, 1_000_000)
    rig.run(0.2)
    assert rig.mcu.mcu_state is McuState.STOP
    assert rig.link.state.stop_cause is StopCause.HOST_SILENT
    rig.line.to_mcu = lambda data: data
    rig.run(1.1)
    assert rig.mcu.mcu_state is McuState.STOP, "well again is no reason to move"
    assert rig.lost() > before


@pytest.mark.parametrize("cut", [1, 40, 150, 280])
def test_a_plug_pulled_in_the_middle_of_a_chunk_moves_nothing_by_the_half_that_came(rig: Rig, cut: int) -> None:
    rig.ready()
    rig.run(0.05)
    rig.line.to_mcu = lambda data: data[:cut] if len(data) > 200 else data
    rig.ramp(1)
    rig.run(0.15)
    assert rig.moved == 0.0 and rig.mcu.mcu_state is McuState.ARMED
    other = Line(rig.mcu)  # the plug is in again, and the stream begins in the middle of the next frame
    rig.line = other
    rig.link.attach(other)
    rig.link.connect()
    assert rig.moved == 0.0
    rig.run(1.1)
    assert mcu_dropped(rig.link.state.stats) >= 1
    assert rig.moved == 0.0


def test_a_chunk_that_comes_twice_is_driven_once(rig: Rig) -> None:
    rig.ready()
    rig.line.to_mcu = lambda data: data + data if len(data) > 200 else data
    rig.ramp(1)
    rig.run(0.9)
    assert abs(rig.position[0] - 0.2 * 15 * 0.05) < 2e-3


def test_a_reset_under_way_is_told_and_nothing_moves_until_the_operator_has_looked(rig: Rig) -> None:
    rig.ready()
    rig.ramp(1)
    rig.run(0.2)
    rig.mcu.reset(ResetCause.WATCHDOG, pc=0x42)
    moved = rig.moved
    rig.run(0.3)
    state = rig.link.state
    assert (state.reset_seen, state.reset_cause, state.reset_pc) == (True, ResetCause.WATCHDOG, 0x42)
    assert state.mcu_state is McuState.FAULT and rig.moved == moved
    with pytest.raises(FirmwareError, match="reset"):
        rig.ramp(2)
    rig.link.acknowledge_reset()
    rig.link.clear_fault()
    rig.link.configure()
    rig.link.arm()
    rig.ramp(1)
    rig.run(0.2)
    assert rig.moved > moved


def test_a_second_host_begins_at_the_top_and_the_first_ones_words_move_nothing(rig: Rig) -> None:
    rig.ready()
    rig.run(0.1)
    first, words = rig.link, []
    rig.line.to_mcu = lambda data: words.append(data) or b""
    rig.ramp(1)
    rig.line.to_mcu = lambda data: data
    rig.mcu.wait(0.0)
    for _ in range(2200):
        rig.mcu.tick()  # the first host is dead: disarmed after two seconds
    assert rig.mcu.mcu_state is McuState.DISARMED
    rig.link = Link(rig.line, LIMITS, clock=rig.mcu.now_ns)
    rig.ready()
    for word in words:
        rig.mcu.write(word)
    rig.run(0.3)
    assert rig.moved == 0.0 and rig.mcu.mcu_state is McuState.ARMED
    first.close()


def test_the_worked_example_of_the_documentation_is_answered_by_the_core(firmware: Path) -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    found = re.search(r"on the wire: COBS of all, and the delimiter \| `([0-9a-f ]+)`", text)
    assert found is not None
    mcu = LibraryTransport(build("lib", firmware))
    for _ in range(20):
        mcu.tick()
    mcu.read()
    mcu.write(bytes.fromhex(found.group(1)))
    (hello,) = [h for h in Sniffer().feed(mcu.read(), 0) if h.name == "Hello"]
    assert hello.values["nonce"][0] == 0x00C0FFEE
    mcu.close()


def test_the_state_table_of_the_documentation_is_that_of_the_core() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    rows = re.findall(r"^\| (\w+) \|(.*)\|$", text[text.index("in \\ what happens") :], re.MULTILINE)
    table = {name: [cell.strip() for cell in row.split("|")] for name, row in rows if name in McuState.__members__}
    assert set(table) == set(McuState.__members__)
    assert [name for name, row in table.items() if "ARMED" in row] == ["CONFIGURED", "ARMED", "RUN", "STARVED"]
    assert {cell for name in ("ESTOP", "FAULT") for cell in table[name]} <= {"", "ESTOP", "FAULT", "DISARMED"}


def test_the_numbers_of_the_timing_table_are_those_of_the_definition() -> None:
    text = (ROOT / "docs" / "protocol.md").read_text()
    for number, words in (
        (m.HEARTBEAT_PERIOD_US // 1000, "every {} ms, from the loop"),
        (m.HOST_SILENT_US // 1000, "heartbeat {} ms ago"),
        (m.POLICY_FROZEN_US // 1000, "same for {} ms"), (m.EVENT_RESEND_US // 1000, "again every {} ms"),
        (m.HELLO_PERIOD_US // 1000, "at most every {} ms"), (m.ANSWERS_PER_TICK, "{} in a tick"),
    ):  # fmt: skip
        assert words.format(number) in text
