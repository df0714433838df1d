"""Closed-loop success over held-out seeds. Every finished episode is on the disk at once: a broken run is resumed.

Lockstep: simulated time, the microcontroller's C core as a library, inference costs nothing (the published protocol).
Real time: the processes of a real session, an emulated microcontroller, and a world that waits for nobody.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

from edge_wam.app.opening import DEMO_CONFIG, open_config, open_configured_bundle
from edge_wam.app.row_file import RowFile
from edge_wam.app.statistics import wilson
from edge_wam.bundle import Bundle
from edge_wam.config import RunConfig
from edge_wam.errors import ConfigError, PolicyError
from edge_wam.sim.world import SHIPPED_TASKS, TRAIN_SEED_LIMIT, task_named
from firmware_bridge.spread import Spread

FIRST_SEED = TRAIN_SEED_LIMIT
Progress = Callable[["EpisodeRow", int], None]
"""Called with each finished episode and how many this run has finished."""


@dataclass(frozen=True, slots=True)
class EvalSettings:
    """What makes two episodes comparable. All of it is written into the results and checked on resuming.

    Attributes:
        mode: ``lockstep`` or ``realtime``.
        replan_knots: knots executed of each chunk before the next (real time: plan period in knots).
        mcu: in real time, which emulated microcontroller.
    """

    mode: str
    model_hash: str
    model: str
    replan_knots: float
    threads: int
    mcu: str = "library"


@dataclass(frozen=True)
class EvalPlan:
    """Everything that an evaluation needs, checked before the first episode."""

    settings: EvalSettings
    config: RunConfig
    bundle: Bundle
    results: Results


@dataclass(frozen=True, slots=True)
class EpisodeRow:
    """One episode.

    Attributes:
        time_s: until success, or to the end of the episode.
        jerk: mean |third difference| of the Cartesian setpoint at 100 Hz, m/s^3.
        latency_ms: of each plan: the model's wall time in lockstep, request to answer in real time.
        age_ms: of each chunk when it took effect (real time only).
        ended: why it ended.
        refused: chunks not used, by reason.
    """

    task: str
    seed: int
    success: bool
    time_s: float
    jerk: float
    latency_ms: tuple[float, ...]
    age_ms: tuple[float, ...] = ()
    ended: str = ""
    refused: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskSummary:
    """One line of the table. ``low``, ``high``: 95 % Wilson interval of the success rate."""

    task: str
    episodes: int
    successes: int
    rate: float
    low: float
    high: float
    time_s: float
    """Median time of the successful ones."""
    jerk: float
    latency_ms: Spread
    age_ms: Spread
    refused: dict[str, int]
    seeds: dict[int, bool]


class Results(RowFile[EpisodeRow]):
    """The file of finished episodes."""

    def __init__(self, path: Path, settings: EvalSettings) -> None:
        super().__init__(path, asdict(settings), _row)

    def done(self, task: str, seed: int) -> bool:
        return any(row.task == task and row.seed == seed for row in self.rows)


def _row(value: dict[str, Any]) -> EpisodeRow:
    value["latency_ms"] = tuple(value["latency_ms"])
    value["age_ms"] = tuple(value["age_ms"])
    return EpisodeRow(**value)


def default_results(settings: EvalSettings, folder: Path) -> Path:
    """The file name carries the settings, so that two kinds of runs never meet in one file."""
    mcu = "" if settings.mode == "lockstep" else f"-{settings.mcu}"
    return folder / f"{settings.model_hash[:12]}-{settings.mode}{mcu}-k{settings.replan_knots:g}.jsonl"


def check_request(tasks: Sequence[str], first_seed: int, episodes: int) -> tuple[str, ...]:
    """The tasks to run (all when none is named).

    Raises:
        ConfigError: an unknown task, no episodes, or seeds that were for training.
    """
    if first_seed < FIRST_SEED:
        raise ConfigError(
            f"seed {first_seed} belongs to the training seeds", expected=f"{FIRST_SEED} or above",
            remedy="evaluate on seeds that no training run has seen",
        )
    if episodes < 1:
        raise ConfigError(f"{episodes} episodes", expected="at least 1")
    for task in tasks:
        task_named(task)
    return tuple(tasks) or SHIPPED_TASKS


def lockstep(
    bundle: Bundle,
    results: Results,
    tasks: Sequence[str],
    *,
    episodes: int,
    first_seed: int,
    replan_knots: int,
    threads: int,
    stop: Event,
    on_row: Progress,
) -> bool:
    """Run what is missing, task by task, and add it to ``results``. False: stopped before the end.

    Raises:
        EdgeWamError, FirmwareError: the bundle, the simulator or the library cannot be used.
    """
    from edge_wam.policy import Policy  # heavy: engine
    from edge_wam.sim.lockstep import run_episode
    from edge_wam.sim.world import World
    from firmware_bridge.mcu.build import build

    library = build("lib")
    policy = Policy(bundle, threads=threads)
    policy.verify_golden()
    policy.warm_up()
    finished = 0
    for task in tasks:
        seeds = [s for s in range(first_seed, first_seed + episodes) if not results.done(task, s)]
        if not seeds:
            continue
        world = World(task, seeds[0])
        try:
            for seed in seeds:
                if stop.is_set():
                    return False
                world.reset(seed)
                try:
                    episode = run_episode(
                        policy, world, bundle.embodiment, library, replan_knots=replan_knots,
                        clock_ns=time.perf_counter_ns,
                    )
                except PolicyError as error:  # the policy refused to answer: the arm would have stopped
                    row = EpisodeRow(task, seed, False, world.time_ns / 1e9, 0.0, (), (), "POLICY_FAILED",
                                     {error.what: 1})
                else:
                    row = EpisodeRow(
                        task, seed, episode.success, episode.time_s, episode.jerk,
                        tuple(round(ns / 1e6, 3) for ns in episode.latency_ns), (),
                        "done" if episode.success else "timeout", dict(episode.refused),
                    )
                results.add(row)
                finished += 1
                on_row(row, finished)
        finally:
            world.close()
    return True


def summarise(
    rows: Sequence[EpisodeRow], tasks: Sequence[str], first_seed: int, episodes: int
) -> list[TaskSummary]:
    """One summary per task that has rows of these seeds, and ``all`` over everything when there are several."""
    rows = [row for row in rows if first_seed <= row.seed < first_seed + episodes]
    out = [_summary(task, [row for row in rows if row.task == task]) for task in tasks]
    out = [summary for summary in out if summary.episodes]
    if len(out) > 1:
        out.append(_summary("all", [row for row in rows if row.task in tasks]))
    return out


def _summary(name: str, rows: Sequence[EpisodeRow]) -> TaskSummary:
    wins = [row for row in rows if row.success]
    low, high = wilson(len(wins), len(rows))
    refused: Counter[str] = Counter()
    for row in rows:
        refused.update(row.refused)
    return TaskSummary(
        task=name,
        episodes=len(rows),
        successes=len(wins),
        rate=len(wins) / len(rows) if rows else 0.0,
        low=low,
        high=high,
        time_s=Spread.of([row.time_s for row in wins]).p50,
        jerk=sum(row.jerk for row in rows) / len(rows) if rows else 0.0,
        latency_ms=Spread.of([ms for row in rows for ms in row.latency_ms]),
        age_ms=Spread.of([ms for row in rows for ms in row.age_ms]),
        refused=dict(refused),
        seeds={} if name == "all" else {row.seed: row.success for row in sorted(rows, key=lambda r: r.seed)},
    )


def prepare(
    config_file: Path | None,
    *,
    bundle: Path | None,
    mcu: str | None,
    realtime: bool,
    replan_knots: int | None,
    out: Path | None,
) -> EvalPlan:
    """Open configuration, bundle and results.

    Raises:
        EdgeWamError: refused by name; nothing was run.
    """
    config = open_config(config_file or DEMO_CONFIG, bundle=bundle, mcu=mcu)
    opened = open_configured_bundle(config)
    dt_ms = opened.embodiment.chunk_dt_ms
    if realtime and replan_knots is not None:  # so that both kinds of evaluation can be asked for the same rhythm
        plan = config.plan.model_copy(update={"rate_hz": 1000.0 / (replan_knots * dt_ms)})
        config = config.model_copy(update={"plan": plan})
    period = 1000.0 / config.plan.rate_hz / dt_ms
    settings = EvalSettings(
        mode="realtime" if realtime else "lockstep",
        model_hash=opened.model_hash,
        model=opened.manifest.name,
        replan_knots=period if realtime else float(replan_knots or max(1, round(period))),
        threads=config.plan.threads,
        mcu=_emulated(config) if realtime else "library",
    )
    path = out or default_results(settings, config.recording_dir / "eval")
    return EvalPlan(settings, config, opened, Results(path, settings))


def _emulated(config: RunConfig) -> str:
    from firmware_bridge.host.emulator import choose_kind

    if config.link.kind != "emulator":
        raise ConfigError(
            f"link.kind is {config.link.kind!r}", expected="'emulator': scenes are simulated",
            remedy="evaluate with a configuration of the simulated arm, such as robots/demo.toml",
        )
    return choose_kind() if config.link.emulator == "auto" else config.link.emulator


def execute(
    plan: EvalPlan,
    tasks: Sequence[str],
    *,
    episodes: int,
    first_seed: int,
    keep_recordings: bool,
    on_row: Progress,
    say: Callable[[str], None],
) -> bool:
    """Run every episode that is not in the results yet. False: interrupted, the rest is still missing.

    Raises:
        EdgeWamError, FirmwareError: something cannot be used at all.
    """
    from edge_wam.app.operator import stoppable

    with closing(plan.results):
        if plan.settings.mode == "realtime":
            from edge_wam.app.eval_realtime import realtime  # the processes and the simulator

            with stoppable(say) as stop:
                return realtime(
                    plan.config, plan.results, tasks, episodes=episodes, first_seed=first_seed, stop=stop,
                    keep_recordings=keep_recordings, on_row=on_row, say=say,
                )
        with stoppable(say, "stopping after this episode") as stop:
            return lockstep(
                plan.bundle, plan.results, tasks, episodes=episodes, first_seed=first_seed,
                replan_knots=int(plan.settings.replan_knots), threads=plan.settings.threads, stop=stop, on_row=on_row,
            )


def as_dict(settings: EvalSettings, summaries: Sequence[TaskSummary], machine: str) -> dict[str, Any]:
    """Plain values for JSON."""
    return {"settings": asdict(settings), "machine": machine, "tasks": [asdict(s) for s in summaries]}
