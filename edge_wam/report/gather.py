"""From a recording to the numbers and pictures of its report. It is read twice: numbers first, then chosen frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_wam import kernels
from edge_wam.contracts import F32, F64, U8, DegradeState, Frame
from edge_wam.embodiment import Embodiment
from edge_wam.errors import ContractError
from edge_wam.faults import FAULTS
from edge_wam.planner_wire import PlanAnswer, PlanRequest, unpack_answer
from edge_wam.recorder import Recorded, Recording
from edge_wam.report.run import AxisInfo, Event, Moment, Outcome, Plan, RunData, Span
from edge_wam.status import Status
from firmware_bridge.host.messages import FAULT_TEXT, STOPCAUSE_TEXT, AckCode, EventKind, StopCause

Decode = Callable[[F32], U8]
_MOMENTS = 16
_ENOUGH = 4  # moments that had been imagined; with fewer, the others are shown too
_OUTLOOKS_SHOWN = 2
_LIVE = ("ARMED", "RUN")
_CAMERA = "/camera/"
_ORDERLY = {"OPERATOR_STOP", StopCause.HOST_SOFT_STOP.name, StopCause.DISARM.name, StopCause.HOLD.name}
_MCU_TOLD = {int(EventKind.FAULT): FAULT_TEXT, int(EventKind.STOP): STOPCAUSE_TEXT}


@dataclass
class _Episode:
    """The messages of one episode, as they were recorded."""

    armed_ns: int = 0
    instruction: str = ""
    mcu: list[dict[str, Any]] = field(default_factory=list)
    splices: list[dict[str, Any]] = field(default_factory=list)
    events: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    requests: dict[int, PlanRequest] = field(default_factory=dict)
    answers: list[PlanAnswer] = field(default_factory=list)
    status: Status | None = None


@dataclass(frozen=True)
class _Session:
    robot: Embodiment
    config: dict[str, Any]
    episodes: list[_Episode]
    complete: bool
    wall_minus_monotonic_ns: int


def read_run(
    path: Path,
    *,
    outcome: Outcome | None = None,
    title: str = "",
    facts: Sequence[tuple[str, str]] = (),
    decode: Decode | None = None,
    latent_scale: Sequence[float] | None = None,
    episode: int = -1,
) -> RunData:
    """The newest episode of a recording (or the one at position ``episode``), ready to be drawn.

    Args:
        outcome: the verdict of whoever judged; None: nobody did.
        facts: additional rows for the table of circumstances.
        decode: latents [tokens, channels] -> uint8 RGB canvas; None: imagination is not shown as pictures.
        latent_scale: of the bundle; None: estimated from what was observed.

    Raises:
        ContractError: no recording, or one in which the arm was never armed.
    """
    session = _read(path)
    if not session.episodes:
        raise ContractError(
            f"{path}: the arm was never armed in this recording", expected="at least one episode",
            remedy="nothing moved, so there is nothing to show; the events are in the recording",
        )
    try:
        run = session.episodes[episode]
    except IndexError:
        raise ContractError(
            f"{path}: has no episode {episode}", expected=f"0..{len(session.episodes) - 1}"
        ) from None
    scale = np.array(latent_scale, np.float64) if latent_scale is not None else _spread(run.answers)
    data = _numbers(session, run, path)
    return replace(
        data,
        title=title or data.title,
        outcome=outcome or data.outcome,
        facts=[*facts, *data.facts],
        outlook_errors=_outlook_errors(run.answers, scale, session.robot.chunk_dt_ms * 500_000),
        moments=_moments(path, run, session.robot, decode, scale),
    )


def read_numbers(path: Path) -> list[RunData]:
    """Every episode of a recording, in order, without its pictures.

    Raises:
        ContractError: no recording of a session.
    """
    session = _read(path)
    return [_numbers(session, run, path) for run in session.episodes]


def _numbers(session: _Session, run: _Episode, path: Path) -> RunData:
    t0_ns = run.armed_ns
    robot = session.robot

    def seconds(at_ns: float) -> float:
        return (at_ns - t0_ns) / 1e9

    mcu_t = np.array([seconds(m["at_ns"]) for m in run.mcu])
    end_s = float(mcu_t.max()) if len(mcu_t) else 0.0
    status = run.status
    compared = [s for s in run.splices if s["surprise"] is not None]
    refused = dict(status.refused) if status is not None else {}
    if status is not None and status.mcu_refused:
        refused["by the microcontroller"] = status.mcu_refused
    return RunData(
        title=run.instruction,
        outcome=_unjudged(run),
        facts=_facts(session, run),
        axes=[AxisInfo(a.name, a.unit, a.position_min, a.position_max) for a in robot.axes],
        duration_s=max(end_s, 0.01),
        mcu_t_s=mcu_t,
        position=_matrix([m["position"] for m in run.mcu], robot.dof),
        setpoint=_matrix([m["setpoint"] for m in run.mcu], robot.dof),
        plans=_plans(run, t0_ns),
        mcu_states=_spans(mcu_t, [m["state"] for m in run.mcu], _LIVE),
        degrade=_spans(mcu_t, [DegradeState(m["degrade"]).name for m in run.mcu], ("NOMINAL",)),
        events=_events(run, t0_ns),
        latency_ms=np.array([s["latency_ns"] / 1e6 for s in run.splices]),
        step_ms=np.array([s["step_ns"] / 1e6 for s in run.splices]),
        deadline_ms=session.config["plan"]["deadline_ms"],
        surprise_t_s=np.array([seconds(s["t0_ns"]) for s in compared]),
        surprise=np.array([s["surprise"] for s in compared], dtype=np.float64),
        control_late_ms=None
        if status is None or not status.control.count
        else (status.control.p50_ms, status.control.p99_ms, status.control.max_ms),
        refused=refused,
        complete=session.complete,
        recording=str(path),
    )


def _read(path: Path) -> _Session:
    recording = Recording(path)
    robot: Embodiment | None = None
    config: dict[str, Any] = {}
    episodes: list[_Episode] = []
    before = _Episode()  # what is recorded before the first arming: the rehearsal of the policy
    cameras: tuple[str, ...] = ()
    for message in recording:
        topic, value = message.topic, message.value
        if topic == "/session":
            robot = Embodiment.model_validate(value["robot"])
            config = value["config"]
            cameras = tuple(camera.name for camera in robot.cameras)
        elif topic == "/event" and "armed" in value:
            episodes.append(_Episode(message.at_ns, value["instruction"]))
        elif not topic.startswith(_CAMERA):
            _take(episodes[-1] if episodes else before, message, cameras)
    if robot is None:
        raise ContractError(f"{path}: holds no session", remedy="the writer was killed in its first half second")
    return _Session(robot, config, episodes, recording.complete, recording.wall_minus_monotonic_ns)


def _take(episode: _Episode, message: Recorded, cameras: tuple[str, ...]) -> None:
    value = message.value
    if message.topic == "/mcu":
        episode.mcu.append(value)
    elif message.topic == "/splice":
        episode.splices.append(value)
    elif message.topic == "/event":
        episode.events.append((message.at_ns, value))
    elif message.topic == "/status":
        episode.status = Status.from_dict(value)
    elif message.topic == "/request":
        request = PlanRequest.unpack(value, cameras)
        episode.requests[request.sequence] = request
    elif message.topic == "/answer":
        what = unpack_answer(value)[2]
        if isinstance(what, PlanAnswer):
            episode.answers.append(what)


def _matrix(rows: list[list[float]], dof: int) -> F64:
    return np.array(rows, dtype=np.float64).reshape(len(rows), dof)


def _plans(run: _Episode, t0_ns: int) -> list[Plan]:
    """Splices with what the microcontroller made of each: how many first knots came too late for it."""
    answers = {value["chunk_id"]: value for _, value in run.events if value["from"] == "link"}
    out = []
    for splice in run.splices:
        q = np.array(splice["q"], dtype=np.float64)
        t_s = (splice["t0_ns"] - t0_ns + splice["dt_ns"] * np.arange(len(q))) / 1e9
        answer = answers.get(splice["chunk_id"])
        age_ms = None
        if answer is not None and answer["taken"]:
            trimmed = answer["arg"] if answer["code"] == AckCode.OK_TRIMMED.name else 0
            age_ms = (splice["t0_ns"] + trimmed * splice["dt_ns"] - splice["observed_at_ns"]) / 1e6
        out.append(Plan(t_s, q, age_ms, bool(splice["slowed"])))
    return out


def _spans(t_s: F64, names: Sequence[str], good: tuple[str, ...]) -> list[Span]:
    """Runs of equal names."""
    spans: list[Span] = []
    for at, name in zip(t_s.tolist(), names, strict=True):
        if spans and spans[-1].name == name:
            spans[-1] = Span(spans[-1].start_s, at, name, name in good)
        else:
            if spans:
                spans[-1] = Span(spans[-1].start_s, at, spans[-1].name, spans[-1].good)
            spans.append(Span(at, at, name, name in good))
    return spans


def _events(run: _Episode, t0_ns: int) -> list[Event]:
    out = []
    for at_ns, value in run.events:
        if value["from"] == "host":
            row = FAULTS.get(value["fault"])
            out.append(Event((value["at_ns"] - t0_ns) / 1e9, value["fault"], value["name"], value["text"],
                             row.remedy if row is not None else "", value["name"] in _ORDERLY))
        elif value["from"] == "mcu" and value["kind"] in _MCU_TOLD:
            known = _MCU_TOLD[value["kind"]].get(value["arg0"])
            name, cause, remedy = known or (f"number {value['arg0']}", "unknown to this host", "")
            text = f"microcontroller: {cause}" + (f" (axis {value['arg1']})" if value["arg1"] else "")
            out.append(Event((at_ns - t0_ns) / 1e9, value["arg0"], name, text, remedy, name in _ORDERLY))
        elif value["from"] == "supervisor":
            out.append(Event((at_ns - t0_ns) / 1e9, 0, f"{value['died']} ended", value["text"]))
    return out


def _unjudged(run: _Episode) -> Outcome:
    last = next((value["name"] for _, value in reversed(run.events) if value["from"] == "host"), "")
    return Outcome(None, "Not judged", f"No referee watched this run. Last event: {last or 'none'}.")


def _facts(session: _Session, run: _Episode) -> list[tuple[str, str]]:
    config, status = session.config, run.status
    wall_s = (run.armed_ns + session.wall_minus_monotonic_ns) / 1e9
    facts = [
        ("instruction", run.instruction),
        ("armed at", str(np.datetime64(int(wall_s), "s")) + " UTC"),
        ("robot", session.robot.name),
        ("bundle", Path(config["bundle"]).name),
        ("plans", f"{config['plan']['rate_hz']:g} a second asked for, deadline {config['plan']['deadline_ms']:g} ms"),
    ]
    if status is not None:
        margin = status.watchdog_margin_us
        facts += [
            ("model", f"{status.model_hash[:16]}, golden run "
             + ("equal to the last bit" if status.golden_exact else "within tolerance")),
            ("control loop", f"lateness p50 {status.control.p50_ms:.2f}, p99 {status.control.p99_ms:.2f}, "
             f"max {status.control.max_ms:.2f} ms; {status.control_missed} periods skipped"),
            ("link", f"round trip {status.rtt_ms:.2f} ms, a chunk is answered after p50 {status.wire.p50_ms:.1f}, p99 "
             f"{status.wire.p99_ms:.1f} ms, clock known to {status.clock_bound_ms:.2f} ms"),
            ("wire", f"{status.wire_out_bytes_s / 1000:.1f} kB/s out, {status.wire_in_bytes_s / 1000:.1f} kB/s in at "
             f"the end, answers after p50 {status.rtt_p50_ms:.2f}, p99 {status.rtt_p99_ms:.2f} ms, clock drift "
             f"{status.clock_drift_ppm:+.1f} ppm; {status.wire_resent} commands sent again, {status.wire_dropped} "
             f"frames dropped by the host, {status.mcu_dropped} by the microcontroller"),
            ("watchdog margin", "not reported" if margin is None else f"{margin / 1000:.1f} ms"),
            ("chunks", f"{status.chunks} used, {status.slowed} slowed by the guard, {status.trimmed} trimmed, "
             f"{status.repeated} sent again"),
        ]
        if status.bus_host is not None:
            facts.append(("CAN bus", status.bus_words()))
        if status.recorder_dropped:
            facts.append(("recorder", f"{status.recorder_dropped} messages are missing in the recording"))
        if status.os_refusals:
            facts.append(("operating system", "refused " + ", ".join(status.os_refusals)))
    return facts


def _spread(answers: Sequence[PlanAnswer]) -> F64:
    if len(answers) < 2:
        return np.ones(answers[0].latents.shape[1] if answers else 1)
    stack = np.concatenate([answer.latents for answer in answers]).astype(np.float64)
    spread: F64 = np.maximum(stack.std(0), 1e-6)
    return spread


def _rms(a: F32, b: F32, scale: F64) -> float:
    return float(np.sqrt(np.mean(((a.astype(np.float64) - b) / scale) ** 2)))


def _nearest(answers: Sequence[PlanAnswer], times: F64, at_ns: int, tolerance_ns: int) -> PlanAnswer | None:
    index = int(np.abs(times - at_ns).argmin())
    return answers[index] if abs(float(times[index]) - at_ns) <= tolerance_ns else None


def _outlook_errors(answers: Sequence[PlanAnswer], scale: F64, tolerance_ns: int) -> dict[float, tuple[float, float]]:
    """Outlook (s) -> mean (imagined, copied) error over all frames that came as foreseen."""
    if not answers:
        return {}
    times = np.array([answer.captured_at_ns for answer in answers], dtype=np.float64)
    found: dict[float, list[tuple[float, float]]] = {}
    for answer in answers:
        for for_ns, predicted in zip(answer.imagination.for_ns, answer.imagination.latents, strict=True):
            came = _nearest(answers, times, for_ns, tolerance_ns)
            if came is not None:
                ahead = round((for_ns - answer.captured_at_ns) / 1e9, 3)
                pair = (_rms(predicted, came.latents, scale), _rms(answer.latents, came.latents, scale))
                found.setdefault(ahead, []).append(pair)
    return {a: (float(np.mean([p[0] for p in v])), float(np.mean([p[1] for p in v]))) for a, v in found.items()}


def _moments(
    path: Path, run: _Episode, robot: Embodiment, decode: Decode | None, scale: F64
) -> list[Moment]:
    """Evenly spaced answers whose moment had been imagined before (or simply answers, without a decoder)."""
    answers = [answer for answer in run.answers if answer.chunk.sequence in run.requests]
    if not answers:
        return []
    tolerance_ns = robot.chunk_dt_ms * 500_000
    foreseen = [answer for answer in answers if _imagined(answers, answer, tolerance_ns)]
    best = foreseen if decode is not None and len(foreseen) >= _ENOUGH else answers
    chosen = [best[i] for i in np.unique(np.linspace(0, len(best) - 1, _MOMENTS).astype(int))]
    wanted: dict[str, set[int]] = {camera.name: set() for camera in robot.cameras}
    for answer in chosen:
        for name, index in run.requests[answer.chunk.sequence].frames.items():
            wanted[name].add(index & 0xFFFFFFFF)
    frames = _frames(path, wanted)
    out = []
    for answer in chosen:
        request = run.requests[answer.chunk.sequence]
        found = {name: frames.get((name, index & 0xFFFFFFFF)) for name, index in request.frames.items()}
        if any(frame is None for frame in found.values()):
            continue
        imagined = _imagined(answers, answer, tolerance_ns)
        out.append(
            Moment(
                at_s=(answer.captured_at_ns - run.armed_ns) / 1e9,
                camera=_canvas({n: f for n, f in found.items() if f is not None}, robot),
                seen=decode(answer.latents) if decode is not None else None,
                imagined=[(ahead, decode(latents)) for ahead, latents in imagined] if decode is not None else [],
                surprise=_rms(imagined[0][1], answer.latents, scale) if imagined else None,
            )
        )
    return out


def _imagined(answers: Sequence[PlanAnswer], now: PlanAnswer, tolerance_ns: int) -> list[tuple[float, F32]]:
    """(seconds ahead, latents) that earlier answers imagined for the moment of ``now``; shortest outlook first."""
    best: dict[float, tuple[int, F32]] = {}
    for answer in answers:
        for for_ns, latents in zip(answer.imagination.for_ns, answer.imagination.latents, strict=True):
            off = abs(for_ns - now.captured_at_ns)
            ahead = round((for_ns - answer.captured_at_ns) / 1e9, 3)
            if off <= tolerance_ns and (ahead not in best or off < best[ahead][0]):
                best[ahead] = (off, latents)
    ordered = sorted((ahead, latents) for ahead, (_, latents) in best.items())
    return ordered if len(ordered) <= _OUTLOOKS_SHOWN else [ordered[0], ordered[-1]]


def _frames(path: Path, wanted: dict[str, set[int]]) -> dict[tuple[str, int], Frame]:
    out: dict[tuple[str, int], Frame] = {}
    for message in Recording(path):
        if message.topic.startswith(_CAMERA):
            name = message.topic.removeprefix(_CAMERA)
            if message.value.index in wanted.get(name, ()):
                out[(name, message.value.index)] = message.value
    return out


def _canvas(frames: dict[str, Frame], robot: Embodiment) -> U8:
    """What the model is given: every camera's crop in its place, uint8 RGB [canvas height, canvas width, 3]."""
    canvas = np.full((3, robot.canvas_height, robot.canvas_width), -1.0, np.float32)
    for camera in robot.cameras:
        kernels.camera_to_canvas(
            frames[camera.name].image,
            (camera.crop_x, camera.crop_y, camera.crop_width, camera.crop_height),
            canvas,
            (camera.canvas_x, camera.canvas_y, camera.canvas_width, camera.canvas_height),
        )
    pixels: U8 = np.rint((canvas.transpose(1, 2, 0) + 1.0) * 127.5).clip(0, 255).astype(np.uint8)
    return pixels
