"""Which charts a report has: each with its heading, its legend and its summary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from d2tune.metrics.metric import Metric
from d2tune.review.charts import (
    IntervalRow,
    Line,
    Mark,
    ScoreBin,
    interval_chart,
    line_chart,
    reliability_chart,
)
from d2tune.review.history import RATE, TOTAL_LOSS
from d2tune.review.sources import Side, section
from d2tune.text import counted

COLORS = tuple(f"var(--s{number})" for number in range(8))
"""Colors of lines, from the page's style sheet."""

_MOST_CLASSES = 6
_MOST_TERMS = 6


@dataclass(frozen=True, slots=True)
class Plot:
    """A chart.

    Attributes:
        title: Its heading.
        svg: The chart.
        words: What it shows, in a sentence or two.
        legend: Name and color of each line; empty where there is one.
    """

    title: str
    svg: Markup
    words: str = ""
    legend: tuple[tuple[str, str], ...] = ()


def course_plots(sides: Sequence[Side], colors: Sequence[str]) -> list[Plot]:
    """How training went: loss, main metric, learning rate."""
    made = [_losses(sides, colors), _main_metric(sides, colors), _rate(sides, colors), _seconds(sides, colors)]
    return [plot for plot in made if plot is not None]


def _losses(sides: Sequence[Side], colors: Sequence[str]) -> Plot | None:
    lines = []
    for side, color in zip(sides, colors, strict=True):
        total = side.history.curves.get(TOTAL_LOSS)
        if total is not None:
            name = "training" if len(sides) == 1 else side.name
            lines.append(Line(name, color, total.iterations, total.values))
        validation = side.history.validation_loss()
        if validation is not None:
            name = "validation" if len(sides) == 1 else f"{side.name}, validation"
            own = COLORS[1] if len(sides) == 1 else color
            lines.append(Line(name, own, validation.iterations, validation.values, "dots"))
    if not lines:
        return None
    words = ""
    if len(sides) == 1:
        terms = sorted(sides[0].history.losses().items(), key=lambda pair: -pair[1].last)[:_MOST_TERMS]
        rows = [
            Line(name.removeprefix("loss_"), COLORS[2 + at], curve.iterations, curve.values, "thin")
            for at, (name, curve) in enumerate(terms)
            if len(terms) > 1
        ]
        lines += rows
        words = "The thin lines are its terms." if rows else ""
    svg = line_chart(lines, x_label="iteration", y_label="loss")
    return Plot("Loss", svg, words, _legend(lines))


def _main_metric(sides: Sequence[Side], colors: Sequence[str]) -> Plot | None:
    lines, marks, words = [], [], ""
    title = next((side.main_place.title for side in sides if side.main_place is not None), "")
    for side, color in zip(sides, colors, strict=True):
        places = [side.main_place] if side.main_place is not None else []
        places += list(side.project.traits.main_metrics) if side.project is not None and not places else []
        curve = next((side.history.curves[one.scalar] for one in places if one.scalar in side.history.curves), None)
        if curve is None:
            continue
        title = title or places[0].title
        lines.append(Line(side.name, color, curve.iterations, curve.values, "dots"))
        best = max(range(len(curve.values)), key=curve.values.__getitem__)
        text = f"best: {curve.values[best]:.1f} at iteration {curve.iterations[best]:,}"
        marks.append(Mark(curve.iterations[best], curve.values[best], f"{side.name}, {text}", color))
        words = f"{text[0].upper()}{text[1:]}; {_times(len(curve.values))}." if len(sides) == 1 else ""
    if not lines:
        return None
    svg = line_chart(lines, x_label="iteration", y_label=title, marks=marks)
    return Plot(f"{title} on the validation split", svg, words, _legend(lines) if len(sides) > 1 else ())


def _rate(sides: Sequence[Side], colors: Sequence[str]) -> Plot | None:
    lines = [
        Line(side.name, color, curve.iterations, curve.values)
        for side, color in zip(sides, colors, strict=True)
        if (curve := side.history.curves.get(RATE)) is not None
    ]
    if not lines:
        return None
    svg = line_chart(lines, x_label="iteration", y_label="learning rate", value_text=lambda value: f"{value:.2g}")
    return Plot("Learning rate", svg, "", _legend(lines) if len(lines) > 1 else ())


def _seconds(sides: Sequence[Side], colors: Sequence[str]) -> Plot | None:
    """How long an iteration takes, and how much of it is waiting for data."""
    lines = []
    for side, color in zip(sides, colors, strict=True):
        curves = side.history.curves
        if "time" in curves:
            name = "an iteration" if len(sides) == 1 else side.name
            lines.append(Line(name, color, curves["time"].iterations, curves["time"].values))
        if "data_time" in curves and len(sides) == 1:
            waiting = curves["data_time"]
            lines.append(Line("of it waiting for data", COLORS[1], waiting.iterations, waiting.values))
    if not lines:
        return None
    svg = line_chart(lines, x_label="iteration", y_label="seconds")
    return Plot("Time of an iteration", svg, "", _legend(lines))


def _times(count: int) -> str:
    return "evaluated once" if count == 1 else f"evaluated {count} times"


def _legend(lines: Sequence[Line]) -> tuple[tuple[str, str], ...]:
    return tuple((line.name, line.color) for line in lines) if len(lines) > 1 else ()


def precision_plot(sides: Sequence[Side], colors: Sequence[str]) -> Plot | None:
    """Precision over recall: of the classes of one model, or the mean over the classes of several."""
    lines = []
    if len(sides) == 1 and sides[0].images is not None:
        curves = [curve for curve in sides[0].images.curves() if curve.AP50.value is not None]
        ranked = sorted(curves, key=lambda curve: curve.AP50.value or 0.0)
        extremes = ranked if len(ranked) <= _MOST_CLASSES else [*ranked[:3], *ranked[-3:]]
        for color, curve in zip(COLORS, extremes, strict=False):
            lines.append(_recall_line(f"{curve.name}, AP50 {curve.AP50}", color, curve.recall, curve.precision))
        words = "The three weakest and the three best classes." if len(ranked) > _MOST_CLASSES else ""
    else:
        for side, color in zip(sides, colors, strict=True):
            curves = list(side.images.curves()) if side.images is not None else []
            defined = [curve for curve in curves if curve.AP50.value is not None]
            if defined:
                mean = np.mean([np.nan_to_num(curve.precision) for curve in defined], axis=0)
                lines.append(_recall_line(side.name, color, defined[0].recall, mean))
        words = "The mean over all classes."
    if not lines:
        return None
    svg = line_chart(lines, x_label="recall", y_label="precision", top=1.0, right=1.0)
    legend = tuple((line.name, line.color) for line in lines)
    return Plot("Precision and recall at IoU 0.5", svg, words, legend)


def _recall_line(name: str, color: str, recall: np.ndarray, precision: np.ndarray) -> Line:
    return Line(name, color, recall.tolist(), np.nan_to_num(precision).tolist())


def size_plot(sides: Sequence[Side], colors: Sequence[str]) -> Plot | None:
    """AP by size."""
    rows = []
    tables = [section(side.evaluation, "analysis").get("sizes") or [] for side in sides]
    names = [row["name"] for row in tables[0]] if tables else []
    for name in names:
        for number, (table, side, color) in enumerate(zip(tables, sides, colors, strict=True)):
            row = next((row for row in table if row["name"] == name), None)
            if row is not None:
                note = f"{counted(row['instances'], 'object')}, {side.name}"
                rows.append(IntervalRow(name if number == 0 else "", color, Metric(**row["AP"]), note))
    if not rows:
        return None
    title = sides[0].main_place.title if sides[0].main_place else "AP"
    svg = interval_chart(rows, x_label=title, name=f"{title} by size of the objects")
    words = "Each row is a quarter of the annotated objects, by the side of a square of their area."
    legend = tuple((side.name, color) for side, color in zip(sides, colors, strict=True)) if len(sides) > 1 else ()
    return Plot(f"{title} by size", svg, words, legend)


def class_plot(side: Side) -> Plot | None:
    """The metric of each class as an interval chart, the weakest first; None for one class, and for very many."""
    place = side.main_place
    rows = []
    for row in side.evaluation.get("classes", ()):
        values = section(row, "metrics")
        value = section(values, place.kind).get(place.name) if place and place.kind in values else None
        value = value or next(iter(values.values()), None)
        if isinstance(value, dict) and "value" in value:
            rows.append(IntervalRow(row["name"], COLORS[0], Metric(**value)))
    if not 1 < len(rows) <= 30:
        return None
    rows.sort(key=lambda row: row.metric.value if row.metric.value is not None else -1.0)
    name = place.title if place is not None and place.name in section(side.evaluation, "metrics", place.kind) else "AP"
    label = (
        name
        if place is not None and place.kind in section(side.evaluation["classes"][0], "metrics")
        else next(iter(side.evaluation["classes"][0]["metrics"]))
    )
    return Plot(
        f"{label} by class", interval_chart(rows, x_label=label, name=f"{label} of each class"), "The weakest first."
    )


def reliability_plot(side: Side) -> Plot | None:
    """How far scores are the share of right detections."""
    calibration = section(side.evaluation, "analysis", "calibration")
    bins = [
        ScoreBin(row["count"], row["score"], row["precision"] / 100)
        for row in calibration.get("bins", ())
        if row["count"]
    ]
    if not bins:
        return None
    error = section(calibration, "expected_error").get("value")
    words = "Dots below the dashed line: scores are higher than the share of right detections. " + (
        f"The expected calibration error is {error:.1f} points." if error is not None else ""
    )
    return Plot("Reliability of scores", reliability_chart(bins, color=COLORS[0]), words)
