"""A short made-up recording in the recorder's own format: an arm that follows its plan with a lag, and one fault."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edge_wam.config import make_config
from edge_wam.contracts import ActionChunk, DegradeState, Frame, Imagination
from edge_wam.histogram import Summary
from edge_wam.planner_wire import PlanAnswer, PlanRequest, pack_answer
from edge_wam.recorder import Recorder
from edge_wam.status import Phase, Status
from tests.support.tiny_bundle import MODEL, ROBOT_FILE, tiny_robot

T0 = 5_000_000_000
MS = 1_000_000
MODEL_HASH = "ab" * 32


def where(t_s: float) -> np.ndarray:
    """The arm's path [4]."""
    return np.array([0.2 * np.sin(t_s), 0.6 + 0.1 * np.cos(t_s), 0.2 + 0.02 * t_s, -1.0 if t_s < 1.5 else 1.0])


def picture(height: int, width: int, t_s: float) -> np.ndarray:
    """A square that moves over a slope of grey."""
    image = np.repeat(np.linspace(40, 120, width).astype(np.uint8)[None, :, None], height, 0).repeat(3, 2)
    x = int(width * (0.2 + 0.15 * t_s)) % (width - 20)
    image[height // 3 : height // 2, x : x + 20] = (200, 60, 40)
    return np.ascontiguousarray(image)


def latents(t_s: float) -> np.ndarray:
    base = np.linspace(-1, 1, MODEL.tokens_per_frame * MODEL.channels, dtype=np.float32)
    return (base * np.float32(np.cos(t_s))).reshape(MODEL.tokens_per_frame, MODEL.channels).astype(np.float32)


def write_recording(path: Path, seconds: float = 3.0, *, close: bool = True) -> Path:
    robot = tiny_robot()
    config = make_config({"robot": str(ROBOT_FILE), "bundle": "tiny.wam"}, Path("/"))
    recorder = Recorder(path, tuple((c.name, c.height, c.width) for c in robot.cameras))
    recorder.put("/session", T0 - MS, {"config": config.model_dump(mode="json"), "robot": robot.model_dump(mode="json"),
                                       "os_refusals": [], "mcu_boots": 1})
    recorder.put("/event", T0, {"from": "operator", "armed": 0, "instruction": "open the <drawer> & smile"})
    for k in range(int(seconds * 100)):
        now, t = T0 + k * 10 * MS, k / 100
        degrade = DegradeState.NOMINAL if t < seconds - 0.4 else DegradeState.HOLD
        recorder.put("/mcu", now, {
            "at_ns": now, "state": "RUN" if degrade == DegradeState.NOMINAL else "STOP", "stop_cause": "NONE",
            "fault": "NONE", "position": where(t - 0.05), "setpoint": where(t), "velocity": np.zeros(4),
            "chunk_id": k // 10, "remaining_ns": 0, "degrade": int(degrade),
        })
        if k % 5 == 0:
            for camera in robot.cameras:
                recorder.frame(camera.name, now, Frame(picture(camera.height, camera.width, t), now, k // 5))
        if k % 10 == 0 and degrade == DegradeState.NOMINAL:
            _plan(recorder, now, t, k)
    recorder.put("/event", now, {"from": "host", "fault": 1001, "name": "POLICY_DEADLINE_MISSED", "text": "151 ms",
                                 "at_ns": now - 400 * MS, "degrade": 1})
    recorder.put("/event", now, {"from": "mcu", "kind": 2, "arg0": 1, "arg1": 0, "at_us": 1})
    latency = Summary(27, 11.0, 20.0, 20.0, 25.0, 29.0, 30.0)
    status = Status(Phase.RUNNING, now, chunks=27, latency=latency, control=latency, refused={"CHUNK_LATE": 2},
                    model_hash=MODEL_HASH, golden_exact=True, watchdog_margin_us=480_000)
    recorder.put("/status", now, json.loads(status.to_json()))
    if close:
        recorder.close()
    return path


def _plan(recorder: Recorder, now: int, t: float, k: int) -> None:
    sequence = k // 10 + 1
    request = PlanRequest(sequence, 0, k == 0, "open", {c.name: k // 5 for c in tiny_robot().cameras}, now, where(t),
                          where(t), np.zeros((0, 4)))
    recorder.put("/request", now, request.pack())
    q = np.array([where(t + 0.05 * (i + 1)) for i in range(MODEL.knots)])
    ahead = [50 * MS * knots for knots in MODEL.future_knots]
    dream = np.stack([latents(t + a / 1e9 + 0.02) for a in ahead])
    answer = PlanAnswer(
        ActionChunk(now + 50 * MS, 50 * MS, q, now, sequence, MODEL_HASH),
        Imagination(dream, tuple(now + a for a in ahead), now, sequence), latents(t), now, 2 * MS, 9 * MS, 12 * MS,
    )
    recorder.put("/answer", now, pack_answer(0, answer))
    recorder.put("/splice", now, {
        "sequence": sequence, "chunk_id": sequence, "t0_ns": now + 50 * MS, "dt_ns": 50 * MS, "q": q,
        "observed_at_ns": now - (sequence % 7) * MS, "slowed": False, "surprise": 0.1 if k > 20 else None, "prefix": 0,
        "latency_ns": (12 + sequence % 9) * MS, "step_ns": 12 * MS,
    })
    recorder.put("/event", now + 3 * MS, {
        "from": "link", "chunk_id": sequence, "code": "OK_TRIMMED" if sequence == 2 else "OK", "arg": 1,
        "taken": sequence != 5, "lead_ns": 0, "round_trip_ns": 3 * MS,
    })
