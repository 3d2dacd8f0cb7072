"""What an evaluation of instances found out, as one noun: figures, class by class, with intervals and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

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

Figures = dict[str, Metric]

SHOWN_SCORE = 0.5
"""Detections from this score on are counted in the closing sentence and drawn in images."""

WANTED_PRECISION = 90.0
"""Precision whose threshold is given for each class, from 0 to 100."""

REPLICATES = 1000
_DETECTIONS_DRAWN = 2e8
"""Bound on detections times draws; larger sets, whose figures are certain anyway, get fewer draws."""


@dataclass(frozen=True, slots=True)
class ClassScores:
    """What one class scored.

    Attributes:
        name: The class.
        instances: Ground-truth instances, crowds left out.
        detected: Of those, how many a detection of score 0.5 or more covers with an IoU of 0.5 or more.
        false: Detections of score 0.5 or more that cover none.
        metrics: COCO's twelve figures of each kind.
        best_f1: The score from which on detections are best believed, and what it gives at IoU 0.5.
        precise: The lowest score from which on nine in ten detections are right.
    """

    name: str
    instances: int
    detected: int
    false: int
    metrics: dict[Kind, Figures]
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
    """The figures of a set of predictions.

    Attributes:
        images: Images evaluated.
        metrics: COCO's twelve figures of each kind: ``bbox``, ``segm``, ``boundary``.
        classes: One row for each class, in the order of their ids.
        replicates: Draws behind the intervals; 0 where there are none.
    """

    images: int
    metrics: dict[Kind, Figures]
    classes: tuple[ClassScores, ...]
    replicates: int = field(default=0)

    @property
    def bbox(self) -> Figures:
        """COCO's twelve figures of boxes."""
        return self.metrics["bbox"]

    @property
    def segm(self) -> Figures:
        """COCO's twelve figures of masks."""
        return self.metrics["segm"]

    @property
    def main(self) -> Kind:
        """The kind that counts: masks where there are any."""
        return "segm" if "segm" in self.metrics else "bbox" if "bbox" in self.metrics else "boundary"

    def to_json(self) -> dict[str, Any]:
        """A plain dict with ``metrics.bbox.AP`` and so on, each ``{value, low, high, reason}``, and ``classes``."""
        return {
            "images": self.images,
            "metrics": {kind: _plain(figures) for kind, figures in self.metrics.items()},
            "classes": [row.to_json() for row in self.classes],
            "replicates": self.replicates,
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> InstanceMetrics:
        """What ``to_json`` wrote."""

        def figures(kinds: Mapping[str, Any]) -> dict[Any, Figures]:
            return {kind: {name: Metric(**one) for name, one in part.items()} for kind, part in kinds.items()}

        classes = tuple(
            ClassScores(
                **{key: row[key] for key in ("name", "instances", "false")},
                detected=row["found"],
                metrics=figures(row["metrics"]),
                best_f1=OperatingPoint(**row["best_f1"]),
                precise=OperatingPoint(**row["precise"]),
            )
            for row in plain["classes"]
        )
        return cls(plain["images"], figures(plain["metrics"]), classes, plain["replicates"])


def _plain(figures: Figures) -> dict[str, Any]:
    return {name: one.to_json() for name, one in figures.items()}


def metrics_of(result: InstanceResult) -> InstanceMetrics:
    """The metrics of a result with what follows from its records."""
    kind: Kind = next(kind for kind in ("segm", "bbox", "boundary") if kind in result.kinds)
    records = result.kinds[kind].records
    rows = []
    for number, row in enumerate(result.kinds[kind].classes):
        curve, found, false = _at_half(records, number)
        metrics = {one: part.classes[number].metrics for one, part in result.kinds.items()}
        points = best_f1(curve), for_precision(curve, WANTED_PRECISION)
        rows.append(ClassScores(row.name, row.instances, found, false, metrics, *points))
    return InstanceMetrics(
        len(result.image_ids), {one: part.metrics for one, part in result.kinds.items()}, tuple(rows)
    )


def _at_half(records: Records, number: int) -> tuple[PrecisionRecall, int, int]:
    """Of a class: its curve at IoU 0.5, and its right and its wrong detections of `SHOWN_SCORE` or more."""
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
    """How many draws of the images a bootstrap of this result takes: `REPLICATES`, or fewer for very many images."""
    largest = max((len(part.records.score) for part in result.kinds.values()), default=0)
    return int(np.clip(_DETECTIONS_DRAWN // max(largest, 1), 100, REPLICATES))


def with_intervals(metrics: InstanceMetrics, result: InstanceResult, *, seed: int = 0) -> InstanceMetrics:
    """The figures with their 95 % bootstrap intervals over images; see `bootstrap`.

    Args:
        metrics: The figures of ``result``.
        result: With records.
        seed: Of the draws.
    """
    replicates = replicates_for(result)
    overall: dict[Kind, Figures] = {}
    by_class: list[dict[Kind, Figures]] = [{} for _ in metrics.classes]
    for kind, part in result.kinds.items():
        if not result.image_ids or not metrics.classes:
            overall[kind] = metrics.metrics[kind]
            for number, row in enumerate(metrics.classes):
                by_class[number][kind] = row.metrics[kind]
            continue
        spans = bootstrap.intervals(
            partial(_statistics, part.records),
            len(result.image_ids),
            replicates=replicates,
            seed=seed,
        )
        overall[kind] = _spanned(metrics.metrics[kind], spans, "")
        for number, row in enumerate(metrics.classes):
            by_class[number][kind] = _spanned(row.metrics[kind], spans, f"{number} ")
    rows = tuple(replace(row, metrics=by_class[number]) for number, row in enumerate(metrics.classes))
    return replace(metrics, metrics=overall, classes=rows, replicates=replicates)


def _statistics(records: Records, weights: bootstrap.Weights) -> dict[str, Any]:
    drawn = resample(records, weights)
    by_class = {f"{number} {name}": values for number, row in enumerate(drawn.classes) for name, values in row.items()}
    return drawn.overall | by_class


def _spanned(figures: Figures, spans: Mapping[str, bootstrap.Interval], prefix: str) -> Figures:
    spanned = {}
    for name, one in figures.items():
        span = spans.get(prefix + name)
        has_span = one.value is not None and span is not None
        spanned[name] = replace(one, low=span.low, high=span.high) if has_span and span is not None else one
    return spanned
