"""Which object each prior stands for."""

from __future__ import annotations

from typing import NamedTuple

import torch
from detectron2.modeling.box_regression import Box2BoxTransform
from torch import Tensor
from torchvision.ops import box_iou

TRANSFORM = Box2BoxTransform(weights=(10.0, 10.0, 5.0, 5.0))
"""SSD's encoding with the variances 0.1 and 0.2: ((x - px) / 0.1 pw, ..., ln(w / pw) / 0.2, ...)."""

BACKGROUND, NEUTRAL = -1, -2


class Matches(NamedTuple):
    """The objects of P priors.

    Attributes:
        objects: ``(P,)`` int64: the index of the object, `BACKGROUND` or `NEUTRAL`.
        best: ``(G,)`` int64: the prior that stands for each object whatever its IoU is.
    """

    objects: Tensor
    best: Tensor


def match(priors: Tensor, boxes: Tensor, *, positive_iou: float, negative_iou: float) -> Matches:
    """Match priors to objects (Bolya et al., YOLACT, section 3.3, as SSD does).

    A prior stands for the object with the largest IoU if that is at least ``positive_iou``, is background below
    ``negative_iou``, and counts for nothing between. Each object has at least one prior: pairs are taken in descending
    order of their IoU until each object has one, so that two objects never share it.

    Args:
        priors: ``(P, 4)`` xyxy.
        boxes: ``(G, 4)`` xyxy of the objects.
        positive_iou: Lowest IoU of a prior that stands for an object.
        negative_iou: Lowest IoU of a prior that is not background.
    """
    if not len(boxes):
        return Matches(torch.full((len(priors),), BACKGROUND, device=priors.device), boxes.new_zeros(0).long())
    ious = box_iou(boxes, priors)
    highest, objects = ious.max(0)
    objects = torch.where(highest >= positive_iou, objects, NEUTRAL)
    objects = torch.where(highest < negative_iou, BACKGROUND, objects)
    best = _one_each(ious)
    objects[best] = torch.arange(len(boxes), device=priors.device)
    return Matches(objects, best)


def _one_each(ious: Tensor) -> Tensor:
    """A prior for each object; ``ious`` ``(G, P)`` is changed."""
    best = torch.zeros(len(ious), dtype=torch.long, device=ious.device)
    ious = ious.clone()
    for _ in range(min(ious.shape)):
        place = int(ious.argmax())
        row, column = divmod(place, ious.shape[1])
        best[row] = column
        ious[row, :] = -1
        ious[:, column] = -1
    return best
