"""The tables of a report: what a row shows, as text and numbers."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2tune.evaluation.images.base import OF_TIDE
from d2tune.metrics.bootstrap import Comparison
from d2tune.metrics.coco.results import KIND_NAMES
from d2tune.metrics.metric import Metric
from d2tune.review.advice import class_metric
from d2tune.review.sources import Side, section

CLASSES_SHOWN = 60
"""Rows of the table of classes before the rest is folded."""

CONFUSION_CLASSES = 24
"""Classes of a confusion matrix that are shown at most: those with the most confusions."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A value of a table that can be sorted."""

    text: str
    order: float
    metric: Metric | None = None


@dataclass(frozen=True, slots=True)
class RunRow:
    """A model beside others.

    Attributes:
        side: The model.
        color: Its color in charts.
        main: Its main metric.
        difference: The difference to the first one, with its interval.
        chance: In how many draws it is better.
        verdict: ``better``, ``worse`` or ``not distinguishable``; empty for the first one.
        facts: Further values.
    """

    side: Side
    color: str
    main: Metric | None
    difference: str
    chance: str
    verdict: str
    facts: tuple[str, ...]


def run_rows(sides: Sequence[Side], colors: Sequence[str], to_first: Sequence[Comparison | None]) -> list[RunRow]:
    """A row for each model."""
    return [_run_row(*row) for row in zip(sides, colors, to_first, strict=True)]


def _run_row(side: Side, color: str, comparison: Comparison | None) -> RunRow:
    difference, chance, verdict = "", "", ""
    if comparison is not None:
        span = comparison.interval
        if comparison.difference is not None:
            difference = f"{comparison.difference:+.1f}"
        if span.low is not None and span.high is not None:
            difference += f" ({span.low:+.1f} to {span.high:+.1f})"
        if comparison.probability_b_better is not None:
            chance = f"{100 * comparison.probability_b_better:.0f} %"
        verdict = {"A": "worse", "B": "better", None: "not distinguishable"}[comparison.better]
    summary = side.summary
    seconds = None if summary is None else summary.training_s
    facts = (
        "predictions of a file" if summary is None else summary.preset or "",
        "" if summary is None or not summary.iterations else f"{summary.iterations:,}",
        "" if seconds is None else duration(seconds),
        str(side.evaluation.get("images", "")),
    )
    return RunRow(side, color, side.main, difference, chance, verdict, facts)


def class_header(sides: Sequence[Side]) -> list[str]:
    """The columns of `class_rows` after the name of the class."""
    side = sides[0]
    if len(sides) > 1:
        title = side.main_place.title if side.main_place else "metric"
        return ["in training", "validation", *(f"{title}, {one.name}" for one in sides)]
    if _has_counts(side):
        kinds = list(section(side.evaluation, "metrics"))
        return [
            *("in training", "validation", "detected", "false"),
            *(f"{KIND_NAMES[kind]} AP" for kind in reversed(kinds) if kind in KIND_NAMES),
            *("threshold", "precision", "recall"),
        ]
    names = list(side.evaluation["classes"][0]["metrics"]) if side.evaluation.get("classes") else []
    return ["in training", "validation", *names]


def class_rows(sides: Sequence[Side]) -> list[tuple[str, list[Cell]]]:
    """Each class with its cells, see `class_header`."""
    side, rows = sides[0], []
    trained = section(side.record, "data", "train_instances")
    validated = section(side.record, "data", "val_instances")
    for row in side.evaluation.get("classes", ()):
        name = row["name"]
        cells = [count_cell(trained.get(name)), count_cell(row.get("instances", validated.get(name)))]
        cells += _compared_cells(sides, name) if len(sides) > 1 else _own_cells(side, row)
        rows.append((name, cells))
    return rows


def _compared_cells(sides: Sequence[Side], name: str) -> Iterator[Cell]:
    for side in sides:
        place = side.main_place
        row = next((one for one in side.evaluation.get("classes", ()) if one["name"] == name), None)
        yield metric_cell(None if row is None or place is None else class_metric(row, place.kind, place.name))


def _own_cells(side: Side, row: dict[str, Any]) -> list[Cell]:
    if not _has_counts(side):
        return [metric_cell(Metric(**value)) for value in row["metrics"].values()]
    kinds = [kind for kind in reversed(list(section(side.evaluation, "metrics"))) if kind in KIND_NAMES]
    point = section(row, "best_f1")
    cells = [count_cell(row["found"]), count_cell(row["false"])]
    cells += [metric_cell(class_metric(row, kind, "AP")) for kind in kinds]
    has_point = point.get("threshold") is not None
    cells.append(Cell(f"{point['threshold']:.2f}", point["threshold"]) if has_point else count_cell(None))
    return cells + [
        Cell(f"{point[key]:.0f} %", point[key]) if has_point else count_cell(None) for key in ("precision", "recall")
    ]


def _has_counts(side: Side) -> bool:
    """Whether classes have numbers of detected and false objects, and thresholds."""
    rows = side.evaluation.get("classes", ())
    return bool(rows) and "best_f1" in rows[0]


def count_cell(value: int | None) -> Cell:
    """A number of objects; a dash where it is not known."""
    return Cell("-", -1.0) if value is None else Cell(f"{value:,}", float(value))


def metric_cell(metric: Metric | None) -> Cell:
    """A metric with its interval; a dash where it has no value."""
    if metric is None or metric.value is None:
        return Cell("-", -1.0)
    return Cell(f"{metric.value:.1f}", metric.value, metric)


def all_metrics(side: Side) -> list[tuple[str, Metric]]:
    """Every metric over all classes with its name for people."""
    return [
        (f"{KIND_NAMES[kind]} {name}" if kind in KIND_NAMES else name, Metric(**value))
        for kind, values in section(side.evaluation, "metrics").items()
        for name, value in values.items()
    ]


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """A type of error: its name, how often it occurs, and what it costs each model, in points of AP50."""

    kind: str
    counts: tuple[int, ...]
    costs: tuple[float | None, ...]


def error_rows(sides: Sequence[Side]) -> list[ErrorRow]:
    """The types of error, the most costly of the first model first; empty where they are not analyzed."""
    tables = [section(side.evaluation, "analysis", "errors", "errors") for side in sides]
    if not tables or not tables[0]:
        return []
    rows = [
        ErrorRow(
            OF_TIDE[kind],
            tuple(int(section(table, kind).get("count") or 0) for table in tables),
            tuple(section(table, kind, "dAP").get("value") for table in tables),
        )
        for kind in tables[0]
    ]
    return sorted(rows, key=lambda row: -(row.costs[0] or 0.0))


@dataclass(frozen=True, slots=True)
class Confusion:
    """A confusion matrix: rows are annotated classes, columns predicted ones, and ``background`` means none.

    Attributes:
        columns: Names of the columns.
        rows: Name and cells of each row: the number, and its share of the row from 0 to 1.
        words: What is counted.
        hidden: Number of classes that are not shown.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[tuple[int, float], ...]], ...]
    words: str
    hidden: int


def confusion(side: Side) -> Confusion | None:
    """The confusion matrix of a model; None where there is none."""
    given = section(side.evaluation, "analysis", "confusion")
    if given:
        labels, counts = list(given["labels"]), [list(row) for row in given["counts"]]
        names = labels, labels
        words = (
            f"Objects, at score {given['score']:g} and IoU {given['iou']:g}. Rows are annotated classes, columns "
            "predicted ones. The last column counts missed objects, the last row false alarms."
        )
    elif side.evaluation.get("confusion"):
        classes = [row["name"] for row in side.evaluation["classes"]]
        counts = [list(row) for row in side.evaluation["confusion"]]
        names = classes, [*classes, "no class"]
        words = "Pixels. Rows are annotated classes, columns predicted ones."
    else:
        return None
    if not any(counts[row][at] for row in range(len(counts)) for at in range(len(counts[row])) if row != at):
        keep = list(range(min(len(names[0]), CONFUSION_CLASSES)))
    else:
        keep = _most_confused(counts, len(names[0]))
    columns = [at for at in range(len(names[1])) if at in keep or at >= len(names[0])]
    if names[1][-1] == "no class" and not any(row[-1] for row in counts):
        columns = [at for at in columns if at != len(names[1]) - 1]
    rows = []
    for at in keep:
        total = sum(counts[at]) or 1
        rows.append((names[0][at], tuple((counts[at][column], counts[at][column] / total) for column in columns)))
    return Confusion(tuple(names[1][at] for at in columns), tuple(rows), words, len(names[0]) - len(keep))


def _most_confused(counts: Sequence[Sequence[int]], classes: int) -> list[int]:
    def confused(at: int) -> int:
        return sum(counts[at]) + sum(row[at] for row in counts) - 2 * counts[at][at]

    ranked = sorted(range(classes), key=lambda at: (at != classes - 1, -confused(at)))
    return sorted(ranked[:CONFUSION_CLASSES])


def timing_rows(side: Side) -> list[tuple[str, str]]:
    """How long everything took."""
    rows = []
    seconds = section(side.record, "durations").get("training_s")
    curves = side.history.curves
    if isinstance(seconds, (int, float)):
        rows.append(("training", duration(float(seconds))))
    if "time" in curves:
        values = sorted(curves["time"].values)
        rows.append(("an iteration (median)", f"{values[len(values) // 2]:.3g} s"))
    if "data_time" in curves:
        values = sorted(curves["data_time"].values)
        rows.append(("of it waiting for data", f"{values[len(values) // 2]:.2g} s"))
    times, images = section(side.evaluation, "times"), side.evaluation.get("images") or 0
    stages = {
        "load_s": "reading images",
        "forward_s": "the network",
        "postprocess_s": "masks",
        "score_s": "metrics",
        "total_s": "evaluation in all",
    }
    for key, name in stages.items():
        value = times.get(key)
        if isinstance(value, (int, float)):
            each = f", {1000 * value / images:.0f} ms an image" if images and key != "score_s" else ""
            rows.append((name, f"{value:.2f} s{each}"))
    return rows


def machine_rows(side: Side) -> list[tuple[str, str]]:
    """What it ran on, and with which versions."""
    rows = [(name.replace("_", " "), str(value)) for name, value in section(side.record, "machine").items()]
    return rows + [(name, str(value)) for name, value in section(side.record, "versions").items()]


def repeat_rows(side: Side) -> list[tuple[str, str]]:
    """What identifies data, weights, config and predictions."""
    record, evaluation = side.record, side.evaluation
    rows = [
        ("project file", record.get("project_file")),
        ("seed", record.get("seed")),
        ("initial weights", section(record, "weights").get("line")),
        ("SHA-256 of the training split", section(record, "data").get("train_sha256")),
        ("SHA-256 of the validation split", section(record, "data").get("val_sha256")),
        ("SHA-256 of the evaluated data", evaluation.get("data_sha256")),
        ("SHA-256 of the evaluated weights", evaluation.get("weights_sha256")),
        ("SHA-256 of the config", evaluation.get("config_sha256")),
        ("SHA-256 of the predictions", evaluation.get("predictions_sha256")),
    ]
    return [(name, str(value)) for name, value in rows if value is not None]


def command_of(side: Side) -> str:
    """The command that a run was made with; empty where it is not known."""
    words = side.record.get("command")
    if not isinstance(words, list) or not words:
        return ""
    return shlex.join([Path(str(words[0])).name, *map(str, words[1:])])


def duration(seconds: float) -> str:
    """``42 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = math.floor(seconds / 60 + 0.5)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
