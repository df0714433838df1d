"""How the result of `edge-wam replay` is printed."""

from __future__ import annotations

from dataclasses import asdict

from edge_wam.app.replay import ReplayReport
from edge_wam.cli.show import OUT, as_json, table


def show(report: ReplayReport, *, as_json_document: bool) -> None:
    """What is identical, and field by field what is not."""
    if as_json_document:
        as_json({**asdict(report), "exact": report.exact})
        return
    if report.exact:
        OUT.print(f"[green]✔[/] {report.identical} answers, identical to the last bit")
    elif report.compared == 0:
        OUT.print("[red]✗[/] nothing could be compared")
    else:
        OUT.print(f"[red]✗[/] {report.compared - report.identical} of {report.compared} answers differ")
        table(
            [("field", "left"), ("answers", "right"), ("first at sequence", "right"), ("index", "left"),
             ("largest difference", "right")],
            [
                (name, str(d.answers), str(d.first_sequence), ",".join(map(str, d.first_index)) or "–",
                 f"{d.largest:.6g}")
                for name, d in report.differences.items()
            ],
        )
    for text in report.refused:
        OUT.print(f"  refused now: {text}", markup=False)
    for reason, count in report.skipped.items():
        OUT.print(f"  {count} not compared: {reason}", markup=False, style="dim")
    if not report.complete:
        OUT.print("  the recording has no end: its writer was killed", style="dim")
