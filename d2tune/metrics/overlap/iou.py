"""How much detections and ground truth overlap: boxes as pycocotools computes them, bitmaps by matrix products.

Pixels are counted in whole numbers, and the quotient of two such numbers is the same on every device, so that the
result does not depend on where it was computed. Only pairs that can match are passed on (:class:`Pairs`): below the
lowest IoU threshold no pair ever does.

The boundary IoU that counts here is the smaller one of mask IoU and the IoU of the two boundaries, and against a
crowd the mask IoU alone, as in the evaluation code of Cheng et al. (Boundary IoU, CVPR 2021).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

EXACT_IN_HALF = 2048
"""Up to here float16 holds every whole number: a product over so many pixels is exact in whatever order it is added."""

CPU_BUDGET_BYTES = 2**30
"""What the work on bitmaps may take at once where the device does not say how much memory is free."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Detections and ground truth of one class on one image whose IoU reaches the lowest threshold.

    Attributes:
        found: ``(E,)``, index of the detection.
        truth: ``(E,)``, index of the ground truth.
        iou: ``(E,)``, float64.
    """

    found: NDArray[np.int64]
    truth: NDArray[np.int64]
    iou: NDArray[np.float64]


def join_pairs(parts: Sequence[Pairs], offsets: Sequence[tuple[int, int]] | None = None) -> Pairs:
    """Several pairs as one.

    Args:
        parts: The pairs.
        offsets: What to add to each part's indices of detections and of ground truth; nothing by default.
    """
    moves = offsets or [(0, 0)] * len(parts)
    nothing = np.zeros(0, np.int64)
    return Pairs(
        np.concatenate([nothing, *(part.found + move[0] for part, move in zip(parts, moves, strict=True))]),
        np.concatenate([nothing, *(part.truth + move[1] for part, move in zip(parts, moves, strict=True))]),
        np.concatenate([np.zeros(0), *(part.iou for part in parts)]),
    )


def pairs_of(iou: NDArray[np.float64], same_class: NDArray[np.bool_], floor: float) -> Pairs:
    """The pairs of an IoU matrix that count.

    Args:
        iou: ``(D, G)``.
        same_class: ``(D, G)``.
        floor: The lowest IoU that counts.
    """
    found, truth = np.nonzero((iou >= floor) & same_class)
    return Pairs(found, truth, iou[found, truth])


def box_iou(
    found_xywh: NDArray[np.float64], truth_xywh: NDArray[np.float64], crowd: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """IoU of boxes, ``(D, G)``, by the same float64 operations in the same order as pycocotools' ``bbIou``.

    Args:
        found_xywh: ``(D, 4)``, detections.
        truth_xywh: ``(G, 4)``, ground truth.
        crowd: ``(G,)``; against a crowd the union is the detection's own area.
    """
    found, truth = found_xywh[:, None, :], truth_xywh[None, :, :]
    near, far = found_xywh[:, :2] + found_xywh[:, 2:], truth_xywh[:, :2] + truth_xywh[:, 2:]
    sides = np.minimum(near[:, None, :], far[None, :, :]) - np.maximum(found[..., :2], truth[..., :2])
    overlap = sides[..., 0] * sides[..., 1]
    found_area = found_xywh[:, 2] * found_xywh[:, 3]
    truth_area = truth_xywh[:, 2] * truth_xywh[:, 3]
    union = np.where(crowd[None, :], found_area[:, None], found_area[:, None] + truth_area[None, :] - overlap)
    touching = (sides[..., 0] > 0) & (sides[..., 1] > 0)
    return np.divide(overlap, union, out=np.zeros(overlap.shape), where=touching)


def count_iou(
    overlap: NDArray[np.int64],
    found_area: NDArray[np.int64],
    truth_area: NDArray[np.int64],
    crowd: NDArray[np.bool_],
) -> NDArray[np.float64]:
    """IoU from counts of pixels, as pycocotools' ``rleIou`` has it; all arguments broadcast against each other."""
    union = np.where(crowd, found_area, found_area + truth_area - overlap)
    return np.divide(overlap, union, out=np.zeros(overlap.shape), where=overlap > 0)


def intersections(found: Tensor, truth: Tensor) -> NDArray[np.int64]:
    """How many pixels each detection shares with each ground truth, by matrix products on the masks' device.

    The pixels are cut into strips of 2048. The product of two strips of zeros and ones in float16 is a whole number
    that float16 holds exactly, whatever the device does with the order of the sum or the width of its accumulator.

    Args:
        found: ``(D, H, W)``, bool.
        truth: ``(G, H, W)``, bool, on the same device.

    Returns:
        ``(D, G)``.
    """
    rows, columns = found.flatten(1), truth.flatten(1)
    total = torch.zeros(len(rows), len(columns), dtype=torch.int64, device=found.device)
    if not total.numel():
        return total.cpu().numpy()
    # a strip's copies as numbers (before and after its transposition) and its product, also in int64
    strip_bytes = 8 * (len(rows) + len(columns)) * EXACT_IN_HALF + 12 * total.numel()
    strips = max(1, free_bytes(found.device) // 2 // strip_bytes)
    for start, stop in _slices(rows.shape[1], strips * EXACT_IN_HALF):
        left, right = _strips(rows[:, start:stop]), _strips(columns[:, start:stop])
        total += torch.bmm(left, right.transpose(1, 2)).long().sum(0)
    return total.cpu().numpy()


def _strips(pixels: Tensor) -> Tensor:
    """``(N, P)`` bool as ``(S, N, 2048)`` numbers, filled up with zeros."""
    missing = -pixels.shape[1] % EXACT_IN_HALF
    whole = torch.nn.functional.pad(pixels, (0, missing)) if missing else pixels
    # CPUs multiply float16 slowly; CUDA devices multiply it fastest
    number = torch.float16 if pixels.device.type == "cuda" else torch.float32
    return whole.unflatten(1, (-1, EXACT_IN_HALF)).transpose(0, 1).to(number)


def _slices(length: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, length, step):
        yield start, min(start + step, length)


def mask_areas(masks: Tensor) -> NDArray[np.int64]:
    """Pixels of each mask of ``(N, H, W)``, ``(N,)``."""
    return masks.flatten(1).sum(1, dtype=torch.int64).cpu().numpy()


def free_bytes(device: torch.device) -> int:
    """Memory that may be filled on the device: what CUDA and torch's cache have free, else a fixed amount."""
    if device.type != "cuda":
        return CPU_BUDGET_BYTES
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + cached
