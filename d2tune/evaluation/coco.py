"""COCO's average precision and recall for boxes and masks, over all classes and for each."""

from __future__ import annotations

import contextlib
import copy
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2tune.annotations.coco import to_coco
from d2tune.annotations.dataset import Dataset
from d2tune.evaluation.loop import CocoResult

IouType = Literal["bbox", "segm"]

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve figures, in pycocotools' order."""

SHOWN_SCORE = 0.5
"""Detections from this score on are counted in the closing sentence and drawn in pictures."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure from 0 to 100, or None and the reason it cannot be computed."""

    value: float | None
    reason: str | None = None

    def __str__(self) -> str:
        return "-" if self.value is None else f"{self.value:.1f}"


@dataclass(frozen=True, slots=True)
class ClassResult:
    """What one class scored.

    Attributes:
        name: The class.
        instances: Ground-truth instances, crowds left out.
        found: Of those, how many a detection of score 0.5 or more covers with a mask IoU of 0.5 or more.
        false: Detections of score 0.5 or more that cover none.
        bbox: ``AP``, ``AP50`` and ``AP75`` of boxes.
        segm: Likewise of masks.
    """

    name: str
    instances: int
    found: int
    false: int
    bbox: dict[str, Metric]
    segm: dict[str, Metric]


@dataclass(frozen=True, slots=True)
class CocoMetrics:
    """COCO's figures for a set of predictions.

    Attributes:
        images: Images evaluated.
        bbox: The twelve figures for boxes by name.
        segm: The twelve figures for masks by name.
        classes: One row for each class, in the order of their ids.
    """

    images: int
    bbox: dict[str, Metric]
    segm: dict[str, Metric]
    classes: tuple[ClassResult, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict with ``metrics.bbox.AP`` and so on, each ``{value, reason}``, and ``classes``."""
        return {
            "images": self.images,
            "metrics": {
                "bbox": {name: asdict(metric) for name, metric in self.bbox.items()},
                "segm": {name: asdict(metric) for name, metric in self.segm.items()},
            },
            "classes": [asdict(row) for row in self.classes],
        }

    @classmethod
    def from_json(cls, plain: dict[str, Any]) -> CocoMetrics:
        """What ``to_json`` wrote."""

        def figures(part: dict[str, Any]) -> dict[str, Metric]:
            return {name: Metric(**metric) for name, metric in part.items()}

        classes = [row | {"bbox": figures(row["bbox"]), "segm": figures(row["segm"])} for row in plain["classes"]]
        return cls(
            plain["images"],
            figures(plain["metrics"]["bbox"]),
            figures(plain["metrics"]["segm"]),
            tuple(ClassResult(**row) for row in classes),
        )


def score(dataset: Dataset, results: Sequence[CocoResult]) -> CocoMetrics:
    """Score detections against a dataset, as pycocotools defines it.

    Args:
        dataset: The ground truth; its category and image ids are the results'.
        results: Detections in COCO's results format.
    """
    truth = COCO()
    truth.dataset = to_coco(dataset)
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluations = {iou_type: _evaluate(truth, results, iou_type) for iou_type in ("bbox", "segm")}
    counts = Counter(one.category_id for one in dataset.instances if not one.iscrowd)
    things = [category for category in dataset.categories if category.isthing]
    classes = []
    for index, category in enumerate(things):
        found, false = _found_and_false(evaluations["segm"], category.id)
        classes.append(
            ClassResult(
                category.name,
                counts[category.id],
                found,
                false,
                _class_figures(evaluations["bbox"], index, category.name),
                _class_figures(evaluations["segm"], index, category.name),
            )
        )
    return CocoMetrics(
        len(dataset.images), _figures(evaluations["bbox"]), _figures(evaluations["segm"]), tuple(classes)
    )


def _evaluate(truth: COCO, results: Sequence[CocoResult], iou_type: IouType) -> COCOeval:
    rows = copy.deepcopy(list(results))
    if iou_type == "segm":
        # with a box at hand pycocotools would take the box's area for the mask's
        for row in rows:
            row.pop("bbox", None)
    detections = truth.loadRes(rows) if rows else _no_results(truth)
    evaluation = COCOeval(truth, detections, iou_type)
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def _no_results(truth: COCO) -> COCO:
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _figures(evaluation: COCOeval) -> dict[str, Metric]:
    areas = {"s": "small (below 32 x 32 px)", "m": "medium (32 x 32 to 96 x 96 px)", "l": "large (above 96 x 96 px)"}
    figures = {}
    for name, value in zip(NAMES, evaluation.stats, strict=True):
        of_area = areas.get(name[2:])
        reason = f"no {of_area} instance in the data" if of_area else "no instance in the data"
        figures[name] = _metric(float(value), reason)
    return figures


def _class_figures(evaluation: COCOeval, index: int, name: str) -> dict[str, Metric]:
    # precision is (IoU thresholds, recalls, classes, areas, detections per image)
    precision = evaluation.eval["precision"][:, :, index, 0, -1]
    reason = f"class {name!r} has no ground truth in the data"

    def mean(part: Any) -> float:
        valid = part[part > -1]
        return float(np.mean(valid)) if valid.size else -1.0

    return {
        "AP": _metric(mean(precision), reason),
        "AP50": _metric(mean(precision[0]), reason),
        "AP75": _metric(mean(precision[5]), reason),
    }


def _metric(share: float, reason: str) -> Metric:
    return Metric(None, reason) if share < 0 else Metric(100 * share)


def _found_and_false(evaluation: COCOeval, category_id: int) -> tuple[int, int]:
    found = false = 0
    for row in evaluation.evalImgs:
        if row is None or row["category_id"] != category_id or row["aRng"] != evaluation.params.areaRng[0]:
            continue
        shown = np.asarray(row["dtScores"]) >= SHOWN_SCORE
        matched = np.asarray(row["dtMatches"])[0] > 0
        ignored = np.asarray(row["dtIgnore"])[0] > 0
        found += int(np.sum(shown & matched & ~ignored))
        false += int(np.sum(shown & ~matched & ~ignored))
    return found, false
