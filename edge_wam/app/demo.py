"""The demo: one task, driven by the bundle through the emulated microcontroller, in real time, judged by Meta-World."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from edge_wam.app.opening import open_configured_bundle
from edge_wam.config import RunConfig
from edge_wam.errors import ConfigError
from edge_wam.faults import FAULTS, Fault
from edge_wam.report import Outcome, write_report
from edge_wam.sim.realtime import MetaWorld
from edge_wam.sim.world import task_named
from edge_wam.status import Status
from edge_wam.supervisor import EpisodeResult, Session, SessionError, SessionResult

OnStatus = Callable[[Status], None]
# A busy machine may hold a picture back just when the arm is to be armed. Nothing has moved then; a simulated arm's
# operator tries again.
_ARMING_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Played:
    """One episode in real time. ``success_s``: world time at which Meta-World was satisfied; None: it was not."""

    episode: EpisodeResult
    session: SessionResult
    success_s: float | None


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo prints at its end."""

    outcome: Outcome
    recording: Path
    report: Path
    mcu: str
    status: Status


class Referee:
    """Ends an episode at success, or when the world's clock has reached ``limit_s``; remembers which it was."""

    def __init__(self, meta: MetaWorld, limit_s: float) -> None:
        self._meta = meta
        self._limit_ns = int(limit_s * 1e9)
        self.success_s: float | None = None
        self.world_s = 0.0

    def __call__(self) -> bool:
        state = self._meta.state()
        if state is None:
            return False
        self.world_s = state.world_ns / 1e9
        if state.succeeded and state.world_ns <= self._limit_ns:
            self.success_s = self.world_s
        return self.success_s is not None or state.world_ns >= self._limit_ns


def play(
    config: RunConfig, task: str, seed: int, *, limit_s: float, on_status: OnStatus, stop: Event,
    say: Callable[[str], None] = lambda text: None,
) -> Played:  # fmt: skip
    """Start a session, run one episode, close it. The arm is disarmed when this returns, however it returns.

    Raises:
        EdgeWamError: refused, or the session could not start.
    """
    if config.link.kind != "emulator":
        raise ConfigError(
            f"link.kind is {config.link.kind!r}", expected="'emulator': the demo's arm is simulated",
            remedy="use `edge-wam run` for a real robot",
        )
    meta = MetaWorld()
    try:
        meta.command_scene(task, seed)
        instruction = meta.instruction
        config = config.model_copy(update={"instruction": instruction})
        session = Session(config, sources=meta.sources, on_status=on_status, stop=stop)
        try:
            say(session.mcu)
            referee = Referee(meta, limit_s)
            for _ in range(_ARMING_ATTEMPTS):
                # The wall clock ends it too, should the world stand still: twice the time, and time to arm.
                episode = session.run_episode(instruction, duration_s=2 * limit_s + 5.0, done=referee)
                if episode.reason != "refused" or stop.is_set():
                    break
                say(f"not armed: {episode.text}")
        finally:
            result = session.close()
    finally:
        meta.close()
    return Played(episode, result, referee.success_s)


def verdict(played: Played, limit_s: float) -> Outcome:
    """Done or not, and why, in words."""
    episode = played.episode
    if played.success_s is not None:
        return Outcome(
            True, "Task done",
            f"“{episode.instruction}”: Meta-World’s own judge was satisfied after {played.success_s:.2f} s.",
        )
    if episode.reason == "refused":
        return Outcome(False, "The arm was not armed", episode.text)
    if episode.reason == "stopped":
        return Outcome(False, "Stopped by the operator", f"After {episode.seconds:.1f} s; braked, then disarmed.")
    if episode.reason in Fault.__members__:
        row = FAULTS[Fault[episode.reason]]
        seen = next((f.text for f in episode.faults if f.name == episode.reason), "")
        seen = seen.removeprefix(f"{row.fault.value} {row.fault.name}: ")
        return Outcome(
            False, f"Stopped by {episode.reason}",
            f"{row.cause[0].upper()}{row.cause[1:]}{f' ({seen})' if seen else ''}. Remedy: {row.remedy}.",
        )
    if episode.reason in ("done", "timeout"):
        return Outcome(
            False, "Task not done",
            f"“{episode.instruction}”: {limit_s:g} s were over and Meta-World’s judge was not satisfied. "
            "The arm moved as planned; the model did not solve this scene.",
        )
    return Outcome(False, "The session was lost", f"It ended with: {episode.reason}.")


def demo(
    config: RunConfig, task: str, seed: int, *, limit_s: float, on_status: OnStatus, stop: Event,
    report: Path | None = None, say: Callable[[str], None] = lambda text: None,
) -> DemoResult:  # fmt: skip
    """Play one episode and write its report.

    Raises:
        EdgeWamError: refused, or the session could not start.
    """
    task_named(task)
    bundle = open_configured_bundle(config)
    try:
        played = play(config, task, seed, limit_s=limit_s, on_status=on_status, stop=stop, say=say)
    except SessionError as error:
        if stop.is_set():
            raise SessionError("stopped by the operator before the arm moved") from error
        raise
    outcome = verdict(played, limit_s)
    recording = played.session.recording
    out = report or recording.with_suffix(".html")
    if played.episode.reason != "refused":
        say("writing the report ...")
        write_report(
            recording, out, bundle=bundle, outcome=outcome, title=f"{task}, seed {seed}",
            facts=[("microcontroller", played.session.mcu), ("scene", f"Meta-World {task}, seed {seed}")],
        )
    return DemoResult(outcome, recording, out, played.session.mcu, played.session.status)
