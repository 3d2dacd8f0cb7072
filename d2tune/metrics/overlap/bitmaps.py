"""Masks as bitmaps on a device, all detections of an image against all its ground truth by matrix products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor

from d2tune.metrics.overlap.iou import Pairs, count_iou, pairs_of
from d2tune.metrics.overlap.run_lengths import Rle

Window = tuple[slice, slice]
"""Rows and columns of the image."""

EXACT_IN_HALF = 2048
"""Up to here float16 holds every whole number: a product over so many pixels is exact in whatever order it is added."""

CPU_BUDGET_BYTES = 2**30
"""Memory for bitmaps on devices that do not report how much is free."""


def compare(
    detections: Sequence[Rle] | Tensor,
    truth: Sequence[Rle] | Tensor,
    detection_classes: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    *,
    floor: float,
    boundary_px: int | None,
    device: torch.device,
) -> tuple[NDArray[np.int64], Pairs, Pairs | None]:
    """Areas of the detections, pairs by mask IoU and, with ``boundary_px``, pairs by boundary IoU.

    Masks as run lengths are decoded a few at a time, as memory allows, and only inside the box around all of them.

    Args:
        detections: D masks; a tensor is ``(D, H, W)`` bool.
        truth: G masks; a tensor is ``(G, H, W)`` bool.
        detection_classes: ``(D,)``.
        truth_classes: ``(G,)``.
        crowd: ``(G,)``.
        floor: The lowest IoU that counts.
        boundary_px: Width of a boundary, or None for no boundaries.
        device: Where to compute.
    """
    window = _window(detections, truth)
    step = _masks_at_once(detections, truth, window, device)
    shape = (2, len(detections), len(truth))
    overlap = np.zeros(shape, np.int64)
    detection_areas, truth_areas = np.zeros(shape[:2], np.int64), np.zeros((2, len(truth)), np.int64)
    for rows in _slices(len(detections), step):
        ours = _layers(detections, rows, window, boundary_px, device)
        detection_areas[: len(ours), rows] = [mask_areas(layer) for layer in ours]
        for columns in _slices(len(truth), step):
            theirs = _layers(truth, columns, window, boundary_px, device)
            truth_areas[: len(ours), columns] = [mask_areas(layer) for layer in theirs]
            for layer, (a, b) in enumerate(zip(ours, theirs, strict=True)):
                overlap[layer, rows, columns] = intersections(a, b)
    iou, of_boundaries = (
        count_iou(overlap[layer], detection_areas[layer][:, None], truth_areas[layer][None, :], crowd[None, :])
        for layer in range(2)
    )
    same_class = detection_classes[:, None] == truth_classes[None, :]
    pairs = pairs_of(iou, same_class, floor)
    if boundary_px is None:
        return detection_areas[0], pairs, None
    smaller = np.where(crowd[None, :], iou, np.minimum(iou, of_boundaries))
    return detection_areas[0], pairs, pairs_of(smaller, same_class, floor)


def intersections(detections: Tensor, truth: Tensor) -> NDArray[np.int64]:
    """Pixels that each detection shares with each ground truth, by matrix products on the masks' device.

    The pixels are cut into strips of 2048. The product of two strips of zeros and ones in float16 is a whole number
    that float16 holds exactly, whatever the device does with the order of the sum or the width of its accumulator.

    Args:
        detections: ``(D, H, W)``, bool.
        truth: ``(G, H, W)``, bool, on the same device.

    Returns:
        ``(D, G)``.
    """
    rows, columns = detections.flatten(1), truth.flatten(1)
    total = torch.zeros(len(rows), len(columns), dtype=torch.int64, device=rows.device)
    if not total.numel():
        return _to_numpy(total)
    # a strip's copies as numbers (before and after its transposition) and its product, also in int64
    strip_bytes = 8 * (len(rows) + len(columns)) * EXACT_IN_HALF + 12 * total.numel()
    strips = max(1, free_bytes(rows.device) // 2 // strip_bytes)
    for pixels in _slices(rows.shape[1], strips * EXACT_IN_HALF):
        left, right = _strips(rows[:, pixels]), _strips(columns[:, pixels])
        total += torch.bmm(left, right.transpose(1, 2)).long().sum(0)
    return _to_numpy(total)


def mask_areas(masks: Tensor) -> NDArray[np.int64]:
    """Pixels of each mask of ``(N, H, W)``, ``(N,)``."""
    return _to_numpy(masks.flatten(1).sum(1, dtype=torch.int64))


def mask_boundaries(masks: Tensor, width_px: int) -> Tensor:
    """:func:`d2tune.metrics.overlap.boundary.crop_boundary` of ``(N, h, w)`` bool masks at once, on any device."""
    side = 2 * width_px + 1
    if min(masks.shape[-2:]) < side:
        return masks.clone()
    boundaries = masks.clone()
    # all pixels of the square are set: this holds for its center alone, so the result is smaller by d on each edge
    inner = _all_in_window(_all_in_window(masks, side, 1), side, 2)
    boundaries[:, width_px:-width_px, width_px:-width_px] &= ~inner
    return boundaries


def free_bytes(device: torch.device) -> int:
    """Memory that may be filled on the device: what CUDA and torch's cache have free, else a fixed amount."""
    if device.type != "cuda":
        return CPU_BUDGET_BYTES
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached


def _to_numpy(counts: Tensor) -> NDArray[np.int64]:
    array: NDArray[np.int64] = counts.cpu().numpy()
    return array


def _strips(pixels: Tensor) -> Tensor:
    """``(N, P)`` bool as ``(S, N, 2048)`` numbers, filled up with zeros."""
    missing = -pixels.shape[1] % EXACT_IN_HALF
    whole = torch.nn.functional.pad(pixels, (0, missing)) if missing else pixels
    # CPUs multiply float16 slowly; CUDA devices multiply it fastest
    number = torch.float16 if pixels.device.type == "cuda" else torch.float32
    return whole.reshape(len(whole), -1, EXACT_IN_HALF).transpose(0, 1).to(number)


def _all_in_window(masks: Tensor, length: int, dim: int) -> Tensor:
    """Whether ``length`` neighbors along ``dim`` are all set, for each place where so many fit in.

    The window doubles with every step, so that a wide one costs only a few.
    """
    reached = 1
    while reached < length:
        step = min(reached, length - reached)
        size = masks.shape[dim] - step
        masks = masks.narrow(dim, 0, size) & masks.narrow(dim, step, size)
        reached += step
    return masks


def _layers(
    masks: Sequence[Rle] | Tensor, chosen: slice, window: Window, boundary_px: int | None, device: torch.device
) -> list[Tensor]:
    """The chosen masks inside the window, ``(n, h, w)`` bool, and their boundaries with ``boundary_px``."""
    if isinstance(masks, Tensor):
        whole = masks[chosen, window[0], window[1]].to(device, torch.bool)
    else:
        columns = mask_utils.decode(list(masks[chosen])).transpose(2, 1, 0)[:, window[1], window[0]]
        whole = torch.from_numpy(np.ascontiguousarray(columns)).to(device).bool().transpose(1, 2)
    return [whole] if boundary_px is None else [whole, mask_boundaries(whole, boundary_px)]


def _window(detections: Sequence[Rle] | Tensor, truth: Sequence[Rle] | Tensor) -> Window:
    """The box around all masks, or the whole image where some masks are bitmaps already."""
    if isinstance(detections, Tensor) or isinstance(truth, Tensor):
        return slice(None), slice(None)
    boxes = mask_utils.toBbox([*detections, *truth]).astype(np.int64)
    boxes = boxes[(boxes[:, 2] > 0) & (boxes[:, 3] > 0)]
    if not len(boxes):
        return slice(0, 1), slice(0, 1)
    (left, top), (right, bottom) = boxes[:, :2].min(axis=0), (boxes[:, :2] + boxes[:, 2:]).max(axis=0)
    return slice(int(top), int(bottom)), slice(int(left), int(right))


def _masks_at_once(
    detections: Sequence[Rle] | Tensor, truth: Sequence[Rle] | Tensor, window: Window, device: torch.device
) -> int:
    """Number of masks of each side that may be bitmaps at the same time, boundaries and copies included."""
    height, width = next(
        (
            masks.shape[1:] if isinstance(masks, Tensor) else masks[0]["size"]
            for masks in (detections, truth)
            if len(masks)
        ),
        (1, 1),
    )
    rows, columns = window[0].indices(height), window[1].indices(width)
    pixels = (rows[1] - rows[0]) * (columns[1] - columns[0])
    return max(1, int(free_bytes(device) // 2 // (8 * pixels)))


def _slices(length: int, step: int) -> Iterator[slice]:
    for start in range(0, length, step):
        yield slice(start, min(start + step, length))
