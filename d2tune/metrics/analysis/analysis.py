"""Beyond average precision: costs of errors, confusion of classes, AP by size, calibration of scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.metrics.analysis.confusion import ConfusionMatrix
from d2tune.metrics.analysis.scored_image import ScoredImage
from d2tune.metrics.analysis.sizes import quantile_ranges
from d2tune.metrics.analysis.tide import TideResult, TideScorer
from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange
from d2tune.metrics.coco.operating_points import Calibration, calibration
from d2tune.metrics.coco.results import InstanceResult, Kind
from d2tune.metrics.coco.rows import CocoSet
from d2tune.metrics.coco.summary import SHOWN_SCORE, InstanceMetrics, detections_of
from d2tune.metrics.metric import Metric


@dataclass(frozen=True, slots=True)
class SizeScore:
    """AP of the instances of one size.

    Attributes:
        name: Such as ``14-32 px``, the side of a square of the same area.
        instances: Number of instances.
        AP: Their average precision.
    """

    name: str
    instances: int
    AP: Metric


@dataclass(frozen=True, slots=True)
class Analysis:
    """The causes behind the metrics of an evaluation.

    Attributes:
        kind: What instances were compared by: masks, or boxes where there are no masks.
        sizes: AP by size, in quarters of the ground truth.
        confusion: Pairs of annotated and predicted class, with a background.
        errors: The cost of each type of error.
        calibration: The agreement of scores and shares of matches.
    """

    kind: Kind
    sizes: tuple[SizeScore, ...]
    confusion: ConfusionMatrix
    errors: TideResult
    calibration: Calibration

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the same."""
        return {
            "kind": self.kind,
            "sizes": [asdict(row) for row in self.sizes],
            "confusion": self.confusion.to_json(),
            "errors": self.errors.to_json(),
            "calibration": asdict(self.calibration),
        }


def size_ranges(data: CocoSet) -> tuple[AreaRange, ...]:
    """COCO's area ranges, and quarters of the ground truth by its own sizes."""
    return COCO_AREAS + quantile_ranges([float(row["area"]) for row in data.truth if not row["iscrowd"]])


def analyze(data: CocoSet, result: InstanceResult, metrics: InstanceMetrics) -> Analysis:
    """Analyze the detections behind metrics.

    Args:
        data: Ground truth and detections.
        result: Of ``data``, with the area ranges of `size_ranges`.
        metrics: The metrics of ``result`` with their intervals.
    """
    kind = metrics.main
    confusion = ConfusionMatrix([category.name for category in data.categories], score=SHOWN_SCORE)
    tide = TideScorer(len(data.categories))
    for image in scored_images(data, kind):
        confusion.add(image)
        tide.add(image)
    records = result.kinds[kind].records
    totals = records.truth_totals().sum(axis=0)
    sizes = tuple(
        SizeScore(area.name, int(totals[at]), metrics.metrics[kind][f"AP {area.name}"])
        for at, area in enumerate(result.areas)
        if at >= len(COCO_AREAS)
    )
    joined = [detections_of(records, number) for number in range(records.classes)]
    scores, right, counts = (np.concatenate(columns) for columns in zip(*joined, strict=True)) if joined else _NOTHING
    in_range = bool(np.all((scores >= 0) & (scores <= 1)))
    agreement = calibration(scores, right, ~counts) if in_range else Calibration((), _OUT_OF_RANGE)
    return Analysis(kind, sizes, confusion, tide.result(), agreement)


_OUT_OF_RANGE = Metric(None, "there are scores below 0 or above 1")
_NOTHING: tuple[NDArray[Any], ...] = (np.zeros(0), np.zeros(0, bool), np.zeros(0, bool))


def scored_images(data: CocoSet, kind: Kind) -> Iterator[ScoredImage]:
    """Each image with the IoU of every instance and every detection."""
    place = {category.id: number for number, category in enumerate(data.categories)}
    key = "bbox" if kind == "bbox" else "rle"
    for image_id, truth, results in data.by_image():
        crowd = np.array([bool(row["iscrowd"]) for row in truth], dtype=bool)
        yield ScoredImage(
            f"image {image_id}",
            _ious([row[key] for row in truth], [row[key] for row in results], crowd),
            np.array([place[row["category_id"]] for row in truth], dtype=np.int64),
            crowd,
            np.array([place[row["category_id"]] for row in results], dtype=np.int64),
            np.array([row["score"] for row in results], dtype=np.float64),
        )


def _ious(truth: Sequence[Any], results: Sequence[Any], crowd: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``(G, D)``."""
    if not truth or not results:
        return np.zeros((len(truth), len(results)))
    boxes = not isinstance(truth[0], dict)
    sides = [np.asarray(side, dtype=np.float64) if boxes else list(side) for side in (results, truth)]
    ious: NDArray[np.float64] = np.asarray(mask_utils.iou(*sides, crowd.astype(np.uint8).tolist())).T
    return ious
