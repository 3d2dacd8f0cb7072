"""Fast NMS: boxes are suppressed in one step, by boxes that may be suppressed themselves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Kept(NamedTuple):
    """Detections in descending order of scores.

    Attributes:
        places: ``(N,)`` int64, index of the box.
        classes: ``(N,)`` int64 from 0.
        scores: ``(N,)``.
    """

    places: Tensor
    classes: Tensor
    scores: Tensor


def fast_nms(
    boxes: Tensor, scores: Tensor, *, lowest_score: float, iou_threshold: float, most_per_class: int, most: int
) -> Kept:
    """The detections of an image (Bolya et al., YOLACT, section 5).

    Of each class, boxes are sorted by score; one whose IoU with a higher one is above the threshold is removed, also
    where the higher one is removed itself. Nothing here depends on values of the input in Python, so that it can be
    traced.

    Args:
        boxes: ``(P, 4)`` xyxy.
        scores: ``(P, classes)``.
        lowest_score: Boxes need a higher score of a class.
        iou_threshold: Largest IoU of two boxes of a class.
        most_per_class: Boxes of each class with the highest scores that are looked at.
        most: Detections with the highest scores that are kept.
    """
    by_class, order = _top(scores.transpose(0, 1), most_per_class)
    candidates = boxes[order]
    ious = _ious(candidates)
    higher = torch.ones_like(ious[0]).triu(1)
    is_alone = (ious * higher > iou_threshold).sum(1) == 0
    classes, places = (is_alone & (by_class > lowest_score)).nonzero(as_tuple=True)
    kept_scores, highest = _top(by_class[classes, places], most)
    classes, places = classes[highest], places[highest]
    return Kept(order[classes, places], classes, kept_scores)


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest values along the last dimension in descending order, or all of fewer."""
    available = torch._shape_as_tensor(values)[-1]
    best, indices = values.topk(available.clamp(max=count))  # type: ignore[arg-type]
    return best, indices


def _ious(boxes: Tensor) -> Tensor:
    """IoU ``(C, N, N)`` of all pairs of the boxes ``(C, N, 4)`` of each group; 0 for boxes without an area."""
    corners = torch.maximum(boxes[:, :, None, :2], boxes[:, None, :, :2])
    ends = torch.minimum(boxes[:, :, None, 2:], boxes[:, None, :, 2:])
    both = (ends - corners).clamp(min=0).prod(-1)
    areas = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
    return both / (areas[:, :, None] + areas[:, None, :] - both).clamp(min=1e-9)
