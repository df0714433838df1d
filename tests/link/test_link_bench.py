"""A measured round trip is never shorter than its wire, and says what was measured and what was computed."""

from __future__ import annotations

import json
import time

import pytest

from firmware_bridge.errors import FirmwareError
from firmware_bridge.host.bench_rig import MCUS, known
from firmware_bridge.host.link_bench import answer_frame, chunk_frame, measure_cost, measure_serial
from firmware_bridge.host.messages import ChunkEncoding
from firmware_bridge.host.paced import PacedTransport
from tests.cli.command import edge_wam


class Loop:
    """What is written comes back at once."""

    dropped_frames = 0
    backlog = 0

    def __init__(self) -> None:
        self.data = b""

    def write(self, frame: bytes) -> None:
        self.data += frame

    def read(self) -> bytes:
        data, self.data = self.data, b""
        return data

    def wait(self, timeout_s: float, gather_s: float = 0.0) -> bool:
        raise AssertionError("a paced wire looks for itself")

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("size", "baud"), [(1, 115_200), (15, 1_000_000), (476, 1_000_000), (476, 3_000_000)])
def test_a_paced_byte_never_comes_before_its_stop_bit(size: int, baud: int) -> None:
    paced = PacedTransport(Loop(), baud)
    frames = [bytes([k]) * size for k in range(1, 4)]
    begin = time.monotonic_ns()
    for frame in frames:
        paced.write(frame)
    got, last_ns = b"", begin
    while len(got) < 3 * size:
        assert paced.wait(1.0)
        got += paced.read()
        last_ns = time.monotonic_ns()
    assert got == b"".join(frames)
    # There and back: the first byte turns round when it has arrived, so the way back costs one byte more, not all.
    assert last_ns - begin >= 3 * size * 10 * 1e9 / baud
    assert min(paced.late_ns) >= 0
    assert paced.backlog == 0


def test_a_paced_wire_that_is_full_drops_whole_frames_and_counts_them() -> None:
    paced = PacedTransport(Loop(), 9600)
    for _ in range(100):
        paced.write(b"x" * 476)
    assert paced.backlog > 0
    assert paced.dropped_frames == 100 - 8192 // 476


@pytest.mark.parametrize("encoding", list(ChunkEncoding))
def test_round_trips_over_a_paced_wire_take_at_least_the_computed_time(encoding: ChunkEncoding) -> None:
    row = measure_serial(MCUS["library"], 1_000_000, encoding, chunks=12, seconds=0.2)
    assert (row.request_bytes, row.answer_bytes) == (len(chunk_frame(encoding)), len(answer_frame()))
    assert row.wire_us == pytest.approx((row.request_bytes + row.answer_bytes) * 10)
    assert row.round_trip_us.count == 12 and row.round_trip_us.min >= row.wire_us
    assert 0 <= row.share <= 1  # none of it where the machine stands still


def test_the_cost_of_a_chunk_is_processor_time_of_its_two_ways() -> None:
    row = measure_cost(ChunkEncoding.I16_LSB, chunks=10, every_ms=2)
    assert row.answer_us.count >= 10 and row.send_us.min > 0 and row.answer_us.min > 0
    assert row.p50_us == row.send_us.p50 + row.answer_us.p50


def test_an_unknown_microcontroller_is_refused_by_name() -> None:
    with pytest.raises(FirmwareError, match="'arduino'"):
        known("arduino")


def test_the_command_prints_one_document_with_the_machine_and_every_wire() -> None:
    done = edge_wam("bench", "link", "--mcu", "library", "--chunks", "10", "--seconds", "0.1", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["machine"]
    assert len(found["wires"]) + len(found["costs"]) + len(found["skipped"]) == 8 + 4
    for row in found["wires"]:
        assert 0 <= row["share"] <= 1, row
        assert row["round_trip_us"]["min"] >= 0.97 * row["wire_us"], row
