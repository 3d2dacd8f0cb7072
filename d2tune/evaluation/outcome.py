"""A complete evaluation of instances and its files: metrics with intervals, analysis and plots."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from d2tune import files
from d2tune.errors import DataError
from d2tune.metrics.analysis.analysis import Analysis, analyze, size_ranges
from d2tune.metrics.coco.matching import RECALLS
from d2tune.metrics.coco.results import KIND_NAMES, KINDS, InstanceResult, Kind
from d2tune.metrics.coco.rows import CocoSet, read_coco
from d2tune.metrics.coco.scorer import score_set
from d2tune.metrics.coco.summary import WANTED_PRECISION, InstanceMetrics, metrics_of, with_intervals
from d2tune.run_schema import EVALUATION_VERSION
from d2tune.timing import StageTimes

if TYPE_CHECKING:
    from d2tune.report.plots import curve_plots

SCHEMA = EVALUATION_VERSION
"""Version of ``evaluation.json``; docs/evaluation.md describes it."""


@dataclass(frozen=True, slots=True)
class InstanceEvaluation:
    """A complete evaluation of instances.

    Attributes:
        metrics: The metrics with intervals.
        analysis: The analysis of errors.
        result: Curves and records of the matching.
    """

    metrics: InstanceMetrics
    analysis: Analysis
    result: InstanceResult


def evaluate_results(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    kinds: Sequence[Kind],
    split: str = "the data",
    times: StageTimes | None = None,
) -> InstanceEvaluation:
    """Compute metrics, their intervals, and the analysis of errors.

    Args:
        ground_truth: A COCO instances dict.
        results: Rows in COCO's results format.
        kinds: The kinds of metrics; ``boundary`` includes ``segm``.
        split: Name of the data in the reason for a missing value.
        times: Receives the time of scoring.

    Raises:
        DataError: A kind is unknown, or ground truth or results are invalid.
    """
    kinds = known_kinds(kinds)
    return evaluate_set(read_coco(ground_truth, results, kinds), kinds=kinds, split=split, times=times)


def evaluate_set(
    data: CocoSet, *, kinds: tuple[Kind, ...], split: str = "the data", times: StageTimes | None = None
) -> InstanceEvaluation:
    """Compute metrics, their intervals, and the analysis of errors of checked ground truth and results.

    Args:
        data: Ground truth and results that were read for these kinds.
        kinds: See `known_kinds`.
        split: Name of the data in the reason for a missing value.
        times: Receives the time of scoring.
    """
    began = time.perf_counter()
    ranges = size_ranges(data)
    result = score_set(data, kinds=kinds, area_ranges=ranges, split=split)
    metrics = with_intervals(metrics_of(result), result)
    analysis = analyze(data, result, metrics)
    if times is not None:
        spent_s = time.perf_counter() - began
        times.score_s += spent_s
        times.total_s += spent_s
    return InstanceEvaluation(metrics, analysis, result)


def known_kinds(kinds: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds in their order, with masks if boundaries are among them."""
    wanted = [kinds] if isinstance(kinds, str) else list(kinds)
    unknown = [kind for kind in wanted if kind not in KINDS]
    if unknown or not wanted:
        given = repr(unknown[0]) if unknown else "none"
        raise DataError("the kind of metric is unknown", found=given, expected=", ".join(KINDS))
    return tuple(kind for kind in KINDS if kind in wanted or (kind == "segm" and "boundary" in wanted))


def write_outcome(
    folder: Path, outcome: InstanceEvaluation, *, bound: Mapping[str, Any], times: StageTimes | None
) -> None:
    """Write ``evaluation.json`` and the folder ``plots``.

    Args:
        folder: The output folder.
        outcome: The evaluation.
        bound: Paths and hashes of the run, its weights, config, data and predictions.
        times: The time of each stage.
    """
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "task": "instance",
        **bound,
        **outcome.metrics.to_json(),
        "wanted_precision": WANTED_PRECISION,
        "analysis": outcome.analysis.to_json(),
    }
    content["times"] = None if times is None else times.to_json()
    files.write_json(folder / "evaluation.json", content)
    write_plots(folder / "plots", outcome)


def write_plots(folder: Path, outcome: InstanceEvaluation) -> None:
    """Write PNGs of precision and recall, confusion, calibration, error types and sizes."""
    from d2tune.report.plots import bar_plots, confusion_plot, curve_plots

    metrics, analysis = outcome.metrics, outcome.analysis
    kind = analysis.kind
    what = {"bbox": "boxes", "segm": "masks", "boundary": "boundaries"}[kind]
    subtitle = f"{what} on {metrics.images} image{'' if metrics.images == 1 else 's'}"
    precision = outcome.result.kinds[kind].curves.precision
    curves = [
        curve_plots.Curve(
            row.name,
            RECALLS,
            np.where(precision[0, :, number, 0, -1] < 0, np.nan, precision[0, :, number, 0, -1]),
            row.metrics[kind]["AP50"].value,
            _point(row.best_f1),
        )
        for number, row in enumerate(metrics.classes)
    ]
    if curves:
        curve_plots.write_precision_recall(folder / "precision_recall.png", curves, subtitle=subtitle)
    bins = [
        curve_plots.ScoreBin(
            row.low, row.high, row.count, row.score, None if row.precision is None else row.precision / 100
        )
        for row in analysis.calibration.bins
    ]
    expected_error = analysis.calibration.expected_error.value
    if bins:
        curve_plots.write_calibration(
            folder / "calibration.png", bins, expected_error=expected_error, subtitle=subtitle
        )
    confusion = analysis.confusion
    confusion_plot.write_confusion(
        folder / "confusion.png", confusion.counts, confusion.labels[:-1], subtitle=f"{subtitle}, score of at least 0.5"
    )
    errors = {
        name: bar_plots.Bar(name, error.dAP.value, count=error.count) for name, error in analysis.errors.errors.items()
    }
    bar_plots.write_error_types(folder / "errors.png", errors, AP50=analysis.errors.AP50.value, subtitle=subtitle)
    sizes = [
        bar_plots.Bar(row.name, row.AP.value, row.AP.low, row.AP.high, row.instances, row.AP.reason)
        for row in analysis.sizes
    ]
    if sizes:
        name = f"{KIND_NAMES[kind]} AP"
        bar_plots.write_size_ap(folder / "sizes.png", sizes, metric_name=name, subtitle=subtitle)


def _point(point: Any) -> curve_plots.OperatingPoint | None:
    from d2tune.report.plots import curve_plots

    if point.threshold is None or not 0 <= point.threshold <= 1:
        return None
    return curve_plots.OperatingPoint(point.threshold, point.precision / 100, point.recall / 100)
