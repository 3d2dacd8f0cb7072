"""The charts of a report as inline SVG: curves, intervals and reliability, a tooltip on every mark."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from d2tune.metrics.metric import Metric
from d2tune.report.axes import (
    LEFT,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    TOP,
    WIDTH,
    chart,
    grid,
    linear_ticks,
    nice_top,
    number,
    svg,
    tick,
    y_at,
)
from d2tune.text import printable

_POINTS_WITH_TIPS = 80
_MOST_POINTS = 600
_NAME_WIDTH, _VALUE_WIDTH, _ROW = 128, 112, 30


@dataclass(frozen=True, slots=True)
class Line:
    """A line of `line_chart`.

    Attributes:
        name: What it shows.
        color: A CSS color.
        x: ``N`` values, rising.
        y: ``N`` values.
        kind: ``main``, ``thin``, or ``dots`` where each value is marked.
    """

    name: str
    color: str
    x: Sequence[float]
    y: Sequence[float]
    kind: str = "main"


@dataclass(frozen=True, slots=True)
class Mark:
    """A point of a chart that is pointed out.

    Attributes:
        x: Its place on the x axis.
        y: Its place on the y axis.
        text: What it is.
        color: A CSS color.
    """

    x: float
    y: float
    text: str
    color: str


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    top: float | None = None,
    right: float | None = None,
    marks: Sequence[Mark] = (),
    diagonal: bool = False,
    value_text: Callable[[float], str] = number,
) -> Markup:
    """Curves over a common x axis from 0.

    Args:
        lines: The curves, each with at least one value.
        x_label: What the x axis shows.
        y_label: What the y axis shows.
        top: The end of the y axis; None fits it to the values.
        right: The end of the x axis; None fits it to the values.
        marks: Points to point out.
        diagonal: Whether a dashed line from corner to corner is drawn.
        value_text: How values are written.
    """
    x_end = right or max(max(line.x) for line in lines) or 1.0
    y_end = top or nice_top(_ceiling(lines))

    def x(value: float) -> float:
        return LEFT + min(value / x_end, 1.0) * PLOT_WIDTH

    def y(value: float) -> float:
        return y_at(min(max(value / y_end, 0.0), 1.0))

    pieces = [grid(y(value), value_text(value)) for value in linear_ticks(0, y_end)]
    pieces += [tick(x(value), number(value)) for value in linear_ticks(0, x_end)]
    if diagonal:
        pieces.append(f'<line class="border" x1="{x(0)}" y1="{y(0)}" x2="{x(x_end)}" y2="{y(y_end):.1f}"/>')
    for line in sorted(lines, key=lambda one: one.kind != "thin"):
        pieces.append(_line(line, x, y, value_text))
    for mark in marks:
        pieces.append(
            f'<circle class="best" style="--c: {mark.color}" cx="{x(mark.x):.1f}" cy="{y(mark.y):.1f}" r="5.5">'
            f"<title>{_text(mark.text)}</title></circle>"
        )
    pieces.append(f'<text class="axis" x="{LEFT - 38}" y="12">{_text(y_label)}</text>')
    names = ", ".join(line.name for line in lines[:8])
    return chart(pieces, x_label, f"{y_label} over {x_label}: {names}")


def _ceiling(lines: Sequence[Line]) -> float:
    """The largest value; of losses that begin very high, what is beyond four times the median of a line is cut off."""
    highest = 1e-9
    for line in lines:
        middle = sorted(line.y)[len(line.y) // 2]
        highest = max(highest, min(max(line.y), 4 * middle) if middle > 0 else max(line.y))
    return highest


def _line(
    line: Line, x: Callable[[float], float], y: Callable[[float], float], value_text: Callable[[float], str]
) -> str:
    every = max(1, math.ceil(len(line.x) / _MOST_POINTS))
    points = list(zip(line.x, line.y, strict=True))
    kept = [*points[:-1:every], points[-1]]
    path = "M" + "L".join(f"{x(at):.1f} {y(value):.1f}" for at, value in kept)
    step = max(1, math.ceil(len(points) / _POINTS_WITH_TIPS))
    tips = [
        f'<circle class="{"dot" if line.kind == "dots" else "tip"}" cx="{x(at):.1f}" cy="{y(value):.1f}" '
        f'r="{3.5 if line.kind == "dots" else 7}"><title>{_text(line.name)}, {number(at)}: '
        f"{escape(value_text(value))}</title></circle>"
        for at, value in points[::step]
    ]
    if line.kind == "thin":
        tips = []
    title = f"<title>{_text(line.name)}</title>" if line.kind == "thin" else ""
    return f'<g style="--c: {line.color}"><path class="line {line.kind}" d="{path}">{title}</path>{"".join(tips)}</g>'


@dataclass(frozen=True, slots=True)
class IntervalRow:
    """A row of `interval_chart`.

    Attributes:
        name: What the value is of; empty repeats the row above.
        color: A CSS color.
        metric: The value with its interval.
        note: More about it, for the tooltip.
    """

    name: str
    color: str
    metric: Metric
    note: str = ""


def interval_chart(rows: Sequence[IntervalRow], *, x_label: str, name: str) -> Markup:
    """Values from 0 to 100 with their 95 % intervals, one below the other.

    Args:
        rows: At least one.
        x_label: What the values are.
        name: The text in place of the chart.
    """
    left, right = _NAME_WIDTH, WIDTH - _VALUE_WIDTH
    height = 34 + _ROW * len(rows)

    def x(value: float) -> float:
        return left + min(max(value, 0.0), 100.0) / 100 * (right - left)

    pieces = []
    for value in (0, 25, 50, 75, 100):
        pieces.append(
            f'<line class="grid" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="4" y2="{height - 30}"/>'
            f'<text class="tick middle" x="{x(value):.1f}" y="{height - 16}">{value}</text>'
        )
    for position, row in enumerate(rows):
        pieces.append(_interval(row, x, 4 + (position + 0.5) * _ROW, left, right))
    pieces.append(f'<text class="axis middle" x="{(left + right) / 2:.1f}" y="{height - 1}">{_text(x_label)}</text>')
    return svg(pieces, name, height=height)


def _interval(row: IntervalRow, x: Callable[[float], float], y: float, left: float, right: float) -> str:
    label = row.name if len(row.name) <= 20 else f"{row.name[:19]}…"
    pieces = [f'<text class="axis end" x="{left - 10}" y="{y + 4:.1f}">{_text(label)}</text>']
    metric = row.metric
    tip = f"{row.name}: {words(metric)}" + (f", {row.note}" if row.note else "")
    if metric.value is None:
        pieces.append(f'<text class="tick" x="{left + 6}" y="{y + 4:.1f}">none</text>')
    else:
        if metric.low is not None and metric.high is not None:
            pieces.append(
                f'<line class="range" x1="{x(metric.low):.1f}" x2="{max(x(metric.high), x(metric.low) + 1):.1f}" '
                f'y1="{y:.1f}" y2="{y:.1f}"/>'
            )
        pieces.append(f'<circle class="median" cx="{x(metric.value):.1f}" cy="{y:.1f}" r="5.5"/>')
        span = "" if metric.low is None else f" ({metric.low:.0f} to {metric.high:.0f})"
        pieces.append(f'<text class="axis" x="{right + 14}" y="{y + 4:.1f}">{metric.value:.1f}{span}</text>')
    return f'<g style="--c: {row.color}"><title>{_text(tip)}</title>{"".join(pieces)}</g>'


def words(metric: Metric) -> str:
    """``56.1 (95 % interval 48.2 to 63.0)``, or why there is no value."""
    if metric.value is None:
        return f"none, {metric.reason}" if metric.reason else "none"
    span = "" if metric.low is None else f" (95 % interval {metric.low:.1f} to {metric.high:.1f})"
    return f"{metric.value:.1f}{span}"


@dataclass(frozen=True, slots=True)
class ScoreBin:
    """Detections of a range of scores: their number, mean score and share of matches, both from 0 to 1."""

    count: int
    score: float
    precision: float


def reliability_chart(bins: Sequence[ScoreBin], *, color: str) -> Markup:
    """The share of right detections over their score; a dot's area grows with how many there are.

    Args:
        bins: At least one, with at least one detection each.
        color: A CSS color.
    """
    largest = max(one.count for one in bins)
    pieces = [grid(y_at(value), f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
    pieces += [tick(LEFT + value * PLOT_WIDTH, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)]
    pieces.append(
        f'<line class="border" x1="{LEFT}" y1="{y_at(0)}" x2="{LEFT + PLOT_WIDTH}" y2="{y_at(1)}"/>'
        f'<text class="tick note" x="{LEFT + 0.66 * PLOT_WIDTH:.0f}" y="{TOP + 0.24 * PLOT_HEIGHT:.0f}" '
        f'text-anchor="end">score = share of right ones</text>'
    )
    path = "M" + "L".join(f"{LEFT + one.score * PLOT_WIDTH:.1f} {y_at(one.precision):.1f}" for one in bins)
    dots = [
        f'<circle class="dot" cx="{LEFT + one.score * PLOT_WIDTH:.1f}" cy="{y_at(one.precision):.1f}" '
        f'r="{3 + 8 * math.sqrt(one.count / largest):.1f}"><title>{one.count} detections, mean score {one.score:.2f}: '
        f"{100 * one.precision:.0f} % are right</title></circle>"
        for one in bins
    ]
    pieces.append(f'<g style="--c: {color}"><path class="line thin" d="{path}"/>{"".join(dots)}</g>')
    pieces.append(f'<text class="axis" x="{LEFT - 38}" y="12">share of right detections</text>')
    return chart(pieces, "score", "Reliability: share of right detections over their score")


def _text(text: str) -> Markup:
    return escape(printable(text[:200]))
