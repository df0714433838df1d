"""One HTML file of a series of runs: what was asked, what was seen, and the arm around the moment of the fault."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np

from edge_wam.contracts import F64
from edge_wam.hil.evidence import Evidence
from edge_wam.hil.runner import Outcome
from edge_wam.report.svg import Band, Line, line_chart, thin
from firmware_bridge.host.messages import EventKind, McuState, StopCause

_SIGN = {"good": "✔", "bad": "✗", "void": "•", "not run": "–"}
_CSS = {"good": "good", "bad": "bad", "void": "open", "not run": "open"}
_BEFORE_S, _AFTER_S = 0.4, 0.8
"""Of the fault, in the close-up."""


def render(outcomes: Sequence[Outcome], title: str) -> str:
    """The whole page."""
    style = resources.files("edge_wam.report").joinpath("style.css").read_text(encoding="utf-8")
    count = {word: sum(one.word == word for one in outcomes) for word in _SIGN}
    verdict = "good" if count["good"] == len(outcomes) else "bad" if count["bad"] else "open"
    headline = ", ".join(f"{number} {word}" for word, number in count.items() if number)
    parts = [
        f'<header><p class="soft">edge-wam hardware in the loop</p><h1>{escape(title)}</h1>'
        f'<div class="verdict {verdict}"><strong>{escape(headline)}</strong></div></header>',
        _summary(outcomes),
        *(_section(one) for one in outcomes),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)} – edge-wam</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(parts) + "\n</body>\n</html>\n"
    )  # fmt: skip


def _anchor(one: Outcome) -> str:
    return escape(f"{one.path.stem}-{one.target}-{one.run}", quote=True)


def _summary(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for one in outcomes:
        times = one.verdict.reactions if one.verdict is not None else {}
        shown = ", ".join(f"{name} {value:.1f} ms" for name, value in times.items()) or escape(one.why)
        rows.append(
            f"<tr><td>{_SIGN[one.word]} {one.word}</td>"
            f'<td><a href="#{_anchor(one)}">{escape(one.scenario.name)}</a></td>'
            f"<td>{escape(one.target)}</td><td>{shown}</td></tr>"
        )
    return (
        '<div class="wide"><table><thead><tr><th></th><th>scenario</th><th>target</th>'
        f"<th>reaction, or why not</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _section(one: Outcome) -> str:
    head = (
        f'<h2 id="{_anchor(one)}">{escape(one.scenario.name)} <span class="soft">{escape(one.target)}, run {one.run}'
        f'</span></h2><p>{escape(one.scenario.about)}</p>'
    )
    if one.verdict is None or one.evidence is None:
        return head + f'<div class="verdict {_CSS[one.word]}"><strong>{one.word}</strong>{escape(one.why)}</div>'
    findings = "".join(
        f"<tr><td>{'✔' if f.good else '✗'}</td><td>{escape(f.check)}</td><td>{escape(f.seen)}</td></tr>"
        for f in one.verdict.findings
    )
    return (
        head + charts(one)
        + '<div class="wide"><table><thead><tr><th></th><th>asked</th><th>seen</th></tr></thead>'
        f"<tbody>{findings}</tbody></table></div>"
        f'<p class="soft">{escape(one.evidence.bench)}</p>'
    )  # fmt: skip


def fault_s(evidence: Evidence) -> float | None:
    """When the first injection was made, seconds since the motion began; else the first stop."""
    at = [mark.at_us for mark in evidence.marks if mark.boot == 0]
    if not at:
        at = [e.at_us for e in evidence.boots[0].events if e.kind in (EventKind.STOP, EventKind.FAULT)]
    return (min(at) - evidence.begin_us) / 1e6 if at else None


def charts(one: Outcome) -> str:
    """The joint that was broken, or else moves most: as ordered and as it was; whole and close up, with its speed."""
    evidence = one.evidence
    assert evidence is not None
    boot, orders = evidence.boots[0], evidence.orders[0]
    if not boot.states or not len(orders.tick):
        return '<p class="soft">Nothing was ordered.</p>'
    broken = [i.joint for i in one.scenario.inject if i.joint is not None]
    axis = broken[0] if broken else int(np.ptp(orders.setpoint, axis=0).argmax())
    zero = boot.us_of(0) - evidence.begin_us
    t = (orders.tick * 1000 + zero) / 1e6
    joint_t = (evidence.joint_tick * 1000 + zero) / 1e6
    order = np.where(orders.enabled, orders.setpoint[:, axis], np.nan)
    end = max(float(t[-1]), one.scenario.duration_ms / 1e3 if len(evidence.boots) == 1 else 0.0, float(joint_t[-1]))
    at = fault_s(evidence)
    windows = [("whole run", (-0.1, end))]
    if at is not None:
        windows.append(("around the fault", (at - _BEFORE_S, min(end, at + _AFTER_S))))
    bands = _bands(evidence, end)
    marks = [at] if at is not None else []
    figures = []
    for name, window in windows:
        figures.append(_figure(
            f"joint {axis}, {name} [rad]",
            line_chart(f"joint {axis}", "ordered and real position", [
                _cut("real", "real", joint_t, evidence.joint[:, axis], window),
                _cut("ordered", "plan", t, order, window),
            ], x_range=window, bands=bands, marks=marks),
        ))  # fmt: skip
    if at is not None:
        speed_t = t[1:]
        speed = np.diff(order) / np.maximum(np.diff(orders.tick), 1) * 1e3
        window = windows[1][1]
        figures.append(_figure(
            f"joint {axis}, ordered speed [rad/s]",
            line_chart("speed", "ordered speed", [_cut("ordered", "plan", speed_t, speed, window)],
                       x_range=window, bands=bands, marks=marks),
        ))  # fmt: skip
    return (
        f'<div class="charts">{"".join(figures)}</div><ul class="key">'
        '<li><svg viewBox="0 0 28 10"><path class="plan" d="M1 5L27 5"/></svg>ordered while enabled</li>'
        '<li><svg viewBox="0 0 28 10"><path class="real" d="M1 5L27 5"/></svg>real</li>'
        "<li>shaded: stopping or stopped; red: latched; the tick below: the fault</li></ul>"
        + _events(evidence)
    )  # fmt: skip


def _cut(label: str, css: str, x: F64, y: F64, window: tuple[float, float]) -> Line:
    keep = (x >= window[0]) & (x <= window[1])
    return Line(label, css, *thin(x[keep], y[keep]))


def _figure(caption: str, chart: str) -> str:
    return f"<figure><h3>{escape(caption)}</h3>{chart}</figure>"


def _bands(evidence: Evidence, end: float) -> list[Band]:
    """The states in which the MCU does not follow a plan."""
    changes = [
        ((event.at_us - evidence.begin_us) / 1e6, event.arg1)
        for event in sorted(evidence.boots[0].events, key=lambda event: event.event_id)
        if event.kind == EventKind.STATE
    ]
    out = []
    for index, (start, state) in enumerate(changes):
        until = changes[index + 1][0] if index + 1 < len(changes) else end
        name = McuState(state).name
        if start > -0.01 and name in ("STARVED", "STOP", "DISARMED", "ESTOP", "FAULT"):
            out.append(Band(start, until, "bad" if name in ("ESTOP", "FAULT") else "", name))
    return out


def _events(evidence: Evidence) -> str:
    rows = []
    for number, boot in enumerate(evidence.boots):
        for event in sorted(boot.events, key=lambda event: event.event_id):
            at = (event.at_us - (evidence.begin_us if number == 0 else 0)) / 1e3
            words = f"arg {event.arg0}, {event.arg1}"
            if event.kind == EventKind.STATE:
                words = f"{McuState(event.arg0).name} → {McuState(event.arg1).name}"
            elif event.kind == EventKind.STOP:
                words = StopCause(event.arg0).name
            rows.append(
                f"<tr><td>{number + 1}</td><td>{at:.1f} ms</td><td>{EventKind(event.kind).name}</td>"
                f"<td>{escape(words)}</td></tr>"
            )
    for note in evidence.notes:
        rows.append(f"<tr><td></td><td></td><td>note</td><td>{escape(note)}</td></tr>")
    return (
        '<details><summary>events of the microcontroller, by boot</summary><div class="wide"><table class="events">'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )
