"""From what the heads predict to instances with masks over their boxes, written so that it can be traced."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import roi_align

from d2tune.modeling.yolact.matching import TRANSFORM
from d2tune.modeling.yolact.nms import fast_nms


class Limits(NamedTuple):
    """What limits the detections of an image.

    Attributes:
        lowest_score: Detections have a higher score.
        nms_iou: Largest IoU of two detections of a class.
        most_per_class: Boxes of a class that are looked at.
        most: Most detections.
    """

    lowest_score: float
    nms_iou: float
    most_per_class: int
    most: int


class Detected(NamedTuple):
    """The N detections of an image in descending order of scores.

    Attributes:
        boxes: ``(N, 4)`` xyxy in pixels of the network's input.
        scores: ``(N,)``.
        classes: ``(N,)`` int64 from 0.
        coefficients: ``(N, K)`` of the prototypes.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    coefficients: Tensor


def detections(
    deltas: Tensor, logits: Tensor, coefficients: Tensor, priors: Tensor, size_wh: Tensor, limits: Limits
) -> Detected:
    """The detections of an image.

    Args:
        deltas: ``(P, 4)``.
        logits: ``(P, 1 + classes)``, the background first.
        coefficients: ``(P, K)`` before the hyperbolic tangent.
        priors: ``(P, 4)`` xyxy.
        size_wh: Width and height of the image without padding in pixels, ``(2,)``.
        limits: The limits.
    """
    scores = logits.float().softmax(1)[:, 1:]
    likely = (scores.amax(1) > limits.lowest_score).nonzero()[:, 0]
    boxes = TRANSFORM.apply_deltas(deltas[likely].float(), priors[likely])
    boxes = torch.minimum(boxes.clamp(min=0), size_wh.repeat(2).to(boxes))
    kept = fast_nms(
        boxes,
        scores[likely],
        lowest_score=limits.lowest_score,
        iou_threshold=limits.nms_iou,
        most_per_class=limits.most_per_class,
        most=limits.most,
    )
    return Detected(boxes[kept.places], kept.scores, kept.classes, coefficients[likely[kept.places]].tanh())


def whole_masks(prototypes: Tensor, coefficients: Tensor) -> Tensor:
    """Probabilities ``(N, h, w)`` of the size of the prototypes ``(K, h, w)``, for coefficients ``(N, K)``."""
    logits = coefficients @ prototypes.flatten(1)
    return logits.reshape(-1, *prototypes.shape[1:]).sigmoid()


def box_masks(masks: Tensor, boxes: Tensor, *, side: int, stride_px: tuple[Tensor | float, Tensor | float]) -> Tensor:
    """Masks over boxes, sampled at the centers of their cells.

    Args:
        masks: ``(N, h, w)`` of the size of the prototypes.
        boxes: ``(N, 4)`` xyxy in pixels of the network's input.
        side: M.
        stride_px: Pixels of the input for a column and a row of the masks.

    Returns:
        ``(N, M, M)``.
    """
    numbers = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    across, down = stride_px
    scaled = [boxes[:, :1] / across, boxes[:, 1:2] / down, boxes[:, 2:3] / across, boxes[:, 3:] / down]
    regions = torch.cat([numbers.to(boxes), *scaled], 1)
    sampled: Tensor = roi_align(masks[:, None], regions.to(masks), side, sampling_ratio=1, aligned=True)
    return sampled[:, 0]


def cropped(masks: Tensor, boxes: Tensor, *, stride_px: tuple[Tensor | float, Tensor | float]) -> Tensor:
    """Masks ``(N, h, w)`` with 0 outside of the cells that their boxes ``(N, 4)`` touch; see `box_masks`."""
    across, down = stride_px
    x = torch.arange(masks.shape[2], device=masks.device)
    y = torch.arange(masks.shape[1], device=masks.device)
    in_x = (x + 1 > boxes[:, :1] / across) & (x < boxes[:, 2:3] / across)
    in_y = (y + 1 > boxes[:, 1:2] / down) & (y < boxes[:, 3:] / down)
    return masks * (in_y[:, :, None] & in_x[:, None, :]).to(masks)
