"""The figures are right, an interrupted evaluation goes on, and results of different settings never mix."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_wam.app.eval import EpisodeRow, EvalSettings, Results, check_request, default_results, summarise
from edge_wam.app.statistics import jerk, wilson
from edge_wam.errors import ConfigError, ContractError
from firmware_bridge.spread import Spread
from tests.cli.command import edge_wam, here

SETTINGS = EvalSettings("lockstep", "ab" * 32, "tiny", 2.0, 1)


def row(task: str, seed: int, success: bool) -> EpisodeRow:
    return EpisodeRow(task, seed, success, 3.0, 100.0, (1.0, 2.0, 9.0), (), "done" if success else "timeout", {"X": 1})


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(40, 50, 0.66961, 0.88756), (0, 10, 0.0, 0.27753), (10, 10, 0.72247, 1.0), (1, 20, 0.00888, 0.23613)],
)
def test_wilson_gives_the_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(0, 400), st.integers(0, 400))
def test_wilson_holds_the_rate_and_narrows(a: int, b: int) -> None:
    successes, trials = min(a, b), max(a, b)
    low, high = wilson(successes, trials)
    assert 0.0 <= low <= high <= 1.0
    if trials:
        assert low <= successes / trials <= high
        tighter = wilson(10 * successes, 10 * trials)
        assert tighter[1] - tighter[0] < high - low


def test_jerk_of_known_motions() -> None:
    t = np.arange(200) * 0.01
    line = np.stack([0.3 * t, -0.1 * t, 0 * t], axis=1)
    assert jerk(t, line) == pytest.approx(0.0, abs=1e-6)
    cubic = np.stack([t**3 / 6.0] * 3, axis=1)
    assert jerk(t, cubic) == pytest.approx(1.0, rel=1e-6)
    lost = np.delete(np.arange(200), [50, 51, 120])  # a lost report is no movement
    assert jerk(t[lost], cubic[lost]) == pytest.approx(1.0, rel=1e-6)
    assert jerk(t[:3], cubic[:3]) == 0.0


def test_results_survive_a_kill_at_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    results = Results(path, SETTINGS)
    for seed in range(3):
        results.add(row("reach", seed, seed != 1))
    results.close()
    whole = path.read_bytes()
    for cut in {*range(0, len(whole), 11), *(at + k for at in range(len(whole)) if whole[at] == 10 for k in (0, 1))}:
        path.write_bytes(whole[:cut])
        again = Results(path, SETTINGS)
        kept = len(again.rows)
        assert kept == max(0, whole[:cut].count(b"\n") - 1)
        assert all(again.rows[k] == results.rows[k] for k in range(kept))
        again.add(row("reach", 7, True))
        again.close()
        with closing(Results(path, SETTINGS)) as third:
            assert len(third.rows) == kept + 1 and third.rows[-1].seed == 7


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    Results(path, SETTINGS).close()
    changes: list[dict[str, Any]] = [{"model_hash": "cd" * 32}, {"mode": "realtime"}, {"threads": 2}]
    for change in changes:
        with pytest.raises(ContractError, match=next(iter(change))):
            Results(path, replace(SETTINGS, **change))
    other = replace(SETTINGS, replan_knots=4.0)
    with pytest.raises(ContractError, match=r"replan_knots = 2\.0, this run has 4\.0"):
        Results(path, other)
    path.write_text("not json\n")
    with pytest.raises(ContractError, match="no results file"):
        Results(path, SETTINGS)
    assert default_results(SETTINGS, tmp_path) != default_results(other, tmp_path)


def test_summary_counts_only_what_was_asked_for() -> None:
    rows = [row("reach", 100_000 + k, k % 2 == 0) for k in range(10)] + [row("door-close", 100_000, True)]
    reach, door, everything = summarise(rows, ["reach", "door-close"], 100_000, 6)
    assert (reach.episodes, reach.successes, reach.rate) == (6, 3, 0.5) and (reach.low, reach.high) == wilson(3, 6)
    assert reach.seeds == {100_000 + k: k % 2 == 0 for k in range(6)} and reach.refused == {"X": 6}
    assert reach.latency_ms == Spread(18, 1.0, 2.0, 9.0, 9.0) and reach.time_s == 3.0
    assert door.rate == 1.0 and everything.task == "all" and everything.episodes == 7
    assert len(summarise(rows, ["reach"], 100_000, 6)) == 1


def test_training_seeds_are_never_evaluated() -> None:
    assert check_request([], 100_000, 1)[0] == "reach" and len(check_request([], 100_000, 1)) == 6
    with pytest.raises(ConfigError, match="training seeds"):
        check_request([], 99_999, 1)
    with pytest.raises(ConfigError, match="did you mean"):
        check_request(["reahc"], 100_000, 1)


def test_lockstep_runs_resumes_and_prints_both_ways(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.jsonl"
    ask = ("eval", "--config", config, "--task", "reach", "--episodes")
    first = here(*ask, 1, "--out", out, "--json")
    assert first.code == 0, first
    parsed = json.loads(first.out)
    assert parsed["settings"]["mode"] == "lockstep" and parsed["settings"]["replan_knots"] == 2.0
    (task,) = parsed["tasks"]
    assert task["episodes"] == 1 and task["latency_ms"]["count"] > 10 and task["jerk"] > 0
    table = here(*ask, 1, "--out", out, "--require", 1.0)  # nothing is left to run
    assert table.code == (0 if task["rate"] == 1.0 else 1) and "95 % interval" in table.out and "100000" in table.out
    assert "1 episodes there" in table.err
    assert len(out.read_text().splitlines()) == 2
    mixed = here(*ask, 1, "--out", out, "--replan-knots", 4)
    assert mixed.code == 2 and "replan_knots" in mixed.err


def test_realtime_goes_through_every_process_and_keeps_only_the_figures(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "live.jsonl"
    ran = edge_wam("eval", "--config", config, "--task", "reach", "--episodes", 1, "--realtime", "--out", out, "--json")
    assert ran.code == 0, ran
    parsed = json.loads(ran.out)
    assert parsed["settings"]["mode"] == "realtime" and parsed["settings"]["mcu"] == "host"
    (task,) = parsed["tasks"]
    assert task["episodes"] == 1 and task["latency_ms"]["count"] > 0
    assert task["age_ms"]["min"] > 20.0  # nothing acts sooner than a picture, a model and a wire allow
    assert json.loads(out.read_text().splitlines()[1])["ended"]
    assert list((tmp_path / "runs").rglob("*.mcap")) == []
