"""Masks as bitmaps on a device, all detections of an image against all its ground truth by matrix products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor

from d2tune.metrics.overlap.boundary import within
from d2tune.metrics.overlap.iou import Pairs, count_iou, free_bytes, intersections, mask_areas, pairs_of
from d2tune.metrics.overlap.run_lengths import Rle

Window = tuple[slice, slice]
"""Rows and columns of the image."""


def compare(
    found: Sequence[Rle] | Tensor,
    truth: Sequence[Rle] | Tensor,
    found_classes: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    *,
    floor: float,
    boundary_px: int | None,
    device: torch.device,
) -> tuple[NDArray[np.int64], Pairs, Pairs | None]:
    """Areas of the detections, pairs by mask IoU and, where wanted, pairs by boundary IoU.

    Masks as run lengths are unrolled a few at a time, as memory allows, and only inside the box around all of them.

    Args:
        found: D masks; a tensor is ``(D, H, W)`` bool.
        truth: G masks, likewise.
        found_classes: ``(D,)``.
        truth_classes: ``(G,)``.
        crowd: ``(G,)``.
        floor: The lowest IoU that counts.
        boundary_px: Width of a boundary, or None to leave boundaries out.
        device: Where to compute.
    """
    window = _window(found, truth)
    step = _masks_at_once(found, truth, window, device)
    shape = (2, len(found), len(truth))
    overlap = np.zeros(shape, np.int64)
    found_areas, truth_areas = np.zeros(shape[:2], np.int64), np.zeros((2, len(truth)), np.int64)
    for rows in _parts(len(found), step):
        ours = _layers(found, rows, window, boundary_px, device)
        found_areas[: len(ours), rows] = [mask_areas(layer) for layer in ours]
        for columns in _parts(len(truth), step):
            theirs = _layers(truth, columns, window, boundary_px, device)
            truth_areas[: len(ours), columns] = [mask_areas(layer) for layer in theirs]
            for layer, (one, other) in enumerate(zip(ours, theirs, strict=True)):
                overlap[layer, rows, columns] = intersections(one, other)
    iou, of_boundaries = (
        count_iou(overlap[layer], found_areas[layer][:, None], truth_areas[layer][None, :], crowd[None, :])
        for layer in range(2)
    )
    same_class = found_classes[:, None] == truth_classes[None, :]
    pairs = pairs_of(iou, same_class, floor)
    if boundary_px is None:
        return found_areas[0], pairs, None
    smaller = np.where(crowd[None, :], iou, np.minimum(iou, of_boundaries))
    return found_areas[0], pairs, pairs_of(smaller, same_class, floor)


def _layers(
    masks: Sequence[Rle] | Tensor, chosen: slice, window: Window, boundary_px: int | None, device: torch.device
) -> list[Tensor]:
    """The chosen masks inside the window, ``(n, h, w)`` bool, and their boundaries where these are wanted."""
    if isinstance(masks, Tensor):
        whole = masks[chosen, window[0], window[1]].to(device, torch.bool)
    else:
        columns = mask_utils.decode(list(masks[chosen])).transpose(2, 1, 0)[:, window[1], window[0]]
        whole = torch.from_numpy(np.ascontiguousarray(columns)).to(device).bool().transpose(1, 2)
    return [whole] if boundary_px is None else [whole, within(whole, boundary_px)]


def _window(found: Sequence[Rle] | Tensor, truth: Sequence[Rle] | Tensor) -> Window:
    """The box around all masks, or the whole image where there are bitmaps already."""
    if isinstance(found, Tensor) or isinstance(truth, Tensor):
        return slice(None), slice(None)
    boxes = mask_utils.toBbox([*found, *truth]).astype(np.int64)
    boxes = boxes[(boxes[:, 2] > 0) & (boxes[:, 3] > 0)]
    if not len(boxes):
        return slice(0, 1), slice(0, 1)
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _masks_at_once(
    found: Sequence[Rle] | Tensor, truth: Sequence[Rle] | Tensor, window: Window, device: torch.device
) -> int:
    """How many masks of each side may be bitmaps at the same time; boundaries take about as much thrice over."""
    height, width = next(
        (masks.shape[1:] if isinstance(masks, Tensor) else masks[0]["size"] for masks in (found, truth) if len(masks)),
        (1, 1),
    )
    rows, columns = window[0].indices(height), window[1].indices(width)
    pixels = (rows[1] - rows[0]) * (columns[1] - columns[0])
    return max(1, int(free_bytes(device) // 2 // (8 * pixels)))


def _parts(count: int, step: int) -> list[slice]:
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
