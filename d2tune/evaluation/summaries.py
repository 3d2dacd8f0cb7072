"""The result of an evaluation as a table, a line and a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from operator import attrgetter
from pathlib import Path
from typing import Any

from d2tune.evaluation.map_metrics import MapMetrics
from d2tune.metrics.coco.results import KIND_NAMES
from d2tune.metrics.coco.summary import SHOWN_SCORE, ClassScores, InstanceMetrics
from d2tune.metrics.metric import with_interval
from d2tune.report.tables import format_table

Metrics = InstanceMetrics | MapMetrics


def metrics_table(metrics: InstanceMetrics) -> str:
    """A table with a row for each class (and for all classes), and a table of the metrics with their intervals."""
    columns = [(kind, name) for kind in metrics.metrics for name in ("AP", "AP50")]
    header = ["class", "instances", "detected", "false", *(f"{KIND_NAMES[kind]} {name}" for kind, name in columns)]
    header.append("best-F1 threshold")
    rows = [
        [
            row.name,
            *(str(count) for count in (row.instances, row.detected, row.false)),
            *(str(row.metrics[kind][name]) for kind, name in columns),
            _threshold(row),
        ]
        for row in metrics.classes
    ]
    if len(rows) > 1:
        totals = (sum(getattr(row, name) for row in metrics.classes) for name in ("instances", "detected", "false"))
        rows.append(
            [
                "all",
                *(str(total) for total in totals),
                *(str(metrics.metrics[kind][name]) for kind, name in columns),
                "",
            ]
        )
    lines = [format_table(rows, header=header)]
    if metrics.replicates:
        lines += ["", *_interval_lines(metrics)]
    return "\n".join(lines)


def _threshold(row: ClassScores) -> str:
    """The threshold with the highest F1, with its precision and recall."""
    point = row.best_f1
    if point.threshold is None:
        return "-"
    return f"{point.threshold:.2f} (precision {point.precision:.0f} %, recall {point.recall:.0f} %)"


def _interval_lines(metrics: InstanceMetrics) -> list[str]:
    images = f"{metrics.images} image{'' if metrics.images == 1 else 's'}"
    rows = [
        [f"{KIND_NAMES[kind]} {name}", with_interval(values[name])]
        for kind, values in metrics.metrics.items()
        for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")
    ]
    return [format_table(rows, header=["metric", f"value (95 % interval over {images})"])]


def short_line(metrics: InstanceMetrics) -> str:
    """Box and mask AP, and mask AP by size, on a line."""
    segm = metrics.segm
    sizes = f"small {segm['APs']}, medium {segm['APm']}, large {segm['APl']}"
    return f"box AP {metrics.bbox['AP']}  mask AP {segm['AP']} (AP50 {segm['AP50']}; {sizes})"


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The result of an evaluation.

    Attributes:
        out: The folder with ``evaluation.json``, ``plots``, and for a run its predictions and ``contact_sheet.png``.
        metrics: The metrics: `InstanceMetrics`, or `MapMetrics` of label maps and panoptic predictions.
        sentence: The result in a sentence.
    """

    out: Path
    metrics: Metrics
    sentence: str

    @property
    def table(self) -> str:
        """A table with a row for each class, and a table of the metrics with their intervals."""
        return metrics_text(self.metrics)


@singledispatch
def metrics_text(metrics: Any) -> str:
    """The tables of classes and metrics for any task.

    Raises:
        TypeError: The type of the metrics is unknown.
    """
    raise TypeError(f"no table for {type(metrics).__name__}")


metrics_text.register(InstanceMetrics, metrics_table)
metrics_text.register(MapMetrics, attrgetter("table"))


def lower_scores_in_words(noun: str, count: int, highest: float, *, least: float) -> str:
    """That nothing has the lowest score that is shown, but lower scores exist.

    Args:
        noun: What has the scores, in the singular.
        count: Number of lower scores.
        highest: The highest of them.
        least: The lowest score that is shown.
    """
    score = math.floor(1000 * highest) / 1000
    lower = f"1 has the score {score:g}" if count == 1 else f"{count:,} have lower scores, the highest is {score:g}"
    return f"no {noun} has a score of {least:g} or more, but {lower}"


def closing_sentence(
    metrics: Metrics,
    *,
    best_iteration: int | None,
    contact_sheet: Path | None,
    kind: str = "validation",
) -> str:
    """A sentence with the result in plain words, and the main metrics.

    Args:
        metrics: The metrics of any task.
        best_iteration: The iteration of the weights, to be mentioned.
        contact_sheet: A file or folder to be mentioned.
        kind: The kind of the images, such as "validation".
    """
    images = f"{metrics.images} {kind} image".replace("  ", " ") + ("" if metrics.images == 1 else "s")
    return _sentence(metrics, images, best_iteration) + (
        f"; see {contact_sheet}." if contact_sheet is not None else "."
    )


@singledispatch
def _sentence(metrics: Any, images: str, best_iteration: int | None) -> str:
    raise TypeError(f"no sentence for {type(metrics).__name__}")


@_sentence.register
def _map_sentence(metrics: MapMetrics, images: str, best_iteration: int | None) -> str:
    main = metrics.main
    if main.value is None:
        return f"No {metrics.main_name} can be computed on the {images}: {main.reason}"
    span = "" if main.low is None else f", 95 % interval {main.low:.1f} to {main.high:.1f}"
    values = [f"{metrics.headline}{span}"]
    if best_iteration is not None:
        values.append(f"best at iteration {best_iteration}")
    return f"{metrics.plain_summary(images)} ({'; '.join(values)})"


@_sentence.register
def _instance_sentence(metrics: InstanceMetrics, images: str, best_iteration: int | None) -> str:
    instances = sum(row.instances for row in metrics.classes)
    detected = sum(row.detected for row in metrics.classes)
    false = sum(row.false for row in metrics.classes)
    noun = metrics.classes[0].name if len(metrics.classes) == 1 else "object"
    noun += "" if instances == 1 else "s"
    main = metrics.metrics[metrics.main]["AP"]
    if main.value is None:
        return f"No {KIND_NAMES[metrics.main]} AP can be computed on the {images}: {main.reason}"
    alarms = f"{false} false alarm{'' if false == 1 else 's'}"
    span = "" if main.low is None else f", 95 % interval {main.low:.1f} to {main.high:.1f}"
    values = [f"{KIND_NAMES[metrics.main]} AP {main}{span}"]
    if metrics.main != "bbox" and "bbox" in metrics.metrics:
        values.append(f"box AP {metrics.bbox['AP']}")
    if best_iteration is not None:
        values.append(f"best at iteration {best_iteration}")
    counts = f"{detected} of {instances} {noun} with {alarms} at score {SHOWN_SCORE:g}"
    sentence = f"On {images} the model detects {counts} ({'; '.join(values)})"
    return sentence + lower_scores_note(metrics)


def lower_scores_note(metrics: InstanceMetrics) -> str:
    """``; no detection has a score of 0.5 or more, but ...`` where that is so, else empty."""
    if metrics.highest_lower is None:
        return ""
    return "; " + lower_scores_in_words("detection", metrics.lower, metrics.highest_lower, least=SHOWN_SCORE)
