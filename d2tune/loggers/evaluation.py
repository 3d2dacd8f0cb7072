"""What loggers are given of a complete evaluation: its metrics with their intervals, and charts of it."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PilImage

from d2tune.loggers.base import LoggedImage
from d2tune.loggers.exhibits import Chart
from d2tune.report.plots import bar_plots

PREFIX = "evaluation"
"""Names of the scalars and images of the complete evaluation begin with it, as those in training do with ``val``."""

Curves = Sequence[tuple[str, NDArray[np.float64], NDArray[np.float64]]]
"""For each class its name, recall and precision ``(R,)`` from 0 to 1; precision is NaN where it is not defined."""

_CLASS_PLOTS = ("class_iou", "class_pq")


def scalars(evaluation: Mapping[str, Any]) -> dict[str, float]:
    """All metrics by name, with the ends of their intervals.

    The names are those of ``evaluation.json``: ``evaluation/segm/AP``, and ``evaluation/segm/AP_low`` and ``_high`` for
    its 95 % interval; ``evaluation/segm/AP-balloon`` for the main metric of a class.

    Args:
        evaluation: The content of an ``evaluation.json``.
    """
    values: dict[str, float] = {}
    for kind, metrics in evaluation["metrics"].items():
        for name, metric in metrics.items():
            values |= _with_ends(f"{PREFIX}/{kind}/{name}", metric)
    kind, name = class_metric(evaluation)
    for row in evaluation["classes"]:
        values |= _with_ends(f"{PREFIX}/{kind}/{name}-{row['name']}", _of_class(row, kind)[name])
    return values


def class_metric(evaluation: Mapping[str, Any]) -> tuple[str, str]:
    """Kind and name of the metric that classes are compared by: the first of the most exact kind."""
    kinds = list(evaluation["metrics"])
    kind = "segm" if "segm" in kinds else kinds[0]
    rows = evaluation["classes"]
    return kind, next(iter(_of_class(rows[0], kind)), "") if rows else ""


def images(evaluation: Mapping[str, Any], *, curves: Curves, plots: Path) -> dict[str, LoggedImage]:
    """Charts of the classes, of precision and recall and of confusion, and the other plots as pixels.

    Args:
        evaluation: The content of an ``evaluation.json``.
        curves: Precision and recall of each class; empty where predictions have no scores.
        plots: The folder ``plots`` beside it.
    """
    pixels = {path.stem: _read(path) for path in sorted(plots.glob("*.png")) if path.stem not in _CLASS_PLOTS}
    shown: dict[str, LoggedImage] = {f"{PREFIX}/{name}": plot for name, plot in pixels.items()}
    shown |= {f"{PREFIX}/classes": chart for chart in _class_bars(evaluation)}
    if curves and "precision_recall" in pixels:
        shown[f"{PREFIX}/precision_recall"] = _curves(curves, pixels["precision_recall"])
    if "confusion" in pixels:
        shown[f"{PREFIX}/confusion"] = _confusion(evaluation, pixels["confusion"])
    return shown


def _with_ends(name: str, metric: Mapping[str, Any]) -> dict[str, float]:
    ends = {"": metric["value"], "_low": metric.get("low"), "_high": metric.get("high")}
    return {f"{name}{end}": float(value) for end, value in ends.items() if value is not None}


def _of_class(row: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The metrics of a class, which are by kind where there are several kinds."""
    metrics: Mapping[str, Any] = row["metrics"].get(kind, row["metrics"])
    return metrics


def _class_bars(evaluation: Mapping[str, Any]) -> Iterator[Chart]:
    """A bar for each class that has a value."""
    kind, name = class_metric(evaluation)
    metrics = [(row["name"], _of_class(row, kind)[name]) for row in evaluation["classes"]]
    valued = [(label, metric) for label, metric in metrics if metric["value"] is not None]
    if not valued:
        return
    bars = [bar_plots.Bar(label, one["value"], one.get("low"), one.get("high")) for label, one in valued]
    mean = sum(one["value"] for _, one in valued) / len(valued)
    images = evaluation["images"]
    with tempfile.TemporaryDirectory(prefix="d2tune-plots-") as folder:
        path = Path(folder) / "classes.png"
        subtitle = f"{images} image{'' if images == 1 else 's'}"
        bar_plots.write_class_metric(path, bars, mean=mean, subtitle=subtitle, metric_name=name)
        rows = [(label, one["value"]) for label, one in valued]
        yield Chart("bars", f"{name} of each class", ("class", name), rows, _read(path))


def _curves(curves: Curves, pixels: NDArray[np.uint8]) -> Chart:
    rows = [
        (name, round(float(r), 4), round(float(p), 4))
        for name, recall, precision in curves
        for r, p in zip(recall, precision, strict=True)
        if not math.isnan(p)
    ]
    return Chart("curves", "precision over recall", ("class", "recall", "precision"), rows, pixels)


def _confusion(evaluation: Mapping[str, Any], pixels: NDArray[np.uint8]) -> Chart:
    """Counts of pairs: of instances with a background in both, of pixels with ignored predictions."""
    if "analysis" in evaluation:
        matrix = evaluation["analysis"]["confusion"]
        annotated, predicted, counts = matrix["labels"], matrix["labels"], matrix["counts"]
    else:
        annotated = [row["name"] for row in evaluation["classes"]]
        predicted, counts = [*annotated, "ignored"], evaluation["confusion"]
    rows = [
        (annotated[i], predicted[j], int(count)) for i, row in enumerate(counts) for j, count in enumerate(row) if count
    ]
    return Chart("matrix", "confusion of classes", ("annotated", "predicted", "count"), rows, pixels)


def _read(path: Path) -> NDArray[np.uint8]:
    with PilImage.open(path) as image:
        return np.asarray(image.convert("RGB"))
