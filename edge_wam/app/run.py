"""Run the configured robot: real with its own cameras, or simulated behind an emulated microcontroller."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import cast

from edge_wam.app.demo import DemoResult, OnStatus
from edge_wam.app.opening import open_configured_bundle
from edge_wam.config import RunConfig
from edge_wam.errors import ConfigError
from edge_wam.faults import FAULTS, Fault
from edge_wam.process import resolve
from edge_wam.report import Outcome, write_report
from edge_wam.sim.realtime import MetaWorld
from edge_wam.supervisor import EpisodeResult, Session, SessionResult, Sources


def confirm(config: RunConfig, instruction: str) -> bool:
    """Ask the operator to arm. Without a terminal nobody can answer, so nothing is armed."""
    if not sys.stdin.isatty():
        return False
    where = "the simulated arm" if config.link.kind == "emulator" else f"the robot at {config.link.address}"
    sys.stderr.write(
        f"This will move {where}: “{instruction}”.\n"
        "Is everybody out of its reach, and the emergency stop in yours? Type  arm  to arm it: "
    )
    sys.stderr.flush()
    return sys.stdin.readline().strip() == "arm"


def _parse_scene(scene: str) -> tuple[str, int]:
    task, _, seed = scene.partition(":")
    if not seed.isdigit():
        raise ConfigError(f"scene {scene!r}", expected="TASK:SEED, for example drawer-open:100000")
    return task, int(seed)


def run_robot(
    config: RunConfig, instruction: str, *, seconds: float, sources: str | None, scene: str, on_status: OnStatus,
    stop: Event, report: Path | None = None, say: Callable[[str], None] = lambda text: None,
) -> DemoResult:  # fmt: skip
    """One episode on the configured robot; the operator has said that it may be armed.

    Raises:
        EdgeWamError: refused, or the session could not start.
    """
    bundle = open_configured_bundle(config)
    config = config.model_copy(update={"instruction": instruction})
    if config.link.kind == "emulator" and sources is None:
        with closing(MetaWorld()) as meta:
            meta.command_scene(*_parse_scene(scene))
            episode, session = _session(config, meta.sources, instruction, seconds, on_status, stop, say)
    elif sources is None:
        raise ConfigError(
            f"nothing makes the cameras of {config.robot.name}", expected="--sources MODULE:FUNCTION",
            remedy="write a function that returns one camera process (edge_wam.cameras.capture) per camera",
        )
    else:
        make = cast(Sources, resolve(sources))
        episode, session = _session(config, make, instruction, seconds, on_status, stop, say)
    outcome = verdict(episode)
    out = report or session.recording.with_suffix(".html")
    if episode.reason != "refused":
        write_report(session.recording, out, bundle=bundle, outcome=outcome, title=instruction,
                     facts=[("microcontroller", session.mcu)])
    return DemoResult(outcome, session.recording, out, session.mcu, session.status)


def _session(
    config: RunConfig, sources: Sources, instruction: str, seconds: float, on_status: OnStatus, stop: Event,
    say: Callable[[str], None],
) -> tuple[EpisodeResult, SessionResult]:  # fmt: skip
    session = Session(config, sources=sources, on_status=on_status, stop=stop)
    try:
        say(session.mcu)
        episode = session.run_episode(instruction, duration_s=seconds)
    finally:
        result = session.close()
    return episode, result


def verdict(episode: EpisodeResult) -> Outcome:
    """Nobody judges the task here; what can be said is whether the run ended as it was asked to."""
    if episode.reason in ("timeout", "stopped"):
        how = "the time was up" if episode.reason == "timeout" else "the operator stopped it"
        return Outcome(None, "Ended as asked", f"After {episode.seconds:.1f} s {how}; braked, then disarmed.")
    if episode.reason == "refused":
        return Outcome(False, "The arm was not armed", episode.text)
    row = FAULTS.get(Fault.__members__.get(episode.reason, -1))
    why = f"{row.cause}. Remedy: {row.remedy}." if row is not None else "See the faults in the report."
    return Outcome(False, f"Stopped by {episode.reason}", why)
