"""Scenario files on a target: runs them, judges them, says what could not be run. Never skips in silence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_wam.embodiment import Embodiment, load_embodiment
from edge_wam.errors import ConfigError
from edge_wam.hil.evidence import Evidence
from edge_wam.hil.injections import Target
from edge_wam.hil.judge import Verdict, judge, void
from edge_wam.hil.lockstep import LockstepBench
from edge_wam.hil.realtime import Ports, RealTimeBench
from edge_wam.hil.scenario import Scenario, load_scenario
from firmware_bridge.errors import FirmwareError

ATTEMPTS = 4
"""Of a run in real time that the PC itself has spoiled."""


@dataclass(frozen=True)
class Outcome:
    """One run.

    Attributes:
        word: "good", "bad", "void" (the PC spoiled every attempt) or "not run".
        why: for the last two, with the bench action by hand where there is one.
    """

    scenario: Scenario
    path: Path
    target: Target
    run: int
    word: str
    why: str = ""
    verdict: Verdict | None = None
    evidence: Evidence | None = None

    def as_dict(self) -> dict[str, object]:
        """For machines."""
        out: dict[str, object] = {
            "scenario": self.scenario.name, "file": str(self.path), "target": self.target, "run": self.run,
            "outcome": self.word, "why": self.why,
        }  # fmt: skip
        if self.verdict is not None and self.evidence is not None:
            out["bench"] = self.evidence.bench
            out["reactions_ms"] = self.verdict.reactions
            out["measured_ms"] = self.evidence.measured_ms
            out["stalls_ms"] = list(self.evidence.stalls_ms)
            out["notes"] = self.evidence.notes
            out["findings"] = [
                {"check": one.check, "good": one.good, "seen": one.seen} for one in self.verdict.findings
            ]
        return out


def scenario_files(named: Sequence[Path]) -> list[Path]:
    """Files as named; of a folder all its scenarios.

    Raises:
        ConfigError: nothing there.
    """
    out: list[Path] = []
    for path in named:
        found = sorted(path.glob("*.toml")) if path.is_dir() else [path]
        if not found:
            raise ConfigError(f"{path}: no scenario file in it", remedy="name a .toml file or a folder of them")
        out += found
    return out


def play(
    path: Path, target: Target, run: int, *, ports: Ports | None = None, core: int | None = None,
    say: Callable[[str], None] = lambda words: None,
) -> Outcome:  # fmt: skip
    """One run of one file.

    Raises:
        ConfigError: the file is refused.
    """
    scenario = load_scenario(path)
    robot: Embodiment = load_embodiment(scenario.robot)
    if target not in scenario.targets:
        return Outcome(scenario, path, target, run, "not run", f"made for {', '.join(scenario.targets)}")
    if impossible := scenario.impossible(target):
        return Outcome(scenario, path, target, run, "not run", "by hand: " + "; ".join(impossible))
    why = ""
    for attempt in range(1 if target in ("lockstep", "board") else ATTEMPTS):
        try:
            if target == "lockstep":
                evidence = LockstepBench(scenario, seed=run).run()
            else:
                evidence = RealTimeBench(scenario, target, seed=run + 1000 * attempt, ports=ports, core=core).run()
        except FirmwareError as error:
            if target in ("lockstep", "board"):
                return Outcome(scenario, path, target, run, "bad", error.what)
            why = error.what
        else:
            why = void(scenario, evidence)
            if not why:
                verdict = judge(scenario, robot, evidence)
                return Outcome(scenario, path, target, run, "good" if verdict.good else "bad", "", verdict, evidence)
        say(f"{scenario.name}: attempt {attempt + 1} is void: {why}")
    return Outcome(scenario, path, target, run, "void", why)
