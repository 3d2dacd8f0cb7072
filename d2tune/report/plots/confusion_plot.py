"""The confusion matrix as an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from d2tune.report.plots.style import (
    EMPTY,
    GRAY,
    INK,
    MARGIN_IN,
    Page,
    drawable,
    fitted_names,
    house_style,
    line_in,
    save_png,
    short_count,
    width_in,
)
from d2tune.text import counted

_LABEL_PT, _NOTE_PT, _LEAST_EXACT_PT, _LEAST_PT = 9.0, 8.0, 6.5, 5.0
_GAP_CELLS = 0.2
_BACKGROUND = ("false alarm", "missed")
_NO_CLASS = ("no class", "no class")
"""Names of the last row and the last column, of instances and of pixels."""
_MOST_NAME_IN = 2.5
_DARK_FROM = 0.7
_RIGHT = LinearSegmentedColormap.from_list("right", ("#e2f0f1", "#8cc5c9", "#2b8f97", "#07474c"))
_WRONG = LinearSegmentedColormap.from_list("wrong", ("#fdefe4", "#f7b98c", "#d9681d", "#7d3200"))


def write_confusion(
    path: str | Path,
    counts: NDArray[np.integer[Any]],
    class_names: Sequence[str],
    *,
    subtitle: str = "",
    of_pixels: bool = False,
) -> None:
    """Counts of predicted by true class, in colors by their share of the row: teal is right, orange is wrong.

    Cells without a number are 0; there are no numbers at all where cells are too small for them.

    Args:
        path: The PNG file.
        counts: ``(K + 1, K + 1)``; rows are the ground truth, columns the prediction, the last of each is background.
        class_names: K names, at least one.
        subtitle: What the values belong to, such as the threshold of the score.
        of_pixels: Whether pixels are counted and not instances.

    Raises:
        ValueError: The shape of the counts does not match the names, or a count is negative.
        OSError: The file cannot be written.
    """
    table = np.asarray(counts)
    if not class_names or table.shape != (len(class_names) + 1, len(class_names) + 1):
        raise ValueError(f"counts are {table.shape}, but there are {len(class_names)} classes and background")
    if (table < 0).any():
        raise ValueError("a count is negative")
    table = table.copy()
    table[-1, -1] = 0  # background predicted as background is not counted
    with house_style():
        save_png(path, _confusion(table, class_names, subtitle, of_pixels=of_pixels))


def _confusion(
    counts: NDArray[np.integer[Any]], class_names: Sequence[str], subtitle: str, *, of_pixels: bool
) -> Figure:
    right, total = int(np.trace(counts[:-1, :-1])), int(counts[:-1].sum())
    missed, false = int(counts[:-1, -1].sum()), int(counts[-1, :-1].sum())
    alarm, missing = _NO_CLASS if of_pixels else _BACKGROUND
    if of_pixels:
        title = f"{right:,} of {total:,} labeled pixels have the right class"
        title += f", {missed:,} have none" if missed else ""
    else:
        things = counted(total, "instance")
        title = f"{right:,} of {things} detected with the right class, {missed:,} missed, {_alarms(false)}"
    cells = len(counts) + _GAP_CELLS
    pitch_in = min(0.8, 6.4 / cells)
    side_in = pitch_in * cells
    label_pt = _label_size(class_names, pitch_in)
    names = fitted_names(class_names, _MOST_NAME_IN, label_pt)
    widest_in = max(width_in(name, label_pt) for name in (*names, alarm, missing))
    turn = 0 if widest_in < 0.92 * pitch_in else 40 if pitch_in >= 0.3 else 90
    slope = math.radians(turn)
    # slanted names of the first columns reach to the left, below the names of the rows
    left_in = MARGIN_IN + 0.28 + max(widest_in + 0.1, widest_in * math.cos(slope) * (0 < turn < 90) - pitch_in / 2)
    below_in = 0.1 + widest_in * math.sin(slope) + line_in(label_pt) * max(math.cos(slope), 0.3)
    width = max(left_in + side_in + MARGIN_IN + 0.1, 5.6)
    page = Page(width, side_in + below_in + 0.85 + MARGIN_IN, title=title, subtitle=subtitle)
    axes = page.axes(left_in, 0, side_in, side_in)
    _draw_cells(axes, counts, pitch_in)
    every = math.ceil(_LEAST_PT * 1.1 / (72 * pitch_in))
    for number, name in enumerate(names):
        if number % every == 0:
            place_in = (number + 0.5) * pitch_in
            page.text(left_in - 0.08, place_in, name, size=label_pt, ha="right")
            _column_name(page, (left_in + place_in, side_in + 0.08), name, label_pt, turn)
    last_in = side_in - pitch_in / 2
    page.text(left_in - 0.08, last_in, alarm, size=label_pt, ha="right", color=GRAY)
    _column_name(page, (left_in + last_in, side_in + 0.08), missing, label_pt, turn, color=GRAY)
    page.text(MARGIN_IN + 0.1, side_in / 2, "ground truth", size=_LABEL_PT, rotation=90, ha="center", va="center")
    middle_in = left_in + side_in / 2
    page.text(middle_in, side_in + below_in + 0.2, "predicted as", size=_LABEL_PT, ha="center")
    _draw_scale(page, middle_in, side_in + below_in + 0.58)
    return page.figure


def _label_size(class_names: Sequence[str], pitch_in: float) -> float:
    """The largest size at which the names of rows lie apart and few have to be shortened, in points."""
    most_pt = min(_LABEL_PT, max(_LEAST_PT, 0.8 * 72 * pitch_in))
    widest_in = max(width_in(name, most_pt) for name in map(drawable, class_names))
    return max(min(most_pt, 7.5), most_pt * min(1.0, _MOST_NAME_IN / max(widest_in, 1e-9)))


def _column_name(
    page: Page, place_in: tuple[float, float], name: str, size: float, turn: int, *, color: str = INK
) -> None:
    words = page.text(*place_in, name, size=size, color=color, rotation=turn, va="top")
    words.set_horizontalalignment("center" if turn in (0, 90) else "right")
    words.set_rotation_mode("default" if turn in (0, 90) else "anchor")


def _draw_cells(axes: Axes, counts: NDArray[np.integer[Any]], pitch_in: float) -> None:
    """Colored cells, background apart from the classes."""
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(counts > 0, counts / np.maximum(totals, 1), np.nan)
    edges = np.append(np.arange(len(counts)), [len(counts) - 1 + _GAP_CELLS, len(counts) + _GAP_CELLS])
    for x, y in ((0, 0), (0, edges[-2]), (edges[-2], 0)):
        wide, high = (1 if x else len(counts) - 1), (1 if y else len(counts) - 1)
        axes.add_patch(Rectangle((x, y), wide, high, color=EMPTY, linewidth=0))
    gap_pt = 0.8 if pitch_in > 0.12 else 0.0
    is_right = np.eye(len(counts), dtype=bool)
    for colors, cells in ((_RIGHT, np.where(is_right, shares, np.nan)), (_WRONG, np.where(is_right, np.nan, shares))):
        spread = np.insert(np.insert(cells, -1, np.nan, axis=0), -1, np.nan, axis=1)
        axes.pcolormesh(edges, edges, spread, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=gap_pt)
    axes.set_xlim(0, edges[-1])
    axes.set_ylim(edges[-1], 0)
    axes.set_axis_off()
    _write_numbers(axes, counts, shares, pitch_in)


def _write_numbers(axes: Axes, counts: NDArray[np.integer[Any]], shares: NDArray[np.float64], pitch_in: float) -> None:
    """Counts, in thousands or millions where they are too long; none where those are too long as well."""
    places = list(zip(*np.nonzero(counts), strict=True))
    texts = [f"{int(counts[place]):,}" for place in places]
    size = _size_that_fits(texts, pitch_in)
    if size < _LEAST_EXACT_PT:
        texts = [short_count(int(counts[place])) for place in places]
        size = _size_that_fits(texts, pitch_in)
    if size < _LEAST_PT:
        return
    centers = np.append(np.arange(len(counts) - 1), len(counts) - 1 + _GAP_CELLS) + 0.5
    for (row, column), text in zip(places, texts, strict=True):
        ink = "white" if shares[row, column] > _DARK_FROM else INK
        axes.text(centers[column], centers[row], text, size=size, color=ink, ha="center", va="center_baseline")


def _size_that_fits(texts: Sequence[str], pitch_in: float) -> float:
    size = min(10.0, 72 * pitch_in * 0.4)
    widest_in = max((width_in(text, size) for text in set(texts)), default=0.0)
    return size * min(1.0, 0.88 * pitch_in / max(widest_in, 1e-9))


def _draw_scale(page: Page, middle_in: float, y_in: float) -> None:
    """The color scale: share of the row, from 0 to 100 %, right and wrong."""
    pieces = (
        ("share of the row:  0 %", None),
        ("", _RIGHT),
        ("100 % right    0 %", None),
        ("", _WRONG),
        ("100 % wrong", None),
    )
    bar_in, gap_in = 0.8, 0.07
    wide_in = sum(gap_in + (bar_in if colors else width_in(words, _NOTE_PT)) for words, colors in pieces) - gap_in
    left_in = max(MARGIN_IN, min(middle_in - wide_in / 2, page.width_in - MARGIN_IN - wide_in))
    for words, colors in pieces:
        if colors is None:
            page.text(left_in, y_in, words, size=_NOTE_PT, color=GRAY)
            left_in += width_in(words, _NOTE_PT) + gap_in
        else:
            axes = page.axes(left_in, y_in - 0.07, bar_in, 0.14)
            axes.imshow(np.linspace(0, 1, 300)[None], cmap=colors, aspect="auto")
            axes.set_axis_off()
            left_in += bar_in + gap_in


def _alarms(count: int) -> str:
    return counted(count, "false alarm")
