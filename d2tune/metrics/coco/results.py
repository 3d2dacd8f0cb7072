"""The result of scoring instances: COCO's metrics, overall and by class, with a reason where a value is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Category
from d2tune.metrics.coco.accumulate import Curves, Records, area_precision, coco_metrics
from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange
from d2tune.metrics.metric import Metric, metric
from d2tune.text import counted

Kind = Literal["bbox", "segm", "boundary"]
KINDS: tuple[Kind, ...] = ("bbox", "segm", "boundary")
KIND_NAMES = {"bbox": "box", "segm": "mask", "boundary": "boundary"}
"""The kinds in names of metrics: box AP, mask AP, boundary AP."""


@dataclass(frozen=True, slots=True)
class ClassRow:
    """The metrics of one class.

    Attributes:
        id: The class's id.
        name: Its name.
        instances: Its ground truth without crowds.
        metrics: COCO's twelve metrics, and ``AP NAME`` for each further area range.
    """

    id: int
    name: str
    instances: int
    metrics: dict[str, Metric]


@dataclass(frozen=True, slots=True)
class KindResult:
    """The metrics of boxes, masks or boundaries.

    Attributes:
        metrics: COCO's twelve metrics over all classes, and ``AP NAME`` for each further area range.
        classes: A row for each class, by id, also for a single class.
        curves: Precision, recall and scores as pycocotools' arrays.
        records: The matches, for :func:`d2tune.metrics.coco.resampling.resample`.
    """

    metrics: dict[str, Metric]
    classes: tuple[ClassRow, ...]
    curves: Curves
    records: Records


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """The metrics of a set of images.

    Attributes:
        image_ids: The images, in the order of the records' indices.
        areas: The area ranges, COCO's four first.
        kinds: The metrics of each kind.
    """

    image_ids: tuple[int, ...]
    areas: tuple[AreaRange, ...]
    kinds: dict[Kind, KindResult]


def kind_result(
    curves: Curves,
    truth: NDArray[np.int64],
    categories: Sequence[Category],
    areas: Sequence[AreaRange],
    *,
    split: str,
    records: Records,
) -> KindResult:
    """The tables of one kind.

    Args:
        curves: Precision and recall.
        truth: ``(K, A)``, ground truth of each class that counts in each area range.
        categories: The K classes.
        areas: The A area ranges.
        split: Name of the data: "class 'x' has no ground truth in val".
        records: The matches behind the curves.
    """
    annotated = np.bincount(records.truth_category, minlength=len(categories))
    nothing = f"there is no ground truth in {split}"
    if annotated.any():
        nothing += f": 0 objects, {counted(int(annotated.sum()), 'crowd')}"
    overall = _metrics(curves, None, _reasons(truth.sum(axis=0), areas, nothing, f"no object in {split} is"))
    rows = []
    for number, category in enumerate(categories):
        nothing = f"class {category.name!r} has no ground truth in {split}"
        if annotated[number]:
            nothing += f": 0 objects, {counted(int(annotated[number]), 'crowd')}"
        reasons = _reasons(truth[number], areas, nothing, f"no {category.name!r} in {split} is")
        metrics = _metrics(curves, number, reasons)
        rows.append(ClassRow(category.id, category.name, int(truth[number, 0]), metrics))
    return KindResult(overall, tuple(rows), curves, records)


def _reasons(truth: NDArray[np.int64], areas: Sequence[AreaRange], nothing: str, none_is: str) -> dict[str, str]:
    """Why a metric of an area range is undefined, if it is: there is no object at all, or none of that size."""
    return {area.name: f"{none_is} {area.words}" if truth[0] else nothing for area in areas}


def _metrics(curves: Curves, category: int | None, reasons: dict[str, str]) -> dict[str, Metric]:
    of_size = {area.name[0]: area.name for area in COCO_AREAS[1:]}
    metrics = {
        name: metric(100 * value, reasons[of_size.get(name[2:], "all")])
        for name, value in coco_metrics(curves, category).items()
    }
    for at, (area, reason) in enumerate(reasons.items()):
        if at >= len(COCO_AREAS):
            metrics[f"AP {area}"] = metric(100 * area_precision(curves, at, category), reason)
    return metrics
