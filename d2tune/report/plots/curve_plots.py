"""Plots of an evaluation of instances: precision and recall, and the calibration of scores.

Shares (precision, recall, scores) go from 0 to 1, AP and errors from 0 to 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from d2tune.report.plots.style import (
    ACCENT,
    BAR,
    DPI,
    GRAY,
    LINES,
    MARGIN_IN,
    Page,
    fitted,
    fitted_names,
    house_style,
    line_in,
    number_or_none,
    save_png,
    short_count,
    width_in,
)

MOST_NAMED = 10
"""Up to so many classes have a color and a place in the legend of `write_precision_recall`."""

_RECALLS = np.linspace(0, 1, 101)
_MARKERS = "osD^vD^vos"
_LEGEND_PT, _NOTE_PT = 9.0, 8.0
_NO_CURVE = "no curve: no ground truth or no detection"
_WEAKEST = 5
_COUNT_PT = 7.0


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Precision and recall of the detections from a threshold on.

    Attributes:
        threshold: From 0 to 1.
        precision: From 0 to 1.
        recall: From 0 to 1.
    """

    threshold: float
    precision: float
    recall: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Precision and recall of one class.

    Attributes:
        name: The class.
        recall: ``(R,)``, from 0 to 1, rising.
        precision: ``(R,)``, from 0 to 1; NaN or -1 where it is undefined.
        AP50: From 0 to 100, or None.
        point: The operating point, or None.
    """

    name: str
    recall: NDArray[np.float64]
    precision: NDArray[np.float64]
    AP50: float | None
    point: OperatingPoint | None = None


@dataclass(frozen=True, slots=True)
class ScoreBin:
    """Detections with scores in one range.

    Attributes:
        low: Lower end of the range, from 0 to 1.
        high: Upper end.
        count: How many detections there are.
        confidence: Their mean score, from 0 to 1, or None where there is none.
        precision: Share of them that are right, from 0 to 1, or None.
    """

    low: float
    high: float
    count: int
    confidence: float | None
    precision: float | None


def write_precision_recall(path: str | Path, curves: Sequence[Curve], *, subtitle: str = "") -> None:
    """Curves of precision over recall at IoU 0.5 with the operating point of each class.

    Up to `MOST_NAMED` classes have their color; of more, all are thin and gray, with their mean in front.

    Args:
        path: The PNG file.
        curves: One for each class, at least one.
        subtitle: What the values belong to.

    Raises:
        ValueError: There is no curve, or a share lies above 1, or lengths differ.
        OSError: The file cannot be written.
    """
    if not curves:
        raise ValueError("there is no curve to draw")
    for curve in curves:
        _check_curve(curve)
    with house_style():
        save_png(path, _precision_recall(curves, subtitle))


def write_calibration(
    path: str | Path, bins: Sequence[ScoreBin], *, expected_error: float | None, subtitle: str = ""
) -> None:
    """Precision by score, above the number of detections by score.

    Args:
        path: The PNG file.
        bins: Ranges of scores from low to high, at least one.
        expected_error: Expected calibration error in points from 0 to 100, or None.
        subtitle: What the values belong to.

    Raises:
        ValueError: There is no bin, or a share lies outside 0 to 1.
        OSError: The file cannot be written.
    """
    if not bins:
        raise ValueError("there is no range of scores to draw")
    for one in bins:
        _check_shares(f"range {one.low:g} to {one.high:g}", one.low, one.high, one.confidence, one.precision)
    with house_style():
        save_png(path, _calibration(bins, expected_error, subtitle))


def _check_curve(curve: Curve) -> None:
    if np.shape(curve.recall) != np.shape(curve.precision) or np.ndim(curve.recall) != 1:
        raise ValueError(
            f"{curve.name}: recall is {np.shape(curve.recall)}, precision {np.shape(curve.precision)}; expected (R,)"
        )
    point = curve.point
    ends = () if point is None else (point.threshold, point.precision, point.recall)
    tops = [float(np.nanmax(values)) for values in (curve.recall, curve.precision) if np.isfinite(values).any()]
    _check_shares(curve.name, *ends, *(max(top, 0.0) for top in tops))


def _check_shares(place: str, *shares: float | None) -> None:
    for share in shares:
        if share is not None and not -1e-9 <= share <= 1 + 1e-9:
            raise ValueError(f"{place}: the share must be between 0 and 1, not {share:g}")


def _precision_recall(curves: Sequence[Curve], subtitle: str) -> Figure:
    known = [value for curve in curves if (value := number_or_none(curve.AP50)) is not None]
    mean = f"{np.mean(known):.1f}" if known else None
    side_in, left_in = 4.3, MARGIN_IN + 0.62
    legend_in = left_in + side_in + 0.3
    if len(curves) == 1:
        width, title = left_in + side_in + MARGIN_IN + 0.1, "Precision and recall at IoU 0.5"
        title += f": AP50 {mean}" if mean else ""
        subtitle = ", ".join(text for text in (curves[0].name, subtitle) if text)
    else:
        width, title = 9.4, f"Precision and recall of {len(curves)} classes at IoU 0.5"
        title += f": mean AP50 {mean}" if mean else ""
    page = Page(width, side_in + 0.5 + MARGIN_IN, title=title, subtitle=subtitle)
    axes = page.axes(left_in, 0.05, side_in, side_in)
    _share_axes(
        axes, "recall: share of the instances that are detected", "precision: share of the detections that are right"
    )
    room_in = width - legend_in - MARGIN_IN
    if len(curves) == 1:
        _draw_one(axes, curves[0])
    elif len(curves) <= MOST_NAMED:
        _draw_named(page, axes, curves, (legend_in, room_in))
    else:
        _draw_many(page, axes, curves, (legend_in, room_in))
    return page.figure


def _share_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Both axes from 0 to 1, written in percent."""
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(-0.015, 1.015)
    for axis, label in ((axes.xaxis, x_label), (axes.yaxis, y_label)):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        axis.set_label_text(label)
    axes.grid()
    axes.tick_params(length=0)


def _defined_points(curve: Curve) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision where they are defined, up to the first of the zeros at the end."""
    recall, precision = np.asarray(curve.recall, float), np.asarray(curve.precision, float)
    defined = np.isfinite(recall) & np.isfinite(precision) & (precision >= 0)
    recall, precision = recall[defined], precision[defined]
    end = int(np.flatnonzero(precision)[-1]) + 2 if precision.any() else len(precision)
    return recall[:end], precision[:end]


def _draw_one(axes: Axes, curve: Curve) -> None:
    recall, precision = _defined_points(curve)
    if not len(recall):
        axes.text(0.5, 0.5, _NO_CURVE, ha="center", color=GRAY, size=_LEGEND_PT)
    axes.plot(recall, precision, color=ACCENT, linewidth=2.2)
    axes.fill_between(recall, precision, color=ACCENT, alpha=0.08, linewidth=0)
    point = curve.point
    if point is None:
        return
    axes.plot(point.recall, point.precision, "o", color=ACCENT, markeredgecolor="white", markersize=9, clip_on=False)
    lines = (f"score \u2265 {point.threshold:.2f}", _point_words(point))
    # a falling curve leaves room at the lower left of its points, and at the upper right
    is_left = point.recall > 0.5
    y = point.precision - 0.05 if is_left else point.precision + 0.05
    y = min(max(y, 0.14), 1.0) if is_left else min(max(y, 0.0), 0.88)
    axes.annotate(
        "\n".join(lines),
        (point.recall, point.precision),
        (point.recall - 0.035 if is_left else point.recall + 0.035, y),
        ha="right" if is_left else "left",
        va="top" if is_left else "bottom",
        size=_LEGEND_PT,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )


def _draw_named(page: Page, axes: Axes, curves: Sequence[Curve], legend: tuple[float, float]) -> None:
    x_in, room_in = legend
    names = fitted_names([curve.name for curve in curves], room_in - 0.45, _LEGEND_PT)
    y_in = 0.05 + line_in(_LEGEND_PT) / 2
    for number, (curve, name) in enumerate(zip(curves, names, strict=True)):
        look: dict[str, Any] = {
            "color": LINES[number % 5],
            "linestyle": "-" if number < 5 else (0, (4, 1.5)),
            "linewidth": 1.9,
        }
        mark: dict[str, Any] = {
            "marker": _MARKERS[number],
            "markersize": 7.5,
            "markeredgecolor": "white",
            "markeredgewidth": 0.8,
        }
        recall, precision = _defined_points(curve)
        axes.plot(recall, precision, **look)
        if curve.point is not None:
            spot: dict[str, Any] = {"color": look["color"], "linestyle": "none", "clip_on": False, "zorder": 4}
            axes.plot(curve.point.recall, curve.point.precision, **mark, **spot)
        if len(recall):
            _legend_line(page, x_in, y_in, {**look, **mark} if curve.point is not None else look)
        page.text(x_in + 0.45, y_in, name, size=_LEGEND_PT)
        value = number_or_none(curve.AP50)
        metric = "no AP50" if value is None else f"AP50 {value:.1f}"
        note = f"{metric}{_point_note(curve.point)}" if len(recall) else _NO_CURVE
        note = fitted(note, room_in - 0.45, _NOTE_PT)
        page.text(x_in + 0.45, y_in + line_in(_NOTE_PT) * 1.05, note, size=_NOTE_PT, color=GRAY)
        y_in += 0.425


def _draw_many(page: Page, axes: Axes, curves: Sequence[Curve], legend: tuple[float, float]) -> None:
    x_in, room_in = legend
    levels = []
    for curve in curves:
        recall, precision = _defined_points(curve)
        if len(recall):
            axes.plot(recall, precision, color="#9aa0ab", linewidth=0.7, alpha=0.7)
            best = np.maximum.accumulate(precision[::-1])[::-1]
            levels.append(np.append(best, 0.0)[np.searchsorted(recall, _RECALLS - 1e-9)])
    y_in = 0.05 + line_in(_LEGEND_PT) / 2
    thin: dict[str, Any] = {"color": "#9aa0ab", "linewidth": 0.9}
    thick: dict[str, Any] = {"color": ACCENT, "linewidth": 2.6}
    entries = [(thin, "each class")]
    if levels:
        axes.plot(_RECALLS, np.mean(levels, axis=0), **thick)
        entries.insert(0, (thick, f"mean of the {len(levels)} classes that have a curve"))
    for look, words in entries:
        _legend_line(page, x_in, y_in, look)
        page.text(x_in + 0.45, y_in, fitted(words, room_in - 0.45, _LEGEND_PT), size=_LEGEND_PT)
        y_in += 0.25
    _list_weakest(page, curves, (x_in, y_in + 0.15), room_in)


def _list_weakest(page: Page, curves: Sequence[Curve], place_in: tuple[float, float], room_in: float) -> None:
    x_in, y_in = place_in
    names = fitted_names([curve.name for curve in curves], room_in - 0.5, _LEGEND_PT)
    values = [number_or_none(curve.AP50) for curve in curves]
    known = sorted((value, number) for number, value in enumerate(values) if value is not None)
    if known:
        page.text(x_in, y_in, "weakest classes by AP50", size=_LEGEND_PT, bold=True)
    for value, number in known[:_WEAKEST]:
        y_in += 0.22
        page.text(x_in + 0.35, y_in, f"{value:.1f}", size=_LEGEND_PT, color=GRAY, ha="right")
        page.text(x_in + 0.45, y_in, names[number], size=_LEGEND_PT)


def _legend_line(page: Page, x_in: float, y_in: float, look: dict[str, Any]) -> None:
    places = [page.at(x, y_in) for x in (x_in, x_in + 0.17, x_in + 0.34)]
    line = Line2D(*zip(*places, strict=True), markevery=[1], transform=page.figure.transFigure, **look)
    page.figure.add_artist(line)


def _point_words(point: OperatingPoint) -> str:
    return f"{100 * point.precision:.0f} % right, {100 * point.recall:.0f} % detected"


def _point_note(point: OperatingPoint | None) -> str:
    return "" if point is None else f"; from score {point.threshold:.2f}: {_point_words(point)}"


def _calibration(bins: Sequence[ScoreBin], expected_error: float | None, subtitle: str) -> Figure:
    title = "Precision by score"
    expected_error = number_or_none(expected_error)
    if expected_error is not None:
        title = f"Scores are wrong by {expected_error:.1f} points on average (expected calibration error, ECE)"
    side_in, low_in, left_in = 4.3, 1.2, MARGIN_IN + 0.62
    width = left_in + side_in + MARGIN_IN + 0.1
    page = Page(width, side_in + low_in + 0.88 + MARGIN_IN, title=title, subtitle=subtitle)
    axes = page.axes(left_in, 0.05, side_in, side_in)
    _share_axes(axes, "", "precision: share of the detections that are right")
    _draw_reliability(axes, bins)
    below = page.axes(left_in, side_in + 0.2, side_in, low_in)
    _draw_score_counts(below, bins)
    note = fitted("orange: difference between precision and mean score", width - 2 * MARGIN_IN, _NOTE_PT)
    page.text(left_in + side_in / 2, side_in + low_in + 0.85, note, size=_NOTE_PT, color=GRAY, ha="center")
    return page.figure


def _draw_reliability(axes: Axes, bins: Sequence[ScoreBin]) -> None:
    axes.xaxis.set_major_formatter("")
    axes.plot((0, 1), (0, 1), color=GRAY, linewidth=1, linestyle=(0, (4, 3)))
    words: dict[str, Any] = {"color": GRAY, "size": _NOTE_PT, "va": "center"}
    axes.text(0.03, 0.95, "scores too low", ha="left", **words)
    axes.text(0.97, 0.05, "scores too high", ha="right", **words)
    filled = [(one, one.confidence, one.precision) for one in bins if one.count and one.precision is not None]
    for one, confidence, precision in filled:
        wide = one.high - one.low
        axes.bar(one.low + wide / 2, precision, 0.9 * wide, color=BAR, alpha=0.55, linewidth=0)
        if confidence is not None:
            axes.plot((confidence, confidence), (precision, confidence), color=LINES[1], linewidth=1.6)
            axes.plot(confidence, precision, "o", color=ACCENT, markersize=7, markeredgecolor="white", clip_on=False)
    if not filled:
        axes.text(0.5, 0.5, "no detection", color=GRAY, size=_LEGEND_PT, ha="center", backgroundcolor="white")


def _draw_score_counts(axes: Axes, bins: Sequence[ScoreBin]) -> None:
    """Bars of the number of detections, with their numbers where all fit."""
    most = max(one.count for one in bins)
    for one in bins:
        axes.bar((one.low + one.high) / 2, one.count, 0.9 * (one.high - one.low), color=BAR, linewidth=0)
    texts = [f"{one.count:,}" for one in bins]
    narrowest_in = axes.get_window_extent().width / DPI * min(one.high - one.low for one in bins)
    if max(width_in(text, _COUNT_PT) for text in texts) < narrowest_in:
        for one, text in zip(bins, texts, strict=True):
            axes.annotate(
                text, ((one.low + one.high) / 2, one.count), (0, 2), textcoords="offset points",
                ha="center", va="bottom", size=_COUNT_PT, color=GRAY,
            )  # fmt: skip
    axes.set_xlim(-0.015, 1.015)
    axes.set_ylim(0, 1.22 * max(most, 1))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(int(value))))
    axes.grid(axis="y")
    axes.tick_params(length=0)
    axes.tick_params(axis="x", pad=6)
    axes.set_xlabel("score of a detection")
    axes.set_ylabel("detections")
