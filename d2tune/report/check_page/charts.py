"""Charts as inline SVG: labeled axes, a tooltip on every mark, colors from the page's style sheet."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from d2tune.errors import printable
from d2tune.report.axes import (
    BOTTOM,
    HEIGHT,
    LEFT,
    PLOT_HEIGHT,
    PLOT_WIDTH,
    RIGHT,
    TOP,
    WIDTH,
    chart,
    grid,
    linear_ticks,
    nice_step,
    nice_top,
    number,
    svg,
    tick,
    y_at,
)

_DECADE = 8.0


@dataclass(frozen=True, slots=True)
class Line:
    """A dashed vertical line with a label at its top.

    Attributes:
        at: Its value on the x axis.
        text: The label.
    """

    at: float
    text: str


def histogram(
    values: NDArray[np.float64],
    *,
    x_label: str,
    things: str,
    unit: str = "",
    lines: Sequence[Line] = (),
    tick_text: Callable[[float], str] = number,
) -> Markup:
    """The distribution of values; the x axis is logarithmic where they span most of a decade.

    Args:
        values: Positive numbers, ``(V,)``, at least one.
        x_label: What the x axis shows, with its unit.
        things: What is counted, for the y axis and the tooltips.
        unit: Follows the numbers in the tooltips.
        lines: Limits to draw, where they lie on the axis.
        tick_text: How numbers on the x axis are written.
    """
    values = np.maximum(values, 1e-6)
    low, high = float(values.min()), float(values.max())
    is_log = high > _DECADE * low
    edges = _log_edges(low, high) if is_log else _linear_edges(low, high)
    counts, _ = np.histogram(values, edges)
    counts[-1] += int(np.count_nonzero(values > edges[-1]))
    scale = math.log if is_log else float
    start, stop = scale(edges[0]), scale(edges[-1])

    def x(value: float) -> float:
        return LEFT + (scale(value) - start) / (stop - start) * PLOT_WIDTH

    top, frame = _counts_axis(int(counts.max()), things)
    marks = []
    for count, left, right in zip(counts.tolist(), edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if count:
            tip = f"{tick_text(left)} to {tick_text(right)}{unit}: {_counted(count, things)} ({_share(count, values)})"
            marks.append(_bar(x(left), x(right), count / top, tip))
    inner = [line for line in lines if edges[0] < line.at < edges[-1]]
    ticks = _log_ticks(edges[0], edges[-1]) if is_log else linear_ticks(edges[0], edges[-1])
    axis = [tick(x(value), tick_text(value)) for value in ticks]
    borders = [_border(x(line.at), line.text) for line in inner]
    suffix = ", logarithmic" if is_log else ""
    return chart([frame, *marks, *axis, *borders], f"{x_label}{suffix}", f"Histogram: {things} by {x_label}")


def count_bars(values: NDArray[np.int64], *, x_label: str, things: str) -> Markup:
    """How often each integer occurs; ranges of integers where there are many.

    Args:
        values: Integers from 0, ``(V,)``, at least one.
        x_label: What is counted on the x axis.
        things: What is counted, for the y axis and the tooltips.
    """
    high = int(values.max())
    step = max(1, math.ceil((high + 1) / 24))
    counts = np.bincount(values // step, minlength=high // step + 1)
    width = PLOT_WIDTH / len(counts)
    top, frame = _counts_axis(int(counts.max()), things)
    marks, every = [], math.ceil(len(counts) / 13)
    for position, count in enumerate(counts.tolist()):
        name = str(position * step) if step == 1 else f"{position * step} to {position * step + step - 1}"
        left = LEFT + position * width
        pad = min(width * 0.12, 0.5 * max(0.0, width - 44))
        if count:
            tip = f"{name} {x_label}: {_counted(count, things)} ({_share(count, values)})"
            marks.append(_bar(left + pad, left + width - pad, count / top, tip))
        if position % every == 0:
            marks.append(tick(left + width / 2, str(position * step) if step == 1 else name.replace(" to ", "-")))
    return chart([frame, *marks], x_label, f"Bars: {things} by {x_label}")


def size_scatter(sizes_px: NDArray[np.float64]) -> Markup:
    """Widths and heights of images; a dot's area grows with how many there are.

    Args:
        sizes_px: Width and height, ``(N, 2)``, at least one row.
    """
    counts = Counter(map(tuple, sizes_px.astype(int).tolist()))
    top_x, top_y = (nice_top(float(side) * 1.08) for side in sizes_px.max(axis=0))
    pieces = []
    for value in linear_ticks(0, top_y):
        pieces.append(grid(y_at(value / top_y), number(value)))
    for value in linear_ticks(0, top_x):
        pieces.append(tick(LEFT + value / top_x * PLOT_WIDTH, number(value)))
    largest = max(counts.values())
    for (width, height), count in counts.most_common(400):
        x, y = LEFT + width / top_x * PLOT_WIDTH, y_at(height / top_y)
        radius = 3.0 + 9.0 * math.sqrt(count / largest) if largest > 1 else 4.0
        tip = f"{width} x {height} px: {number(count)} {'image' if count == 1 else 'images'}"
        pieces.append(f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"><title>{tip}</title></circle>')
    pieces.append(f'<text class="axis" x="{LEFT - 38}" y="12">height (px)</text>')
    return chart(pieces, "width (px)", "Widths and heights of images")


@dataclass(frozen=True, slots=True)
class Range:
    """A row of `ranges`: a name, its color, and the least, middle and largest value."""

    name: str
    color: str
    low: float
    middle: float
    high: float


def ranges(rows: Sequence[Range], *, x_label: str, unit: str = "") -> Markup:
    """The range of the values of several classes, with a dot at the median; the axis is logarithmic.

    Args:
        rows: At least one and at most twelve.
        x_label: What the x axis shows.
        unit: Follows the numbers in the tooltips.
    """
    low, high = max(1e-6, min(row.low for row in rows)), max(row.high for row in rows)
    edges = _log_edges(low, high) if high > 4 * low else _log_edges(low / 2, high * 2)
    start, stop, left = math.log(edges[0]), math.log(edges[-1]), 128
    width = WIDTH - RIGHT - left

    def x(value: float) -> float:
        return left + (math.log(max(value, 1e-6)) - start) / (stop - start) * width

    step = min(30.0, (PLOT_HEIGHT + TOP - 6) / len(rows))
    pieces = []
    for value in _log_ticks(float(edges[0]), float(edges[-1])):
        at = x(value)
        pieces.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="6" y2="{HEIGHT - BOTTOM}"/>')
        pieces.append(tick(at, number(value)))
    for position, row in enumerate(rows):
        y = 6 + (position + 0.5) * step
        name = row.name if len(row.name) <= 18 else f"{row.name[:17]}…"
        tip = f"{row.name[:200]}: {number(row.low)} to {number(row.high)}{unit}, median {number(row.middle)}{unit}"
        pieces.append(
            f'<g style="--c: {row.color}"><title>{escape(printable(tip))}</title>'
            f'<text class="tick end" x="{left - 10}" y="{y + 4:.1f}">{escape(printable(name))}</text>'
            f'<line class="range" x1="{x(row.low):.1f}" x2="{max(x(row.high), x(row.low) + 1):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/><circle class="median" cx="{x(row.middle):.1f}" cy="{y:.1f}" r="5"/></g>'
        )
    return chart(pieces, f"{x_label}, logarithmic", f"Ranges: {x_label}", center=left + width / 2)


def heat_map(points: NDArray[np.float64], *, things: str = "objects", columns: int = 24, rows: int = 16) -> Markup:
    """The positions of objects or regions in their images.

    Args:
        points: Centers, x and y as fractions of width and height, ``(P, 2)``, at least one row.
        things: Which of them.
        columns: Cells across.
        rows: Cells down.
    """
    clipped = np.clip(points, 0, 1 - 1e-9)
    cells = (clipped * (columns, rows)).astype(int)
    counts = np.bincount(cells[:, 1] * columns + cells[:, 0], minlength=rows * columns).reshape(rows, columns)
    width, height = 432 / columns, 200 / rows
    pieces = ['<rect class="field" x="14" y="14" width="432" height="200"/>']
    for row, column in zip(*np.nonzero(counts), strict=True):
        count = int(counts[row, column])
        tip = _counted(count, f"{things.removesuffix('s')} centers")
        opacity = 0.15 + 0.85 * math.sqrt(count / counts.max())
        pieces.append(
            f'<rect class="heat" x="{14 + column * width:.1f}" y="{14 + row * height:.1f}" width="{width:.1f}" '
            f'height="{height:.1f}" opacity="{opacity:.2f}"><title>{tip}</title></rect>'
        )
    caption = f'<text class="axis middle" x="230" y="230">centers of {things}, all images scaled to one frame</text>'
    return svg([*pieces, caption], f"Where {things} lie in their images")


def _counted(count: int, things: str) -> str:
    """A count with its plural noun, which becomes singular for 1."""
    return f"{number(count)} {things.removesuffix('s') if count == 1 else things}"


def _counts_axis(largest: int, things: str) -> tuple[float, str]:
    """The y value at the top, and grid lines at integers."""
    top = max(1.0, nice_top(largest))
    values = [value for value in linear_ticks(0, top) if value == int(value)]
    lines = "".join(grid(y_at(value / top), number(value)) for value in values)
    return top, f'{lines}<text class="axis" x="{LEFT - 38}" y="12">{escape(things)}</text>'


def _bar(left: float, right: float, share: float, tip: str) -> str:
    y, width = y_at(share), max(1.5, right - left - 1.5)
    height = max(1.5, HEIGHT - BOTTOM - y)
    return (
        f'<rect class="bar" x="{left + 0.75:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" width="{width:.1f}" '
        f'height="{height:.1f}" rx="1.5"><title>{escape(tip)}</title></rect>'
    )


def _border(x: float, text: str) -> str:
    return (
        f'<line class="border" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text class="tick note" x="{x + 4:.1f}" y="{TOP - 6}">{escape(text)}</text>'
    )


def _share(count: int, values: NDArray[np.generic]) -> str:
    return f"{100 * count / len(values):.3g} %"


def _log_edges(low: float, high: float) -> NDArray[np.float64]:
    """At most 27 edges in equal ratios: the fourth root of 2, or that squared until they are few enough."""
    ratio = 2.0**0.25
    while math.log(high / low) / math.log(ratio) > 26:
        ratio *= ratio
    first = math.floor(math.log(low) / math.log(ratio) + 1e-9)
    last = max(first + 1, math.ceil(math.log(high) / math.log(ratio) - 1e-9))
    edges: NDArray[np.float64] = ratio ** np.arange(first, last + 1, dtype=np.float64)
    return edges


def _linear_edges(low: float, high: float) -> NDArray[np.float64]:
    step = nice_step((high - low) / 16 or max(abs(low), 1e-3) / 10)
    first = math.floor(low / step + 1e-9)
    last = max(first + 1, math.ceil(high / step - 1e-9))
    if last - first < 8:
        middle = (first + last) // 2
        first, last = max(0, middle - 4), max(0, middle - 4) + 8
    return np.arange(first, last + 1, dtype=np.float64) * step


def _log_ticks(low: float, high: float) -> list[float]:
    """Powers of 2 where they fit, else 1-2-5 or powers of 10."""
    first, last = math.ceil(math.log2(low) - 1e-9), math.floor(math.log2(high) + 1e-9)
    if last - first <= 9 and low >= 0.9:
        return [2.0**power for power in range(first, last + 1)]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if len(decades) <= 4 else (1,)
    ticks = [digit * 10.0**decade for decade in decades for digit in digits]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]
