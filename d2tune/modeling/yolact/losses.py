"""YOLACT's losses (Bolya et al., YOLACT, ICCV 2019, section 3; weights in section 3.3 and 4.5)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from d2tune.modeling.yolact.detection import cropped
from d2tune.modeling.yolact.head import Predicted
from d2tune.modeling.yolact.matching import BACKGROUND, NEUTRAL, TRANSFORM, match
from d2tune.modeling.yolact.rescoring import LEAST_AREA, MaskRescoring

_LEAST_NEGATIVES = 16
"""Background priors of an image without objects, which would otherwise have no effect on training."""


class Truth(NamedTuple):
    """The G objects of an image.

    Attributes:
        boxes: ``(G, 4)`` xyxy in pixels of the network's input.
        classes: ``(G,)`` int64 from 0.
        masks: ``(G, H, W)`` bool, of the size of the network's input.
    """

    boxes: Tensor
    classes: Tensor
    masks: Tensor


class Matched(NamedTuple):
    """The priors of an image that stand for objects.

    Attributes:
        priors: ``(M,)`` their indices.
        objects: ``(M,)`` the objects.
    """

    priors: Tensor
    objects: Tensor


def matched_priors(priors: Tensor, truth: Truth, *, positive_iou: float, negative_iou: float) -> tuple[Matched, Tensor]:
    """The priors that stand for objects, and the classes ``(P,)`` of all: 0 is background, -1 counts for nothing."""
    matches = match(priors, truth.boxes, positive_iou=positive_iou, negative_iou=negative_iou)
    positive = matches.objects >= 0
    targets = torch.where(matches.objects == NEUTRAL, -1, 0)
    objects = matches.objects[positive]
    targets[positive] = truth.classes[objects] + 1
    assert BACKGROUND == -1
    return Matched(positive.nonzero()[:, 0], objects), targets


def box_loss(predicted: Predicted, image: int, priors: Tensor, truth: Truth, matched: Matched) -> Tensor:
    """The sum of smooth L1 (beta 1) over the encoded boxes of the priors of objects."""
    targets = TRANSFORM.get_deltas(priors[matched.priors], truth.boxes[matched.objects])
    return F.smooth_l1_loss(predicted.deltas[image, matched.priors].float(), targets, reduction="sum")


def class_loss(logits: Tensor, targets: Tensor, *, negatives: int) -> Tensor:
    """The sum of the cross entropy over the priors of objects and the hardest of the background (OHEM).

    Args:
        logits: ``(P, 1 + classes)``.
        targets: ``(P,)`` as `matched_priors` gives them.
        negatives: Background priors for each prior of an object; those with the largest loss are taken.
    """
    logits = logits.float()
    positive, background = targets > 0, targets == 0
    of_objects = F.cross_entropy(logits[positive], targets[positive], reduction="sum")
    with torch.no_grad():
        hardness = logits[background].logsumexp(1) - logits[background][:, 0]
        count = max(negatives * int(positive.sum()), _LEAST_NEGATIVES)
        hardest = background.nonzero()[:, 0][hardness.topk(min(count, len(hardness))).indices]
    return of_objects + F.cross_entropy(logits[hardest], targets[hardest], reduction="sum")


def mask_loss(
    prototypes: Tensor, coefficients: Tensor, truth: Truth, matched: Matched, *, image_hw: tuple[int, int], most: int
) -> Tensor:
    """The sum over the priors of objects of the mean binary cross entropy inside the box of the object.

    A cell at a border is trained to the share that the object covers of it, where the paper rounds: masks end between
    cells, and after rounding an object could be 1/2 cell too small on each side.

    Args:
        prototypes: ``(K, h, w)`` of the image.
        coefficients: ``(P, K)`` before the hyperbolic tangent.
        truth: The objects.
        matched: The priors that stand for them.
        image_hw: Height and width of the network's input in pixels.
        most: Priors that are looked at; of more a random choice counts for all.
    """
    total = len(matched.priors)
    if not total:
        return prototypes.sum() * 0
    chosen = torch.randperm(total, device=prototypes.device)[:most] if total > most else slice(None)
    priors, objects = matched.priors[chosen], matched.objects[chosen]
    height, width = prototypes.shape[-2:]
    logits = torch.einsum("nk,khw->nhw", coefficients[priors].float().tanh(), prototypes.float())
    targets = covered(truth.masks, (height, width))[objects]
    scale = torch.tensor([width / image_hw[1], height / image_hw[0]] * 2, device=prototypes.device)
    boxes = truth.boxes[objects] * scale
    inside = _inside(boxes, (height, width))
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    means = (losses * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
    return means.sum() * (total / len(priors))


def semantic_loss(logits: Tensor, truth: Truth) -> Tensor:
    """The sum over the classes of the mean binary cross entropy of all pixels.

    Args:
        logits: ``(classes, h, w)`` of the image.
        truth: The objects; a pixel may have several classes.
    """
    masks = covered(truth.masks, (int(logits.shape[-2]), int(logits.shape[-1])))
    targets = torch.zeros_like(logits, dtype=torch.float32)
    for mask, class_id in zip(masks, truth.classes.tolist(), strict=True):
        targets[class_id] = torch.maximum(targets[class_id], mask)
    return F.binary_cross_entropy_with_logits(logits.float(), targets, reduction="none").mean((1, 2)).sum()


def rescoring_loss(
    rescoring: MaskRescoring, masks: Tensor, truth: Truth, matched: Matched, *, stride_px: tuple[float, float]
) -> Tensor:
    """The sum of smooth L1 between the expected and the real IoU of masks with their objects.

    Args:
        rescoring: The network.
        masks: ``(M, h, w)`` probabilities of the matched priors; no gradient reaches them.
        truth: The objects.
        matched: The priors that stand for them.
        stride_px: Pixels of the network's input for a column and a row of the masks.
    """
    height, width = masks.shape[-2:]
    objects = (covered(truth.masks, (height, width)) > 0.5)[matched.objects]
    large = objects.sum((1, 2)) > LEAST_AREA
    if not bool(large.any()):
        return torch.stack([layer.weight.sum() for layer in rescoring.convolutions]).sum() * 0
    own = cropped(masks.detach()[large], truth.boxes[matched.objects[large]], stride_px=stride_px)
    binary, objects = own > 0.5, objects[large]
    ious = (binary & objects).sum((1, 2)) / (binary | objects).sum((1, 2)).clamp(min=1)
    expected = rescoring(own, truth.classes[matched.objects[large]])
    return F.smooth_l1_loss(expected.float(), ious.float(), reduction="sum")


def covered(masks: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """The share ``(G, h, w)`` of each cell of another size that masks ``(G, H, W)`` cover, from 0 to 1."""
    if not len(masks):
        return masks.new_zeros((0, *size_hw), dtype=torch.float32)
    return F.interpolate(masks[:, None].float(), size_hw, mode="area")[:, 0]


def _inside(boxes: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """Which pixels ``(N, h, w)`` a box touches."""
    x = torch.arange(size_hw[1], device=boxes.device)
    y = torch.arange(size_hw[0], device=boxes.device)
    x0, y0, x1, y1 = boxes[:, :, None].unbind(1)
    across = (x + 1 > x0) & (x < x1)
    down = (y + 1 > y0) & (y < y1)
    return (down[:, :, None] & across[:, None, :]).float()
