"""The evaluation in real time: all processes of a session, an emulated microcontroller, a world that never waits.

The evaluation is its own operator: after a fault, and only while the arm is disarmed, it restarts the policy and
acknowledges what the microcontroller latched. The episode in which the fault happened counts as it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from edge_wam.app.demo import Referee
from edge_wam.app.eval import EpisodeRow, Progress, Results
from edge_wam.app.statistics import jerk
from edge_wam.config import RunConfig
from edge_wam.report.gather import read_numbers
from edge_wam.report.run import RunData
from edge_wam.sim.realtime import MetaWorld
from edge_wam.sim.world import MAX_EPISODE_NS
from edge_wam.supervisor import Session, SessionError

_EPISODES_PER_SESSION = 5  # what a killed evaluation has to do again at most
_BROKEN_SESSIONS = 3  # in a row, without one finished episode: it will not get better
_ORDERLY = ("done", "timeout")


@dataclass(frozen=True, slots=True)
class _Ended:
    seed: int
    success_s: float | None
    world_s: float
    reason: str
    refused: dict[str, int]


def realtime(
    config: RunConfig,
    results: Results,
    tasks: Sequence[str],
    *,
    episodes: int,
    first_seed: int,
    stop: Event,
    keep_recordings: bool,
    on_row: Progress,
    say: Callable[[str], None],
) -> bool:
    """Run what is missing and add it to ``results``. False: stopped before the end.

    Raises:
        EdgeWamError: sessions do not start, or break one after the other.
    """
    config = config.model_copy(update={"recording_dir": config.recording_dir / "eval"})
    finished = 0
    for task in tasks:
        broken = 0
        while seeds := [s for s in range(first_seed, first_seed + episodes) if not results.done(task, s)]:
            try:
                ended, recording = _session(config, task, seeds[:_EPISODES_PER_SESSION], stop)
            except SessionError as error:
                if stop.is_set():
                    return False
                broken += 1
                say(f"session broken ({broken} of {_BROKEN_SESSIONS}): {error.what}")
                if broken == _BROKEN_SESSIONS:
                    raise
                continue
            armed = [e for e in ended if e.reason != "refused"]
            for one, data in zip(armed, read_numbers(recording), strict=False):
                row = _row(task, one, data)
                results.add(row)
                finished += 1
                on_row(row, finished)
            for one in (e for e in ended if e.reason == "refused"):
                say(f"{task} {one.seed}: was not armed; it is tried again")
            if not keep_recordings:
                for ending in (".mcap", ".log"):
                    recording.with_suffix(ending).unlink(missing_ok=True)
            if stop.is_set():
                return False
            broken = 0 if armed else broken + 1
            if broken == _BROKEN_SESSIONS:
                raise SessionError(f"{task}: the arm cannot be armed", remedy="run edge-wam demo and read its verdict")
    return True


def _session(config: RunConfig, task: str, seeds: Sequence[int], stop: Event) -> tuple[list[_Ended], Path]:
    """Play ``seeds`` one after the other; an episode that the operator stopped is left out."""
    ended: list[_Ended] = []
    with closing(MetaWorld()) as meta:
        meta.command_scene(task, seeds[0])
        config = config.model_copy(update={"instruction": meta.instruction})
        session = Session(config, sources=meta.sources, stop=stop)
        try:
            for seed in seeds:
                if seed != seeds[0]:
                    meta.set_scene(task, seed)
                referee = Referee(meta, MAX_EPISODE_NS / 1e9)
                before = dict(session.status.refused)
                result = session.run_episode(meta.instruction, duration_s=30.0, done=referee)
                if stop.is_set() and referee.success_s is None:
                    break
                refused = {k: v - before.get(k, 0) for k, v in session.status.refused.items() if v > before.get(k, 0)}
                over = "done" if referee.success_s is not None else "timeout"
                reason = over if result.reason == "done" else result.reason
                ended.append(_Ended(seed, referee.success_s, referee.world_s, reason, refused))
                if result.reason not in _ORDERLY and not _recovered(session):
                    break
        except (SessionError, TimeoutError):
            if not ended:
                raise
        finally:
            recording = session.close().recording
    return ended, recording


def _recovered(session: Session) -> bool:
    """What an operator does after a fault, while the arm is disarmed. False: this session cannot go on."""
    try:
        if not session.status.policy_ready:
            session.restart_policy()
        session.acknowledge()
    except SessionError:
        return False
    return True


def _row(task: str, ended: _Ended, data: RunData) -> EpisodeRow:
    success = ended.success_s is not None
    return EpisodeRow(
        task=task,
        seed=ended.seed,
        success=success,
        time_s=ended.success_s if ended.success_s is not None else ended.world_s,
        jerk=jerk(data.mcu_t_s, data.setpoint[:, :3]),
        latency_ms=tuple(round(float(ms), 3) for ms in data.latency_ms),
        age_ms=tuple(round(float(ms), 3) for ms in data.age_ms),
        ended="done" if success else ended.reason,
        refused=ended.refused,
    )
