"""Plots of the trials of a search: the metric trial by trial, and by the value of each key."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullLocator

from d2tune.report.plots.style import ACCENT, BAR, GRAY, MARGIN_IN, Page, fitted, house_style, save_png

_SIDE_IN, _GAP_IN, _LEFT_IN = 2.6, 0.35, 0.55
_LOWER_IN = 0.75
_COLUMNS = 3
_MOST_CHOICES = 12
_DOT = 22


@dataclass(frozen=True, slots=True)
class TrialPoint:
    """A trial that has a metric.

    Attributes:
        number: From 0.
        value: The metric.
        is_finished: False where it was pruned, so that its metric is that of some folds only.
        settings: Values by key.
    """

    number: int
    value: float
    is_finished: bool
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The numbers that a key may have.

    Attributes:
        low: The smallest one.
        high: The largest one.
        is_logarithmic: Whether small numbers are as far apart as large ones by their ratio.
        is_whole: Whether they are whole numbers.
    """

    low: float
    high: float
    is_logarithmic: bool = False
    is_whole: bool = False


def write_history(path: str | Path, points: Sequence[TrialPoint], *, metric_name: str, subtitle: str = "") -> None:
    """The metric of each trial, and the best one so far as a line.

    Args:
        path: The PNG file.
        points: At least one, in the order of their numbers.
        metric_name: Such as ``mask AP``.
        subtitle: What the values belong to.

    Raises:
        OSError: The file cannot be written.
    """
    with house_style():
        save_png(path, _history(points, metric_name, subtitle))


def write_parameters(
    path: str | Path,
    points: Sequence[TrialPoint],
    *,
    axes: Mapping[str, KeyRange | None],
    metric_name: str,
    subtitle: str = "",
) -> None:
    """The metric by the value of each key, one plot a key.

    Args:
        path: The PNG file.
        points: At least one.
        axes: The range of each key, at least one; None for one whose values are not numbers of a range.
        metric_name: Such as ``mask AP``.
        subtitle: What the values belong to.

    Raises:
        OSError: The file cannot be written.
    """
    with house_style():
        save_png(path, _parameters(points, axes, metric_name, subtitle))


def _history(points: Sequence[TrialPoint], metric_name: str, subtitle: str) -> Figure:
    wide_in, high_in = 5.6, 3.0
    finished = [point for point in points if point.is_finished]
    best = max(finished, key=lambda point: point.value, default=None)
    title = f"{metric_name} of each trial" + (f": the best is trial {best.number}, {best.value:.1f}" if best else "")
    width = MARGIN_IN + _LEFT_IN + wide_in + MARGIN_IN
    page = Page(width, high_in + _LOWER_IN + MARGIN_IN, title=title, subtitle=subtitle)
    axes = page.axes(MARGIN_IN + _LEFT_IN, 0.05, wide_in, high_in)
    if finished:
        numbers = [point.number for point in finished]
        rising = list(accumulate((point.value for point in finished), max))
        axes.step(numbers, rising, where="post", color=BAR, linewidth=1.6)
    _dots(axes, points, [point.number for point in points])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    _label(axes, "trial", metric_name)
    _legend(page, high_in + _LOWER_IN - 0.12, points, with_line=bool(finished))
    return page.figure


def _parameters(
    points: Sequence[TrialPoint], ranges: Mapping[str, KeyRange | None], metric_name: str, subtitle: str
) -> Figure:
    keys = list(ranges)
    columns = min(_COLUMNS, len(keys))
    rows = -(-len(keys) // columns)
    cell_in = _LEFT_IN + _SIDE_IN + _GAP_IN
    width = max(5.0, MARGIN_IN + columns * cell_in)
    row_in = _SIDE_IN + _LOWER_IN
    page = Page(
        width, rows * row_in + MARGIN_IN + 0.15, title=f"{metric_name} by the value of each key", subtitle=subtitle
    )
    for number, key in enumerate(keys):
        row, column = divmod(number, columns)
        left_in = MARGIN_IN + _LEFT_IN + column * cell_in
        axes = page.axes(left_in, 0.05 + row * row_in, _SIDE_IN, _SIDE_IN)
        _by_value(axes, points, key, ranges[key])
        _label(axes, fitted(key, _SIDE_IN, 9.0), metric_name if column == 0 else "")
    _legend(page, rows * row_in + 0.1, points, with_line=False)
    return page.figure


def _by_value(axes: Axes, points: Sequence[TrialPoint], key: str, among: KeyRange | None) -> None:
    shown = [point for point in points if key in point.settings]
    values = [point.settings[key] for point in shown]
    if among is not None:
        _dots(axes, shown, values)
        _set_range(axes, among)
        return
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    names = list(dict.fromkeys(texts))
    _dots(axes, shown, [names.index(text) for text in texts])
    room_in = 0.88 * _SIDE_IN / max(1, len(names))
    axes.set_xlim(-0.6, len(names) - 0.4)
    ticks = range(len(names)) if len(names) <= _MOST_CHOICES else []
    axes.set_xticks(list(ticks), [fitted(names[at], room_in, 8.5) for at in ticks])


def _set_range(axes: Axes, among: KeyRange) -> None:
    """The x axis over the whole range; a logarithmic one has ticks at 1, 2 and 5 times powers of 10, or at these."""
    if not among.is_logarithmic:
        margin = 0.04 * (among.high - among.low)
        axes.set_xlim(among.low - margin, among.high + margin)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=among.is_whole))
        return
    ratio = (among.high / among.low) ** 0.04
    axes.set_xscale("log")
    axes.set_xlim(among.low / ratio, among.high * ratio)
    powers = range(math.floor(math.log10(among.low)), math.ceil(math.log10(among.high)) + 1)
    few = len(powers) <= 2
    ticks = [digit * 10.0**power for power in powers for digit in ((1, 2, 5) if few else (1,))]
    inside = [tick for tick in ticks if among.low * 0.999 <= tick <= among.high * 1.001]
    axes.set_xticks(inside, [f"{tick:g}" for tick in inside])
    axes.xaxis.set_minor_locator(NullLocator())


def _dots(axes: Axes, points: Sequence[TrialPoint], places: Sequence[float]) -> None:
    """A full dot for each finished trial, an empty one for a pruned one."""
    for is_finished in (False, True):
        chosen = [
            (place, point.value)
            for place, point in zip(places, points, strict=True)
            if point.is_finished == is_finished
        ]
        if chosen:
            x, y = zip(*chosen, strict=True)
            face = ACCENT if is_finished else "white"
            axes.scatter(x, y, s=_DOT, facecolor=face, edgecolor=ACCENT if is_finished else GRAY, zorder=3)


def _label(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.grid()
    axes.tick_params(length=0)


def _legend(page: Page, top_in: float, points: Sequence[TrialPoint], *, with_line: bool) -> None:
    dot: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 5}
    handles = [Line2D([], [], color=ACCENT, label="finished", **dot)]
    if not all(point.is_finished for point in points):
        handles.append(
            Line2D([], [], markerfacecolor="white", markeredgecolor=GRAY, label="pruned: of its folds so far", **dot)
        )
    if with_line:
        handles.append(Line2D([], [], color=BAR, linewidth=1.6, label="best so far"))
    page.figure.legend(
        handles=handles,
        loc="center left",
        bbox_to_anchor=page.at(MARGIN_IN + _LEFT_IN - 0.1, top_in),
        ncols=len(handles),
        frameon=False,
        fontsize=8.5,
    )
