"""Fusion of the detections of several views of an image.

Boxes are fused as in Solovyev, Wang and Gabruseva, "Weighted boxes fusion", Image and Vision Computing 107, 2021:
detections are taken in descending order of their scores, and each joins the group of its class whose box it overlaps
most, or begins a group. A group has at most one detection of a view. Its box is the mean of their boxes, weighted by
their scores; its score is the sum of their scores over the number of views, so that an object which few views see has a
low one. The mask of a group is the mean, with the same weights, of the masks resampled to the box of the group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

MATCH_IOU = 0.55
"""Least IoU of the box of a detection and that of the group that it joins."""


@dataclass(frozen=True, slots=True)
class Detected:
    """The N instances of an image.

    Attributes:
        boxes: ``(N, 4)``, left, top, right, bottom in pixels.
        scores: ``(N,)``.
        classes: ``(N,)``, int64.
        masks: ``(N, M, M)`` probabilities over the boxes.
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor
    masks: Tensor


@dataclass(slots=True)
class _Group:
    class_id: int
    members: list[int]
    views: set[int]
    weight: float
    weighted: NDArray[np.float64]

    @property
    def box(self) -> NDArray[np.float64]:
        return self.weighted / self.weight


def fuse(views: Sequence[Detected], *, most: int) -> Detected:
    """The detections of several views of an image as those of one.

    Args:
        views: The detections of each view, in pixels of the same image.
        most: The largest number of instances; those with the highest scores are kept.

    Returns:
        Instances in descending order of their scores.
    """
    if len(views) == 1:
        return views[0]
    boxes, scores, classes = (torch.cat([getattr(one, name) for one in views]) for name in _COLUMNS)
    view_of = [number for number, one in enumerate(views) for _ in range(len(one.scores))]
    groups = _grouped(boxes.double().cpu().numpy(), scores.double().cpu().numpy(), classes.tolist(), view_of)
    groups = sorted(groups, key=lambda group: -group.weight)[:most]
    fused = boxes.new_tensor(np.array([group.box for group in groups]).reshape(-1, 4))
    weights = scores.new_tensor([group.weight for group in groups])
    side = max(one.masks.shape[-1] for one in views)
    masks = boxes.new_zeros((len(groups), side, side))
    own = [masks_of.float() for one in views for masks_of in one.masks]
    for number, group in enumerate(groups):
        for index in group.members:
            resampled = resample(own[index], boxes[index], fused[number], side=side)
            masks[number] += resampled * (scores[index] / weights[number])
    kinds = classes.new_tensor([group.class_id for group in groups])
    return Detected(fused, weights / len(views), kinds, masks)


_COLUMNS = ("boxes", "scores", "classes")


def _grouped(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], classes: Sequence[int], view_of: Sequence[int]
) -> list[_Group]:
    """The groups of detections of several views."""
    groups: list[_Group] = []
    for index in np.argsort(-scores, kind="stable").tolist():
        score, box, class_id, view = float(scores[index]), boxes[index], classes[index], view_of[index]
        free = [group for group in groups if group.class_id == class_id and view not in group.views]
        ious = [_iou(group.box, box) for group in free]
        nearest = int(np.argmax(ious)) if ious else -1
        if ious and ious[nearest] >= MATCH_IOU:
            group = free[nearest]
            group.members.append(index)
            group.views.add(view)
            group.weight += score
            group.weighted = group.weighted + score * box
        elif score > 0:
            groups.append(_Group(class_id, [index], {view}, score, score * box))
    return groups


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    if sides.min() <= 0:
        return 0.0
    shared = float(sides.prod())
    return shared / (float((a[2:] - a[:2]).prod()) + float((b[2:] - b[:2]).prod()) - shared)


def resample(mask: Tensor, box: Tensor, onto: Tensor, *, side: int) -> Tensor:
    """A mask over its box as a mask over another one, 0 outside of its own.

    Args:
        mask: ``(M, M)``.
        box: ``(4,)``, that of the mask.
        onto: ``(4,)``, the other one.
        side: Rows and columns of the result.

    Returns:
        ``(side, side)``.
    """
    cells = (torch.arange(side, device=mask.device, dtype=torch.float32) + 0.5) / side
    axes = []
    for first in (0, 1):
        at = onto[first] + cells * (onto[first + 2] - onto[first])
        axes.append(2 * (at - box[first]) / (box[first + 2] - box[first]).clamp(min=1e-6) - 1)
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="ij")[::-1], dim=-1)
    return F.grid_sample(mask[None, None], grid[None].to(mask), align_corners=False)[0, 0]
