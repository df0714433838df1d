"""The demo from the outside: it ends with a verdict, a report and a recording that replays; Ctrl-C stops the arm."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from edge_wam.app.demo import Played, verdict
from edge_wam.app.live import LiveView, line, render, rows
from edge_wam.app.operator import stoppable
from edge_wam.faults import FAULTS, Fault
from edge_wam.histogram import Summary
from edge_wam.recorder import Recording
from edge_wam.status import FaultReport, Phase, Status
from edge_wam.supervisor import EpisodeResult, SessionResult
from firmware_bridge.host.link_metrics import BusEnd
from tests.cli.command import ROOT, argv, edge_wam, here, write_config
from tests.support.tiny_bundle import make_tiny_bundle

STATUS = Status(
    Phase.RUNNING, 1, task="open the drawer", running_s=2.5, degrade="COAST", chunk_rate_hz=9.5, chunks=24,
    refused={"CHUNK_LATE": 2}, latency=Summary(9, 8.0, 10.0, 10.0, 14.0, 18.0, 19.0),
    age=Summary(9, 60.0, 80.0, 80.0, 90.0, 111.0, 120.0), link_connected=True, rtt_ms=1.5, clock_bound_ms=0.25,
    mcu_state="RUN", mcu_stop_cause="NONE", mcu_fault="NONE", watchdog_margin_us=243_000, position=(0.1, 0.6),
    faults=(FaultReport(1, 1016, "CHUNK_LATE", "1 knot"),),
)  # fmt: skip


_ATTEMPTS = 3  # a machine that stalls for 100 ms stops the arm, as it must; the demo then ends another way


def shown(said: str, name: str) -> Path:
    found = re.search(rf"^{name} +(\S+)$", said, re.MULTILINE)
    assert found, said
    return Path(found[1])


def test_demo_ends_with_verdict_report_and_a_recording_that_replays(config: Path, tmp_path: Path) -> None:
    for _ in range(_ATTEMPTS):
        ran = edge_wam("demo", "--config", config, "--task", "reach", "--seconds", 1.5)
        assert ran.code == 1, ran
        assert "host port" in ran.out and ("✗ Task not done" in ran.out or "✗ Stopped by" in ran.out
                                           or "✗ The arm was not armed" in ran.out)
        if "Task not done" in ran.out:
            break
    report, recording = shown(ran.out, "report"), shown(ran.out, "recording")
    text = report.read_text()
    assert "reach, seed 100000" in text and "data:image/png" in text and "<svg" in text
    assert Recording(recording).of("/splice")
    same = here("replay", recording, "--config", config, "--report", tmp_path / "again.html")
    assert same.code == 0 and "identical to the last bit" in same.out and (tmp_path / "again.html").is_file()
    other = write_config(tmp_path, make_tiny_bundle(tmp_path, int8=False))
    refused = here("replay", recording, "--config", other)
    assert refused.code == 2 and "was recorded with" in refused.err
    differs = here("replay", recording, "--config", other, "--other-model")
    assert differs.code == 1 and "chunk.q" in differs.out


def test_ctrl_c_stops_the_arm_in_order(config: Path) -> None:
    for _ in range(_ATTEMPTS):
        said = interrupted(config)
        assert "Traceback" not in said
        if "Stopped by the operator" in said:
            break
    assert "Stopped by the operator" in said
    last = Recording(shown(said, "recording")).of("/mcu")[-1].value
    assert last["state"] in ("STOP", "DISARMED") and last["fault"] == "NONE"
    assert max(abs(v) for v in last["velocity"]) < 0.05, "the recording ends with the arm (nearly) at rest"


def interrupted(config: Path) -> str:
    """What the demo says when Ctrl-C is pressed as soon as the arm runs. Its exit code is 1."""
    demo = subprocess.Popen(
        argv("demo", "--config", config, "--task", "reach", "--seconds", 60), cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, bufsize=1,
    )
    assert demo.stdout is not None
    lines: list[str] = []
    for text in demo.stdout:
        lines.append(text)
        if text.startswith("running"):
            demo.send_signal(signal.SIGINT)
            demo.send_signal(signal.SIGINT)  # an impatient operator changes nothing
            break
    said = "".join(lines) + demo.stdout.read()
    demo.stdout.close()
    assert demo.wait(30) == 1, said
    return said


def test_run_ends_as_asked(config: Path) -> None:
    ran = edge_wam("run", "--config", config, "--arm", "--seconds", 1.0, "--scene", "reach:100001")
    assert shown(ran.out, "recording").is_file()
    # A machine that stalls ends it with a fault, or does not arm: then the exit code says so.
    assert ran.code == (0 if "Ended as asked" in ran.out else 1), ran


def played(reason: str, success_s: float | None = None, text: str = "") -> Played:
    faults = (FaultReport(0, 1, reason, "seen so"),) if reason in Fault.__members__ else ()
    episode = EpisodeResult(1, "open the drawer", 3.0, reason, text, faults)
    return Played(episode, SessionResult(Path("a"), Path("b"), "mcu", STATUS, (episode,), ()), success_s)


@pytest.mark.parametrize(
    ("reason", "success_s", "done", "said"),
    [
        ("done", 2.25, True, "2.25 s"),
        ("done", None, False, "10 s were over"),
        ("timeout", None, False, "10 s were over"),
        ("stopped", None, False, "operator"),
        ("refused", None, False, "because"),
        ("no answer", None, False, "no answer"),
        ("CAMERA_FROZEN", None, False, "identical pixels"),
    ],
)
def test_verdict_says_whether_and_why(reason: str, success_s: float | None, done: bool, said: str) -> None:
    outcome = verdict(played(reason, success_s, "because"), 10.0)
    assert outcome.done is done and said in outcome.headline + outcome.why


def test_every_fault_has_a_verdict_with_its_remedy() -> None:
    for fault in Fault:
        outcome = verdict(played(fault.name), 10.0)
        assert outcome.done is False and FAULTS[fault].remedy in outcome.why and "seen so" in outcome.why


def test_live_view_shows_what_was_promised_at_any_width() -> None:
    for width in (40, 80, 200):
        console = Console(width=width, record=True, force_terminal=True, file=io.StringIO())
        console.print(render("demo", STATUS))
        text = "".join(console.export_text().replace("│", " ").split())
        for wanted in ("open the drawer", "running", "9.5 a second", "10 / 18 ms", "80 / 111 ms", "RUN", "243 ms",
                       "COAST", "CHUNK_LATE"):
            assert wanted.replace(" ", "") in text, (width, wanted, text)
    assert "9.5 chunks/s" in line(STATUS) and "243 ms" in line(STATUS)
    Console(file=io.StringIO()).print(render("demo", Status(Phase.STARTING, 0)))  # nothing is known yet


def test_both_ends_of_a_can_bus_are_shown_and_survive_the_recording() -> None:
    status = replace(STATUS, bus_host=BusEnd(3, 0, 1), bus_mcu=BusEnd(0, 2, 7))
    assert Status.from_json(status.to_json()) == status
    said = {name: (value, good) for name, value, good in rows(status)}
    assert said["CAN bus"] == (
        "host 3 errors, 0 times off the bus, 1 transfers incomplete; "
        "microcontroller 0 errors, 2 times off the bus, 7 transfers incomplete", False,
    )  # fmt: skip
    calm = {name: good for name, _, good in rows(replace(status, bus_mcu=None))}
    assert calm["CAN bus"] and "CAN bus" not in {name for name, _, _ in rows(STATUS)}
    older = {key: value for key, value in json.loads(STATUS.to_json()).items() if not key.startswith("bus_")}
    assert Status.from_dict(older) == STATUS


def test_without_a_terminal_the_view_prints_a_line_at_every_change_of_phase(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with out.open("w") as file, LiveView(Console(file=file, width=80), "demo") as view:
        for phase in (Phase.READY, Phase.READY, Phase.RUNNING, Phase.RUNNING, Phase.CLOSED):
            view.update(Status(phase, 0))
    assert [text.split()[0] for text in out.read_text().splitlines()] == ["ready", "running", "closed"]


def test_signals_only_set_the_stop_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    said: list[str] = []
    with stoppable(said.append) as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 5
        while not said and time.monotonic() < deadline:
            time.sleep(0.001)
        assert stop.is_set() and len(said) == 1
    assert signal.getsignal(signal.SIGINT) is before
