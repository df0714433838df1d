"""How the results of `edge-wam eval` are printed."""

from __future__ import annotations

from collections.abc import Sequence

from edge_wam.app.eval import EvalSettings, TaskSummary, as_dict
from edge_wam.cli.show import OUT, as_json, facts, table
from edge_wam.machine import machine

_PER_LINE = 50


def show(settings: EvalSettings, summaries: Sequence[TaskSummary], *, as_json_document: bool) -> None:
    """The table by task, then success by seed."""
    if as_json_document:
        as_json(as_dict(settings, summaries, machine()))
        return
    live = settings.mode == "realtime"
    columns = [
        ("task", "left"), ("done", "right"), ("rate", "right"), ("95 % interval", "left"), ("time s", "right"),
        ("jerk m/s³", "right"), ("latency ms min/p50/p99", "right"),
    ]
    rows = [
        [
            s.task, f"{s.successes}/{s.episodes}", f"{100 * s.rate:.0f} %",
            f"{100 * s.low:.0f} to {100 * s.high:.0f} %", f"{s.time_s:.2f}" if s.successes else "–", f"{s.jerk:.0f}",
            f"{s.latency_ms.min:.1f} / {s.latency_ms.p50:.1f} / {s.latency_ms.p99:.1f}",
        ]
        for s in summaries
    ]
    if live:
        columns.append(("age ms p50/p99", "right"))
        for row, summary in zip(rows, summaries, strict=True):
            row.append(f"{summary.age_ms.p50:.0f} / {summary.age_ms.p99:.0f}")
    table(columns, rows)
    _by_seed(summaries)
    refused = {f"{s.task}: {name}": count for s in summaries if s.task != "all" for name, count in s.refused.items()}
    facts([
        ("model", f"{settings.model} {settings.model_hash[:16]}"),
        ("protocol", f"{settings.mode}, a new chunk every {settings.replan_knots:g} knots, {settings.threads} engine "
         f"thread(s), microcontroller: {settings.mcu}"),
        ("machine", machine()),
        ("chunks refused", ", ".join(f"{name} {count}" for name, count in refused.items()) or "none"),
    ])


def _by_seed(summaries: Sequence[TaskSummary]) -> None:
    """One sign per seed: ■ done, □ not."""
    OUT.print("\nby seed (■ done, □ not)", style="bold")
    for summary in summaries:
        seeds = sorted(summary.seeds)
        for start in range(0, len(seeds), _PER_LINE):
            part = seeds[start : start + _PER_LINE]
            signs = "".join("■" if summary.seeds[seed] else "□" for seed in part)
            OUT.print(f"  {summary.task:22} {part[0]:>7} {signs} {part[-1]}", markup=False, soft_wrap=True)
    OUT.print()
