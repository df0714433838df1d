"""The report as one HTML file: no script, no other file, no network. It reads on a phone, in the dark and aloud."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources

import numpy as np

from edge_wam.contracts import F64, U8
from edge_wam.report.png import data_uri
from edge_wam.report.run import Moment, RunData, Span, percentiles
from edge_wam.report.svg import Band, Line, histogram, line_chart, thin

_FAN = 80  # chunks drawn behind the curves; more would be a grey field


def render(run: RunData) -> str:
    """The whole page."""
    style = resources.files("edge_wam.report").joinpath("style.css").read_text(encoding="utf-8")
    body = "\n".join(
        (_head(run), _tiles(run), _film(run), _axes(run), _timing(run), _surprise(run), _timeline(run), _facts(run))
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{escape(run.title)} – edge-wam</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n"
        "</html>\n"
    )


def _head(run: RunData) -> str:
    css = {True: "good", False: "bad", None: "open"}[run.outcome.done]
    sign = {True: "✔", False: "✗", None: "•"}[run.outcome.done]
    return (
        f'<header><p class="soft">edge-wam run report</p><h1>{escape(run.title)}</h1>'
        f'<div class="verdict {css}"><strong>{sign} {escape(run.outcome.headline)}</strong>'
        f"{escape(run.outcome.why)}</div></header>"
    )


def _p(values: F64) -> str:
    return "{:.0f} / {:.0f} ms".format(*np.percentile(values, [50, 99])) if len(values) else "–"


def _tiles(run: RunData) -> str:
    rate = (len(run.plans) - 1) / (run.plans[-1].t_s[0] - run.plans[0].t_s[0]) if len(run.plans) > 1 else 0.0
    tiles = [
        (f"{run.duration_s:.1f} s", "motion"),
        (f"{len(run.plans)}", f"chunks, {rate:.1f} a second"),
        (_p(run.latency_ms), "planning latency p50 / p99"),
        (_p(run.age_ms), "age at actuation p50 / p99"),
        (f"{sum(run.refused.values())}", "chunks refused"),
        (f"{len(run.faults)}", "faults"),
    ]
    if run.control_late_ms is not None:
        tiles.insert(4, ("{:.1f} / {:.1f} ms".format(*run.control_late_ms[:2]), "control lateness p50 / p99"))
    return '<ul class="tiles">' + "".join(f"<li><b>{a}</b>{escape(b)}</li>" for a, b in tiles) + "</ul>"


def _picture(image: U8, label: str, at_s: float) -> str:
    alt = escape(f"{label}, at {at_s:.2f} s", quote=True)
    height, width = image.shape[:2]
    return (
        f'<div><span>{escape(label)}</span><img alt="{alt}" width="{width}" height="{height}" '
        f'loading="lazy" src="{data_uri(image)}"></div>'
    )


def _moment(moment: Moment) -> str:
    pictures = [_picture(moment.camera, "camera", moment.at_s)]
    if moment.seen is not None:
        pictures.append(_picture(moment.seen, "as encoded", moment.at_s))
    pictures += [_picture(image, f"imagined {ahead:.2f} s before", moment.at_s) for ahead, image in moment.imagined]
    surprise = "" if moment.surprise is None else f' <span>surprise {moment.surprise:.2f}</span>'
    return f"<figure><figcaption>{moment.at_s:.2f} s{surprise}</figcaption>{''.join(pictures)}</figure>"


def _film(run: RunData) -> str:
    if not run.moments:
        return '<h2>Camera and imagination</h2><p class="soft">The recording holds no frames that can be shown.</p>'
    frames = "".join(_moment(moment) for moment in run.moments)
    return (
        "<h2>Camera and imagination</h2><p>Each column is one moment: what the model was given to see, and what it had "
        "imagined for this very moment some time before. Scroll sideways.</p>"
        f'<div class="film" tabindex="0" role="region" aria-label="camera beside imagination over time">{frames}</div>'
        + _outlook(run)
    )


def _outlook(run: RunData) -> str:
    if not run.outlook_errors:
        return ""
    rows = "".join(
        f"<tr><td>{ahead:.2f} s</td><td>{imagined:.3f}</td><td>{copied:.3f}</td>"
        f"<td>{'better than copying' if imagined < copied else 'no better than copying'}</td></tr>"
        for ahead, (imagined, copied) in sorted(run.outlook_errors.items())
    )
    return (
        '<div class="wide"><table><caption class="soft">Imagined against what came (root mean square, in units of the '
        "latents’ spread)</caption><thead><tr><th>ahead</th><th>imagined</th><th>copy of the last frame</th><th></th>"
        f"</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _stroke(css: str) -> str:
    return f'<svg viewBox="0 0 28 10" aria-hidden="true"><path class="{css}" d="M1 5L27 5"/></svg>'


def _axes(run: RunData) -> str:
    window = (run.start_s, run.end_s)
    held = [Band(span.start_s, span.end_s, "bad", span.name) for span in run.degrade if not span.good]
    every = max(1, len(run.plans) // _FAN)
    marks = [float(plan.t_s[0]) for plan in run.plans]
    charts = []
    for d, axis in enumerate(run.axes):
        unit = "" if axis.unit == "1" else f" [{axis.unit}]"
        lines = []
        if len(run.mcu_t_s):
            lines = [
                Line("planned: setpoint of the microcontroller", "plan", run.mcu_t_s, run.setpoint[:, d]),
                Line("executed: encoder", "real", run.mcu_t_s, run.position[:, d]),
            ]
        deviation = float(np.abs(run.setpoint[:, d] - run.position[:, d]).max()) if len(run.mcu_t_s) else 0.0
        apart = f"largest difference {deviation:.2g}"
        chart = line_chart(
            f"Axis {axis.name}",
            f"planned and executed position{unit}; {apart}",
            lines,
            x_range=window,
            bands=held,
            marks=marks,
            faint=[(plan.t_s, plan.q[:, d]) for plan in run.plans[::every]],
            levels=[(axis.low, "lower limit"), (axis.high, "upper limit")],
        )
        charts.append(
            f'<figure><h3>{escape(axis.name)}{unit} <span class="soft">{apart}</span></h3>{chart}</figure>'
        )
    key = (
        f'<ul class="key"><li>{_stroke("plan")}planned (the microcontroller’s setpoint)</li>'
        f'<li>{_stroke("real")}executed (encoder)</li><li>{_stroke("faint")}whole chunks, also what was replaced</li>'
        "<li>| a chunk was spliced in</li></ul>"
    )
    return (
        "<h2>Axes: planned against executed</h2>" + key + f'<div class="charts">{"".join(charts)}</div>'
        + _axis_table(run)
    )


def _axis_table(run: RunData) -> str:
    """The curves in numbers, for readers who do not see them."""
    if not len(run.mcu_t_s):
        return ""
    index = np.unique(np.linspace(0, len(run.mcu_t_s) - 1, 12).astype(int))
    head = "".join(f"<th>{escape(a.name)} planned</th><th>{escape(a.name)} executed</th>" for a in run.axes)
    rows = "".join(
        f"<tr><td>{run.mcu_t_s[i]:.2f}</td>"
        + "".join(f"<td>{run.setpoint[i, d]:.4f}</td><td>{run.position[i, d]:.4f}</td>" for d in range(len(run.axes)))
        + "</tr>"
        for i in index
    )
    return (
        '<details><summary>The same as numbers</summary><div class="wide"><table><thead><tr><th>time [s]</th>'
        f"{head}</tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _timing(run: RunData) -> str:
    charts = []
    for title, values, limit in (
        ("Planning latency: request to answer", run.latency_ms, run.deadline_ms),
        ("The model’s own time", run.step_ms, None),
        ("Age at actuation", run.age_ms, None),
    ):
        if len(values):
            text = percentiles(values)
            charts.append(
                f'<figure><h3>{title} <span class="soft">{text}</span></h3>'
                f"{histogram(title, f'p50 / p99: {text}, {len(values)} values', values, limit=limit)}</figure>"
            )
    if len(run.age_ms):
        t, age = thin(np.array([float(p.t_s[0]) for p in run.plans if p.age_ms is not None]), run.age_ms)
        charts.append(
            "<figure><h3>Age at actuation over time [ms]</h3>"
            + line_chart("Age over time", "age of the oldest input of each chunk when it took effect",
                         [Line("age", "plan", t, age)], x_range=(run.start_s, run.end_s))
            + "</figure>"
        )
    note = (
        '<p class="soft">Age at actuation: from the capture of the oldest input of a chunk to the moment at which the '
        "chunk takes effect on the microcontroller.</p>"
    )
    empty = '<p class="soft">No chunk was planned.</p>'
    return "<h2>Timing</h2>" + (note + f'<div class="charts">{"".join(charts)}</div>' if charts else empty)


def _surprise(run: RunData) -> str:
    if not len(run.surprise):
        return ""
    chart = line_chart(
        "Surprise", "difference between what was imagined and what came, in units of the latents' spread",
        [Line("surprise", "real", run.surprise_t_s, run.surprise)], x_range=(run.start_s, run.end_s),
    )
    return (
        "<h2>Surprise</h2><p>How far what came lies from what the model had imagined, in units of the latents’ spread. "
        "A model that imagines nothing but the average scene would be at about 1.</p>"
        f'<div class="charts"><figure>{chart}</figure></div>'
    )


def _lane(name: str, spans: Sequence[Span], run: RunData) -> str:
    total = max(run.duration_s, 1e-9)
    parts = []
    for span in spans:
        left = max(0.0, (span.start_s - run.start_s) / total * 100)
        right = min(100.0, (span.end_s - run.start_s) / total * 100)
        if right > left:
            css = "good" if span.good else "bad"
            label = escape(f"{span.name}, {span.start_s:.2f} to {span.end_s:.2f} s", quote=True)
            parts.append(
                f'<span class="{css}" style="left:{left:.2f}%;width:{right - left:.2f}%" title="{label}">'
                f"{escape(span.name)}</span>"
            )
    return f'<div class="lane"><span>{escape(name)}</span><div class="track">{"".join(parts)}</div></div>'


def _timeline(run: RunData) -> str:
    total = max(run.duration_s, 1e-9)
    marks = "".join(
        f'<span class="tick" style="left:{(event.at_s - run.start_s) / total * 100:.2f}%" '
        f'title="{escape(f"{event.number} {event.name} at {event.at_s:.2f} s", quote=True)}"></span>'
        for event in run.faults
        if run.start_s <= event.at_s <= run.end_s
    )
    lanes = _lane("MCU", run.mcu_states, run) + _lane("host", run.degrade, run)
    lanes += f'<div class="lane"><span>faults</span><div class="track">{marks}</div></div>'
    if run.events:
        rows = "".join(
            f"<tr><td>{e.at_s:.2f} s</td><td>{e.number}</td><td>{escape(e.name)}</td><td>{escape(e.text)}</td>"
            f"<td>{escape(e.remedy)}</td></tr>"
            for e in run.events
        )
        table = (
            '<div class="wide"><table class="events"><thead><tr><th>time</th><th>no.</th><th>event</th><th>seen</th>'
            f"<th>remedy</th></tr></thead><tbody>{rows}</tbody></table></div>"
        )
    else:
        table = ""
    states = "; ".join(f"{s.name} from {s.start_s:.2f} s" for s in run.mcu_states)
    aloud = f'<p class="soft">Microcontroller: {escape(states or "no state was recorded")}.</p>'
    none = "" if run.faults else "<p>No fault was raised.</p>"
    return f'<h2>Microcontroller and faults</h2><div class="panel">{lanes}</div>{aloud}{none}{table}'


def _facts(run: RunData) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in run.facts)
    refused = "".join(f"<tr><th>refused: {escape(n)}</th><td>{count}</td></tr>" for n, count in run.refused.items())
    cut = "" if run.complete else (
        "<p>The recording has no end: its writer was killed. What is shown reaches to the last whole block.</p>"
    )
    again = (
        f"<p class=\"soft\">Repeat every answer of the model from the recording: <code>edge-wam replay "
        f"{escape(run.recording)}</code></p>"
        if run.recording
        else ""
    )
    return f'<h2>Circumstances</h2>{cut}<div class="wide"><table>{rows}{refused}</table></div>{again}'
