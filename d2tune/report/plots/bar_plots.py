"""Bars: the AP50 that each kind of error costs, AP by size, IoU by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from d2tune.report.plots.style import (
    ACCENT,
    BAR,
    GRAY,
    INK,
    MARGIN_IN,
    Page,
    fitted,
    fitted_names,
    house_style,
    line_in,
    number_or_none,
    save_png,
    width_in,
)

ERROR_WORDS = {
    "classification": ("right place, wrong class", "more examples of similar classes, clear rules for annotating"),
    "localisation": (
        "right class, but too far off (IoU 0.1 to 0.5)",
        "more exact outlines in the annotations, larger input images",
    ),
    "both": ("wrong class and too far off", "more training images, and more varied ones"),
    "duplicate": ("a second detection of an instance", "a lower threshold of non-maximum suppression"),
    "background": ("a detection where nothing is labeled", "annotating missing objects, more images without instances"),
    "missed": ("an instance without a detection", "more examples like it; larger input images if it is small"),
}
"""TIDE's kinds of errors in TIDE's order, with the meaning of each and what reduces it."""

_SHOWN_NAMES = {"localisation": "localization"}

_NAME_PT, _NOTE_PT, _DENSE_PT = 9.0, 8.0, 7.0
_WIDTH_IN = 9.0
_MOST_TEXT_IN = 3.9
_DENSE_FROM = 41
_GAP_IN = 0.14
_NOTHING = "\u2013"


@dataclass(frozen=True, slots=True)
class Bar:
    """One value with a name.

    Attributes:
        name: A class, or a range of sizes such as ``14-32 px``.
        value: From 0 to 100; None or NaN where it cannot be computed.
        low: Lower end of the 95 % interval, if there is one.
        high: Upper end.
        count: The number of instances behind it, if it is to be shown.
        reason: Why there is no value.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    count: int | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    """A bar with its texts: the name, lines below it, the text at the right, and the reason where there is no bar."""

    name: str
    notes: Sequence[str]
    value: float | None
    span: tuple[float, float] | None
    words: str
    reason: str
    color: str = BAR


def write_error_types(path: str | Path, errors: Mapping[str, Bar], *, AP50: float | None, subtitle: str = "") -> None:
    """Bars of the points of AP50 to gain by fixing each kind of error, with its meaning and what reduces it.

    Args:
        path: The PNG file.
        errors: By TIDE's six names, the keys of `ERROR_WORDS`; ``value`` in points of AP50.
        AP50: AP50 as it is, from 0 to 100, or None.
        subtitle: What the values belong to.

    Raises:
        ValueError: A kind is missing or unknown.
        OSError: The file cannot be written.
    """
    if set(errors) != set(ERROR_WORDS):
        raise ValueError(f"the kinds of errors must be {', '.join(ERROR_WORDS)}, not {', '.join(errors)}")
    with house_style():
        save_png(path, _error_types(errors, number_or_none(AP50), subtitle))


def write_size_ap(path: str | Path, bars: Sequence[Bar], *, metric_name: str = "mask AP", subtitle: str = "") -> None:
    """Bars of AP for ranges of object size, in the order given.

    Args:
        path: The PNG file.
        bars: One for each range, at least one, with the number of instances where it is known.
        metric_name: ``mask AP``, ``box AP`` or ``boundary AP``.
        subtitle: What the values belong to.

    Raises:
        ValueError: There is no bar.
        OSError: The file cannot be written.
    """
    title = f"{metric_name[:1].upper()}{metric_name[1:]} by the size of instances"
    with house_style():
        page = _bar_page(_rows(bars), title=title, subtitle=subtitle, x_label=f"{metric_name} (0 to 100)", top=100)
        save_png(path, page[0].figure)


def write_class_metric(
    path: str | Path, bars: Sequence[Bar], *, mean: float | None, subtitle: str = "", metric_name: str = "IoU"
) -> None:
    """Bars of a metric of each class, in the order given.

    Args:
        path: The PNG file.
        bars: One for each class, at least one.
        mean: Their mean from 0 to 100, drawn as a line, or None.
        subtitle: What the values belong to.
        metric_name: ``IoU`` or ``PQ``.

    Raises:
        ValueError: There is no bar.
        OSError: The file cannot be written.
    """
    mean = number_or_none(mean)
    mean_name = "mIoU" if metric_name == "IoU" else metric_name
    title = f"{metric_name} of each class"
    title += "" if mean is None else f"; the mean ({mean_name}, dashed) is {mean:.1f}"
    with house_style():
        page, axes = _bar_page(
            _rows(bars), title=title, subtitle=subtitle, x_label=f"{metric_name} (0 to 100)", top=100
        )
        if mean is not None:
            axes.axvline(mean, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        save_png(path, page.figure)


def _error_types(errors: Mapping[str, Bar], AP50: float | None, subtitle: str) -> Figure:
    values = {name: number_or_none(errors[name].value) for name in ERROR_WORDS}
    known = {name: value for name, value in values.items() if value is not None}
    worst = max(known, key=lambda name: known[name], default="")
    worst = worst if known.get(worst, 0) > 0 else ""
    title = "AP50 to gain by fixing each kind of error"
    if worst:
        title = (
            f'Fixing "{_SHOWN_NAMES.get(worst, worst)}" errors would gain the most: {known[worst]:+.1f} points of AP50'
        )
    rows = []
    for name, (meaning, remedy) in ERROR_WORDS.items():
        bar, value = errors[name], values[name]
        times = "" if bar.count is None else f" ({bar.count:,} time{'' if bar.count == 1 else 's'})"
        notes = [
            fitted(f"{meaning}{times}", _MOST_TEXT_IN, _NOTE_PT),
            fitted(f"helps: {remedy}", _MOST_TEXT_IN, _NOTE_PT),
        ]
        words = f"{value:+.1f}".replace("-", "\u2212") if value is not None else _NOTHING
        rows.append(
            _Row(_SHOWN_NAMES.get(name, name), notes, value, None, words, _why(bar), ACCENT if name == worst else BAR)
        )
    now = "" if AP50 is None else f"; AP50 is {AP50:.1f}"
    label = f"points of AP50 to gain by fixing all errors of the kind{now}"
    top = max(1.0, *(1.06 * value for value in known.values())) if known else 1.0
    return _bar_page(rows, title=title, subtitle=subtitle, x_label=label, top=top)[0].figure


def _rows(bars: Sequence[Bar]) -> list[_Row]:
    if not bars:
        raise ValueError("there is no bar to draw")
    is_dense = len(bars) >= _DENSE_FROM
    rows = []
    for bar in bars:
        value, low, high = number_or_none(bar.value), number_or_none(bar.low), number_or_none(bar.high)
        span = None if low is None or high is None or value is None else (low, high)
        words = f"{value:.1f}" if value is not None else _NOTHING
        count = "" if bar.count is None else f"{bar.count:,} instance{'' if bar.count == 1 else 's'}"
        notes = [count] if count and not is_dense else []
        rows.append(_Row(bar.name, notes, value, span, words, _why(bar)))
    return rows


def _bar_page(rows: Sequence[_Row], *, title: str, subtitle: str, x_label: str, top: float) -> tuple[Page, Axes]:
    """Names at the left, bars in the middle, numbers at the right."""
    is_dense = len(rows) >= _DENSE_FROM
    name_pt = _DENSE_PT if is_dense else _NAME_PT
    lines = max(len(row.notes) for row in rows)
    names = fitted_names([row.name for row in rows], _MOST_TEXT_IN, name_pt, bold=lines > 0)
    spans = ["" if row.span is None else f"{row.span[0]:.1f} to {row.span[1]:.1f}" for row in rows]
    text_in = max(width_in(name, name_pt, bold=lines > 0) for name in names)
    text_in = max([text_in, *(width_in(note, _NOTE_PT) for row in rows for note in row.notes)])
    span_in = max(width_in(span, _NOTE_PT) for span in spans)
    span_in += _GAP_IN if span_in else 0
    left_in = MARGIN_IN + text_in + _GAP_IN
    wide_in = _WIDTH_IN - left_in - max(width_in(row.words, name_pt) for row in rows) - span_in - _GAP_IN - MARGIN_IN
    pitch_in = line_in(name_pt) + lines * line_in(_NOTE_PT) + (0.02 if is_dense else 0.12)
    top_in, high_in = (0.22 if is_dense else 0), pitch_in * len(rows)
    page = Page(_WIDTH_IN, top_in + high_in + 0.52 + MARGIN_IN, title=title, subtitle=subtitle)
    axes = page.axes(left_in, top_in, wide_in, high_in)
    least = min([0.0, *(1.06 * row.value for row in rows if row.value is not None)])
    _draw_bars(axes, rows, (least, top), thickness=min(0.62, 0.24 / pitch_in + 0.1))
    zero_in = left_in + wide_in * -least / (top - least)
    for position, (name, row, span) in enumerate(zip(names, rows, spans, strict=True)):
        middle_in = top_in + (position + 0.5) * pitch_in
        _write_name(page, (MARGIN_IN, left_in - _GAP_IN), middle_in, name, row.notes, name_pt)
        page.text(_WIDTH_IN - MARGIN_IN - span_in, middle_in, row.words, size=name_pt, ha="right")
        page.text(_WIDTH_IN - MARGIN_IN, middle_in, span, size=_NOTE_PT, color=GRAY, ha="right")
        if row.value is None:
            reason = fitted(row.reason, left_in + wide_in - zero_in - 0.12, min(name_pt, _NOTE_PT))
            words = page.text(zero_in + 0.08, middle_in, reason, size=min(name_pt, _NOTE_PT), color=GRAY)
            words.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1.0})
    if any(spans):
        x_label += "; black lines: 95 % interval"
    if is_dense:
        axes.tick_params(top=True, labeltop=True)
    x_label = fitted(x_label, _WIDTH_IN - 2 * MARGIN_IN, _NAME_PT)
    half_in = width_in(x_label, _NAME_PT) / 2
    middle_in = min(left_in + wide_in / 2, _WIDTH_IN - MARGIN_IN - half_in)
    page.text(middle_in, top_in + high_in + 0.42, x_label, size=_NAME_PT, ha="center")
    return page, axes


def _write_name(
    page: Page, edges_in: tuple[float, float], middle_in: float, name: str, notes: Sequence[str], name_pt: float
) -> None:
    """A name and the lines below it: at the bar, or from the left where there are two lines."""
    x_in, ha = (edges_in[0], "left") if len(notes) > 1 else (edges_in[1], "right")
    y_in = middle_in - len(notes) * line_in(_NOTE_PT) / 2
    page.text(x_in, y_in, name, size=name_pt, bold=bool(notes), ha=ha)
    y_in += (line_in(name_pt) + line_in(_NOTE_PT)) / 2
    for number, note in enumerate(notes):
        page.text(x_in, y_in + number * line_in(_NOTE_PT), note, size=_NOTE_PT, color=GRAY, ha=ha)


def _draw_bars(axes: Axes, rows: Sequence[_Row], limits: tuple[float, float], *, thickness: float) -> None:
    for position, row in enumerate(rows):
        if row.value is not None:
            axes.barh(position, row.value, height=thickness, color=row.color)
        if row.span is not None:
            look: dict[str, Any] = {"color": INK, "linewidth": 1.2, "solid_capstyle": "butt", "clip_on": False}
            axes.plot(row.span, (position, position), **look)
            for end in row.span:
                axes.plot((end, end), (position - thickness / 4, position + thickness / 4), **look)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlim(*limits)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.grid(axis="x")
    axes.tick_params(axis="x", length=0)
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.axvline(0, color=GRAY, linewidth=0.8)


def _why(bar: Bar) -> str:
    return f"no value: {bar.reason}" if bar.reason else "no value"
