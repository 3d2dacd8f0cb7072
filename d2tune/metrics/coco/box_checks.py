"""Whether boxes are what COCO's format says: ``[x, y, width, height]``, around the masks of their rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.metrics.coco.rows import CocoSet, Row

_FITTING_IOU = 0.5
_BEYOND = 1.05
"""Corners up to this share of the size of the image are accepted outside of it."""
_LEAST_SHARE_BEYOND = 0.2
_AS_CORNERS = "read as [x1, y1, x2, y2], {} would; COCO's boxes are [x, y, width, height]"


def box_warnings(data: CocoSet, sizes_hw: dict[int, tuple[int, int]]) -> list[str]:
    """A line about the annotations, and one about the results, whose boxes are not what the format says.

    Args:
        data: Ground truth and results.
        sizes_hw: Height and width of the images, as far as they are known.
    """
    lines = []
    for what, rows in (("annotations", data.truth), ("detections", data.results)):
        masked = [row for row in rows if "bbox" in row and "rle" in row]
        line = _beside_masks(masked, what) if masked else _on_images(rows, sizes_hw, what)
        lines += [] if line is None else [line]
    return lines


def _beside_masks(rows: Sequence[Row], what: str) -> str | None:
    """Whether most boxes have little in common with the extent of their masks."""
    boxes = np.array([row["bbox"] for row in rows], np.float64)
    extents = np.asarray(mask_utils.toBbox([row["rle"] for row in rows]), np.float64)
    shown = (extents[:, 2] > 0) & (extents[:, 3] > 0)
    boxes, extents = boxes[shown], extents[shown]
    fits = _iou(boxes, extents) >= _FITTING_IOU
    wrong = int((~fits).sum())
    if 2 * wrong <= len(boxes):
        return None
    by_corners = int((_iou(_from_corners(boxes), extents) >= _FITTING_IOU).sum())
    more = f"; {_AS_CORNERS.format(by_corners)}" if by_corners > 2 * int(fits.sum()) else ""
    return f"the boxes of {wrong} of {len(boxes)} {what} do not fit their masks{more}"


def _on_images(rows: Sequence[Row], sizes_hw: dict[int, tuple[int, int]], what: str) -> str | None:
    """Whether boxes without masks reach beyond their images, but not if they are two corners."""
    placed = [row for row in rows if row["image_id"] in sizes_hw and "bbox" in row]
    if not placed:
        return None
    boxes = np.array([row["bbox"] for row in placed], np.float64)
    limits = np.array([sizes_hw[row["image_id"]][::-1] for row in placed], np.float64)
    beyond = ((boxes[:, :2] + boxes[:, 2:]) > _BEYOND * limits).any(axis=1)
    are_corners = bool((boxes[:, 2:] >= boxes[:, :2]).all() and (boxes[:, 2:] <= _BEYOND * limits).all())
    if not are_corners or beyond.mean() < _LEAST_SHARE_BEYOND:
        return None
    more = _AS_CORNERS.format("none")
    return f"the boxes of {int(beyond.sum())} of {len(boxes)} {what} reach beyond their images; {more}"


def _from_corners(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """The IoU of boxes ``(N, 4)`` in pairs; 0 where a box has no area."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, :2] + a[:, 2:], b[:, :2] + b[:, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=1)
    areas = [np.clip(boxes[:, 2:], 0, None).prod(axis=1) for boxes in (a, b)]
    union = areas[0] + areas[1] - overlap
    shares: NDArray[np.float64] = np.divide(overlap, union, out=np.zeros(len(a)), where=union > 0)
    return shares
