"""Charts as inline SVG: lines over time and a histogram. Colours come from the page's style sheet (light and dark).

A chart is 400 units wide, about the width of a phone, so that its letters are readable there without zooming.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

import numpy as np

from edge_wam.contracts import F64

WIDTH = 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 8, 8, 22
_MAX_POINTS = 900  # per line: more than two a pixel on any screen is only weight


@dataclass(frozen=True)
class Line:
    """One curve. ``css``: its class in the style sheet. A gap (NaN) breaks the curve: nothing is drawn over it."""

    label: str
    css: str
    x: F64
    y: F64


@dataclass(frozen=True)
class Band:
    """A shaded stretch of time."""

    start: float
    end: float
    css: str
    label: str


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers inside [low, high], about ``wanted`` of them."""
    span = high - low
    if not span > 0 or not np.isfinite(span):
        return [low]
    step = 10.0 ** np.floor(np.log10(span / wanted))
    for factor in (1, 2, 5, 10):
        if span / (step * factor) <= wanted:
            step *= factor
            break
    first = int(np.ceil(low / step - 1e-9))
    last = int(np.floor(high / step + 1e-9))
    return [float(k * step) for k in range(first, last + 1)]


def number(value: float) -> str:
    """Short and exact enough to read: at most four digits."""
    return f"{value:.4g}" if value else "0"


def thin(x: F64, y: F64, limit: int = _MAX_POINTS) -> tuple[F64, F64]:
    """At most about ``limit`` points that keep every peak: the extremes of each bucket stay."""
    if len(x) <= limit:
        return x, y
    edges = np.linspace(0, len(x), limit // 2 + 1).astype(int)
    keep: list[int] = []
    for start, end in pairwise(edges):
        part = y[start:end]
        if np.isnan(part).all():
            keep.append(int(start))
        else:
            keep += sorted({int(start + np.nanargmin(part)), int(start + np.nanargmax(part))})
    index = np.array(keep)
    return x[index], y[index]


class _Frame:
    """Axes of one chart: data units to SVG units."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], height: int) -> None:
        self.x_low, self.x_high = x[0], x[1] if x[1] > x[0] else x[0] + 1.0
        pad = 0.05 * (y[1] - y[0]) or 0.5
        self.y_low, self.y_high = y[0] - pad, y[1] + pad
        self.height = height

    def px(self, x: float) -> float:
        return _LEFT + (x - self.x_low) / (self.x_high - self.x_low) * (WIDTH - _LEFT - _RIGHT)

    def py(self, y: float) -> float:
        return self.height - _BOTTOM - (y - self.y_low) / (self.y_high - self.y_low) * (self.height - _TOP - _BOTTOM)

    def grid(self, x_unit: str, *, whole: bool = False) -> list[str]:
        """Lines and numbers; ``whole``: only whole numbers upwards (counts)."""
        out = []
        for value in ticks(self.y_low, self.y_high):
            if whole and value != round(value):
                continue
            y = self.py(value)
            out.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            out.append(f'<text x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{number(value)}</text>')
        for value in ticks(self.x_low, self.x_high, 5):
            label = f"{number(value)}{x_unit}"
            x = min(self.px(value), WIDTH - 3.0 * len(label))  # the last label stays inside
            out.append(f'<text x="{x:.1f}" y="{self.height - 6}" text-anchor="middle">{label}</text>')
        return out

    def path(self, x: F64, y: F64) -> str:
        parts: list[str] = []
        pen = "M"
        for a, b in zip(x, y, strict=True):
            if not np.isfinite(b):
                pen = "M"
                continue
            parts.append(f"{pen}{self.px(float(a)):.1f} {self.py(float(b)):.1f}")
            pen = "L"
        return "".join(parts)


def _wrap(title: str, description: str, height: int, body: Sequence[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title><desc>{escape(description)}</desc>{''.join(body)}</svg>"
    )


def line_chart(
    title: str,
    description: str,
    lines: Sequence[Line],
    *,
    x_range: tuple[float, float],
    height: int = 150,
    bands: Sequence[Band] = (),
    marks: Sequence[float] = (),
    faint: Sequence[tuple[F64, F64]] = (),
    levels: Sequence[tuple[float, str]] = (),
    x_unit: str = " s",
) -> str:
    """Curves over time (s), or over whatever ``x_unit`` says.

    Args:
        bands: shaded stretches behind everything.
        marks: times with a small tick at the bottom.
        faint: curves (x, y) behind the lines, without a name.
        levels: horizontal lines (value, name), drawn only where the data come near them.
    """
    finite = [line.y[np.isfinite(line.y)] for line in lines]
    finite += [y[np.isfinite(y)] for _, y in faint]
    values = np.concatenate(finite) if finite else np.zeros(0)
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    frame = _Frame(x_range, (low, high), height)
    body: list[str] = []
    for band in bands:
        a, b = frame.px(max(band.start, frame.x_low)), frame.px(min(band.end, frame.x_high))
        body.append(
            f'<rect class="band {band.css}" x="{a:.1f}" y="{_TOP}" width="{max(b - a, 1):.1f}" '
            f'height="{height - _TOP - _BOTTOM}"><title>{escape(band.label)}</title></rect>'
        )
    body += frame.grid(x_unit)
    for value, name in levels:
        if frame.y_low <= value <= frame.y_high:
            y = frame.py(value)
            body.append(
                f'<line class="level" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}">'
                f"<title>{escape(name)}</title></line>"
            )
    body += [f'<path class="faint" d="{frame.path(x, y)}"/>' for x, y in faint]
    for line in lines:
        times, curve = thin(line.x, line.y)
        name = escape(line.label)
        body.append(f'<path class="{line.css}" d="{frame.path(times, curve)}"><title>{name}</title></path>')
    base = height - _BOTTOM
    for at in marks:
        if frame.x_low <= at <= frame.x_high:
            body.append(
                f'<line class="mark" x1="{frame.px(at):.1f}" x2="{frame.px(at):.1f}" y1="{base}" y2="{base - 5}"/>'
            )
    return _wrap(title, description, height, body)


def histogram(title: str, description: str, values: F64, *, limit: float | None = None, unit: str = " ms") -> str:
    """Counts over 40 equal bins from 0 to the largest value (or to the limit, if that is larger and near).

    ``limit``: a deadline, drawn as a line where it fits the picture.
    """
    height = 150
    top = float(values.max()) if len(values) else 1.0
    if limit is not None and limit < 2.5 * top:
        top = max(top, limit * 1.02)
    counts, edges = np.histogram(values, bins=40, range=(0.0, top or 1.0))
    frame = _Frame((0.0, float(edges[-1])), (0.0, float(max(counts.max(), 1))), height)
    frame.y_low = 0.0
    body = frame.grid(unit, whole=True)
    for count, a, b in zip(counts, edges[:-1], edges[1:], strict=True):
        if count:
            x, y = frame.px(float(a)), frame.py(float(count))
            body.append(
                f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{max(frame.px(float(b)) - x - 0.8, 0.8):.1f}" '
                f'height="{height - _BOTTOM - y:.1f}"><title>{number(a)} to {number(b)}{unit}: {count}</title></rect>'
            )
    if limit is not None and limit <= frame.x_high:
        x = frame.px(limit)
        body.append(
            f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{height - _BOTTOM}">'
            f"<title>deadline {number(limit)}{unit}</title></line>"
        )
    return _wrap(title, description, height, body)
