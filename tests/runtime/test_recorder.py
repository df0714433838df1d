"""A recording survives kill -9 to the last second, never blocks its writer, and says so when it loses something."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edge_wam.contracts import Frame
from edge_wam.errors import ContractError
from edge_wam.recorder import Recorder, Recording

CAMERAS = (("eye", 4, 6),)

WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from edge_wam.contracts import Frame
from edge_wam.recorder import Recorder
r = Recorder(Path(sys.argv[1]), (("eye", 4, 6),))
k = 0
while True:
    now = time.monotonic_ns()
    r.put("/event", now, {"k": k})
    r.frame("eye", now, Frame(np.full((4, 6, 3), k % 256, np.uint8), now, k))
    k += 1
    print(k, flush=True)
    time.sleep(0.01)
"""
ATTEMPTS = 4
"""Of what a disk that stalls for a second would spoil."""


def test_everything_comes_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.mcap"
    recorder = Recorder(path, CAMERAS)
    image = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    recorder.put("/mcu", 10, {"position": np.array([0.1, 1 / 3]), "n": np.int64(3)})
    recorder.put("/request", 11, b"\x00\xffexact")
    recorder.frame("eye", 12, Frame(image, 7, 5))
    recorder.close()
    assert recorder.error == "" and recorder.dropped == 0
    recording = Recording(path)
    mcu, request, frame = list(recording)
    assert recording.complete
    assert mcu.topic == "/mcu" and mcu.at_ns == 10 and mcu.value == {"position": [0.1, 1 / 3], "n": 3}
    assert request.value == b"\x00\xffexact"
    assert np.array_equal(frame.value.image, image) and frame.value.captured_at_ns == 7 and frame.value.index == 5
    assert abs(recording.wall_minus_monotonic_ns - (time.time_ns() - time.monotonic_ns())) < 10**9


def test_after_kill_9_the_file_is_readable_to_the_last_second(tmp_path: Path) -> None:
    lost_ns: list[int] = []
    while not lost_ns or (lost_ns[-1] >= 1_000_000_000 and len(lost_ns) < ATTEMPTS):
        lost_ns.append(kill_a_writer(tmp_path / f"killed{len(lost_ns)}.mcap"))
    assert lost_ns[-1] < 1_000_000_000, lost_ns


def kill_a_writer(path: Path) -> int:
    """kill -9 while it records; what is there is whole and without gaps. Returns how much of its end is missing, ns."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(200):
        assert writer.stdout.readline()
    killed_at = time.monotonic_ns()
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    recording = Recording(path)
    messages = list(recording)
    assert not recording.complete
    numbers = [m.value["k"] for m in messages if m.topic == "/event"]
    assert numbers == list(range(len(numbers)))
    return killed_at - messages[-1].at_ns if messages else killed_at


@pytest.mark.parametrize("cut", [1, 9, 100, 1000])
def test_a_file_cut_anywhere_gives_what_is_whole(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.mcap"
    recorder = Recorder(path, CAMERAS)
    for k in range(3):
        recorder.put("/request", k, os.urandom(3000))
        time.sleep(0.5)
    recorder.close()
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    recording = Recording(path)
    assert len(list(recording)) >= 1 and not recording.complete


def test_a_full_queue_drops_and_counts_and_never_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path / "a.mcap", CAMERAS, queue_bytes=10_000)
    write, stuck, disk = recorder._file.write, threading.Event(), threading.Event()

    def hangs(data: bytes) -> int:
        stuck.set()
        disk.wait()
        return write(data)

    monkeypatch.setattr(recorder._file, "write", hangs)
    recorder.put("/request", 0, bytes(1000))
    assert stuck.wait(60.0), "nothing was ever written"
    for _ in range(1999):
        recorder.put("/request", 0, bytes(1000))
    assert recorder.dropped >= 1980, "these came back although nobody took anything"
    disk.set()
    recorder.close()
    assert len(list(Recording(recorder.path))) + recorder.dropped == 2000


def test_a_disk_that_fills_up_is_reported_and_stops_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "a.mcap", CAMERAS)
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), recorder._file.fileno())
    for _ in range(100):
        recorder.put("/request", 0, os.urandom(10_000))
    recorder.close()
    assert "No space" in recorder.error


def test_an_unwritable_place_and_a_foreign_file_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file" / "a.mcap", Path("/dev/full")):
        with pytest.raises(ContractError, match="recording_dir"):
            Recorder(path, CAMERAS)
    foreign = tmp_path / "b.mcap"
    foreign.write_bytes(b"not a recording at all")
    with pytest.raises(ContractError, match=r"b\.mcap"):
        list(Recording(foreign))
