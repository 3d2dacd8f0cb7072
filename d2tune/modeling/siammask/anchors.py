"""The anchors of SiamMask, and what each of them is for the object of a search image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from d2tune.modeling.siammask.backbones import SEARCH_PX, STRIDE

PLACES = 25
"""Rows and columns of places in a search image."""


def place_px(index: int) -> int:
    """Where a row or column of places is in the search image, in pixel indices."""
    return SEARCH_PX // 2 + (index - PLACES // 2) * STRIDE


def anchors(ratios: Sequence[float], scale: float) -> Tensor:
    """The anchors ``(A, 25, 25, 4)`` as center x and y, width and height, in pixels of the search image.

    Sizes in strides are rounded down, as those that the published weights were trained with.

    Args:
        ratios: Ratios of height to width.
        scale: Size in strides.
    """
    widths = [int(math.sqrt(STRIDE * STRIDE / ratio)) for ratio in ratios]
    sizes = [(width * scale, int(width * ratio) * scale) for width, ratio in zip(widths, ratios, strict=True)]
    at = torch.tensor([place_px(index) for index in range(PLACES)], dtype=torch.float32)
    rows, columns = torch.meshgrid(at, at, indexing="ij")
    grid = torch.stack([columns, rows], dim=-1)
    return torch.stack([torch.cat([grid, grid.new_tensor(size).expand(*grid.shape)], dim=-1) for size in sizes])


def encode(boxes: Tensor, of: Tensor) -> Tensor:
    """Boxes as deltas of anchors, all ``(..., 4)`` as center and size."""
    return torch.cat([(boxes[..., :2] - of[..., :2]) / of[..., 2:], torch.log(boxes[..., 2:] / of[..., 2:])], dim=-1)


def decode(deltas: Tensor, of: Tensor) -> Tensor:
    """Boxes of deltas; the inverse of `encode`, with sizes of at most 10 anchors."""
    sizes = torch.exp(deltas[..., 2:].clamp(max=math.log(10))) * of[..., 2:]
    return torch.cat([deltas[..., :2] * of[..., 2:] + of[..., :2], sizes], dim=-1)


def ious(boxes: Tensor, box: Tensor) -> Tensor:
    """The IoU ``(...)`` of boxes ``(..., 4)`` with one ``(4)``, all as center and size."""
    low = torch.maximum(boxes[..., :2] - boxes[..., 2:] / 2, box[:2] - box[2:] / 2)
    high = torch.minimum(boxes[..., :2] + boxes[..., 2:] / 2, box[:2] + box[2:] / 2)
    common = (high - low).clamp(min=0).prod(dim=-1)
    union = boxes[..., 2:].prod(dim=-1) + box[2:].prod() - common
    return common / union.clamp(min=1e-6)


@dataclass(frozen=True, slots=True)
class Assigned:
    """The anchors of a pair that are in its loss, each ``(K,)`` int64 places in the flattened anchors."""

    positives: Tensor
    negatives: Tensor


def assign(
    all_anchors: Tensor,
    box: Tensor | None,
    *,
    iou_thresholds: Sequence[float],
    most: int,
    most_positives: int,
) -> Assigned:
    """Choose random anchors of the object and of the background.

    The anchor with the highest IoU counts as the object where none is above the threshold, so that long objects are
    learned as well.

    Args:
        all_anchors: ``(A, 25, 25, 4)``.
        box: The object as center and size; None for a pair without it.
        iou_thresholds: Above the first an anchor is the object, below the second background.
        most: Anchors in all.
        most_positives: Anchors of the object.
    """
    flat = all_anchors.reshape(-1, 4)
    if box is None:
        return Assigned(flat.new_zeros(0, dtype=torch.int64), _some(flat[:, 0] == flat[:, 0], most))
    overlap = ious(flat, box)
    best = float(overlap.max())
    is_object = overlap >= min(iou_thresholds[0], best) if best > 0 else overlap < 0
    positives = _some(is_object, most_positives)
    return Assigned(positives, _some((overlap < iou_thresholds[1]) & ~is_object, most - len(positives)))


def _some(chosen: Tensor, most: int) -> Tensor:
    """At most so many of the true places, at random."""
    places = chosen.nonzero()[:, 0]
    return places[torch.randperm(len(places), device=places.device)[:most]]
