"""A whole evaluation of instances, and the files it leaves: figures with intervals, analysis, table and plots."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from d2tune import files
from d2tune.errors import DataError
from d2tune.metrics.analysis.analysis import Analysis, analyze, size_ranges
from d2tune.metrics.coco.matching import RECALLS
from d2tune.metrics.coco.results import KIND_NAMES, KINDS, InstanceResult, Kind
from d2tune.metrics.coco.rows import read_coco
from d2tune.metrics.coco.scorer import score_set
from d2tune.metrics.coco.summary import WANTED_PRECISION, InstanceMetrics, metrics_of, with_intervals
from d2tune.report.plots import bar_plots, confusion_plot, curve_plots
from d2tune.timing import StageTimes

SCHEMA = 2
"""Version of ``evaluation.json``; docs/evaluation.md describes it."""


@dataclass(frozen=True, slots=True)
class InstanceEvaluation:
    """Everything an evaluation of instances found out.

    Attributes:
        metrics: The figures, with intervals.
        analysis: What is behind them.
        result: Curves and records.
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
    """Score, look behind the figures, and say how certain they are.

    Args:
        ground_truth: A COCO instances dict.
        results: Rows in COCO's results format.
        kinds: What to score; boundaries are scored with their masks.
        split: Name of the data in the reason for a missing value.
        times: Takes the time of scoring.

    Raises:
        DataError: Ground truth or results are not what they should be.
    """
    began = time.perf_counter()
    kinds = _known(kinds)
    data = read_coco(ground_truth, results, kinds)
    ranges = size_ranges(data)
    result = score_set(data, kinds=kinds, area_ranges=ranges, split=split)
    metrics = with_intervals(metrics_of(result), result)
    analysis = analyze(data, result, metrics)
    if times is not None:
        spent_s = time.perf_counter() - began
        times.score_s += spent_s
        times.total_s += spent_s
    return InstanceEvaluation(metrics, analysis, result)


def _known(kinds: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds in their order, masks among them where boundaries are."""
    wanted = [kinds] if isinstance(kinds, str) else list(kinds)
    strange = [kind for kind in wanted if kind not in KINDS]
    if strange or not wanted:
        found = repr(strange[0]) if strange else "none"
        raise DataError("there is no such kind of metric", found=found, expected=", ".join(KINDS))
    return tuple(kind for kind in KINDS if kind in wanted or (kind == "segm" and "boundary" in wanted))


def write_outcome(
    folder: Path, outcome: InstanceEvaluation, *, bound: Mapping[str, Any], times: StageTimes | None
) -> None:
    """Write ``evaluation.json`` and the folder ``plots``.

    Args:
        folder: Where they go.
        outcome: What is written.
        bound: Hashes and names of what produced it.
        times: Where the time went.
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
    """Draw precision and recall, confusion, calibration, error types and sizes, a PNG each."""
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
            one.low, one.high, one.count, one.score, None if one.precision is None else one.precision / 100
        )
        for one in analysis.calibration.bins
    ]
    expected_error = analysis.calibration.expected_error.value
    if bins:
        curve_plots.write_calibration(
            folder / "calibration.png", bins, expected_error=expected_error, subtitle=subtitle
        )
    confusion = analysis.confusion
    confusion_plot.write_confusion(
        folder / "confusion.png", confusion.counts, confusion.labels[:-1], subtitle=f"{subtitle}, score from 0.5 on"
    )
    errors = {name: bar_plots.Bar(name, one.dAP.value, count=one.count) for name, one in analysis.errors.errors.items()}
    bar_plots.write_error_types(folder / "errors.png", errors, AP50=analysis.errors.AP50.value, subtitle=subtitle)
    sizes = [
        bar_plots.Bar(row.name, row.AP.value, row.AP.low, row.AP.high, row.instances, row.AP.reason)
        for row in analysis.sizes
    ]
    if sizes:
        name = f"{KIND_NAMES[kind]} AP"
        bar_plots.write_size_ap(folder / "sizes.png", sizes, metric_name=name, subtitle=subtitle)


def _point(point: Any) -> curve_plots.OperatingPoint | None:
    if point.threshold is None or not 0 <= point.threshold <= 1:
        return None
    return curve_plots.OperatingPoint(point.threshold, point.precision / 100, point.recall / 100)
