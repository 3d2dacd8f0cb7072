"""The metrics of an evaluation of instances, overall and by class, with intervals and score thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics import bootstrap
from d2tune.metrics.coco.accumulate import Records
from d2tune.metrics.coco.operating_points import (
    OperatingPoint,
    PrecisionRecall,
    best_f1,
    for_precision,
    precision_recall,
)
from d2tune.metrics.coco.resampling import resample
from d2tune.metrics.coco.results import InstanceResult, Kind
from d2tune.metrics.metric import Metric

Values = dict[str, Metric]
"""Metrics by name."""

SHOWN_SCORE = 0.5
"""Detections of this score or more are counted in the closing sentence and shown in images."""

WANTED_PRECISION = 90.0
"""Precision, from 0 to 100, whose threshold is computed for each class."""

REPLICATES = 1000
"""Draws of a bootstrap."""

_RESAMPLED_DETECTIONS = 2e8
"""Bound on detections times draws; larger sets, whose intervals are narrow, get fewer draws."""


_QUICK_DETECTIONS = 1e7
"""The same in training: about two seconds."""

_QUICK_DRAWS = (100, 200)
"""Draws in training: fewer than the first say nothing of an interval's ends, more than the second little more."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """The metrics of one class.

    Attributes:
        name: The class.
        instances: Ground-truth instances without crowds.
        detected: Number of them that match a detection of score 0.5 or more at IoU 0.5.
        false: Detections of score 0.5 or more that match no instance.
        metrics: COCO's twelve metrics of each kind.
        best_f1: The score threshold with the highest F1 at IoU 0.5.
        precise: The lowest score threshold with a precision of `WANTED_PRECISION`.
    """

    name: str
    instances: int
    detected: int
    false: int
    metrics: dict[Kind, Values]
    best_f1: OperatingPoint
    precise: OperatingPoint

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the same; ``detected`` is called ``found`` there."""
        return {
            "name": self.name,
            "instances": self.instances,
            "found": self.detected,
            "false": self.false,
            "metrics": {kind: _plain(values) for kind, values in self.metrics.items()},
            "best_f1": asdict(self.best_f1),
            "precise": asdict(self.precise),
        }


@dataclass(frozen=True, slots=True)
class InstanceMetrics:
    """The metrics of a set of predictions.

    Attributes:
        images: Images evaluated.
        metrics: COCO's twelve metrics of each kind: ``bbox``, ``segm``, ``boundary``.
        classes: One row for each class, in the order of their ids.
        replicates: Draws behind the intervals; 0 without intervals.
        lower: Number of detections, where all of them are below `SHOWN_SCORE`; else 0, as in earlier versions.
        highest_lower: Their highest score, else None.
    """

    images: int
    metrics: dict[Kind, Values]
    classes: tuple[ClassScores, ...]
    replicates: int = field(default=0)
    lower: int = 0
    highest_lower: float | None = None

    @property
    def bbox(self) -> Values:
        """COCO's twelve metrics of boxes."""
        return self.metrics["bbox"]

    @property
    def segm(self) -> Values:
        """COCO's twelve metrics of masks."""
        return self.metrics["segm"]

    @property
    def main(self) -> Kind:
        """The main kind: masks if they were scored, else boxes, else boundaries."""
        return "segm" if "segm" in self.metrics else "bbox" if "bbox" in self.metrics else "boundary"

    def to_json(self) -> dict[str, Any]:
        """A plain dict with ``metrics.bbox.AP`` and so on, each ``{value, low, high, reason}``, and ``classes``."""
        return {
            "images": self.images,
            "metrics": {kind: _plain(values) for kind, values in self.metrics.items()},
            "classes": [row.to_json() for row in self.classes],
            "replicates": self.replicates,
            "lower": self.lower,
            "highest_lower": self.highest_lower,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> InstanceMetrics:
        """The inverse of ``to_json``."""

        def values(kinds: Mapping[str, Any]) -> dict[Any, Values]:
            return {kind: {name: Metric(**one) for name, one in rows.items()} for kind, rows in kinds.items()}

        classes = tuple(
            ClassScores(
                **{key: row[key] for key in ("name", "instances", "false")},
                detected=row["found"],
                metrics=values(row["metrics"]),
                best_f1=OperatingPoint(**row["best_f1"]),
                precise=OperatingPoint(**row["precise"]),
            )
            for row in plain["classes"]
        )
        lower = plain.get("lower", 0), plain.get("highest_lower")
        return cls(plain["images"], values(plain["metrics"]), classes, plain["replicates"], *lower)


def _plain(values: Values) -> dict[str, Any]:
    return {name: one.to_json() for name, one in values.items()}


def metrics_of(result: InstanceResult) -> InstanceMetrics:
    """The metrics of a result with what follows from its records."""
    kind: Kind = next(kind for kind in ("segm", "bbox", "boundary") if kind in result.kinds)
    records = result.kinds[kind].records
    rows = []
    for number, row in enumerate(result.kinds[kind].classes):
        curve, detected, false = _at_half(records, number)
        of_class = {name: of_kind.classes[number].metrics for name, of_kind in result.kinds.items()}
        points = best_f1(curve), for_precision(curve, WANTED_PRECISION)
        rows.append(ClassScores(row.name, row.instances, detected, false, of_class, *points))
    overall = {name: of_kind.metrics for name, of_kind in result.kinds.items()}
    metrics = InstanceMetrics(len(result.image_ids), overall, tuple(rows))
    highest = float(records.score.max(initial=-np.inf))
    if -np.inf < highest < SHOWN_SCORE:
        return replace(metrics, lower=len(records.score), highest_lower=highest)
    return metrics


def _at_half(records: Records, number: int) -> tuple[PrecisionRecall, int, int]:
    """Of a class: its curve at IoU 0.5, and its true and false positives of `SHOWN_SCORE` or more."""
    scores, right, counts = detections_of(records, number)
    shown = (scores >= SHOWN_SCORE) & counts
    curve = precision_recall(scores, right, ~counts, int(records.truth_totals()[number, 0]))
    return curve, int((shown & right).sum()), int((shown & ~right).sum())


def detections_of(records: Records, number: int) -> tuple[Any, Any, Any]:
    """The detections of a class: scores, whether each matches at IoU 0.5, whether it counts; ``(N,)`` each."""
    place = records.of_class(number)
    right, counts = records.flags(place)
    return records.score[place], right[:, 0, 0], counts[:, 0, 0]


def replicates_for(result: InstanceResult) -> int:
    """Draws of a bootstrap of this result: `REPLICATES`, or fewer with very many detections."""
    largest = max((len(of_kind.records.score) for of_kind in result.kinds.values()), default=0)
    return int(np.clip(_RESAMPLED_DETECTIONS // max(largest, 1), 100, REPLICATES))


def spanned_main(metrics: InstanceMetrics, result: InstanceResult, *, seed: int = 0) -> Metric:
    """AP of the main kind with its 95 % interval from few draws; without one where the detections are very many.

    Args:
        metrics: The metrics of ``result``.
        result: With the matches.
        seed: Of the draws.
    """
    main, records = metrics.metrics[metrics.main]["AP"], result.kinds[metrics.main].records
    draws = min(_QUICK_DRAWS[1], int(_QUICK_DETECTIONS // max(len(records.score), 1)))
    if main.value is None or draws < _QUICK_DRAWS[0] or len(result.image_ids) < 2:
        return main
    span = bootstrap.interval(
        lambda weights: resample(records, weights).overall["AP"], len(result.image_ids), replicates=draws, seed=seed
    )
    return replace(main, low=span.low, high=span.high)


def with_intervals(metrics: InstanceMetrics, result: InstanceResult, *, seed: int = 0) -> InstanceMetrics:
    """The metrics with their 95 % bootstrap intervals over images; see `bootstrap`.

    Args:
        metrics: The metrics of ``result``.
        result: With the matches.
        seed: Of the draws.
    """
    replicates = replicates_for(result)
    if not result.image_ids or not metrics.classes:
        return replace(metrics, replicates=replicates)
    overall: dict[Kind, Values] = {}
    by_class: list[dict[Kind, Values]] = [{} for _ in metrics.classes]
    for kind, kind_result in result.kinds.items():
        spans = bootstrap.intervals(
            partial(_statistics, kind_result.records), len(result.image_ids), replicates=replicates, seed=seed
        )
        overall[kind] = _spanned(metrics.metrics[kind], spans, "")
        for number, row in enumerate(metrics.classes):
            by_class[number][kind] = _spanned(row.metrics[kind], spans, f"{number} ")
    rows = tuple(replace(row, metrics=by_class[number]) for number, row in enumerate(metrics.classes))
    return replace(metrics, metrics=overall, classes=rows, replicates=replicates)


def _statistics(records: Records, weights: bootstrap.Weights) -> dict[str, NDArray[np.float64]]:
    resampled = resample(records, weights)
    by_class = {
        f"{number} {name}": values for number, row in enumerate(resampled.classes) for name, values in row.items()
    }
    return resampled.overall | by_class


def _spanned(values: Values, spans: Mapping[str, bootstrap.Interval], prefix: str) -> Values:
    spanned = {}
    for name, one in values.items():
        span = spans.get(prefix + name)
        has_span = one.value is not None and span is not None
        spanned[name] = replace(one, low=span.low, high=span.high) if has_span and span is not None else one
    return spanned
