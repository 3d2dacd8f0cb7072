"""How far the predictions of two models on the same images are apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from scipy.optimize import linear_sum_assignment

from d2tune.inference.results import Detections, LabelMap, PanopticMap

MATCHED_IOU = 0.5
"""Instances or segments of a class are the same where their masks have at least this IoU."""

ROUNDED_PX = 2
"""Masks that differ in at most so many pixels count as equal: a probability of 0.5 is rounded to either side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The differences of predictions, B against A.

    Attributes:
        images: Number of images.
        instances: Instances of A, or segments; None for label maps.
        other_instances: Those of B.
        other_counts: Images on which their numbers differ.
        kept: Share of the instances of A that B has too, or of the pixels with the same class.
        box_px: Largest difference of a side of the boxes of an instance, in pixels of the image.
        mask_iou: Lowest IoU of the masks of an instance; for label maps, that of the regions of all classes together.
        score: Largest difference of the scores of an instance.
    """

    images: int
    instances: int | None
    other_instances: int | None
    other_counts: int
    kept: float
    box_px: float | None
    mask_iou: float | None
    score: float | None


def drift_of(ours: Sequence[Any], others: Sequence[Any]) -> Drift:
    """The differences of the predictions of two models on the same images."""
    if isinstance(ours[0], LabelMap):
        return _of_label_maps([one.class_ids for one in ours], [one.class_ids for one in others])
    if isinstance(ours[0], PanopticMap):
        return _of_instances([_segments(one) for one in ours], [_segments(one) for one in others])
    return _of_instances([_detected(one) for one in ours], [_detected(one) for one in others])


@dataclass(frozen=True, slots=True)
class _Instances:
    """N instances of an image: classes, masks, and where there are any boxes ``(N, 4)`` and scores."""

    class_ids: NDArray[np.int64]
    rles: list[dict[str, Any]]
    boxes: NDArray[np.float32] | None = None
    scores: NDArray[np.float32] | None = None


def _detected(detections: Detections) -> _Instances:
    assert detections.rles is not None  # models without masks are not exported
    rles = [rle.to_coco() for rle in detections.rles]
    return _Instances(detections.class_ids, rles, detections.boxes_xyxy, detections.scores)


def _segments(panoptic: PanopticMap) -> _Instances:
    class_ids = np.array([segment.class_id for segment in panoptic.segments], dtype=np.int64)
    masks = [np.asfortranarray(panoptic.segment_ids == segment.id).astype(np.uint8) for segment in panoptic.segments]
    return _Instances(class_ids, [mask_utils.encode(mask) for mask in masks])


def _of_instances(ours: Sequence[_Instances], others: Sequence[_Instances]) -> Drift:
    boxes, ious, scores = [0.0], [1.0], [0.0]
    matched = 0
    for a, b in zip(ours, others, strict=True):
        for i, j in _pairs(a, b):
            matched += 1
            ious.append(_rounded_iou(a.rles[i], b.rles[j]))
            if a.boxes is not None and b.boxes is not None:
                boxes.append(float(np.abs(a.boxes[i] - b.boxes[j]).max()))
            if a.scores is not None and b.scores is not None:
                scores.append(abs(float(a.scores[i]) - float(b.scores[j])))
    counts = [(len(a.class_ids), len(b.class_ids)) for a, b in zip(ours, others, strict=True)]
    instances, other_instances = (sum(column) for column in zip(*counts, strict=True))
    is_scored = ours[0].scores is not None
    return Drift(
        images=len(ours),
        instances=instances,
        other_instances=other_instances,
        other_counts=sum(first != second for first, second in counts),
        kept=matched / instances if instances else 1.0,
        box_px=max(boxes) if is_scored else None,
        mask_iou=min(ious),
        score=max(scores) if is_scored else None,
    )


def _pairs(a: _Instances, b: _Instances) -> list[tuple[int, int]]:
    """The instances of A with those of B that are the same, with the largest sum of IoUs.

    They are those of the masks, and of the boxes where both masks are empty.
    """
    if not len(a.class_ids) or not len(b.class_ids):
        return []
    ious = np.asarray(mask_utils.iou(a.rles, b.rles, [0] * len(b.rles)))
    if a.boxes is not None and b.boxes is not None:
        empty = [np.array([mask_utils.area(rle) == 0 for rle in side.rles]) for side in (a, b)]
        ious = np.where(empty[0][:, None] & empty[1][None, :], _box_ious(a.boxes, b.boxes), ious)
    ious = np.where(a.class_ids[:, None] == b.class_ids[None, :], ious, 0.0)
    rows, columns = linear_sum_assignment(-ious)
    return [(i, j) for i, j in zip(rows.tolist(), columns.tolist(), strict=True) if ious[i, j] >= MATCHED_IOU]


def _box_ious(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """``(N, M)`` from boxes ``(N, 4)`` and ``(M, 4)``, left, top, right, bottom."""
    boxes = [np.concatenate([one[:, :2], one[:, 2:] - one[:, :2]], axis=1).astype(np.float64) for one in (a, b)]
    return np.asarray(mask_utils.iou(*boxes, [0] * len(b)))


def _rounded_iou(a: dict[str, Any], b: dict[str, Any]) -> float:
    either = float(mask_utils.area(mask_utils.merge([a, b])))
    both = float(mask_utils.area(mask_utils.merge([a, b], intersect=True)))
    return 1.0 if either - both <= ROUNDED_PX else both / either


def _of_label_maps(ours: Sequence[NDArray[np.uint8]], others: Sequence[NDArray[np.uint8]]) -> Drift:
    same = sum(int((a == b).sum()) for a, b in zip(ours, others, strict=True))
    pixels = sum(a.size for a in ours)
    return Drift(
        images=len(ours),
        instances=None,
        other_instances=None,
        other_counts=0,
        kept=same / pixels,
        box_px=None,
        # a pixel of another class is in the union of two regions and in no intersection
        mask_iou=same / (2 * pixels - same),
        score=None,
    )
